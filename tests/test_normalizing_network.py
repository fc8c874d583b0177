"""A network that normalizes its images itself, through all that a compressed network goes through."""

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.export import run_tflite
from scc_tf.flops import count_operations

SCALE, OFFSET = [4.0, 4.1, 3.8], [-2.0, -1.9, -1.7]


def network():
    """A residual block behind a Rescaling with a value per colour, as in `lab.models.resnet20`."""
    k = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    x = k.Rescaling(SCALE, OFFSET, name="normalize")(image)
    x = stem = k.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = k.ReLU(name="relu1")(k.BatchNormalization(epsilon=1e-5, name="norm1")(x))
    x = k.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    x = k.Add(name="add")([k.BatchNormalization(epsilon=1e-5, name="norm2")(x), stem])
    x = k.GlobalAveragePooling2D(name="pool")(k.ReLU(name="relu2")(x))
    return keras.Model(image, k.Dense(4, name="head")(x), name="normalizing")


@pytest.fixture
def images():
    return np.random.default_rng(0).random((40, 8, 8, 3), np.float32)


def cut(model):
    """Self-compressing, three channels of the stem and of the branch dead, cut out."""
    compressed = scc_tf.self_compress(model, 6.0)
    for name in ("stem", "conv"):
        compressed.get_layer(name).bit_depth.assign([6, 0, 6, 0, 6, 0, 6, 6])
    return compressed, scc_tf.remove_dead_channels(compressed)[0]


@pytest.mark.slow
def test_channels_go_and_files_answer_the_same(images, tmp_path):
    compressed, smaller = cut(network())
    assert smaller.get_layer("stem").filters == 5
    assert smaller.get_layer("normalize").scale == SCALE
    answers = compressed.predict(images, verbose=0)
    np.testing.assert_allclose(smaller.predict(images, verbose=0), answers, rtol=1e-4, atol=1e-5)
    scc_tf.save_packed(smaller, tmp_path / "it.scc")
    loaded = scc_tf.load_packed(tmp_path / "it.scc")
    assert (loaded.get_layer("normalize").scale, loaded.get_layer("normalize").offset) == (SCALE, OFFSET)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), smaller.predict(images, verbose=0))
    scc_tf.export_tflite(smaller, tmp_path / "it.tflite")
    np.testing.assert_allclose(run_tflite(tmp_path / "it.tflite", images), answers, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_masks_shared_weights_safety_and_operations_take_it(images, tmp_path):
    model = network()
    answers = model.predict(images, verbose=0)
    np.testing.assert_allclose(scc_tf.add_masks(model).predict(images, verbose=0), answers, rtol=1e-5, atol=1e-5)
    shared = scc_tf.share_weights(model, clusters=400)
    np.testing.assert_allclose(shared.predict(images, verbose=0), answers, rtol=0.1, atol=0.1)
    safety = scc_tf.select_safety_set(model, images, np.arange(40) % 4, size=12, verbose=0)
    assert safety.heat_maps.shape == (12, 8, 8) and safety.heat_maps.max() == 255
    assert "normalize/kernel" not in str(count_operations(model))
    model.save(tmp_path / "it.keras")
    loaded = keras.models.load_model(tmp_path / "it.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), answers)
