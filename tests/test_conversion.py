import functools
import logging

import keras
import numpy as np
import pytest
from keras import layers as stock
from keras import ops

import scc_tf
from scc_tf import layers
from scc_tf.layers import SelfCompressing, entries, entry_of


def arrays(model):
    return [np.array(ops.convert_to_numpy(w)) for w in model.weights]


def image(*shape, n=3):
    return np.random.default_rng(1).normal(size=(n, *shape)).astype("float32")


def shake(model):
    """Give every weight a value that no initializer does: biases and normalization statistics too."""
    rng = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(
            rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape) ** (len(weight.shape) > 1)
        )
    return model


def new_chain():
    """One of every stock layer that has a twin, and normalization."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            stock.Conv2D(4, 3, activation="relu", name="conv"),
            stock.BatchNormalization(name="norm"),
            stock.DepthwiseConv2D(3, padding="same"),
            stock.SeparableConv2D(4, 3),
            stock.Conv2DTranspose(2, 2, strides=2),
            stock.Reshape((64, 2)),
            stock.Conv1D(3, 4, padding="causal", strides=8),
            stock.EinsumDense("abc,cde->abde", (8, 2, 2), bias_axes="de"),
            stock.Flatten(),
            stock.Dropout(0.5),
            stock.Dense(3, name="head"),
        ],
        name="chain",
    )
    return shake(model)


chain = functools.cache(new_chain)  # for the tests that do not change it


@functools.cache
def compressed_chain():
    return learn(scc_tf.self_compress(chain()))


def learn(model):
    """Formats as after training: fractional bits, some channels dead."""
    rng = np.random.default_rng(3)
    for layer in model._flatten_layers():
        for fmt in getattr(layer, "formats", ()):
            fmt.bit_depth.assign(np.maximum(rng.uniform(-1, 5, fmt.channels), 0))
            fmt.exponent.assign_add(rng.uniform(2, 4, fmt.channels))
    return model


@pytest.mark.slow
def test_every_layer_that_has_a_twin_is_converted():
    plain = chain()
    model = scc_tf.self_compress(plain, initial_bit_depth=20, rounding="floor")
    assert isinstance(model, scc_tf.SelfCompressingModel)
    assert model.name == plain.name
    assert [type(layer) for layer in model.layers[1:]] == [
        (entry_of(layer) and entry_of(layer).self_compressing) or type(layer) for layer in plain.layers
    ]
    twins = [layer for layer in model.layers if isinstance(layer, SelfCompressing)]
    assert {type(layer) for layer in twins} == {entry.self_compressing for entry in entries()}
    assert model.conversion_report.converted == tuple(layer.name for layer in twins)
    assert model.conversion_report.skipped == {}
    assert {(layer.initial_bit_depth, layer.rounding) for layer in twins} == {(20.0, "floor")}


@pytest.mark.slow
def test_the_original_is_untouched():
    plain = new_chain()
    plain.compile("sgd", "mse")
    objects, before, places = (
        [id(w) for w in plain.weights],
        arrays(plain),
        [len(la._inbound_nodes) for la in plain.layers],
    )
    model = learn(scc_tf.self_compress(plain))
    scc_tf.to_plain(model)
    for weight in model.weights:
        weight.assign(weight * 0)
    assert [id(w) for w in plain.weights] == objects
    assert not {id(w) for w in model.weights} & set(objects)
    for now, then in zip(arrays(plain), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert [len(la._inbound_nodes) for la in plain.layers] == places
    assert plain.compiled
    assert not model.compiled


@pytest.mark.slow
@pytest.mark.parametrize("bits", [16, 24])
def test_outputs_are_close_at_many_bits(bits):
    plain = chain()
    expected = np.array(plain(image(8, 8, 2)))
    actual = np.array(scc_tf.self_compress(plain, initial_bit_depth=bits)(image(8, 8, 2)))
    assert np.abs(actual - expected).max() < 2.0 ** (4 - bits) * np.abs(expected).max() + 1e-5 * np.abs(expected).max()


def test_exponents_span_the_copied_kernels_not_the_initial_ones():
    plain = keras.Sequential([keras.Input((3,)), stock.Dense(2)])
    plain.layers[0].kernel.assign([[100.0, -0.25], [1.0, 0.125], [0.0, 0.0]])
    layer = scc_tf.self_compress(plain, initial_bit_depth=4).layers[-1]
    np.testing.assert_allclose(layer.exponent, np.log2([100, 0.25]) - 3, rtol=1e-6)


def test_weights_are_copied_by_name():
    model = scc_tf.self_compress(chain())
    for layer, original in zip(model.layers[1:], chain().layers, strict=True):
        values = {w.name: w for w in layer.weights}
        assert set(values) >= {w.name for w in original.weights}
        for weight in original.weights:
            np.testing.assert_array_equal(ops.convert_to_numpy(values[weight.name]), weight)


@pytest.mark.slow
def test_to_plain_is_stock_keras_with_the_same_outputs():
    model = compressed_chain()
    plain = scc_tf.to_plain(model)
    assert not [layer for layer in plain._flatten_layers() if not type(layer).__module__.startswith("keras.")]
    assert [type(layer) for layer in plain.layers[1:]] == [type(layer) for layer in chain().layers]
    assert [layer.name for layer in plain.layers] == [layer.name for layer in model.layers]
    assert plain.count_params() == chain().count_params()
    np.testing.assert_array_equal(plain(image(8, 8, 2)), model(image(8, 8, 2)))
    dead = ops.convert_to_numpy(model.get_layer("conv").bit_depth) == 0
    assert dead.any()
    assert not ops.convert_to_numpy(plain.get_layer("conv").kernel)[..., dead].any()


@pytest.mark.slow
def test_to_plain_leaves_its_model_alone_and_goes_back():
    model = compressed_chain()
    before = arrays(model)
    again = scc_tf.self_compress(scc_tf.to_plain(model), initial_bit_depth=24)
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_allclose(again(image(8, 8, 2)), model(image(8, 8, 2)), rtol=1e-4, atol=1e-4)


def test_arguments_and_frozen_layers_are_kept():
    plain = keras.Sequential(
        [
            keras.Input((4,)),
            stock.Dense(3, kernel_regularizer="l2", bias_constraint="non_neg", trainable=False, dtype="mixed_bfloat16"),
            stock.Dense(2),
        ]
    )
    model = scc_tf.self_compress(plain)
    frozen = model.layers[1]
    assert not frozen.trainable_variables
    assert frozen.compute_dtype == "bfloat16"
    for key, value in plain.layers[0].get_config().items():
        assert frozen.get_config()[key] == value
    back = scc_tf.to_plain(model).layers[1]
    assert back.get_config() == plain.layers[0].get_config()


# Graphs


def nested_model():
    """Two levels of nesting; one layer and one model that are shared across the borders."""
    shared = stock.Dense(4, name="shared")
    innermost = keras.Sequential(
        [keras.Input((4,)), stock.Dense(4, name="deep"), stock.BatchNormalization()], name="innermost"
    )
    x = keras.Input((4,))
    inner = keras.Model(x, innermost(shared(x)), name="inner")
    inputs = keras.Input((4,))
    y = stock.Add()([inner(shared(inputs)), innermost(inputs)])
    return shake(keras.Model(inputs, stock.Dense(2, name="head")(y), name="outer"))


@pytest.mark.slow
def test_nested_and_shared_layers():
    plain = nested_model()
    model = scc_tf.self_compress(plain, initial_bit_depth=22)
    np.testing.assert_allclose(model(image(4)), plain(image(4)), rtol=1e-4, atol=1e-4)
    assert sorted(model.conversion_report.converted) == ["deep", "head", "shared"]
    twins = {id(la): la for la in model._flatten_layers() if isinstance(la, SelfCompressing)}
    assert sorted(la.name for la in twins.values()) == ["deep", "head", "shared"]
    assert model.get_layer("inner").get_layer("shared") is model.get_layer("shared")
    assert model.get_layer("inner").get_layer("innermost") is model.get_layer("innermost")
    assert len(model.weights) == len(plain.weights) + 2 * 3

    back = scc_tf.to_plain(learn(model))
    assert not [la for la in back._flatten_layers() if type(la).__module__.startswith("scc_tf")]
    assert len(back.weights) == len(plain.weights)
    np.testing.assert_array_equal(back(image(4)), model(image(4)))


def test_a_compressed_model_inside_another_becomes_plain_too():
    backbone = learn(scc_tf.self_compress(keras.Sequential([keras.Input((4,)), stock.Dense(3)])))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, stock.Dense(2)(backbone(inputs)))
    back = scc_tf.to_plain(model)
    assert not [la for la in back._flatten_layers() if type(la).__module__.startswith("scc_tf")]
    np.testing.assert_array_equal(back(image(4)), model(image(4)))


def test_layers_of_the_same_name_in_two_nested_models():
    inputs = keras.Input((4,))
    towers = [keras.Sequential([keras.Input((4,)), stock.Dense(3, name="dense")], name=name) for name in "ab"]
    model = scc_tf.self_compress(keras.Model(inputs, stock.Add()([tower(inputs) for tower in towers])))
    assert model.conversion_report.converted == ("dense", "dense")


def test_dictionaries_of_inputs_and_outputs():
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    x = stock.Dense(4)(stock.Concatenate()([left, right]))
    outputs = {"one": stock.Dense(1)(x), "two": stock.Dense(2)(x)}
    plain = keras.Model({"right": right, "left": left}, outputs)
    data = {"left": image(3), "right": image(2)}
    model = learn(scc_tf.self_compress(plain, initial_bit_depth=22))
    for converted in (model, scc_tf.to_plain(model)):
        assert set(converted(data)) == {"one", "two"}
        for name, expected in model(data).items():
            np.testing.assert_array_equal(converted(data)[name], expected)
    assert model.input_shape == plain.input_shape


def test_lists_of_inputs_and_outputs():
    inputs = [keras.Input((3,)), keras.Input((3,))]
    shared = stock.Dense(2)
    plain = keras.Model(inputs, [shared(inputs[0]), shared(inputs[1]), inputs[0] * 2.0])
    model = scc_tf.self_compress(plain, initial_bit_depth=22)
    data = [image(3), 2 * image(3)]
    for actual, expected in zip(model(data), plain(data), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_operations_between_layers():
    inputs = keras.Input((4,))
    x = stock.Dense(4)(inputs)
    plain = keras.Model(inputs, stock.Dense(2)(ops.relu(x) + 2.0 * inputs[:, ::-1]))
    model = scc_tf.self_compress(plain, initial_bit_depth=22)
    np.testing.assert_allclose(model(image(4)), plain(image(4)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scc_tf.to_plain(model)(image(4)), model(image(4)))


@pytest.mark.slow
def test_a_compiled_model_with_a_loss_that_cannot_be_serialized():
    plain = new_chain()
    plain.compile("sgd", lambda y, p: ops.mean((y - p) ** 2))
    assert not scc_tf.self_compress(plain).compiled


# Report and exclusion


@pytest.mark.slow
def test_the_report_gives_reasons_and_the_log_warns(caplog):
    quantized = stock.Dense(3, name="int8")
    inputs = keras.Input((5,), dtype="int32")
    x = stock.Embedding(9, 4, name="embedding")(inputs)
    x = stock.TimeDistributed(stock.Dense(4), name="wrapped")(x)
    x = stock.LSTM(4, name="lstm")(x)
    x = stock.BatchNormalization(name="norm")(x)
    x = stock.Dense(4, name="kept")(x)
    x = layers.Dense(4, name="twin")(x)
    lora = stock.Dense(4, name="lora")
    plain = keras.Model(inputs, stock.Dense(2, name="head")(quantized(lora(x))))
    lora.enable_lora(2)
    quantized.quantize("int8")
    with caplog.at_level(logging.WARNING):
        model = scc_tf.self_compress(plain, exclude=["kept"])
    report = model.conversion_report
    assert [record.getMessage() for record in caplog.records] == [
        f"self_compress: skipped layer {name}: {reason}" for name, reason in report.skipped.items()
    ]
    assert report.converted == ("head",)
    assert report.skipped == {
        "embedding": "no self-compressing form of Embedding",
        "wrapped": "no self-compressing form of TimeDistributed",
        "lstm": "no self-compressing form of LSTM",
        "kept": "excluded by the caller",
        "twin": "already self-compressing",
        "lora": "has a LoRA update",
        "int8": "already quantized (int8)",
    }
    assert str(report).splitlines()[:2] == [
        "1 layers self-compress: head",
        "skipped layer embedding: no self-compressing form of Embedding",
    ]
    tokens = np.array([[1, 2, 3, 4, 5]])
    np.testing.assert_allclose(model(tokens), plain(tokens), atol=0.05)
    for layer in plain.layers:
        if layer.name in report.skipped:
            for ours, theirs in zip(model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_formats_of_a_layer_that_already_compresses_are_kept():
    model = compressed_chain()
    again = scc_tf.self_compress(model)
    assert again.conversion_report.converted == ()
    np.testing.assert_array_equal(again(image(8, 8, 2)), model(image(8, 8, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "exclude",
    [["conv", "norm"], "conv", iter(["conv"]), lambda layer: isinstance(layer, stock.Conv2D)],
    ids=["list", "name", "iterator", "function"],  # the same in every process, for pytest-xdist
)
def test_exclude(exclude):
    model = scc_tf.self_compress(chain(), exclude=exclude)
    assert type(model.get_layer("conv")) is stock.Conv2D
    np.testing.assert_array_equal(model.get_layer("conv").kernel.value, chain().get_layer("conv").kernel.value)
    assert model.conversion_report.skipped == {"conv": "excluded by the caller"}
    assert "head" in model.conversion_report.converted


def test_excluding_a_nested_model_excludes_all_its_layers():
    report = scc_tf.self_compress(nested_model(), exclude=["innermost"]).conversion_report
    assert set(report.skipped) == {"deep"}
    assert sorted(report.converted) == ["head", "shared"]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"Received: exclude=\['convv'\]"):
        scc_tf.self_compress(chain(), exclude=["conv", "convv"])


def test_nothing_to_convert_is_refused():
    with pytest.raises(ValueError, match=r"at least one layer that can self-compress.*'chain'"):
        scc_tf.self_compress(chain(), exclude=lambda layer: True)
    with pytest.raises(ValueError, match="at least one layer"):
        scc_tf.self_compress(keras.Sequential([keras.Input((3,)), stock.ReLU()]))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = stock.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("convert", [scc_tf.self_compress, scc_tf.to_plain])
def test_what_is_not_a_graph_of_layers_is_refused(convert):
    subclassed = Subclassed()
    subclassed(image(3))
    for model in (subclassed, keras.Sequential([stock.Dense(2)])):
        with pytest.raises(ValueError, match=r"Expected a built Sequential or functional model.*Received"):
            convert(model)
    for model in (stock.Dense(2), "model.keras", None):
        with pytest.raises(ValueError, match=r"Expected a Keras model\. Received: "):
            convert(model)


@pytest.mark.parametrize("bad", [{"initial_bit_depth": 0}, {"rounding": "up"}])
def test_bad_formats_are_refused(bad):
    with pytest.raises(ValueError, match=f"Received: {next(iter(bad))}"):
        scc_tf.self_compress(chain(), **bad)


def test_saving_keeps_the_formats_of_nested_layers(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), stock.Dense(4), stock.BatchNormalization()], name="inner")
    inputs = keras.Input((4,))
    model = scc_tf.self_compress(keras.Model(inputs, stock.Dense(2)(inner(stock.Dense(4)(inputs)))))
    learn(model).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is scc_tf.SelfCompressingModel
    for ours, theirs in zip(arrays(model), arrays(loaded), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(loaded(image(4)), model(image(4)))


@pytest.mark.parametrize(("bits", "low", "high"), [(2, 0.2, 0.9), (4, 0.05, 0.2), (8, 0.001, 0.02)])
def test_the_report_says_what_the_first_rounding_costs(bits, low, high):
    plain = keras.Sequential([keras.Input((30,)), keras.layers.Dense(40, name="a"), keras.layers.Dense(3, name="b")])
    report = scc_tf.self_compress(plain, bits).conversion_report
    assert set(report.start_errors) == {"a/kernel", "b/kernel"}
    assert all(low < error < high for error in report.start_errors.values())
    assert f"{100 * max(report.start_errors.values()):.1f} % off the original" in str(report)
