import zlib

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf import finishing
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.finishing import finish, finish_to_bytes, finished_bytes
from scc_tf.layers import self_compressing_layers

IMAGES = np.random.default_rng(0).normal(size=(64, 12, 12, 1)).astype(np.float32)


def packed_bytes(model):
    """A file that is quick to make."""
    vectors = b"".join(np.asarray(w, np.float16).tobytes() for w in model.weights if len(w.shape) == 1)
    codes = [np.asarray(layer.codes()).astype(np.int8) for layer in self_compressing_layers(model)]
    return zlib.compress(b"".join(own.tobytes() for own in codes) + vectors, 9)


@pytest.fixture(autouse=True)
def _quick_files(monkeypatch):
    monkeypatch.setattr(finishing, "packed_bytes", packed_bytes)


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
    assert "was refused" in str(fit)


@pytest.mark.slow
def test_without_a_safe_dead_zone_the_codes_stay(trained):
    plain = finish(trained, IMAGES)
    model, fit = finish_to_bytes(trained, IMAGES, round(0.9 * len(packed_bytes(plain))), is_safe=lambda model: False)
    assert (fit.reached, fit.refused, fit.widening) == (False, True, 0.0)
    assert fit.stored_bytes == len(packed_bytes(model)) == len(packed_bytes(plain))
