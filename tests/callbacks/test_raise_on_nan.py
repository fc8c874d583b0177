import keras
import numpy as np
import pytest
import toy_problem as toy

from scc_tf.callbacks import RaiseOnNaN


def fit(model, x, y, folder, batch_size=16):
    """`RaiseOnNaN` stands before what writes."""
    callbacks = [
        RaiseOnNaN(),
        keras.callbacks.BackupAndRestore(folder / "backup"),
        keras.callbacks.ModelCheckpoint(folder / "last.weights.h5", save_weights_only=True),
    ]
    return model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_fit_at_its_step_and_nothing_is_written(tmp_path):
    x, y = toy.points()
    x[20] = np.nan  # in the second batch
    with pytest.raises(FloatingPointError, match=r"loss=nan at step 2\b"):
        fit(toy.compressed(), x, y, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_weights_that_the_last_step_of_an_epoch_broke_are_not_written(tmp_path):
    x, y = toy.points()
    model = toy.compressed(optimizer=keras.optimizers.SGD(3e38, clipvalue=3e38))
    with pytest.raises(FloatingPointError, match=r"weight=.* at step 1\b"):
        fit(model, 1e3 * x, y, tmp_path, batch_size=48)  # its loss is finite: it was computed before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_sound_fit_is_left_alone(tmp_path):
    ends = []
    for callbacks in ([], [RaiseOnNaN()]):
        model = toy.compressed()
        model.fit(*toy.points(), batch_size=48, verbose=0, callbacks=callbacks)
        ends.append(model.get_weights())
    toy.assert_same(*ends)


def test_logs_without_a_loss_are_fine():
    RaiseOnNaN().on_train_batch_end(0, None)
    RaiseOnNaN().on_train_batch_end(0, {})
