"""The learned number format: a bit depth and an exponent per channel, and the quantizer they define.

A channel with bit depth ``b`` and exponent ``e`` holds the integers (codes) from ``-2^(b-1)`` to
``2^(b-1) - 1`` times the step ``2^e``::

    q(x, b, e) = 2^e * round(min(max(2^-e * x, -2^(b-1)), 2^(b-1) - 1))

Both ``b >= 0`` and ``e`` are real numbers that are learned with the weights. The rounding passes the gradient
straight through; the clipping and the scaling have their true gradients, which is how ``b`` and ``e`` learn.

Source: Cséfalvay & Imber 2023, "Self-Compressing Neural Networks", eq. 1 (arXiv 2301.13142).
"""

from keras import ops

__all__ = ["ROUNDINGS", "code_range", "integer_codes", "quantize", "range_exponent", "round_ste"]

ROUNDINGS = ("nearest", "floor")
_TINY = 2.0**-30  # the range of a channel that is all zeros, so that its logarithm exists


def round_ste(x, rounding="nearest"):
    """Round to integers; the gradient is 1, not the derivative (straight-through estimator).

    ``rounding`` is ``"nearest"`` (ties to even) or ``"floor"``; anything else raises a ValueError.

    Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons" (arXiv 1308.3432).
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"Expected rounding to be one of {ROUNDINGS}. Received: rounding={rounding!r}")
    rounded = ops.round(x) if rounding == "nearest" else ops.floor(x)
    return x + ops.stop_gradient(rounded - x)


def code_range(bit_depth):
    """The clipping bounds ``(-2^(b-1), 2^(b-1) - 1)`` of a bit depth.

    They are integers for integer ``b >= 1`` only; at ``b = 0`` both are -0.5, which rounds to the single code 0.
    """
    half = ops.power(2.0, bit_depth - 1.0)
    return -half, half - 1.0


def _codes(x, bit_depth, exponent, rounding):
    low, high = code_range(bit_depth)
    scaled = x * ops.power(2.0, -exponent)
    # minimum/maximum rather than clip: the bounds must receive their gradient.
    return round_ste(ops.maximum(ops.minimum(scaled, high), low), rounding)


def quantize(x, bit_depth, exponent, rounding="nearest"):
    """Quantize ``x`` on the learned grid: ``2^e * round(clip(2^-e x, -2^(b-1), 2^(b-1) - 1))``.

    With ``u = 2^-e x``, the gradients are

    ==============  =======  ====================  ================
    where           dq/dx    dq/db                 dq/de
    ==============  =======  ====================  ================
    inside          1        0                     ln2 * (q - x)
    above the top   0        +ln2 * 2^(e + b - 1)  ln2 * q
    below           0        -ln2 * 2^(e + b - 1)  ln2 * q
    ==============  =======  ====================  ================

    the first column being the straight-through estimate. A bit depth of 0 gives exactly 0 with either rounding;
    with ``"floor"``, whose only code there would be -1, the channel is masked instead and has no gradient.

    Args:
        x: float tensor.
        bit_depth: float tensor that broadcasts against ``x``, bits, not negative.
        exponent: float tensor that broadcasts against ``x``; the step is ``2**exponent``.
        rounding: ``"nearest"`` (ties to even; the paper) or ``"floor"`` (the founding document's formula).

    Returns:
        A tensor of the broadcast shape, on the grid.

    Source: arXiv 2301.13142, eq. 1; the gradients follow from it.

    Example:
        >>> import numpy as np
        >>> np.asarray(quantize(np.float32([0.3, -0.8, 9.0]), 3.0, -1.0))
        array([ 0.5, -1. ,  1.5], dtype=float32)
    """
    quantized = _codes(x, bit_depth, exponent, rounding) * ops.power(2.0, exponent)
    if rounding == "floor":
        quantized = ops.where(bit_depth > 0.0, quantized, ops.zeros_like(quantized))
    return quantized


def integer_codes(x, bit_depth, exponent, rounding="nearest"):
    """The integers behind `quantize`: ``codes * 2**exponent == quantize(x, bit_depth, exponent)`` exactly.

    The arguments are those of `quantize`; the codes are int32.

    Example:
        >>> import numpy as np
        >>> np.asarray(integer_codes(np.float32([0.3, -0.8, 9.0]), 3.0, -1.0)).tolist()
        [1, -2, 3]
    """
    codes = ops.cast(_codes(x, bit_depth, exponent, rounding), "int32")
    if rounding == "floor":
        codes = ops.where(bit_depth > 0.0, codes, ops.zeros_like(codes))
    return codes


def range_exponent(x, bit_depth, axes):
    """The exponent at which ``bit_depth`` bits just span the range of ``x``: ``log2(max|x|) - (b - 1)``.

    With it the bit depth binds from the first step: one bit less would clip. A constant exponent such as -8
    leaves any bit depth above 8 without effect, and starves a network that starts from 2 bits.

    The range of ``x`` is taken over ``axes``, which stay with size 1.

    Example:
        >>> import numpy as np
        >>> np.asarray(range_exponent(np.float32([[0.25], [-1.0]]), 3.0, (0,))).tolist()
        [[-2.0]]
    """
    largest = ops.max(ops.abs(x), axis=axes, keepdims=True)
    return ops.log2(ops.maximum(largest, _TINY)) - (bit_depth - 1.0)
