"""The batteries that every layer passes, for each family and for both: each `check_` takes a `Case`."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from layer_cases import learn_formats


def has_bias(layer):
    return getattr(layer, "bias", None) is not None


# Both families


def check_it_multiplies_by_the_quantized_kernel(case):
    layer = case.trained_layer()
    stock = case.stock_layer(layer)
    np.testing.assert_array_equal(layer(case.inputs()), stock(case.inputs()))
    for name in layer.kernel_names:
        kernel, quantized = getattr(layer, name), np.asarray(layer.quantized(name))
        assert quantized.dtype == np.float32
        assert quantized.shape == kernel.shape
        if case.self_compresses:
            assert np.abs(kernel - quantized).max() > 1e-3
        else:
            np.testing.assert_array_equal(np.asarray(kernel), quantized)


def check_the_configuration_keeps_every_argument(case):
    layer = case.layer(name="mine", trainable=False, **case.settings)
    config = layer.get_config()
    again = case.twin.from_config(config)
    assert again.get_config() == config
    stock = case.stock(**case.arguments, name="mine", trainable=False).get_config()
    assert {**stock, **case.settings} == config
    assert not again.trainable


def check_a_saved_model_is_the_same_bit_for_bit(case, folder):
    model = keras.Sequential([keras.Input(case.input_shape), case.trained_layer()])
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


def check_mixed_precision_has_the_same_kernel(case, policy):
    reference, layer = case.trained_layer(), case.layer(dtype=policy, **case.settings)
    for fmt in reference.formats if case.self_compresses else ():
        # just below the next code, where a kernel in half precision has another one
        steps = ops.power(2.0, fmt.spread(fmt.exponent))
        getattr(reference, fmt.name).assign((ops.cast(reference.codes(fmt.name), "float32") + 0.999) * steps)
    if has_bias(reference) and case.self_compresses:
        reference.bias.assign(1.4999 * 2.0**reference.bias_exponent * ops.ones_like(reference.bias))
    layer.set_weights(reference.get_weights())
    for name in layer.kernel_names:
        assert getattr(layer, name).dtype == "float32"
        assert keras.backend.standardize_dtype(layer.quantized(name).dtype) == "float32"
        np.testing.assert_array_equal(layer.quantized(name), reference.quantized(name))
    assert {w.dtype for w in layer.weights} <= {"float32", "int32"}
    if has_bias(reference) and case.self_compresses:
        assert layer.has_quantized_bias
        np.testing.assert_array_equal(layer.quantized_bias(), 2.0**reference.bias_exponent)
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


# Self-compressing layers


def check_many_bits_equal_the_stock_layer(case):
    layer = case.layer(initial_bit_depth=24)
    stock = case.stock_layer(layer)
    for name in layer.kernel_names:
        getattr(stock, name).assign(getattr(layer, name))
    np.testing.assert_allclose(layer(case.inputs()), stock(case.inputs()), rtol=1e-4, atol=1e-5)


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
    assert len(variables) == len(layer.weights) == len(layer.formats) * 3 + has_bias(layer)


def check_the_bias_is_rounded_and_its_gradient_is_not(case):
    as_it_is, layer = case.layer(), case.layer(bias_exponent=-2)
    assert not as_it_is.has_quantized_bias
    assert layer.has_quantized_bias == has_bias(layer)
    if not has_bias(layer):
        assert layer.quantized_bias() is None
        return
    np.testing.assert_array_equal(as_it_is.quantized_bias(), as_it_is.bias)
    np.testing.assert_array_equal(layer.bias, as_it_is.bias)
    np.testing.assert_array_equal(layer.quantized_bias(), np.round(4 * np.asarray(layer.bias)) / 4)
    assert np.abs(np.asarray(layer.quantized_bias()) - np.asarray(layer.bias)).max() > 1e-3
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.quantized_bias() ** 2)
    gradient = tape.gradient(loss, layer.bias.value)
    np.testing.assert_allclose(gradient, 2 * np.asarray(layer.quantized_bias()), rtol=1e-6)


# Weight-sharing layers


def check_a_fresh_layer_has_evenly_spaced_centroids(case):
    layer = case.layer(clusters=5)
    for shared in layer.shared_kernels:
        weights, centroids = np.asarray(shared), np.asarray(shared.centroids)
        np.testing.assert_allclose(np.diff(centroids), np.ptp(centroids) / 4, rtol=1e-4)
        assert weights.shape == shared.indices.shape == shared.shape
        assert set(np.unique(shared.indices)) >= {1, 5}  # the ends, and no zeros
        assert np.asarray(shared.indices).min() > 0
        assert np.asarray(shared.indices).max() == 5


def check_the_gradient_of_a_centroid_is_the_sum_over_its_cluster(case):
    layer = case.trained_layer()
    stock = case.stock_layer(layer)
    with tf.GradientTape(persistent=True) as tape:
        losses = [tf.reduce_sum(one(case.inputs()) ** 2) + tf.add_n([0.0, *one.losses]) for one in (layer, stock)]
    assert len(layer.trainable_variables) == len(stock.trainable_variables)
    np.testing.assert_allclose(*losses, rtol=1e-6)
    for shared in layer.shared_kernels:
        gradient = tape.gradient(losses[0], shared.centroids.value)
        assert isinstance(gradient, tf.Tensor)  # dense
        one_by_one = tape.gradient(losses[1], getattr(stock, shared.name).value)
        members = np.asarray(shared.indices).ravel()
        sums = np.bincount(members, np.asarray(one_by_one).ravel(), minlength=4)[1:]
        np.testing.assert_allclose(gradient, sums, rtol=1e-4, atol=1e-4)


BOTH = [
    check_it_multiplies_by_the_quantized_kernel,
    check_the_configuration_keeps_every_argument,
    check_the_output_shape_is_inferred,
]
SELF_COMPRESSING = [
    check_many_bits_equal_the_stock_layer,
    check_codes_times_steps_are_the_quantized_kernel,
    check_a_channel_without_bits_is_constant_and_alone_changes,
    check_exponents_start_where_the_bits_bind,
    check_gradients_reach_kernels_bit_depths_and_exponents,
    check_the_bias_is_rounded_and_its_gradient_is_not,
]
WEIGHT_SHARING = [
    check_a_fresh_layer_has_evenly_spaced_centroids,
    check_the_gradient_of_a_centroid_is_the_sum_over_its_cluster,
]


def battery(case):
    """All checks that take nothing but the case."""
    for check in BOTH + (SELF_COMPRESSING if case.self_compresses else WEIGHT_SHARING):
        check(case)
