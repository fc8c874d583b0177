"""The networks that the papers compress, in plain Keras.

Every function builds a fresh functional model that takes float32 images in channels-last order (or points,
for `moons_mlp`) and returns logits, never probabilities. Every layer has a name, the same one in each call,
so that weights can be copied by name. `ReLU` stands inside the layer where nothing comes between the two.

Each function takes a ``seed``: an integer makes the initial weights reproducible on its own, without
touching the global random state; None leaves them to Keras (``keras.utils.set_random_seed``). All kernels
start He-normal, all biases at zero.

Batch normalization uses ``epsilon=1e-5`` and ``momentum=0.9`` (Keras's defaults are 1e-3 and 0.99): after
channels with small quantization steps the variance lies below 1e-3 and the signal would die.
"""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import layers

from scc_tf.arguments import check_count, check_number, received

__all__ = ["cifar_cnn", "lenet_5", "lenet_300_100", "mnist_cnn", "moons_mlp", "resnet20"]

NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.9


def mnist_cnn(seed: int | None = None) -> keras.Model:
    """The founding network of safety-driven self-compression: four bare convolutions and a head.

    ``(N, 28, 28, 1) -> (N, 10)``. Two blocks of conv, ReLU, conv, ReLU, normalization, 2x2 max-pooling;
    convolutions are VALID and have no bias, normalization has neither scale nor offset.

    Parameters: 87,466 trainable = 81,696 in the convolutions + 5,770 in the head (5,760 + 10 biases);
    192 running statistics.

    Args:
        seed: of the initial weights, see the module.

    Source: the MNIST notebooks that first put Csefalvay and Imber 2023, "Self-Compressing Neural Networks",
    into code (github.com/geohot/ai-notebooks). Their normalization uses the batch's statistics at
    evaluation too; this one keeps running statistics.
    """
    kernels = _initializers(seed)
    inputs = keras.Input((28, 28, 1), name="image")
    x = _conv(32, 5, "conv1", kernels, activation="relu", use_bias=False)(inputs)
    x = _conv(32, 5, "conv2", kernels, activation="relu", use_bias=False)(x)
    x = _norm("norm1", center=False, scale=False)(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = _conv(64, 3, "conv3", kernels, activation="relu", use_bias=False)(x)
    x = _conv(64, 3, "conv4", kernels, activation="relu", use_bias=False)(x)
    x = _norm("norm2", center=False, scale=False)(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, _dense(10, "head", kernels)(x), name="mnist_cnn")


def lenet_300_100(seed: int | None = None, dropout: float = 0.0) -> keras.Model:
    """LeNet-300-100: two hidden Dense layers for MNIST, 266,610 parameters.

    ``(N, 28, 28, 1) -> (N, 10)``.

    Args:
        seed: of the initial weights, see the module.
        dropout: rate of the Dropout behind each hidden layer; at 0 there is none.

    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition"; with ReLU, as in
    Han et al. 2016, "Deep Compression", table 2.
    """
    kernels = _initializers(seed)
    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.Flatten(name="flatten")(inputs)
    x = _dropout(dropout, "dropout1", seed)(_dense(300, "dense1", kernels, activation="relu")(x))
    x = _dropout(dropout, "dropout2", seed)(_dense(100, "dense2", kernels, activation="relu")(x))
    return keras.Model(inputs, _dense(10, "head", kernels)(x), name="lenet_300_100")


def lenet_5(seed: int | None = None, dropout: float = 0.0) -> keras.Model:
    """LeNet-5 as Caffe builds it: 20 and 50 filters, 431,080 parameters.

    ``(N, 28, 28, 1) -> (N, 10)``. As in Caffe, the convolutions are followed by max-pooling alone; the only
    ReLU follows the hidden Dense layer.

    Args:
        seed: of the initial weights, see the module.
        dropout: rate of the Dropout behind the hidden Dense layer; at 0 there is none.

    Source: Han et al. 2016, "Deep Compression", table 3; Caffe's ``examples/mnist/lenet.prototxt``.
    """
    kernels = _initializers(seed)
    inputs = keras.Input((28, 28, 1), name="image")
    x = _conv(20, 5, "conv1", kernels)(inputs)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = _conv(50, 5, "conv2", kernels)(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = _dropout(dropout, "dropout1", seed)(_dense(500, "dense1", kernels, activation="relu")(x))
    return keras.Model(inputs, _dense(10, "head", kernels)(x), name="lenet_5")


def cifar_cnn(seed: int | None = None) -> keras.Model:
    """A LeNet for 32x32 colour images, 62,006 parameters.

    ``(N, 32, 32, 3) -> (N, 10)``: 6 and 16 filters of 5x5, each followed by ReLU and 2x2 max-pooling, then
    400-120-84-10.

    Args:
        seed: of the initial weights, see the module.

    Source: the PyTorch tutorial "Training a Classifier", which the lottery-ticket experiments prune
    (Frankle and Carbin 2019, "The Lottery Ticket Hypothesis").
    """
    kernels = _initializers(seed)
    inputs = keras.Input((32, 32, 3), name="image")
    x = _conv(6, 5, "conv1", kernels, activation="relu")(inputs)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = _conv(16, 5, "conv2", kernels, activation="relu")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = _dense(120, "dense1", kernels, activation="relu")(x)
    x = _dense(84, "dense2", kernels, activation="relu")(x)
    return keras.Model(inputs, _dense(10, "head", kernels)(x), name="cifar_cnn")


def moons_mlp(seed: int | None = None) -> keras.Model:
    """One hidden layer of 30 for the two-moons points, 152 parameters.

    ``(N, 2) -> (N, 2)``.

    Args:
        seed: of the initial weights, see the module.

    Source: the smallest lottery-ticket experiment; ``sklearn.datasets.make_moons``.
    """
    kernels = _initializers(seed)
    inputs = keras.Input((2,), name="point")
    x = _dense(30, "dense1", kernels, activation="relu")(inputs)
    return keras.Model(inputs, _dense(2, "head", kernels)(x), name="moons_mlp")


def resnet20(
    seed: int | None = None, normalization: tuple[Sequence[float], Sequence[float]] | None = None
) -> keras.Model:
    """ResNet-20 for CIFAR-10: three stages of three blocks, 16, 32 and 64 channels wide.

    ``(N, 32, 32, 3) -> (N, 10)``. Shortcuts have no weights (option A): where a stage halves the image and
    doubles the channels, the shortcut takes every second pixel and adds zero channels on both sides.
    Convolutions have no bias and are padded by one pixel on each side (SAME, except that Keras's SAME pads
    one side only where the stride is 2, which would shift the branch against its shortcut by a pixel).

    Parameters: 269,722 trainable (the scales and offsets of normalization included); 1,376 running
    statistics.

    Layers of block ``b`` in stage ``s``: ``stage{s}_block{b}_conv1``, ``…_norm1``, ``…_relu1``,
    ``…_conv2``, ``…_norm2``, ``…_add``, ``…_relu2``; the first blocks of stages 2 and 3 also have
    ``…_pad`` before conv1, and ``…_subsample`` and ``…_widen`` in the shortcut.

    Args:
        seed: of the initial weights, see the module.
        normalization: ``(scale, offset)`` per colour, three numbers each: the first layer, ``normalize``, then makes
            ``scale * image + offset`` of the image, so that the network still takes what the others take. Without it
            there is no such layer.

    Raises:
        ValueError: if there is not one scale and one offset per colour.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
    """
    kernels = _initializers(seed)
    inputs = keras.Input((32, 32, 3), name="image")
    x = inputs if normalization is None else _rescaling(normalization)(inputs)
    x = _conv(16, 3, "stem_conv", kernels, padding="same", use_bias=False)(x)
    x = _norm("stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    for stage, channels in enumerate((16, 32, 64), start=1):
        for block in (1, 2, 3):
            x = _residual_block(x, channels, f"stage{stage}_block{block}", kernels)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, _dense(10, "head", kernels)(x), name="resnet20")


def _rescaling(normalization) -> keras.layers.Rescaling:
    """The ``normalize`` layer; its numbers are plain floats, which any configuration can hold."""
    try:
        scale, offset = (np.asarray(values, float).tolist() for values in normalization)
        fits = np.shape(scale) == (3,) == np.shape(offset)
    except (TypeError, ValueError):  # no pair, or no numbers
        fits = False
    if not fits:
        raise ValueError(
            "Expected normalization to be three scales and three offsets. " + received("normalization", normalization)
        )
    return layers.Rescaling(scale, offset, name="normalize")


def _residual_block(x, channels: int, name: str, kernels: Iterator[keras.Initializer]):
    """``relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))``; halves the image where channels grow."""
    grown = channels - x.shape[-1]
    if grown:
        y = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        y = _conv(channels, 3, f"{name}_conv1", kernels, strides=2, use_bias=False)(y)
        x = layers.AveragePooling2D(1, strides=2, name=f"{name}_subsample")(x)
        # A stock layer instead of a Lambda: "channels_first" makes ZeroPadding2D pad the last two axes,
        # which in our channels-last tensors are the width (by nothing) and the channels.
        sides = (grown // 2, grown - grown // 2)
        x = layers.ZeroPadding2D(((0, 0), sides), data_format="channels_first", name=f"{name}_widen")(x)
    else:
        y = _conv(channels, 3, f"{name}_conv1", kernels, padding="same", use_bias=False)(x)
    y = _norm(f"{name}_norm1")(y)
    y = layers.ReLU(name=f"{name}_relu1")(y)
    y = _conv(channels, 3, f"{name}_conv2", kernels, padding="same", use_bias=False)(y)
    y = _norm(f"{name}_norm2")(y)
    y = layers.Add(name=f"{name}_add")([y, x])
    return layers.ReLU(name=f"{name}_relu2")(y)


def _initializers(seed: int | None) -> Iterator[keras.Initializer]:
    """One He-normal initializer per kernel; with a seed, each has its own stream derived from it.

    Layers must not share a seed: Keras would give kernels of one shape the same values.
    """
    if seed is None:
        while True:
            yield keras.initializers.HeNormal()
    rng = np.random.default_rng(check_count("seed", seed, least=0))
    while True:
        yield keras.initializers.HeNormal(seed=int(rng.integers(2**31)))


def _conv(filters: int, size: int, name: str, kernels: Iterator[keras.Initializer], **options):
    return layers.Conv2D(filters, size, kernel_initializer=next(kernels), name=name, **options)


def _dense(units: int, name: str, kernels: Iterator[keras.Initializer], **options):
    return layers.Dense(units, kernel_initializer=next(kernels), name=name, **options)


def _dropout(rate: float, name: str, seed: int | None):
    check_number("dropout", rate, 0, below=1)
    return layers.Dropout(rate, seed=seed, name=name) if rate else lambda x: x


def _norm(name: str, **options):
    return layers.BatchNormalization(epsilon=NORM_EPSILON, momentum=NORM_MOMENTUM, name=name, **options)
