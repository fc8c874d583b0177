import json

import numpy as np
from absl import flags
from lab import datasets
from script_flags import script_fixture

script = script_fixture("evaluation_batch_size")


class Model:
    """Right for three of four images in one batch, for one in smaller ones."""

    def predict(self, images, batch_size, verbose):
        answers = np.eye(4)[[0, 1, 2, 0]]
        return answers if batch_size >= 4 else answers[:, ::-1]


def test_it_scores_every_batch_size_and_names_no_path(script, tmp_path, monkeypatch):
    split = datasets.Split(np.zeros((4, 2, 2, 1), np.float32), np.arange(4))
    monkeypatch.setattr(script.datasets, "load_split", lambda *arguments: split)
    monkeypatch.setattr(script, "load_packed", lambda path: Model())
    flags.FLAGS(["it", "--batch_sizes=1,4", "--out_dir", str(tmp_path), "--model", "/home/me/x.scc"])
    script.main()
    assert json.loads((tmp_path / "evaluation_batch_size.json").read_text()) == {
        "command": "python experiments/evaluation_batch_size.py --batch_sizes=1,4",
        "test_accuracy": {"1": 0.25, "4": 0.75},
    }
