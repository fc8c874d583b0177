"""What a conversion would lose, or cannot compute with, is refused in one line that names it."""

import keras
import numpy as np
import pytest
from keras import layers

import scc_tf

CONVERSIONS = {
    "add_masks": scc_tf.add_masks,
    "share_weights": lambda model: scc_tf.share_weights(model, clusters=3),
    "self_compress": scc_tf.self_compress,
}
each_conversion = pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
METHODS = [
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "call",
    "fit",
    "evaluate",
    "compile",
    "metrics",
]


def _refused(call, *patterns):
    with pytest.raises(ValueError, match=r"Expected .* Received: ") as error:
        call()
    assert "\n" not in str(error.value)
    for pattern in patterns:
        assert pattern in str(error.value)


def _two_layers(cls=keras.Model, **settings):
    inputs = keras.Input((4,))
    return cls(inputs, layers.Dense(3, name="last")(layers.Dense(4, name="first")(inputs)), **settings)


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_a_class_of_ones_own(method):
    own = type("Own", (keras.Model,), {method: lambda self, *args, **kwargs: None if method != "call" else args[0]})
    if method in ("compile", "metrics"):  # Keras needs them to make a model
        own = type("Own", (keras.Model,), {method: getattr(keras.Model, method)})
    model = _two_layers(own)
    for convert in CONVERSIONS.values():
        _refused(lambda convert=convert: convert(model), "Own", "call" if method == "call" else method)


def test_a_method_that_one_model_has():
    model = _two_layers()
    model.train_step = lambda data: {}
    _refused(lambda: scc_tf.self_compress(model), "train_step")


def test_a_class_that_only_connects_layers_is_converted():
    class Connected(keras.Model):
        def __init__(self):
            inputs = keras.Input((4,))
            super().__init__(inputs, layers.Dense(3)(inputs))

        def get_config(self):
            return {}

        def sample(self):
            return None

    assert scc_tf.self_compress(Connected()).conversion_report.converted


def test_a_subclass_of_a_layer_is_no_layer_of_its_base():
    class Twice(layers.Dense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs, training)

    model = keras.Sequential([keras.Input((4,)), Twice(4, name="twice"), layers.Dense(3)])
    for convert in CONVERSIONS.values():
        assert convert(model).conversion_report.skipped["twice"].endswith("Twice")
    np.testing.assert_array_equal(scc_tf.add_masks(model)(np.ones((1, 4))), model(np.ones((1, 4))))


@each_conversion
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["kernel", "bias", "moving_variance"])
def test_weights_that_are_no_numbers(convert, value, place):
    norm = layers.BatchNormalization(name="norm")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="first"), norm, layers.Dense(2)])
    layer = norm if place == "moving_variance" else model.get_layer("first")
    variable = getattr(layer, place)
    variable.assign(np.full(variable.shape, value))
    _refused(lambda: convert(model), layer.name, place)


def test_a_table_may_hold_infinities():
    class Mask(layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(name="table", shape=input_shape[-1:], trainable=False)
            self.table.assign([0, 0, 0, -np.inf])

        def call(self, inputs):
            return keras.ops.softmax(inputs + self.table)

    assert scc_tf.self_compress(keras.Sequential([keras.Input((4,)), Mask(), layers.Dense(2)]))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int4", "float8", "lora"])
def test_kernels_that_are_no_float_variables(mode):
    model = _two_layers()
    first = model.get_layer("first")
    if mode == "lora":
        first.enable_lora(2)
        first.lora_kernel_b.assign(np.ones((2, 4)))
    else:
        first.quantize(mode)
    _refused(lambda: scc_tf.add_masks(model), "first", "LoRA" if mode == "lora" else f"quantized ({mode})")
    inputs = np.ones((1, 4))
    np.testing.assert_array_equal(scc_tf.add_masks(model, exclude="first")(inputs), model(inputs))
    for convert in (lambda model: scc_tf.self_compress(model, 24), lambda model: scc_tf.share_weights(model, 100)):
        small = convert(model)
        assert "first" in small.conversion_report.skipped
        np.testing.assert_allclose(small(inputs), model(inputs), rtol=1e-4, atol=1e-4)


class Unregistered(layers.Layer):
    """A layer that Keras does not know by name."""

    def call(self, inputs):
        return inputs


def _shared_levels():
    leaf = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="leaf")
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, leaf(inputs), name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, leaf(inner(inputs)))


NOT_STORABLE = {
    "layer": lambda: keras.Sequential([keras.Input((4,)), Unregistered(name="unknown"), layers.Dense(2)]),
    "code": lambda: keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x, name="unknown"), layers.Dense(2)]),
    "shared": _shared_levels,
    "operation": lambda: _clipped(),
}


def _clipped():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(keras.ops.clip(inputs, np.zeros(4, "float32"), np.ones(4, "float32"))))


@pytest.mark.parametrize("make", NOT_STORABLE.values(), ids=NOT_STORABLE)
def test_what_no_file_can_hold_is_told_before_training(make, caplog, tmp_path):
    model = make()
    inputs = np.full((1, 4), 0.3)
    for convert in CONVERSIONS.values():
        caplog.clear()
        (name,) = convert(model).conversion_report.not_storable
        assert f"no packed file can hold {name}: " in caplog.text
        assert f"no packed file can hold {name}: " in str(convert(model).conversion_report)
    np.testing.assert_array_equal(scc_tf.add_masks(model)(inputs), model(inputs))
    _refused(lambda: scc_tf.save_packed(scc_tf.add_masks(model), tmp_path / "model.scc"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("initial_bit_depth", value) for value in ("4", np.nan, [4])),
        *(("exclude", value) for value in (5, [None])),
        *(("rounding", None), ("exponent_per", 1), ("bias_exponent", 1.5)),
    ],
)
def test_arguments_are_refused_by_name(name, value):
    _refused(lambda: scc_tf.self_compress(_two_layers(), **{name: value}), name)


@pytest.mark.parametrize("clusters", [0, 1.5, True, "4", None, {"first": 0}])
def test_clusters_are_refused_by_name(clusters):
    _refused(lambda: scc_tf.share_weights(_two_layers(), clusters), "clusters")


def test_an_activation_without_a_registered_name_is_refused():
    def mine(x):
        return x

    for function, name in ((lambda x: x, "<lambda>"), (mine, "mine")):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation=function, name="odd"), layers.Dense(2)])
        for convert in (*CONVERSIONS.values(), lambda model: scc_tf.cluster_filters(model, 2)):
            _refused(lambda convert=convert, model=model: convert(model), "'odd'", f"activation={name}")


@keras.saving.register_keras_serializable(package="tests")
def registered(x):
    return 2 * x


@pytest.mark.parametrize("activation", [registered, keras.ops.relu, layers.LeakyReLU(0.2)], ids=["own", "ops", "layer"])
def test_an_activation_that_keras_can_name_is_kept(activation):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation=activation), layers.Dense(2)])
    inputs = np.linspace(-1, 1, 8).reshape(2, 4)
    for convert in (scc_tf.add_masks, lambda model: scc_tf.self_compress(model, 24)):
        np.testing.assert_allclose(convert(model)(inputs), model(inputs), atol=1e-5)


def test_what_cannot_become_a_tflite_file_is_told_before_training(caplog, tmp_path):
    recurrent = [keras.Input((3, 4), batch_size=2), layers.LSTM(2, stateful=True, name="memory"), layers.Dense(2)]
    models = {"sequence": [keras.Input((None, 4), name="sequence"), layers.Dense(2)], "memory": recurrent}
    for convert in CONVERSIONS.values():
        for name, stack in models.items():
            converted = convert(keras.Sequential(stack))
            assert converted.conversion_report.not_exportable.keys() == {name}
            assert f"no .tflite can be made of {name}: " in str(converted.conversion_report)
            with pytest.raises(ValueError, match=name):
                scc_tf.export_tflite(converted, tmp_path / "model.tflite", storage="float32", compute="float")
        assert convert(_two_layers()).conversion_report.not_exportable == {}
    assert "no .tflite can be made of sequence: its size is open" in caplog.text
