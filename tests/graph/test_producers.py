import keras
import numpy as np
import pytest
from keras.layers import Activation, Add, BatchNormalization, Concatenate, Flatten, GlobalAveragePooling2D, MaxPooling2D

from scc_tf import layers
from scc_tf.graph import trace_kernels

FIRST = {"data_format": "channels_first"}


def nodes_of(model):
    """``{layer name or "layer/kernel": node}``."""
    nodes = trace_kernels(model)
    offsets = np.cumsum([0] + [node.layout.channels for node in nodes])
    assert [node.offset for node in nodes] == offsets[:-1].tolist()
    return {n.layer.name if n.layout.name == "kernel" else f"{n.layer.name}/{n.layout.name}": n for n in nodes}


def channels(node, *numbers):
    """The numbers, in the row of all channels, of channels of one node (all of them by default)."""
    return [node.offset + i for i in (numbers or range(node.layout.channels))]


def producers(node):
    """For every input, the set of the channels that keep it alive."""
    return [set(column) for column in node.inputs.T.tolist()]


def each(numbers):
    return [{number} for number in numbers]


def after_a_convolution(*stack, shape=(6, 6, 2), **arguments):
    """Nodes of: a convolution "a" of 3 filters, the layers of ``stack``, a dense layer "b"."""
    model = keras.Sequential(
        [keras.Input(shape), layers.Conv2D(3, 3, name="a", **arguments), *stack, layers.Dense(2, name="b")]
    )
    nodes = nodes_of(model)
    return nodes["a"], nodes["b"]


def test_a_chain():
    a, b = after_a_convolution(BatchNormalization(), Activation("relu"), MaxPooling2D(), GlobalAveragePooling2D())
    assert producers(a) == [{-1}] * 2
    assert producers(b) == each(channels(a))
    assert (a.layout.channels, a.layout.fan_in, a.layout.groups, a.layout.weights_per_input) == (3, 18, 1, 9)
    assert (b.layout.channels, b.layout.fan_in, b.layout.groups, b.layout.weights_per_input) == (2, 3, 1, 1)
    assert a.format is a.layer.format_of("kernel")


def test_an_input_lives_while_one_of_its_producers_does():
    a, b = after_a_convolution(GlobalAveragePooling2D())
    alive = np.array([True, False, True, True, True])
    assert b.live_inputs(alive).tolist() == [True, False, True]
    assert a.live_inputs(np.zeros(5, bool)).all()  # the image


def numbered(model):
    """Run a model on an image in which every value of channel c is c."""
    shape = model.input_shape[1:]
    return np.array(model(np.broadcast_to(np.arange(shape[-1], dtype="float32"), (1, *shape))))[0]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_flatten_keeps_the_order_of_keras(data_format):
    """The truth is what Keras does to the numbers of the channels."""
    flatten = Flatten(data_format=data_format)
    order = numbered(keras.Sequential([keras.Input((4, 5, 3)), flatten])).astype(int)
    a, b = after_a_convolution(flatten, shape=(6, 7, 2))
    assert producers(b) == each(a.offset + order)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_flatten_of_channels_that_come_first(data_format):
    a, b = after_a_convolution(Flatten(data_format=data_format), shape=(2, 6, 7), **FIRST)
    order = np.broadcast_to(np.arange(3)[:, None, None], (3, 4, 5))
    order = order if data_format == "channels_last" else np.moveaxis(order, 0, -1)
    assert producers(b) == each(a.offset + order.ravel())


def test_flatten_of_an_unknown_size_is_not_followed():
    inputs = keras.Input((None, 6, 2))
    model = keras.Model(inputs, Flatten()(layers.Conv2D(3, 3)(inputs)))
    assert len(trace_kernels(model)) == 1


def test_channels_first():
    pool = GlobalAveragePooling2D(**FIRST)
    a, b = after_a_convolution(BatchNormalization(axis=1), MaxPooling2D(**FIRST), pool, shape=(2, 8, 8), **FIRST)
    assert producers(a) == [{-1}] * 2
    assert producers(b) == each(channels(a))


def test_positions_are_not_mistaken_for_channels():
    """As many columns as channels: a dense layer reads the columns."""
    a, b = after_a_convolution(shape=(2, 5, 5), **FIRST)
    assert a.layer.output.shape == (None, 3, 3, 3)
    assert producers(b) == [{-1}] * 3
    _, b = after_a_convolution(BatchNormalization(axis=1), shape=(5, 5, 2))
    assert producers(b) == [{-1}] * 3
    _, b = after_a_convolution(GlobalAveragePooling2D(**FIRST), shape=(5, 5, 2))
    assert producers(b) == [{-1}] * 3


def residual_model():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    y = layers.Conv2D(4, 3, padding="same", name="b", activation="relu")(x)
    z = Add(name="first")([x, y])
    w = layers.Conv2D(4, 1, name="c")(z)
    outputs = layers.Conv2D(2, 1, name="d")(Add()([z, w]))
    return keras.Model(inputs, outputs)


def test_residual_addition():
    n = nodes_of(residual_model())
    assert list(n) == ["a", "b", "c", "d"]
    assert producers(n["b"]) == each(channels(n["a"]))
    assert producers(n["c"]) == [set(pair) for pair in zip(channels(n["a"]), channels(n["b"]), strict=True)]
    triples = zip(*(channels(n[k]) for k in "abc"), strict=True)
    assert producers(n["d"]) == [set(triple) for triple in triples]
    alive = np.ones(14, bool)
    alive[channels(n["a"], 1)] = False
    assert n["d"].live_inputs(alive).all()
    alive[channels(n["b"], 1) + channels(n["c"], 1)] = False
    assert n["d"].live_inputs(alive).tolist() == [True, False, True, True]


def test_addition_of_the_image_never_dies():
    inputs = keras.Input((6, 6, 3))
    x = Add()([inputs, layers.Conv2D(3, 1, name="a")(inputs)])
    n = nodes_of(keras.Model(inputs, layers.Conv2D(2, 1, name="b")(x)))
    assert producers(n["b"]) == [{-1, i} for i in channels(n["a"])]
    assert n["b"].live_inputs(np.zeros(5, bool)).all()


def test_a_broadcast_addition_is_not_followed():
    inputs = keras.Input((6, 6, 3))
    x = Add()([layers.Conv2D(3, 1)(inputs), layers.Conv2D(1, 1)(inputs)])
    n = nodes_of(keras.Model(inputs, layers.Conv2D(2, 1, name="b")(x)))
    assert producers(n["b"]) == [{-1}] * 3


def test_concatenation():
    inputs = keras.Input((6, 6, 2))
    x, y, z = (layers.Conv2D(f, 3, name=name)(inputs) for f, name in ((3, "x"), (2, "y"), (2, "z")))
    both = Concatenate()([x, Add()([y, z]), keras.layers.Cropping2D(1)(inputs)])
    n = nodes_of(keras.Model(inputs, layers.Conv2D(2, 1, name="b")(both)))
    sums = [set(pair) for pair in zip(channels(n["y"]), channels(n["z"]), strict=True)]
    assert producers(n["b"]) == each(channels(n["x"])) + sums + [{-1}] * 2


def test_concatenation_of_positions_is_a_merge():
    inputs = keras.Input((6, 6, 2))
    both = Concatenate(axis=1)([layers.Conv2D(3, 3)(inputs), layers.Conv2D(3, 3)(inputs)])
    n = nodes_of(keras.Model(inputs, layers.Conv2D(2, 1, name="b")(both)))
    assert producers(n["b"]) == [{0, 3}, {1, 4}, {2, 5}]


def test_depthwise():
    depthwise = layers.DepthwiseConv2D(3, depth_multiplier=2, name="d")
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(3, 1, name="a"), depthwise, layers.Conv2D(2, 1, name="b")]
    )
    n = nodes_of(model)
    assert producers(n["d"]) == each(channels(n["a"]))
    assert (n["d"].layout.channels, n["d"].layout.groups, n["d"].layout.fan_in, n["d"].layout.weights_per_input) == (
        6,
        3,
        9,
        9,
    )
    assert producers(n["b"]) == each(channels(n["d"]))


def test_separable():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 1, name="a"),
            layers.SeparableConv2D(4, 3, depth_multiplier=2, padding="same", name="s"),
            layers.Conv2D(2, 1, name="b"),
        ]
    )
    n = nodes_of(model)
    depthwise, pointwise = n["s/depthwise_kernel"], n["s/pointwise_kernel"]
    assert producers(depthwise) == each(channels(n["a"]))
    assert (depthwise.layout.channels, depthwise.layout.groups, depthwise.layout.weights_per_input) == (6, 3, 9)
    assert producers(pointwise) == each(channels(depthwise))
    assert (pointwise.layout.channels, pointwise.layout.groups, pointwise.layout.weights_per_input) == (4, 1, 1)
    assert producers(n["b"]) == each(channels(pointwise))
    assert (depthwise.exact, pointwise.exact) == (False, True)


def test_grouped():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 1, name="a"), layers.Conv2D(6, (3, 2), groups=2, name="g")]
    )
    n = nodes_of(model)
    assert producers(n["g"]) == each(channels(n["a"]))
    assert (n["g"].layout.channels, n["g"].layout.groups, n["g"].layout.fan_in, n["g"].layout.weights_per_input) == (
        6,
        2,
        12,
        6,
    )


def test_transposed_and_one_dimensional_convolutions():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2DTranspose(3, 2, name="a"),
            layers.Conv2DTranspose(4, 2, name="b"),
            keras.layers.Reshape((36, 4)),
            layers.Conv1D(5, 2, name="c"),
            layers.Conv1D(2, 2, name="d"),
        ]
    )
    n = nodes_of(model)
    assert producers(n["b"]) == each(channels(n["a"]))
    assert (n["b"].layout.channels, n["b"].layout.fan_in, n["b"].layout.weights_per_input) == (4, 12, 4)
    assert producers(n["c"]) == each(channels(n["b"]))
    assert producers(n["d"]) == each(channels(n["c"]))


@pytest.mark.parametrize(
    ("layer", "exact"),
    [
        (layers.Conv2D(2, 3), True),
        (layers.Conv2D(2, 3, padding="same"), False),
        (layers.Conv2D(2, 1, padding="same"), True),
        (layers.DepthwiseConv2D(3, padding="same"), False),
        (layers.Conv2DTranspose(2, 3), False),  # the border gets fewer terms
        (layers.Conv2DTranspose(2, 1, strides=2), False),
        (layers.Conv2DTranspose(2, 1), True),
        (layers.Dense(2), True),
        (layers.EinsumDense("abcd,de->abce", (None, None, 2)), True),
    ],
)
def test_exact_means_that_a_constant_input_is_a_bias(layer, exact):
    """The flag against what the layer does to an image that is 1 everywhere."""
    model = keras.Sequential([keras.Input((5, 5, 2)), layer])
    outputs = np.array(model(np.ones((1, 5, 5, 2), "float32")))
    assert trace_kernels(model)[0].exact is exact
    assert bool(np.ptp(outputs, axis=(1, 2)).max() < 1e-6) is exact


def test_a_causal_convolution_is_not_exact():
    model = keras.Sequential([keras.Input((6, 2)), layers.Conv1D(3, 2, padding="causal")])
    assert trace_kernels(model)[0].exact is False


def einsum_pair(first, second, shape, sizes):
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.EinsumDense(first[0], sizes[0], name="a", bias_axes=first[1]),
            layers.EinsumDense(second, sizes[1], name="b"),
        ]
    )
    n = nodes_of(model)
    return n["a"], n["b"]


def test_einsum_over_the_last_axis_is_followed():
    a, b = einsum_pair(("...x,xy->...y", "y"), "abc,cd->abd", (4, 2), (3, (None, 5)))
    assert producers(b) == each(channels(a))


@pytest.mark.parametrize(
    ("first", "second", "sizes"),
    [
        (("abc,cde->abde", "de"), "abde,dec->abc", ((None, 2, 3), (None, 5))),  # heads
        (("abc,cde->abed", "d"), "abed,edf->abf", ((None, 3, 2), (None, 5))),
        (("abc,cd->abd", "bd"), "abd,de->abe", ((4, 3), (None, 5))),  # a dead channel is its bias: it varies over b
        (("abc,cd->abd", "d"), "abc,bd->adc", ((4, 4), (5, None))),  # 4 positions and 4 channels: sums over positions
    ],
)
def test_other_einsums_are_not_followed(first, second, sizes):
    _, b = einsum_pair(first, second, (4, 2), sizes)
    assert producers(b) == [{-1}] * b.layout.fan_in


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", lambda x: x[..., ::-1]])
def test_an_activation_that_mixes_channels_is_not_followed(activation):
    _, b = after_a_convolution(Activation(activation))
    assert producers(b) == [{-1}] * 3
    _, b = after_a_convolution(activation=activation)
    assert producers(b) == [{-1}] * 3


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Softmax(),
        keras.layers.LayerNormalization(),
        keras.layers.Permute((2, 1, 3)),
    ],
    ids=lambda layer: layer.name,
)
def test_an_unknown_layer_is_not_followed(layer):
    _, b = after_a_convolution(layer)
    assert producers(b) == [{-1}] * 3


def test_an_operation_is_not_followed():
    inputs = keras.Input((6, 6, 2))
    x = keras.ops.flip(layers.Conv2D(3, 1)(inputs), axis=-1) + 1.0
    n = nodes_of(keras.Model(inputs, [layers.Conv2D(2, 1, name="b")(x), keras.ops.sum(x)]))
    assert producers(n["b"]) == [{-1}] * 3


def test_nested_models():
    inner = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3, name="b"), BatchNormalization()])
    inputs = keras.Input((8, 8, 2))
    x = inner(layers.Conv2D(3, 3, name="a")(inputs))
    n = nodes_of(keras.Model(inputs, layers.Conv2D(2, 1, name="c")(x)))
    assert list(n) == ["a", "b", "c"]
    assert producers(n["b"]) == each(channels(n["a"]))
    assert producers(n["c"]) == each(channels(n["b"]))


def test_a_shared_layer_is_one_node_and_its_inputs_live_in_any_call():
    inputs = keras.Input((6, 6, 2))
    shared = layers.Conv2D(3, 1, name="s")
    x, y = (layers.Conv2D(3, 1, name=name)(inputs) for name in "xy")
    outputs = Concatenate()([shared(x), shared(y), shared(Concatenate()([inputs, inputs[..., :1]]))])
    n = nodes_of(keras.Model(inputs, layers.Conv2D(2, 1, name="b")(outputs)))
    pairs = zip(channels(n["x"]), channels(n["y"]), strict=True)
    assert producers(n["s"]) == [{-1, *pair} for pair in pairs]
    assert producers(n["b"]) == each(channels(n["s"]) * 3)


def test_a_nested_model_that_is_called_twice():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="s")])
    inputs = keras.Input((2,))
    x, y = (layers.Dense(3, name=name)(inputs) for name in "xy")
    n = nodes_of(keras.Model(inputs, layers.Dense(1, name="b")(Add()([inner(x), inner(y)]))))
    assert producers(n["s"]) == [set(pair) for pair in zip(channels(n["x"]), channels(n["y"]), strict=True)]
    assert producers(n["b"]) == each(channels(n["s"]))


def test_several_inputs_and_outputs():
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    both = Concatenate()([layers.Dense(2, name="a")(left), right])
    shared = layers.Dense(3, name="b")(both)
    outputs = {"one": layers.Dense(1, name="c")(shared), "two": layers.Dense(1, name="d")(shared)}
    n = nodes_of(keras.Model({"left": left, "right": right}, outputs))
    assert producers(n["b"]) == each(channels(n["a"])) + [{-1}] * 2
    assert producers(n["c"]) == producers(n["d"]) == each(channels(n["b"]))


def test_kernels_inside_a_wrapper_are_found_and_charged_for_every_input():
    wrapper = keras.layers.TimeDistributed(layers.Dense(4, name="b"))
    model = keras.Sequential([keras.Input((5, 2)), layers.Dense(3, name="a"), wrapper, layers.Dense(2, name="c")])
    n = nodes_of(model)
    assert producers(n["b"]) == [{-1}] * 3
    assert producers(n["c"]) == [{-1}] * 4


@pytest.mark.slow
def test_a_deep_model():
    depth = 480  # Keras itself gives up at about twice that
    x = inputs = keras.Input((2,))
    x = layers.Dense(3, name="a")(x)
    for _ in range(depth):
        x = keras.layers.Identity()(x)
    n = nodes_of(keras.Model(inputs, layers.Dense(1, name="b")(x)))
    assert producers(n["b"]) == each(channels(n["a"]))


def test_models_without_a_graph_are_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    for model in (Subclassed(), keras.Sequential([layers.Dense(2)])):
        with pytest.raises(ValueError, match="Expected a built Sequential or functional"):
            trace_kernels(model)


def test_zeros_around_the_positions_are_followed_but_not_exact():
    a, b = after_a_convolution(keras.layers.ZeroPadding2D(1))
    assert producers(b) == each(channels(a))
    assert (a.exact, b.exact) == (True, False)


def test_zeros_beside_the_channels_live_as_long_as_what_they_are_added_to():
    inputs = keras.Input((6, 6, 2))
    wide = layers.Conv2D(4, 1, name="a")(inputs)
    padded = keras.layers.ZeroPadding2D(((0, 0), (1, 1)), data_format="channels_first")(inputs)
    b = layers.Conv2D(2, 1, name="b")(Add()([wide, padded]))
    n = nodes_of(keras.Model(inputs, b))
    first = n["a"].offset
    assert producers(n["b"]) == [{first}, {-1, first + 1}, {-1, first + 2}, {first + 3}]
