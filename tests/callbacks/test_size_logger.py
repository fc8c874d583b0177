import csv

import keras
import pytest
import tensorflow as tf
import toy_problem as toy

import scc_tf
from scc_tf.callbacks import SizeLogger

NAMES = {"integer_bytes", "entropy_bytes", "nominal_bytes", "dead_channels"}


class Recorder(keras.callbacks.Callback):
    """What a callback further down the list finds in the logs."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


def fit(model, callbacks, epochs=3):
    return model.fit(*toy.points(), batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks).history


@pytest.mark.slow
def test_sizes_reach_history_files_and_what_reads_the_logs_as_floats(tmp_path):
    model, logger, recorder = toy.compressed(gamma=0.01), SizeLogger(2), Recorder()
    log_file = tmp_path / "log.csv"
    files = [keras.callbacks.CSVLogger(log_file), keras.callbacks.TensorBoard(tmp_path, write_graph=False)]
    history = fit(model, [*files, recorder, logger])
    assert set(history) >= NAMES
    assert len(recorder.batches) == 9
    for logs in recorder.batches + recorder.epochs:
        assert all(isinstance(logs[name], float) for name in NAMES)
    with log_file.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["integer_bytes"]) for row in rows] == history["integer_bytes"]
    (file,) = (tmp_path / "train").glob("*.tfevents*")
    events = [tf.compat.v1.Event.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(file))]
    written = [v for event in events for v in event.summary.value if v.tag == "epoch_integer_bytes"]
    assert [float(tf.make_ndarray(v.tensor)) for v in written] == pytest.approx(history["integer_bytes"])


@pytest.mark.slow
def test_the_measurements_are_those_of_the_size_report():
    model, logger = toy.compressed(gamma=0.2), SizeLogger(4)
    start = scc_tf.size_report(model)
    fit(model, [logger])
    assert [entry["step"] for entry in logger.history] == [0, 4, 8, 9]
    for entry, report in ((logger.history[0], start), (logger.history[-1], scc_tf.size_report(model))):
        assert entry["integer_bytes"] == report.integer_bytes
        assert entry["entropy_bytes"] == pytest.approx(report.entropy_bytes)
        assert entry["nominal_bytes"] == pytest.approx(report.nominal_bits / 8)
        assert entry["dead_channels"] == report.dead_channels
    assert logger.history[-1]["nominal_bytes"] < logger.history[0]["nominal_bytes"]


@pytest.mark.slow
def test_early_stopping_watches_the_size():
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([5], [1.0, 0.0])  # the size rests after two epochs
    stopping = keras.callbacks.EarlyStopping(monitor="nominal_bytes", mode="min", patience=0)
    model = toy.compressed(gamma=0.1, format_optimizer=keras.optimizers.SGD(rate))
    sizes = fit(model, [SizeLogger(1), stopping], epochs=5)["nominal_bytes"]
    assert len(sizes) == 3
    assert sizes[0] > sizes[1] == sizes[2]


def test_changes_nothing_in_the_model():
    model, logger = toy.compressed(), SizeLogger(1)
    logger.set_model(model)
    before = model.get_weights()
    logger.on_train_begin()
    logger.on_train_end()
    toy.assert_same(model.get_weights(), before)


def test_dead_channels_are_counted():
    model, logger = toy.compressed(), SizeLogger(1)
    bits = model.get_layer("hidden").bit_depth
    bits.assign([0.0] * 5 + [4.0] * 7)
    logger.set_model(model)
    logger.on_train_begin()
    assert logger.logged["dead_channels"] == 5.0
