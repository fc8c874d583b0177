"""Nothing that is not known is cut: each graph here once was, or made the removal fail."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers

import scc_tf
from scc_tf.graph import trace_kernels

mask = zoo.mask


def between(*stack, shape=(4, 4, 3)):
    """Dense "a", a stack, Dense "b", Dense "head"."""
    known = [
        layers.Dense(6, name="a", activation="sigmoid"),
        *stack,
        layers.Dense(4, name="b"),
        layers.Dense(2, name="head"),
    ]
    return keras.Sequential([keras.Input(shape), *known])


class Softmaxed(layers.Activation):
    def call(self, inputs):
        return keras.activations.softmax(inputs)


class Centred(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        outputs = super().call(inputs, training=training, mask=mask)
        return outputs - keras.ops.mean(outputs, axis=-1, keepdims=True)


class Turned(layers.Reshape):
    def call(self, inputs):
        return super().call(inputs[..., ::-1])


class WeightedConv2D(layers.Conv2D):
    pass


class Reversed(layers.Layer):
    def call(self, inputs):
        return inputs[..., ::-1]


UNKNOWN = {
    "subclass of Activation": lambda: [Softmaxed("relu", name="x")],
    "subclass of BatchNormalization": lambda: [Centred(name="x")],
    "subclass of Reshape": lambda: [Turned((16, 6), name="x")],
    "subclass of Conv2D": lambda: [WeightedConv2D(6, 1, name="x")],
    "layer": lambda: [Reversed(name="x")],
    "Lambda": lambda: [layers.Lambda(lambda v: keras.ops.flip(v, axis=-1), name="x")],
    "Softmax": lambda: [layers.Softmax(name="x")],
    "LayerNormalization": lambda: [layers.LayerNormalization(name="x")],
    "GroupNormalization": lambda: [layers.GroupNormalization(2, name="x")],
    "Conv3D": lambda: [layers.Reshape((4, 2, 2, 6)), layers.Conv3D(6, 1, name="x")],
    "TimeDistributed": lambda: [layers.TimeDistributed(layers.Dense(5), name="x")],
    "LSTM": lambda: [layers.Reshape((16, 6)), layers.LSTM(4, name="x")],
    "Permute": lambda: [layers.Permute((3, 1, 2), name="x")],
    "a value per channel": lambda: [layers.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], name="x")],
    "a slope per position": lambda: [layers.PReLU(name="x")],
    "normalized rows": lambda: [layers.BatchNormalization(axis=1, name="x")],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_an_unknown_layer_reads_stays(name):
    model = zoo.vary(between(*UNKNOWN[name]()))
    kind = type(model.get_layer("x")).__name__
    smaller, report = zoo.remove(model, {"a": mask("011010"), "b": mask("0110")})
    assert zoo.left(report) == {"a": 6, "b": 2, "head": 2}
    assert report.kept_dead == {"a": (3, f"read by x ({kind}), which is not known")}
    assert type(smaller.get_layer("x")).__name__ == kind


def test_operations_on_tensors():
    inputs = keras.Input((4, 4, 3))
    x = layers.Dense(4, name="a")(inputs)
    x = keras.ops.relu(x * np.array([1.0, 2.0, 3.0, 4.0], "float32"))[:, :, :, :3] + 1
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(layers.Dense(4, name="b")(x))))
    _, report = zoo.remove(model, {"a": mask("0110"), "b": mask("0110")})
    assert zoo.left(report) == {"a": 4, "b": 2, "head": 2}


def test_a_tensor_that_is_spread_over_the_channels():
    inputs = keras.Input((4, 4, 3))
    x, gate = layers.Dense(4, name="a")(inputs), layers.Dense(1, name="gate", activation="sigmoid")(inputs)
    x = layers.Multiply()([x, gate])
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    _, report = zoo.remove(model, {"a": mask("0110")})
    assert zoo.left(report)["a"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("explicit", [True, False])
def test_masks_of_sequences(explicit):
    inputs, steps = keras.Input((5, 3)), keras.Input((5,))
    x = inputs if explicit else layers.Masking(0.1)(inputs)
    x = layers.Dense(6, name="a")(x)
    x = (
        layers.GlobalAveragePooling1D(name="mean")(x, mask=steps)
        if explicit
        else layers.GlobalAveragePooling1D(name="mean")(x)
    )
    outputs = layers.Dense(2, name="head")(layers.Dense(4, name="b")(x))
    model = zoo.vary(keras.Model([inputs, steps] if explicit else inputs, outputs))
    _, report = zoo.remove(model, {"a": mask("011111"), "b": mask("0110")})
    assert zoo.left(report) == {"a": 6, "b": 2, "head": 2}
    compressed = scc_tf.self_compress(model)
    assert [node.layout.label for node in trace_kernels(compressed)] == ["a", "b", "head"]
    zoo.remove(compressed, {"b": mask("0110")})


def test_layers_that_are_called_on_different_widths():
    inputs = keras.Input((4, 4, 3))
    relu, pad, flatten = layers.ReLU(), layers.ZeroPadding2D(1), layers.Flatten()
    x, y = (
        flatten(relu(pad(layers.Conv2D(n, 1, name=name, use_bias=False)(inputs)))) for n, name in ((4, "a"), (6, "b"))
    )
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(layers.Concatenate()([x, y]))))
    _, report = zoo.remove(model, {"a": mask("0110"), "b": mask("100110")})
    assert zoo.left(report) == {"a": 2, "b": 3, "head": 2}


def test_a_reshape_that_is_called_on_different_shapes():
    inputs = keras.Input((4, 4, 3))
    reshape = layers.Reshape((16,))
    x = reshape(layers.Reshape((2, 2, 4))(layers.Dense(16, name="a", use_bias=False)(layers.Flatten()(inputs))))
    y = reshape(layers.Conv1D(4, 1, name="b", use_bias=False)(layers.Reshape((4, 12))(inputs)))
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(layers.Concatenate()([x, y]))))
    _, report = zoo.remove(model, {"a": np.arange(16) % 4 > 1, "b": mask("0011")})
    assert zoo.left(report) == {"a": 8, "b": 2, "head": 2}


def test_layers_that_are_called_on_their_own_outputs():
    inputs = keras.Input((6, 6, 3))
    shared = layers.Conv2D(4, 3, padding="same", name="shared", use_bias=False)
    depthwise = layers.DepthwiseConv2D(3, padding="same", name="depthwise", use_bias=False)
    x = depthwise(depthwise(shared(shared(layers.Conv2D(4, 1, name="a", use_bias=False)(inputs)))))
    model = zoo.vary(keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x)))
    _, report = zoo.remove(model, {"a": mask("0110"), "shared": mask("0111")})
    assert zoo.left(report) == {"a": 3, "shared": 3, "depthwise": 3, "head": 2}
    assert report.kept_dead == {"a": (1, "not the same constant in all calls of shared")}


def test_a_shared_layer_that_also_reads_the_inputs_keeps_its_inputs():
    inputs = keras.Input((4, 4, 4))
    shared = layers.Dense(4, name="shared")
    x = layers.Concatenate()([shared(layers.Dense(4, name="a")(inputs)), shared(inputs)])
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    _, report = zoo.remove(model, {"a": mask("0111"), "shared": mask("0111")})
    assert zoo.left(report) == {"a": 4, "shared": 3, "head": 2}


def test_a_nested_model_that_is_called_on_different_sizes():
    image = keras.Input((None, None, 3))
    stem = keras.Model(image, layers.Conv2D(4, 1, name="b")(layers.Conv2D(4, 3, name="a")(image)), name="stem")
    large, small, mean = keras.Input((8, 8, 3)), keras.Input((6, 6, 3)), layers.GlobalAveragePooling2D()
    x = layers.Concatenate()([mean(stem(large)), mean(stem(small))])
    model = zoo.vary(keras.Model([large, small], layers.Dense(2, name="head")(x)))
    smaller, report = zoo.remove(model, {"a": mask("0101"), "b": mask("0111")})
    assert zoo.left(report) == {"a": 2, "b": 3, "head": 2}
    assert smaller.get_layer("stem").input_shape == (None, None, None, 3)
    assert scc_tf.self_compress(model).get_layer("stem").input_shape == (None, None, None, 3)


def test_images_of_any_size():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, name="b")(layers.Conv2D(4, 3, name="a", activation="sigmoid")(inputs))
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))))
    _, report = zoo.remove(model, {"a": mask("0101"), "b": mask("0111")})
    assert zoo.left(report) == {"a": 2, "b": 3, "head": 2}


@pytest.mark.skipif(keras.__version__ < "3.13", reason="Keras 3.12 builds no model with an input that nothing reads")
def test_inputs_that_are_outputs_and_inputs_that_nothing_reads():
    inputs, other = keras.Input((4,)), keras.Input((3,))
    model = zoo.vary(
        keras.Model([inputs, other], [inputs, layers.Dense(2, name="b")(layers.Dense(4, name="a")(inputs))])
    )
    _, report = zoo.remove(model, {"a": mask("0101")})
    assert zoo.left(report) == {"a": 2, "b": 2}
    _, report = zoo.remove(keras.Model(inputs, layers.Flatten()(inputs)), {})
    assert report.channels == {}


def test_a_part_of_a_larger_graph():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    outputs = layers.Dense(2, name="head")(layers.Dense(5, name="b")(x))
    _, report = zoo.remove(zoo.vary(keras.Model(x, outputs)), {"b": mask("01100")})
    assert zoo.left(report) == {"b": 2, "head": 2}


@pytest.mark.slow
def test_layers_with_several_outputs():
    inputs = keras.Input((5, 3))
    x = layers.Dense(4, name="a")(inputs)
    x, scores = layers.MultiHeadAttention(2, 3, name="attention")(x, x, return_attention_scores=True)
    x = layers.Dense(4, name="b")(layers.Bidirectional(layers.LSTM(3))(x))
    model = zoo.vary(keras.Model(inputs, {"y": layers.Dense(2, name="head")(x), "scores": scores}))
    _, report = zoo.remove(model, {"a": mask("0111"), "b": mask("0011")})
    assert zoo.left(report) == {"a": 4, "b": 2, "head": 2}


def test_dense_layers_of_positions_and_equations():
    inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="a", activation="relu")(inputs)
    x = layers.EinsumDense("abc,bcd->abd", (5, 6), name="per position", bias_axes="bd")(x)
    x = layers.Dense(5, name="columns")(layers.Permute((2, 1))(x))  # as many columns as rows
    x = layers.EinsumDense("abc,cd->adb", (4, 6), name="turned")(x)
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    kept = {"a": mask("011011"), "per position": np.arange(30) % 2 > 0, "turned": mask("0011")}
    _, report = zoo.remove(model, kept)
    assert report.kept_dead["turned"] == (2, "the activation or the equation of turned mixes them")
    assert report.kept_dead["per position"] == (15, "the activation or the equation of per position mixes them")
    assert zoo.left(report)["columns"] == 5


def test_an_adapted_normalization_goes_on():
    """Its mean and variance are not only weights."""
    normalize = layers.Normalization()
    normalize.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32"))
    model = keras.Sequential([keras.Input((4,)), normalize, layers.Dense(3, name="a"), layers.Dense(2, name="head")])
    zoo.remove(model, {"a": mask("011")})


def test_initial_values_of_the_old_shape():
    """The layer is built smaller, but its initializer is an array."""
    start = {"bias_initializer": keras.initializers.Constant([1.0, 2.0, 3.0])}
    first = layers.Dense(3, name="a", kernel_initializer="orthogonal", **start)
    arrays = keras.initializers.Constant(np.arange(3, dtype="float32"))
    norm = layers.BatchNormalization(gamma_initializer=arrays, beta_initializer="ones")
    model = keras.Sequential([keras.Input((4,)), first, norm, layers.Dense(2, name="head")])
    smaller, _ = scc_tf.remove_channels(model, {"a": mask("011")})
    np.testing.assert_array_equal(smaller.get_layer("a").bias, [2.0, 3.0])
    np.testing.assert_array_equal(smaller.layers[2].gamma, [1.0, 2.0])
    assert isinstance(smaller.layers[2].beta_initializer, keras.initializers.Ones)


def test_what_one_layer_leaves_behind_is_no_bias_of_a_depthwise_kernel():
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(4, 1, name="a", activation="sigmoid")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise", use_bias=False)(x)
    model = zoo.vary(keras.Model(inputs, layers.Conv2D(2, 1, name="head", use_bias=False)(x)))
    smaller, report = zoo.remove(model, {"a": mask("0101")})
    assert report.biases_added == ("head",)
    assert not smaller.get_layer("depthwise").use_bias
