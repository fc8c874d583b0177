"""A residual network that lost channels of every kind survives surgery, weights file and packed file unchanged."""

import keras
import numpy as np
import pytest
from lab import models

import scc_tf
from scc_tf.finishing import finish
from scc_tf.layers import self_compressing_layers

NORMALIZATION = ([4.0, 4.1, 3.8], [-2.0, -1.9, -1.7])
IMAGES = np.random.default_rng(0).random((64, 32, 32, 3), np.float32)
INNER = {"stage1_block2": [0, 5], "stage2_block1": [1, 30, 31], "stage3_block3": [7, 8, 9, 60]}


def compressed():
    model = scc_tf.self_compress(
        models.resnet20(0, NORMALIZATION), initial_bit_depth=4, exponent_per="kernel", bias_exponent=-4
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, size_model="entropy", gamma=0.05, jit_compile=False)
    return model


def kill(model, prefix, conv, norm, channels):
    """All codes of these channels 0, and no constant behind them that zero padding would give away."""
    kernel, beta = model.get_layer(f"{prefix}_{conv}").kernel, model.get_layer(f"{prefix}_{norm}").beta
    kernel.assign(np.where(np.isin(np.arange(kernel.shape[-1]), channels), 0, np.asarray(kernel)))
    beta.assign(np.where(np.isin(np.arange(beta.shape[0]), channels), -0.3, np.asarray(beta)))


def kill_union(model, stages, channels):
    """The same channels wherever additions join them; the shortcuts shift them by 8, then by 16."""
    shift = {1: 0, 2: 8, 3: 24}
    for stage in stages:
        for block in (1, 2, 3):
            moved = np.add(channels, shift[stage] - shift[stages[0]])
            kill(model, f"stage{stage}_block{block}", "conv2", "norm2", moved)
    if stages[0] == 1:
        kill(model, "stem", "conv", "norm", channels)


@pytest.fixture(scope="module")
def trained():
    """As after training: normalization has parameters of its own, and some channels are dead."""
    model, rng = compressed(), np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.2, layer.beta.shape))
    for block, channels in INNER.items():
        kill(model, block, "conv1", "norm1", channels)
    kill_union(model, (1, 2, 3), [2, 11])
    kill_union(model, (2, 3), [0, 31])  # of the channels that the shortcut fills with zeros
    kill_union(model, (3,), [63])
    model.fit_bit_depths()
    return model


@pytest.fixture(scope="module")
def finished(trained):
    return finish(trained, IMAGES, exponent_places=3, statistics_bits=6)


def outputs(model):
    return np.asarray(model(IMAGES[:16], training=False))


@pytest.mark.slow
def test_dead_inner_channels_and_unions_are_gone(finished):
    filters = {layer.name: layer.filters for layer in self_compressing_layers(finished) if hasattr(layer, "filters")}
    assert filters["stem_conv"] == filters["stage1_block3_conv2"] == 16 - 2
    assert filters["stage2_block1_conv2"] == filters["stage2_block3_conv2"] == 32 - 4
    assert filters["stage3_block1_conv2"] == filters["stage3_block3_conv2"] == 64 - 5
    for block, channels in INNER.items():
        whole = models.resnet20(0).get_layer(f"{block}_conv1").filters
        assert filters[f"{block}_conv1"] == whole - len(channels)
    assert np.ptp(outputs(finished)) > 0.1


@pytest.mark.slow
def test_a_weights_file_gives_the_same_network_from_one_that_is_not_cut(finished, tmp_path):
    finished.save_weights(path := tmp_path / "model.weights.h5")
    fresh = compressed()
    fresh.load_weights(path)
    np.testing.assert_array_equal(outputs(fresh), outputs(finished))


@pytest.mark.slow
def test_a_packed_file_gives_the_same_network(finished, tmp_path):
    scc_tf.save_packed(finished, path := tmp_path / "network.scc")
    np.testing.assert_array_equal(outputs(scc_tf.load_packed(path)), outputs(finished))


@pytest.mark.slow
def test_surgery_in_the_middle_of_training_goes_the_same_way(trained, tmp_path):
    cut = compressed()
    trained.save_weights(path := tmp_path / "whole.weights.h5")
    cut.load_weights(path)
    assert cut.remove_dead_channels().removed > 0
    cut.save_weights(path := tmp_path / "cut.weights.h5")
    fresh = compressed()
    fresh.load_weights(path)
    np.testing.assert_array_equal(outputs(fresh), outputs(cut))
