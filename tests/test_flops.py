import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from lab import models
from surgery.zoo import NETWORKS
from tensorflow.python.profiler.model_analyzer import profile
from tensorflow.python.profiler.option_builder import ProfileOptionBuilder

import scc_tf
from scc_tf.flops import count_operations


def tensorflows_count(model):
    """What TensorFlow's own profiler counts in MatMul and convolutions."""
    signature = [tf.TensorSpec((1, *t.shape[1:]), t.dtype) for t in model.inputs]
    function = tf.function(lambda *x: model(list(x) if len(x) > 1 else x[0], training=False))
    graph = function.get_concrete_function(*signature).graph
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation()).with_empty_output().build()
    nodes = profile(graph, options=options)
    return nodes.total_float_ops


def count(*stack, shape):
    return count_operations(keras.Sequential([keras.Input(shape), *stack])).multiply_accumulates


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((7,), layers.Dense(5), 7 * 5),
        ((3, 4, 7), layers.Dense(5), 12 * 7 * 5),
        ((6, 5, 2), layers.Conv2D(4, (3, 2)), 4 * 4 * 3 * 2 * 2 * 4),
        ((6, 5, 2), layers.Conv2D(4, 3, padding="same", strides=2), 3 * 3 * 9 * 2 * 4),
        ((6, 6, 4), layers.Conv2D(6, 3, groups=2), 16 * 9 * 2 * 6),
        ((6, 6, 2), layers.Conv2D(4, 3, dilation_rate=2), 4 * 9 * 2 * 4),
        ((9, 3), layers.Conv1D(5, 3, padding="causal"), 9 * 3 * 3 * 5),
        ((6, 6, 3), layers.DepthwiseConv2D(3, depth_multiplier=2), 16 * 9 * 3 * 2),
        ((6, 6, 3), layers.SeparableConv2D(5, 3, depth_multiplier=2), 16 * (9 * 3 * 2 + 6 * 5)),
        ((4, 5, 3), layers.Conv2DTranspose(2, 3, strides=2), 20 * 9 * 3 * 2),
        ((4, 3), layers.EinsumDense("abc,cde->abde", (None, 2, 5)), 4 * 3 * 2 * 5),
        ((4, 3), layers.EinsumDense("abc,cd->ad", 6), 4 * 3 * 6),
        ((4, 3), layers.EinsumDense("abc,bcd->abd", (4, 6)), 4 * 3 * 6),
        ((2, 4, 3), layers.EinsumDense("...x,xy->...y", 6), 8 * 3 * 6),
    ],
)
def test_one_layer(shape, layer, expected):
    assert count(layer, shape=shape) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (models.mnist_cnn, 24**2 * 800 + 20**2 * 25_600 + 8**2 * 18_432 + 6**2 * 36_864 + 5_760),
        (models.lenet_300_100, 784 * 300 + 300 * 100 + 100 * 10),
        (models.lenet_5, 24**2 * 500 + 8**2 * 25_000 + 400_000 + 5_000),
        (models.moons_mlp, 120),
        (models.resnet20, 40_551_040),  # 40.55 M: the number that papers quote for the CIFAR ResNet-20
    ],
)
def test_networks_of_the_papers(build, expected):
    found = count_operations(build())
    assert found.multiply_accumulates == found.nonzero_multiply_accumulates == expected
    assert found.flops == 2 * expected
    assert found.uncounted == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "depthwise", "concatenated"])
def test_tensorflows_profiler_agrees(name, capfd):
    """Bar activations and the like, which it counts too."""
    model = NETWORKS[name]()
    ours, theirs = count_operations(model).flops, tensorflows_count(model)
    capfd.readouterr()
    assert ours <= theirs <= 1.35 * ours


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"generator"}))
def test_every_kernel_of_the_zoo_is_counted(name):
    model = NETWORKS[name]()
    found = count_operations(model)
    owners = {layer.name for layer in model._flatten_layers() if scc_tf.layers.kernels_of(layer)}
    of_attention = {"query", "key", "value", "attention_output"}
    assert {k.layer for k in found.kernels} == owners - of_attention
    assert found.uncounted == (("multi_head_attention",) if name == "unknown" else ())


def test_a_shared_layer_counts_at_every_call():
    inputs = keras.Input((3,))
    dense = layers.Dense(3, name="again")
    found = count_operations(keras.Model(inputs, dense(dense(dense(inputs)))))
    assert [k.multiply_accumulates for k in found.kernels] == [9, 9, 9]


def test_dead_channels_count_until_they_are_removed():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(2, name="b")])
    model = scc_tf.self_compress(model)
    model.get_layer("a").kernel.assign(np.ones((4, 6)))
    model.get_layer("a").bit_depth.assign([8, 8, 0, 0, 0, 0])
    found = count_operations(model)
    assert found.multiply_accumulates == 24 + 12
    assert found.nonzero_multiply_accumulates == 8 + 12
    smaller = count_operations(scc_tf.remove_dead_channels(model)[0])
    assert smaller.multiply_accumulates == smaller.nonzero_multiply_accumulates == 8 + 4


def test_compressed_forms_count_as_their_plain_models():
    plain = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2)])
    expected = count_operations(plain).multiply_accumulates
    masked = scc_tf.add_masks(plain)
    masked.layers[1].prune(np.zeros((3, 3, 1, 3), bool))
    for model in (scc_tf.self_compress(plain), scc_tf.share_weights(plain, clusters=4), masked):
        assert count_operations(model).multiply_accumulates == expected
    assert count_operations(masked).nonzero_multiply_accumulates == 48 * 2


def test_what_is_not_known_is_said():
    model = keras.Sequential([keras.Input((4, 3)), layers.LSTM(5, name="memory"), layers.Dense(2)])
    found = count_operations(model)
    assert found.uncounted == ("memory",) and found.multiply_accumulates == 10
    assert "not counted: memory" in str(found)


def test_the_table_and_the_json_tell_the_same():
    found = count_operations(models.mnist_cnn())
    record = json.loads(found.to_json())
    assert sum(k["multiply_accumulates"] for k in record["kernels"]) == record["multiply_accumulates"]
    assert f"{found.multiply_accumulates:,}" in str(found).splitlines()[-1]


def test_models_without_a_known_size_or_graph_are_refused():
    with pytest.raises(ValueError, match="fixed size"):
        count_operations(NETWORKS["generator"]())  # its EinsumDense leaves an axis open
    with pytest.raises(ValueError, match="Sequential or functional"):
        count_operations(keras.Sequential([layers.Dense(2)]))
