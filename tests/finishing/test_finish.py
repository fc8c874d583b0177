import math
import sys
import zlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.finishing import FinishReport, finish, finish_to_bytes
from scc_tf.finishing.finish import finished_bytes
from scc_tf.layers import self_compressing_layers
from scc_tf.safety import Contract

IMAGES = np.random.default_rng(0).normal(size=(64, 12, 12, 1)).astype(np.float32)


def packed_bytes(model):
    """A file that is quick to make."""
    vectors = b"".join(np.asarray(w, np.float16).tobytes() for w in model.weights if len(w.shape) == 1)
    codes = [np.asarray(layer.codes()).astype(np.int8) for layer in self_compressing_layers(model)]
    return zlib.compress(b"".join(own.tobytes() for own in codes) + vectors, 9)


@pytest.fixture(autouse=True)
def _quick_files(monkeypatch):
    for module in ("finish", "floor"):
        monkeypatch.setattr(sys.modules[f"scc_tf.finishing.{module}"], "packed_bytes", packed_bytes)


@pytest.fixture(scope="module")
def trained():
    return network()


def network():
    keras.utils.set_random_seed(3)
    plain = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(8, 3, use_bias=False, name="conv"),
            keras.layers.BatchNormalization(epsilon=1e-5, name="norm"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="head"),
        ]
    )
    model = scc_tf.self_compress(plain, 3, exponent_per="kernel", bias_exponent=-4)
    for layer in self_compressing_layers(model):  # most weights are small, as after training
        steps = np.random.default_rng(2).laplace(scale=0.5, size=layer.kernel.shape)
        layer.kernel.assign(steps * 2.0 ** np.asarray(layer.exponent))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.get_layer("conv").bit_depth.assign([3, 0, 3, 3, 3, 3, 3, 3])
    reestimate_batch_statistics(model, IMAGES[:32])
    return model


@pytest.mark.slow
def test_the_size_in_training_is_about_that_of_the_finished_file(trained):
    before = trained.get_weights()
    size = finished_bytes(trained)
    assert size == pytest.approx(len(packed_bytes(finish(trained, IMAGES))), abs=20)
    for one, other in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_finished_file_has_its_size_and_its_own_statistics(trained):
    before = trained.get_weights()
    target = round(0.9 * len(packed_bytes(finish(trained, IMAGES))))
    model, fit = finish_to_bytes(trained, IMAGES, target)
    assert fit.reached
    assert 0.98 * target <= fit.stored_bytes == len(packed_bytes(model)) <= target
    assert model.get_layer("conv").filters <= 7
    features = keras.Model(model.input, model.get_layer("conv").output).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, features.mean((0, 1, 2)), rtol=2e-3, atol=1e-4)
    for one, other in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("size_model", ["bits", "entropy"])
def test_weights_that_gather_at_the_edges_move_with_the_rounded_exponents(size_model):
    model = network()
    model.size_model = size_model
    head = model.get_layer("head")
    head.bit_depth.assign([8.0] * 4)  # no code is clipped
    head.kernel.assign(head.kernel * 2.0**0.3)
    head.exponent.assign(head.exponent + 0.3)
    before = np.asarray(head.codes()).reshape(100, 8, 4)[:, np.asarray(model.get_layer("conv").codes()).any((0, 1, 2))]
    finished = finish(model, IMAGES, exponent_places=0).get_layer("head")
    np.testing.assert_array_equal(finished.exponent, np.round(finished.exponent))
    assert np.array_equal(finished.codes(), before.reshape(-1, 4)) == (size_model == "entropy")
    assert not np.array_equal(finished.kernel, finished.quantized())  # the dead zone needs the latent weights


@pytest.mark.slow
def test_the_size_comes_as_close_as_safety_allows(trained):
    start = len(packed_bytes(finish(trained, IMAGES)))
    target, floor = round(0.85 * start), 0.93 * start
    model, fit = finish_to_bytes(trained, IMAGES, target, is_safe=lambda model: len(packed_bytes(model)) >= floor)
    assert floor <= fit.stored_bytes == len(packed_bytes(model)) < start
    assert (fit.reached, fit.refused) == (False, True)
    assert "MISSED: what comes closer breaks the contract" in str(fit)


@pytest.mark.slow
def test_without_a_safe_dead_zone_the_codes_stay(trained):
    plain = finish(trained, IMAGES)
    model, fit = finish_to_bytes(trained, IMAGES, round(0.9 * len(packed_bytes(plain))), is_safe=lambda model: False)
    assert (fit.reached, fit.refused, fit.widening) == (False, True, 0.0)
    assert fit.stored_bytes == len(packed_bytes(model)) == len(packed_bytes(plain))


# The contract ---------------------------------------------------------------------------------------------------------


def held(model, accuracy_of):
    """A contract that allows an accuracy of 0.9, with scripted measurements."""

    class Scripted(Contract):
        def accuracy_of(self, candidate):
            return accuracy_of(candidate)

    model.contract = Scripted(SimpleNamespace(labels=[0]), 1.0, 0.1)
    return model


def is_rounded(model):
    exponents = np.concatenate([np.ravel(layer.exponent) for layer in self_compressing_layers(model)])
    return np.array_equal(exponents * 8, np.round(exponents * 8))


@pytest.fixture
def off_the_grid():
    model = network()
    for layer in self_compressing_layers(model):
        layer.exponent.assign(layer.exponent + 0.3)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("rounded", "less", "places"), [(0.95, 0.97, 3), (0.8, 0.95, 8), (0.8, 0.7, 3)])
def test_rounding_that_breaks_the_contract_is_done_with_more_places(off_the_grid, rounded, less, places, caplog):
    held(off_the_grid, lambda model: rounded if is_rounded(model) else less)
    finished = finish(off_the_grid, IMAGES)
    report = finished.finish_report
    best = max(rounded, less) if rounded < 0.9 else rounded
    assert (report.exponent_places, report.safe, report.safety_accuracy) == (places, best >= 0.9, best)
    assert ("is broken: the finished model" in caplog.text) == (best < 0.9)
    assert ("are rounded less" in caplog.text) == (places == 8)


@pytest.mark.slow
def test_no_size_is_taken_that_breaks_the_contract(trained, caplog):
    start = len(packed_bytes(finish(trained, IMAGES)))
    model = held(network(), lambda model: 1.0 if len(packed_bytes(model)) >= 0.95 * start else 0.5)
    _, fit = finish_to_bytes(model, IMAGES, round(0.85 * start))
    assert fit.stored_bytes >= 0.95 * start
    assert (fit.reached, fit.refused, fit.safe, fit.safety_accuracy) == (False, True, True, 1.0)


def converted(bits):
    """A network that was not trained since, and what it was made of."""
    plain = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(40, "relu", name="a"), keras.layers.Dense(3, name="b")]
    )
    return plain, scc_tf.self_compress(plain, bits, exponent_per="kernel")


@pytest.mark.slow
def test_bytes_that_are_left_make_steps_finer():
    points = np.random.default_rng(0).normal(size=(100, 6)).astype("float32")
    plain, model = converted(2)
    start = len(packed_bytes(finish(model, points)))
    exact, fit = finish_to_bytes(model, points, 2 * start)
    assert fit.reached and fit.finer > 1 and fit.distance < 0.2 * fit.start_distance
    assert 1.8 * start < fit.stored_bytes == len(packed_bytes(exact)) <= 2 * start
    expected = np.asarray(plain(points))
    assert np.abs(np.asarray(exact(points)) - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.slow
def test_where_no_dead_zone_is_wide_enough_the_steps_are_coarser():
    points = np.random.default_rng(0).normal(size=(100, 6)).astype("float32")
    _, model = converted(8)
    target = round(0.6 * len(packed_bytes(finish(model, points))))
    exact, fit = finish_to_bytes(model, points, target)
    assert fit.reached and fit.finer < 0 == fit.widening
    assert 0.85 * target < fit.stored_bytes == len(packed_bytes(exact)) <= target
    assert "steps coarser by" in str(fit)


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["no network", "another network", "safety"])
def test_a_file_that_fits_is_never_made_worse(reason):
    points = np.random.default_rng(0).normal(size=(100, 6)).astype("float32")
    _, model = converted(2)
    if reason == "no network":
        model.reference = None
    if reason == "another network":
        keras.utils.set_random_seed(5)
        model.reference = scc_tf.self_compress(converted(8)[0], 8).reference
    start = finish(model, points)
    if reason == "safety":
        size = len(packed_bytes(start))
        held(model, lambda model: 1.0 if len(packed_bytes(model)) == size else 0.95)
    exact, fit = finish_to_bytes(model, points, 2 * len(packed_bytes(start)))
    assert (fit.reached, fit.widening, fit.finer) == (True, 0.0, 0.0)
    for one, other in zip(exact.get_weights(), start.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_finished_is_refused_by_name(trained):
    with pytest.raises(ValueError, match="self_compress"):
        finish(converted(2)[0], IMAGES)
    bad = IMAGES.copy()
    bad[0, 0] = np.nan
    for images in (None, bad, IMAGES[:0], IMAGES[:, :5], "x"):
        with pytest.raises(ValueError, match="images"):
            finish(trained, images)
    for name, value in (("exponent_places", 1.5), ("statistics_bits", 11)):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            finish(trained, IMAGES, **{name: value})
    for target in (math.nan, 1.5, "x", None, 0):
        with pytest.raises(ValueError, match="target_bytes="):
            finish_to_bytes(trained, IMAGES, target)
    poisoned = network()
    poisoned.get_layer("head").bias.assign([np.nan] * 4)
    with pytest.raises(ValueError, match="head/bias"):
        finish(poisoned, IMAGES)


def test_a_report_in_words():
    sizes = {"target_bytes": 1000, "stored_bytes": 990, "start_bytes": 1100}
    assert str(FinishReport(3, 10, **sizes, widening=0.125)) == (
        "990 B, -1.0 % off the target of 1,000 B at most; 1,100 B before; dead zone wider by +0.125 steps; "
        "exponents with 3 binary places; biases and statistics with 10 bits"
    )
    report = FinishReport(None, None, **sizes, finer=1.5, start_distance=0.2, distance=0.05)
    assert "steps finer by 1.500 bits; answers off by 5.0 % (20.0 % before)" in str(report)
    assert "BROKEN" in repr(FinishReport(3, 10, safe=False, safety_accuracy=0.9, safety_drop=0.1))


@pytest.mark.slow
@pytest.mark.parametrize("convert", [scc_tf.add_masks, scc_tf.share_weights])
def test_other_compressed_models_are_finished_too(convert, tmp_path):
    points = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    plain = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, name="a"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(3, name="b"),
        ]
    )
    plain.get_layer("a").kernel.assign(plain.get_layer("a").kernel * ([0.0] * 2 + [1.0] * 6))
    finished = finish(convert(plain), points)
    assert finished.finish_report.statistics_bits == 10
    features = keras.Model(finished.inputs, finished.get_layer("a").output).predict(points, verbose=0)
    np.testing.assert_allclose(finished.get_layer("norm").moving_mean, features.mean(0), rtol=2e-3, atol=1e-3)
    assert scc_tf.size_report(finished).stored_bytes == scc_tf.save_packed(finished, tmp_path / "a.scc").stored_bytes
    assert scc_tf.export_tflite(finished, tmp_path / "a.tflite", storage="float32").bytes > 0
    with pytest.raises(ValueError, match="self-compressing model for target_bytes"):
        finish(convert(plain), points, target_bytes=1000)
