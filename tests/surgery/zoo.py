"""Networks of every shape that surgery has to cope with; the channels of each are varied by the tests."""

import keras
import numpy as np
from keras import layers

import scc_tf


def chain():
    return keras.Sequential(
        [
            keras.Input((12, 12, 2)),
            layers.Conv2D(6, 3, name="a", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Conv2D(5, 3, name="b"),
            layers.LeakyReLU(),
            layers.Flatten(),
            layers.Dense(7, name="c", activation="tanh"),
            layers.Dropout(0.5),
            layers.Dense(3, name="d"),
        ]
    )


def same_padding():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="a", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(5, 3, padding="same", strides=2, name="b", use_bias=False)(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(2, name="c")(x))


def residual():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 1, name="stem")(inputs)
    y = layers.Conv2D(6, 3, padding="same", name="a")(x)
    y = layers.Conv2D(6, 1, name="b")(y)
    x = layers.Add()([x, y])
    y = layers.Conv2D(6, 1, name="c", activation="relu")(x)
    x = layers.Subtract()([x, y])
    x = layers.Maximum()([x, layers.Conv2D(6, 1, name="d")(x)])
    x = layers.Average()([x, x])
    x = layers.Minimum()([x, layers.Conv2D(6, 1, name="e")(x)])
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def depthwise():
    inputs = keras.Input((10, 10, 3))
    x = layers.Conv2D(4, 1, name="a", activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="dw", activation="relu6")(x)
    x = layers.Conv2D(5, 1, name="b")(x)
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, name="sep", activation="swish")(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="dw2")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.Model(inputs, layers.Flatten()(layers.Conv2D(2, 1, name="head")(x)))


def grouped():
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(6, 1, name="a")(inputs)
    x = layers.Conv2D(9, 3, groups=3, name="g")(x)
    x = layers.Conv2D(9, 1, groups=9, name="each")(x)
    x = layers.Conv2D(4, 1, name="b")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def concatenated():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="a", activation="relu")(inputs)
    y = layers.Conv2D(5, 3, padding="same", name="b", activation="relu")(x)
    x = layers.Concatenate()([x, y, inputs])
    z = layers.Conv2D(3, 1, name="c")(x)
    x = layers.Concatenate()([x, z])
    x = layers.Conv2D(6, 3, name="d")(x)
    x = layers.Concatenate(axis=1)([x, layers.Conv2D(6, 1, name="e")(x)])
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def unet():
    inputs = keras.Input((8, 8, 2))
    a = layers.Conv2D(4, 3, padding="same", name="a", activation="relu")(inputs)
    x = layers.MaxPooling2D()(a)
    b = layers.Conv2D(6, 3, padding="same", name="b", activation="relu")(x)
    x = layers.MaxPooling2D()(b)
    x = layers.Conv2D(8, 3, padding="same", name="c", activation="relu")(x)
    x = layers.Conv2DTranspose(6, 2, strides=2, padding="same", name="up1")(x)
    x = layers.Conv2D(5, 3, padding="same", name="d", activation="relu")(layers.Concatenate()([x, b]))
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="up2")(x)
    x = layers.Concatenate()([x, a])
    x = layers.UpSampling2D()(layers.Cropping2D(1)(x))
    return keras.Model(inputs, layers.Conv2D(1, 1, name="out", activation="sigmoid")(x))


def squeeze_and_excite():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="a", activation="swish")(inputs)
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Reshape((1, 1, 6))(s)
    s = layers.Conv2D(3, 1, name="squeeze", activation="relu")(s)
    s = layers.Conv2D(6, 1, name="excite", activation="sigmoid")(s)
    x = layers.Multiply()([x, s])
    x = layers.Conv2D(4, 1, name="b")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))


def generator():
    inputs = keras.Input((5,))
    x = layers.Dense(4 * 4 * 6, name="a", activation="relu")(inputs)
    x = layers.Reshape((4, 4, 6))(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, name="b")(x)
    x = layers.Reshape((81, 4))(x)
    x = layers.Conv1D(5, 3, name="c")(x)
    x = layers.ZeroPadding1D(1)(x)
    x = layers.Conv1D(3, 3, padding="causal", name="d")(x)
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 6), bias_axes="d", name="e")(x)
    x = layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 2), name="f")(x)
    return keras.Model(inputs, x)


def shared():
    first, second = keras.Input((6, 6, 2)), keras.Input((6, 6, 2))
    stem = layers.Conv2D(4, 3, name="stem", activation="relu")
    inner_input = keras.Input((4, 4, 4))
    y = layers.Conv2D(5, 3, padding="same", name="inner_a", activation="relu")(inner_input)
    y = layers.BatchNormalization(name="inner_norm")(y)
    y = layers.Conv2D(4, 1, name="inner_b")(y)
    inner = keras.Model(inner_input, layers.Add()([inner_input, y]), name="inner")
    x, z = inner(stem(first)), inner(stem(second))
    x = inner(x)
    head = layers.Dense(3, name="head")
    x, z = head(layers.Flatten()(x)), head(layers.Flatten()(z))
    return keras.Model([first, second], {"both": layers.Dense(2, name="last")(layers.Concatenate()([x, z]))})


def unknown():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="a", activation="relu")(inputs)
    x = layers.LayerNormalization()(x)
    x = layers.Conv2D(5, 3, name="b", activation="softmax")(x)
    x = layers.Conv2D(4, 1, name="c")(x)
    x = x * 2 + 1
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 1, name="d")(x))
    x = layers.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x)))


NETWORKS = {
    f.__name__: f
    for f in (
        chain, same_padding, residual, depthwise, grouped, concatenated, unet, squeeze_and_excite, generator, shared,
        unknown,
    )
}  # fmt: skip


def vary(model, seed=0):
    """Give every weight a value that is not its default, so that each of them matters."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0, 0.4, weight.shape)
        weight.assign(np.abs(values) + 0.3 if weight.name == "moving_variance" else values)
    return model


def without_offsets(model):
    """Zero what a channel without weights would still emit, in place: much more can be removed then."""
    for weight in model.weights:
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(np.zeros(weight.shape))
    return model


def random_masks(model, seed=0, share=0.5):
    """A random mask for each kernel but the last, which makes the outputs."""
    rng = np.random.default_rng(seed)
    return {label: rng.random(kernel.channels) < share for label, kernel in list(kernels(model).items())[:-1]}


def kernels(model):
    """``{kernel label: KernelLayout}``."""
    return {layout.label: layout for layout in scc_tf.surgery.removal.Flow(model).layouts.values()}


def without(model, kept):
    """Zero the kernels of the channels that are not kept, in place: what removal must not differ from."""
    layouts = kernels(model)
    for label, mask in kept.items():
        layout = layouts[label]
        variable = getattr(layout.layer, layout.name)
        variable.assign(np.where(layout.spread(mask), np.asarray(variable), 0))
    return model


def examples(model, count=3, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(count, *(n or 6 for n in t.shape[1:]))).astype(t.dtype) for t in model.inputs]


def outputs(model, inputs):
    values = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return np.concatenate([np.ravel(v) for v in keras.tree.flatten(values)])


def assert_same_outputs(model, other, tolerance=1e-5):
    """Same outputs for the same inputs, relative to the largest."""
    inputs = examples(model)
    expected, actual = outputs(model, inputs).astype("float64"), outputs(other, inputs)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def remove(model, kept, tolerance=1e-5):
    """Remove channels and check the contract: ``(smaller, report)``. Afterwards the model is the zeroed one."""
    before = [np.asarray(keras.ops.convert_to_numpy(w)) for w in model.weights]
    config = model.get_config()
    smaller, report = scc_tf.remove_channels(model, kept)
    assert model.get_config() == config
    for weight, values in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), values)
    assert_same_outputs(without(model, kept), smaller, tolerance)
    counts = [{label: kernel.channels for label, kernel in kernels(m).items()} for m in (model, smaller)]
    assert report.channels == {label: (count, counts[1][label]) for label, count in counts[0].items()}
    assert min(counts[1].values(), default=1) >= 1
    assert report.parameters == (model.count_params(), smaller.count_params())
    return smaller, report


def remove_dead(model, tolerance=1e-5):
    """Remove dead channels and check that the outputs stay: ``(smaller, report)``."""
    smaller, report = scc_tf.remove_dead_channels(model)
    assert_same_outputs(model, smaller, tolerance)
    return smaller, report


def left(report):
    """``{kernel label: channels that are left}``."""
    return {label: after for label, (_, after) in report.channels.items()}


def mask(text):
    """``"1101"`` as a mask."""
    return np.array([letter == "1" for letter in text])
