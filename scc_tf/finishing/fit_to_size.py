"""The last per cent of a file's size: a wider dead zone, in which weights are rounded to 0."""

import typing

import numpy as np
from keras import ops

from scc_tf.arguments import check_count, check_number, received
from scc_tf.inference import check_model
from scc_tf.layers import is_frozen, self_compressing_layers
from scc_tf.quantization import code_range

__all__ = ["SizeFit", "fit_to_bytes", "widen_dead_zone"]

_MARGIN = 0.02  # of the target, by which a file that was made smaller may be smaller yet


class SizeFit(typing.NamedTuple):
    """What `fit_to_bytes` found.

    Attributes:
        stored_bytes: what the file has.
        start_bytes: what it had before.
        widening: of the dead zone, in steps; 0 leaves every code as it was.
        refused: whether a dead zone that comes closer to the target was not accepted.
    """

    stored_bytes: int
    start_bytes: int
    widening: float
    refused: bool


def widen_dead_zone(model, widening):
    """Round to 0 what is within ``0.5 + widening`` steps of it, and set the latent kernels to the quantized ones.

    A code is 0 where ``|u| <= 0.5 + widening``, with ``u = 2^-e * kernel``; else it is what rounding makes of ``u``,
    or 1 step away from 0 where that would make 0. Bit depths and exponents stay, and dead channels stay dead. With a
    ``widening`` of 0 the model computes what it did.

    Args:
        model: Keras model; the kernels of its self-compressing layers, nested ones included, are assigned;
            those of frozen layers stay.
        widening: steps, above -0.5; below 0 more weights get a code.

    Raises:
        ValueError: if ``widening`` is out of range, or a layer does not round to the nearest code.

    Source: Sullivan 1996, "Efficient Scalar Quantization of Exponential and Laplacian Random Variables" (IEEE
        Trans. Information Theory 42(5)), for the dead zone.

    Example:
        >>> import keras, scc_tf
        >>> layer = scc_tf.layers.Dense(4, initial_bit_depth=4)
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> _ = layer.exponent.assign([0.0] * 4), layer.kernel.assign([[0.4, -0.6, 0.9, 2.6]])
        >>> widen_dead_zone(model, 0.25)
        >>> np.asarray(layer.codes()).tolist()
        [[0, 0, 1, 3]]
    """
    check_model(model)
    check_number("widening", widening, above=-0.5)
    layers = [layer for layer in self_compressing_layers(model) if not is_frozen(layer)]
    for layer in layers:
        if layer.rounding != "nearest":
            raise ValueError(
                f"Expected layers that round to the nearest code. Received: layer {layer.name!r} with "
                f"rounding={layer.rounding!r}"
            )
    for layer in layers:
        for fmt in layer.formats if layer.trainable else ():
            getattr(layer, fmt.name).assign(_on_the_grid(layer, fmt, widening))


def _on_the_grid(layer, fmt, widening):
    """The quantized kernel, with another dead zone."""
    bits, exponent = fmt.spread(fmt.bit_depth), fmt.spread(fmt.exponent)
    low, high = code_range(bits)
    steps = ops.cast(getattr(layer, fmt.name), "float32") * ops.power(2.0, -exponent)
    steps = ops.maximum(ops.minimum(steps, high), low)
    size = ops.abs(steps)
    codes = ops.where(size > 0.5 + widening, ops.sign(steps) * ops.maximum(ops.round(size), 1.0), 0.0)
    codes = ops.maximum(ops.minimum(codes, ops.round(high)), ops.round(low))  # of the codes that the bits allow
    return codes * ops.power(2.0, exponent)


def fit_to_bytes(model, target_bytes, measure, accept=None, *, prepare=lambda model: model, reach=0.4, tries=12):
    """Make the file of a trained model small enough, by the one widening of all dead zones that is found by bisection.

    Nothing is changed where the file has at most ``target_bytes``: a narrower dead zone would fill it up with codes
    that are further from the weights. Otherwise the largest file that is not above the target is taken; where there is
    none within reach, the smallest. A dead zone that ``accept`` refuses is taken for one too far from the codes as they
    are. Re-estimate batch statistics afterwards.

    Args:
        model: Keras model with self-compressing layers that round to the nearest code; its kernels are assigned.
        target_bytes: length of the file, at least 1.
        measure: function ``model -> bytes``; it must not change the model.
        accept: function ``model -> bool``, whether a changed model may be taken; it must not change it. Default: any.
        prepare: function ``model -> model`` that makes what is measured and accepted; it must not change its argument.
        reach: by how much a dead zone may be wider, steps, in (0, 0.5).
        tries: files that are made at most after the first, at least 1.

    Returns:
        `SizeFit`.

    Raises:
        ValueError: if an argument is out of range, or as `widen_dead_zone`.

    Example:
        >>> import keras, scc_tf
        >>> layer = scc_tf.layers.Dense(1, initial_bit_depth=4)
        >>> model = keras.Sequential([keras.Input((100,)), layer])
        >>> _ = layer.exponent.assign([0.0]), layer.kernel.assign(np.linspace(-1, 1, 100)[:, None])
        >>> fit_to_bytes(model, 40, lambda model: np.count_nonzero(layer.codes())).stored_bytes
        40
    """
    check_count("target_bytes", target_bytes)
    check_count("tries", tries)
    if not callable(measure):
        raise ValueError(f"Expected measure to be a function of a model. {received('measure', measure)}")
    check_number("reach", reach, above=0, below=0.5)
    variables = [getattr(layer, fmt.name) for layer in self_compressing_layers(model) for fmt in layer.formats]
    latent = [np.array(ops.convert_to_numpy(variable)) for variable in variables]

    def widen(widening):
        for variable, kernel in zip(variables, latent, strict=True):
            variable.assign(kernel)
        if widening:
            widen_dead_zone(model, widening)

    def tried(widening):
        """Bytes, and whether they may be taken."""
        widen(widening)
        prepared = prepare(model)
        return int(measure(prepared)), widening == 0 or accept is None or accept(prepared)

    sizes, refused = _bisect(tried, target_bytes, reach, tries)
    best = _best(sizes, target_bytes)
    widen(best)
    return SizeFit(sizes[best], sizes[0.0], best, refused and sizes[best] > target_bytes)


def _bisect(tried, target_bytes, reach, tries):
    """``({widening: bytes} of what may be taken, whether anything may not)``."""
    sizes, refused = {0.0: tried(0.0)[0]}, False
    narrow, wide, guess = 0.0, reach, reach  # the end of the range first: it may be too near
    for _ in range(tries):
        best = sizes[_best(sizes, target_bytes)]
        if sizes[0.0] <= target_bytes or (1 - _MARGIN) * target_bytes <= best <= target_bytes:
            break
        size, accepted = tried(guess)
        go_wider = accepted and size > target_bytes
        if accepted:
            sizes[guess] = size
        refused |= not accepted
        if go_wider and guess == reach:
            break  # even the widest file is too large
        narrow, wide = (guess, wide) if go_wider else (narrow, guess)
        guess = (narrow + wide) / 2
    return sizes, refused


def _best(sizes, target_bytes):
    """The widening of the largest file that is not above the target, or of the smallest."""
    return max(sizes, key=lambda widening: (sizes[widening] <= target_bytes, -abs(sizes[widening] - target_bytes)))
