import json
import time

import keras
import numpy as np
import pytest

from scc_tf.pipelines.stage import Clock, Stage


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path / "training-1", backup="backup/keras")


def net():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_a_stage_is_finished_once_it_is_saved(stage):
    model, other = net(), net()
    assert not stage.is_finished
    stage.save(model, {"seconds": 1.5})
    assert stage.is_finished
    assert stage.load(other) == {"seconds": 1.5}
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_finished_epochs_are_those_of_the_backup(stage, tmp_path):
    assert stage.finished_epochs == 0
    path = tmp_path / "training-1" / "backup" / "keras" / "training_metadata.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"epoch": 3, "batch": 0}))
    assert stage.finished_epochs == 3
    path.write_text("[1")
    with pytest.raises(ValueError, match=r"training_metadata\.json, which is damaged; delete it"):
        _ = stage.finished_epochs


def test_the_clock_counts_all_sessions_but_no_lost_epoch(tmp_path, monkeypatch):
    path, now = tmp_path / "seconds.json", [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    first = Clock(path, going_on=False)
    now[0] += 10
    first.on_epoch_end(0)
    now[0] += 4  # an epoch that is interrupted
    second = Clock(path, going_on=True)
    now[0] += 20
    second.on_epoch_end(1)
    assert second.seconds == 30
    assert Clock(path, going_on=True).seconds == 30
    assert Clock(path, going_on=False).seconds == 0  # the backup is gone: from the start


def test_nothing_but_the_results_is_left(stage, tmp_path):
    stage.clock().on_epoch_end(0)
    assert [path.name for path in tmp_path.rglob("*.json")] == ["seconds.json"]
    stage.save(net(), {})
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["model.weights.h5", "record.json"]
