"""One battery that every self-compressing layer passes: each `check_` takes a `Case`."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from scc_tf import layers


@dataclasses.dataclass(frozen=True)
class Case:
    """A twin with the arguments of its stock layer, and the shape of one input."""

    twin: type
    arguments: dict
    input_shape: tuple
    channels_last: callable = lambda outputs: outputs  # the last axes number the channels after it

    @property
    def stock(self):
        return next(stock for stock, twin in layers.TWINS.items() if twin is self.twin)

    def __str__(self):
        shown = (f"{k}={v}" if isinstance(v, int | str | tuple) else k for k, v in self.arguments.items())
        return f"{self.twin.__name__}({','.join(shown)})"

    def inputs(self, dtype="float32"):
        return np.random.default_rng(3).normal(size=(2, *self.input_shape)).astype(dtype)

    def layer(self, **extra):
        """The twin, built, with a bias that is not zero and formats that differ from channel to channel."""
        rng = np.random.default_rng(5)
        layer = self.twin(**self.arguments, **extra)
        layer.build((None, *self.input_shape))
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
        return layer

    def stock_layer(self, like, **extra):
        """The stock layer with the quantized kernels of a twin."""
        layer = self.stock(**self.arguments, **extra)
        layer.build((None, *self.input_shape))
        for weight in layer.weights:
            quantized = weight.name in like.kernel_names
            weight.assign(like.quantized(weight.name) if quantized else getattr(like, weight.name))
        return layer


def learn_formats(layer):
    """Move bit depths and exponents, each channel its own way, as training would."""
    rng = np.random.default_rng(7)
    for fmt in layer.formats:
        fmt.bit_depth.assign(rng.uniform(1.2, 6, fmt.channels))
        fmt.exponent.assign_add(rng.uniform(-0.5, 2, fmt.channels))


def check_many_bits_equal_the_stock_layer(case):
    layer = case.layer(initial_bit_depth=24)
    stock = case.stock_layer(layer)
    for name in layer.kernel_names:
        getattr(stock, name).assign(getattr(layer, name))
    np.testing.assert_allclose(layer(case.inputs()), stock(case.inputs()), rtol=1e-4, atol=1e-5)


def check_it_multiplies_by_the_quantized_kernel(case):
    layer = case.layer(initial_bit_depth=3, rounding="floor")
    learn_formats(layer)
    stock = case.stock_layer(layer)
    np.testing.assert_array_equal(layer(case.inputs()), stock(case.inputs()))
    for name in layer.kernel_names:
        assert np.abs(getattr(layer, name) - np.array(layer.quantized(name))).max() > 1e-3


def check_codes_times_steps_are_the_quantized_kernel(case):
    layer = case.layer()
    learn_formats(layer)
    for fmt in layer.formats:
        codes = layer.codes(fmt.name)
        assert codes.shape == getattr(layer, fmt.name).shape
        steps = ops.power(2.0, fmt.spread(fmt.exponent))
        np.testing.assert_array_equal(ops.cast(codes, "float32") * steps, layer.quantized(fmt.name))
        assert fmt.bit_depth.shape == fmt.exponent.shape == (fmt.channels,)
        assert fmt.channels * fmt.fan_in == np.size(codes)


def check_a_channel_without_bits_is_constant_and_alone_changes(case):
    layer = case.layer()
    before = np.array(case.channels_last(layer(case.inputs())))
    fmt = layer.formats[-1]  # the formats of the kernel that makes the outputs
    dead = fmt.channels - 2
    fmt.bit_depth.assign(np.where(np.arange(fmt.channels) == dead, 0, fmt.bit_depth))
    after = np.array(case.channels_last(layer(case.inputs())))
    before, after = before.reshape(-1, fmt.channels), after.reshape(-1, fmt.channels)
    others = np.arange(fmt.channels) != dead
    np.testing.assert_array_equal(after[:, others], before[:, others])
    assert np.ptp(after[:, dead]) == 0
    assert np.ptp(before[:, dead]) > 0


def check_exponents_start_where_the_bits_bind(case):
    layer = case.layer(initial_bit_depth=3)
    for fmt in layer.formats:
        codes = np.abs(ops.convert_to_numpy(layer.codes(fmt.name))).max(axis=fmt.other_axes).ravel()
        assert ((codes >= 3) & (codes <= 4)).all()
        assert (ops.convert_to_numpy(fmt.bit_depth) == 3).all()


def check_gradients_reach_kernels_bit_depths_and_exponents(case):
    layer = case.layer(initial_bit_depth=2)
    for fmt in layer.formats:
        fmt.bit_depth.assign(np.linspace(1, 2, fmt.channels))  # clips
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(case.inputs()) ** 2)
    variables = layer.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(gradient), variable.path
    assert len(variables) == len(layer.weights) == len(layer.formats) * 3 + (getattr(layer, "bias", None) is not None)


def check_the_configuration_keeps_every_argument(case):
    layer = case.layer(initial_bit_depth=5, rounding="floor", name="mine", trainable=False)
    config = layer.get_config()
    again = case.twin.from_config(config)
    assert again.get_config() == config
    stock = case.stock(**case.arguments, name="mine", trainable=False).get_config()
    assert {**stock, "initial_bit_depth": 5.0, "rounding": "floor"} == config
    assert not again.trainable


def check_a_saved_model_is_the_same_bit_for_bit(case, folder):
    model = keras.Sequential([keras.Input(case.input_shape), case.layer(initial_bit_depth=4, rounding="floor")])
    learn_formats(model.layers[-1])
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    assert type(loaded.layers[-1]) is case.twin
    assert [w.name for w in loaded.weights] == [w.name for w in model.weights]
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(model(case.inputs()), loaded(case.inputs()))


def check_the_output_shape_is_inferred(case):
    layer = case.layer()
    inferred = layer(keras.KerasTensor((2, *case.input_shape))).shape
    assert inferred == case.stock_layer(layer)(keras.KerasTensor((2, *case.input_shape))).shape
    actual = layer(case.inputs()).shape
    assert len(inferred) == len(actual)
    assert all(i in (None, a) for i, a in zip(inferred, actual, strict=True))


def check_mixed_precision_has_the_same_codes(case, policy):
    reference, layer = case.layer(), case.layer(dtype=policy)
    for twin in (reference, layer):
        learn_formats(twin)
        for fmt in twin.formats:  # just below a tie, where a kernel in half precision rounds to other codes
            codes = ops.cast(reference.codes(fmt.name), "float32")
            getattr(twin, fmt.name).assign((codes + 0.499) * ops.power(2.0, fmt.spread(fmt.exponent)))
    for fmt in layer.formats:
        assert fmt.bit_depth.dtype == fmt.exponent.dtype == getattr(layer, fmt.name).dtype == "float32"
        assert keras.backend.standardize_dtype(layer.quantized(fmt.name).dtype) == "float32"
        np.testing.assert_array_equal(layer.codes(fmt.name), reference.codes(fmt.name))
    stock = case.stock_layer(layer, dtype=policy)
    outputs = layer(case.inputs())
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype != "float32"
    np.testing.assert_array_equal(ops.cast(outputs, "float32"), ops.cast(stock(case.inputs()), "float32"))


def check_other_ways_to_compress_are_refused(case, message):
    layer = case.layer()
    for refused in (lambda: layer.quantize("int8"), lambda: layer.enable_lora(2)):
        try:
            refused()
        except ValueError as error:
            assert message in str(error)
        else:
            raise AssertionError(f"{case.twin.__name__} took it")
