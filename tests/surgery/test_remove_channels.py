"""The contract of `remove_channels`: the outputs of the model with the kernels of the removed channels at zero."""

import json

import keras
import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import scc_tf

each_network = pytest.mark.parametrize("name", zoo.NETWORKS)


def network(name, seed=0, offsets=True, compressed=False):
    model = zoo.vary(zoo.NETWORKS[name](), seed)
    model = model if offsets else zoo.without_offsets(model)
    return scc_tf.self_compress(model, initial_bit_depth=6) if compressed else model


@pytest.mark.slow
@each_network
def test_random_channels(name):
    model = network(name, seed=0)
    zoo.remove(model, zoo.random_masks(model, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "depthwise", "grouped", "concatenated", "generator", "shared"])
def test_random_channels_of_twins_without_offsets(name):
    model = network(name, seed=2, offsets=False, compressed=True)
    zoo.remove(model, zoo.random_masks(model, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "residual", "grouped", "concatenated", "shared"])
def test_all_but_one(name):
    model = network(name, seed=3, offsets=False)
    masks = {label: np.arange(kernel.channels) == 1 for label, kernel in zoo.kernels(model).items()}
    del masks[list(masks)[-1]]
    zoo.remove(model, masks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "depthwise", "grouped", "unet", "generator"])
def test_everything_leaves_one_channel_of_each_layer(name):
    model = network(name, seed=4, offsets=False)
    kernels = zoo.kernels(model)
    _, report = zoo.remove(model, {label: np.zeros(kernel.channels, bool) for label, kernel in kernels.items()})
    expected = dict.fromkeys(kernels, 1)
    expected[list(kernels)[-1]] = list(kernels.values())[-1].channels
    if name == "depthwise":
        expected.update({"dw": 2, "sep/depthwise_kernel": 2})  # the multiplier stays
    if name == "grouped":
        expected.update({"a": 3, "g": 3, "each": 3})  # one of each group
    if name == "generator":
        expected["a"] = 16  # a channel of the Reshape
    assert zoo.left(report) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "same_padding", "depthwise", "generator", "shared", "unknown"])
def test_nothing(name):
    model = network(name)
    smaller, report = scc_tf.remove_channels(model, {})
    assert (report.removed, report.kept_dead, report.biases_added) == (0, {}, ())
    assert report.parameters == (model.count_params(),) * 2
    named = (layers.InputLayer, keras.Model)  # Keras numbers unnamed inputs anew in any clone
    ours, theirs = ([x for x in m.layers if not isinstance(x, named)] for m in (model, smaller))
    assert [layer.get_config() for layer in theirs] == [layer.get_config() for layer in ours]
    assert [w.name for w in smaller.weights] == [w.name for w in model.weights]
    for old, new in zip(model.get_weights(), smaller.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    np.testing.assert_array_equal(zoo.outputs(smaller, zoo.examples(model)), zoo.outputs(model, zoo.examples(model)))


def tiny():
    """Two branches with a residual, a concatenation and a channel that a constant passes through."""
    inputs = keras.Input((3, 4))
    x = layers.Dense(4, name="a", activation="relu")(inputs)
    x = layers.Add()([x, layers.Dense(4, name="b")(x)])
    y = layers.Conv1D(3, 2, name="c", use_bias=False, activation="sigmoid")(x)
    y = layers.Concatenate()([layers.Cropping1D((0, 1))(x), y])
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(layers.BatchNormalization()(y))))


TINY = {"a": 4, "b": 4, "c": 3, "head": 2}
masks = st.fixed_dictionaries(
    {}, optional={n: st.lists(st.booleans(), min_size=c, max_size=c) for n, c in TINY.items()}
)


@pytest.mark.slow
@settings(max_examples=20, derandomize=True)
@given(kept=masks, seed=st.integers(0, 3), offsets=st.booleans(), compressed=st.booleans())
def test_any_masks(kept, seed, offsets, compressed):
    keras.utils.clear_session(free_memory=False)
    model = zoo.vary(tiny(), seed)
    model = model if offsets else zoo.without_offsets(model)
    model = scc_tf.self_compress(model, initial_bit_depth=6) if compressed else model
    zoo.remove(model, {name: np.array(mask) for name, mask in kept.items()})


@pytest.mark.slow
def test_removal_can_be_repeated():
    model = network("depthwise", offsets=False)
    whole = {label: kernel.channels for label, kernel in zoo.kernels(model).items()}
    masks = {"a": zoo.mask("1010"), "b": zoo.mask("11011")}
    once, report = zoo.remove(model, masks)
    assert zoo.left(report) == {**whole, "a": 2, "dw": 4, "b": 4, "sep/depthwise_kernel": 8}
    twice, report = zoo.remove(
        once, {"a": zoo.mask("01"), "b": zoo.mask("1010"), "sep/pointwise_kernel": zoo.mask("100110")}
    )
    left = {"a": 1, "dw": 2, "b": 2, "sep/depthwise_kernel": 4, "sep/pointwise_kernel": 3, "dw2": 3, "head": 2}
    assert zoo.left(report) == left
    _, report = zoo.remove(twice, {"dw": zoo.mask("01")})  # of one input: its channels go one by one
    assert zoo.left(report) == {**left, "dw": 1}


@pytest.mark.slow
def test_the_result_can_be_saved(tmp_path):
    for compressed in (False, True):
        model = network("squeeze_and_excite", offsets=False, compressed=compressed)
        smaller, _ = scc_tf.remove_channels(model, zoo.random_masks(model))
        smaller.save(tmp_path / "smaller.keras")
        loaded = keras.models.load_model(tmp_path / "smaller.keras")
        assert type(loaded) is type(smaller)
        inputs = zoo.examples(model)
        np.testing.assert_array_equal(zoo.outputs(loaded, inputs), zoo.outputs(smaller, inputs))


@pytest.mark.slow
def test_the_result_has_the_class_and_the_name_of_the_model():
    class Mine(keras.Model):
        pass

    inputs = keras.Input((4,))
    outputs = layers.Dense(2)(layers.Dense(3, name="a")(inputs))
    for model, kind in (
        (Mine(inputs, outputs, name="mine"), Mine),
        (keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2)], name="mine"), keras.Model),
        (scc_tf.self_compress(keras.Model(inputs, outputs, name="mine")), scc_tf.SelfCompressingModel),
    ):
        smaller, _ = scc_tf.remove_channels(model, {"a": zoo.mask("101")})
        assert isinstance(smaller, kind)
        assert smaller.name == "mine"
        assert not smaller.compiled


def layer_names(model):
    return [layer.name for layer in model.layers if not isinstance(layer, layers.InputLayer)]


@pytest.mark.slow
def test_nested_structures_and_shared_layers_stay():
    model = network("shared", offsets=False)
    smaller, report = zoo.remove(
        model, {"stem": zoo.mask("1011"), "inner_b": zoo.mask("1011"), "inner_a": zoo.mask("11010")}
    )
    assert zoo.left(report) == {"stem": 3, "inner_a": 3, "inner_b": 3, "head": 3, "last": 2}
    assert layer_names(smaller) == layer_names(model)
    inner = smaller.get_layer("inner")
    assert inner.input_shape == inner.output_shape == (None, 4, 4, 3)
    assert len(inner._inbound_nodes) == len(model.get_layer("inner")._inbound_nodes)
    assert list(smaller(zoo.examples(model))) == ["both"]
    assert smaller.count_params() == sum(layer.count_params() for layer in smaller.layers)  # shared, so each once


def test_trainable_flags_stay():
    model = network("shared")
    model.get_layer("stem").trainable = False
    model.get_layer("inner").get_layer("inner_norm").trainable = False
    smaller, _ = scc_tf.remove_channels(model, {"stem": zoo.mask("1011"), "inner_b": zoo.mask("1011")})
    assert [w.path for w in smaller.trainable_weights] == [w.path for w in model.trainable_weights]


@pytest.mark.slow
def test_the_report():
    model = network("unknown")
    _, report = scc_tf.remove_channels(model, {"a": zoo.mask("011111"), "b": zoo.mask("11001")})
    assert report.removed == 0
    assert report.kept_dead["a"] == (1, "read by layer_normalization (LayerNormalization), which is not known")
    assert report.kept_dead["b"] == (2, "the activation or the equation of b mixes them")
    assert json.loads(report.to_json())["channels"]["a"] == [6, 6]
    assert "a: 1 dead channels stay: read by layer_normalization" in str(report)
    model = network("chain")
    _, report = scc_tf.remove_channels(model, {"a": zoo.mask("011111"), "b": zoo.mask("11001")})
    assert report.removed == 3
    assert report.channels == {"a": (6, 5), "b": (5, 3), "c": (7, 7), "d": (3, 3)}
    assert "5 of 6 channels" in str(report)


@pytest.mark.slow
def test_bit_depths_and_exponents_are_cut_along():
    model = network("depthwise", offsets=False, compressed=True)
    rng = np.random.default_rng(0)
    for layout in zoo.kernels(model).values():
        fmt = layout.layer.format_of(layout.name)
        fmt.bit_depth.assign(rng.uniform(3, 6, fmt.channels))
    masks = {"a": zoo.mask("1001"), "sep/pointwise_kernel": zoo.mask("011010"), "b": zoo.mask("01111")}
    smaller, _ = zoo.remove(model, masks)
    kept = {**masks, "dw": np.repeat(masks["a"], 2), "sep/depthwise_kernel": np.repeat(masks["b"], 2)}
    kept["dw2"] = kept["sep/pointwise_kernel"]
    for label, after in zoo.kernels(smaller).items():
        before = zoo.kernels(model)[label]
        chosen = kept.get(label, np.ones(before.channels, bool))
        for name in ("bit_depth", "exponent"):
            old, new = (getattr(k.layer.format_of(k.name), name) for k in (before, after))
            np.testing.assert_array_equal(new, np.asarray(old)[chosen])


# Refusals ------------------------------------------------------------------------------------------------------------


def two_of_a_name():
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="a")], name="inner")
    return keras.Model(inputs, inner(layers.Dense(3, name="a")(inputs)))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"z": zoo.mask("111")}, "'z', which it has 0 times"),
        ({"a/kernel": zoo.mask("111")}, "'a/kernel', which it has 0 times"),
        ({"a": zoo.mask("1111")}, r"shape \(3,\) for 'a'. Received: bool \(4,\)"),
        ({"a": np.ones(3)}, r"bool array of shape \(3,\) for 'a'. Received: float64 \(3,\)"),
        ({"a": [1, 0, 1]}, r"Received: int64 \(3,\)"),
        ({"a": True}, r"Received: bool \(\)"),
    ],
    ids=["unknown", "unknown kernel", "length", "dtype", "numbers", "scalar"],
)
def test_masks_that_do_not_fit(kept, message):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        scc_tf.remove_channels(model, kept)


def test_an_ambiguous_name():
    with pytest.raises(ValueError, match="'a', which it has 2 times"):
        scc_tf.remove_channels(two_of_a_name(), {"a": zoo.mask("111")})


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


class GraphAndMore(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def graph_and_more(shape=(4,), **kwargs):
    inputs = keras.Input(shape)
    return GraphAndMore(inputs, layers.Dense(shape[-1], name="inside")(inputs), **kwargs)


@pytest.mark.parametrize(
    "remove", [lambda m: scc_tf.remove_channels(m, {}), scc_tf.remove_dead_channels], ids=["", "dead"]
)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Subclassed, "graph of a subclassed model is not known"),
        (graph_and_more, "graph of a subclassed model is not known"),
        (lambda: keras.Sequential([layers.Dense(2)]), "a Sequential needs an Input"),
        (lambda: layers.Dense(2), "Expected a Keras model"),
    ],
    ids=["subclassed", "own call", "not built", "layer"],
)
def test_models_without_a_known_graph(make, message, remove):
    with pytest.raises(ValueError, match=message):
        remove(make())


def test_a_nested_model_with_a_call_of_its_own_is_left_alone():
    inputs = keras.Input((4,))
    x = graph_and_more(name="nested")(layers.Dense(4, name="a")(inputs))
    model = zoo.vary(keras.Model(inputs, layers.Dense(2, name="head")(layers.Dense(3, name="b")(x))))
    _, report = zoo.remove(model, {"a": zoo.mask("0111"), "b": zoo.mask("011")})
    assert zoo.left(report) == {"a": 4, "b": 2, "head": 2}
    assert report.kept_dead["a"] == (1, "read by nested (GraphAndMore), which is not known")
