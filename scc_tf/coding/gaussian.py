"""Frequencies of a Gaussian that is rounded to integers and clipped, in integer arithmetic throughout.

A channel's weights are about Gaussian before the quantizer rounds and clips them, so a code ``s`` has the
probability ``Phi((s + 1/2 - m) / sigma) - Phi((s - 1/2 - m) / sigma)``, and the two outermost codes have the tails.
One ``sigma`` thus describes channels that are rounded (sigma below the bounds) and channels that are clipped to
almost nothing but their two bounds (sigma far above).

``sigma`` is ``2^(q/4 - 3)`` for the scale ``q`` from 0 to 55.
"""

import functools
import math

import numpy as np

__all__ = ["SCALES", "TOTAL", "Normal", "inverse_scales"]

SCALES = 56
TOTAL = 1 << 30
_UNIT = 10  # positions on the axis of the Gaussian are in units of sigma / 2**10
_REACH = 8 << _UNIT  # the table ends at 8 sigma
_FLOOR = 1 << 14  # every code keeps this much: nothing is impossible, and outliers cost 16 bits
_FRACTION = 20
_PRECISION = 96


def _exp_minus(shift):
    """``exp(-2**-shift)`` as an integer over ``2**_PRECISION``, by its series."""
    term = result = 1 << _PRECISION
    order = 0
    while term:
        order += 1
        term = (term >> shift) // order
        result += -term if order % 2 else term
    return result


@functools.cache
def _cumulative():
    """The normal distribution at -8, -8 + 2^-10, …, 8 times `TOTAL`, int64 ``(2 * _REACH + 1,)``.

    With ``h = 2^-10`` the density obeys ``g(k+1) = g(k) r(k)``, ``r(k+1) = r(k) exp(-h^2)``: Python's integers
    give the same table everywhere, which a library's erf does not.
    """
    density, ratio, change = 1 << _PRECISION, _exp_minus(2 * _UNIT + 1), _exp_minus(2 * _UNIT)
    area, areas = 0, [0]
    for _ in range(_REACH):
        following = density * ratio >> _PRECISION
        area += density + following
        areas.append(area)
        density, ratio = following, ratio * change >> _PRECISION
    upper = [TOTAL // 2 + TOTAL // 2 * a // area for a in areas]
    return np.array([TOTAL - u for u in upper[:0:-1]] + upper, np.int64)


@functools.cache
def inverse_scales():
    """``2^20 / sigma`` for every scale ``q``, int64 ``(SCALES,)``; integer fourth roots."""
    return np.array([math.isqrt(math.isqrt(1 << (4 * _FRACTION + 12 - q))) for q in range(SCALES)], np.int64)


@functools.cache
def _inverse_rms(scale, low, high):
    """``2^16 / rms`` of the codes of a channel, an integer."""
    codes = np.arange(low, high + 1)
    normal = Normal([scale], [low], [high])
    frequencies = normal.frequencies(len(codes))[0]
    square = int(codes.astype(object) ** 2 @ frequencies.astype(object))  # beyond 64 bits for wide codes
    return (1 << 32) // max(math.isqrt((square << 32) // int(frequencies.sum())), 1)


class Normal:
    """The clipped Gaussians of a number of channels.

    Args:
        scale: int array ``(C,)``, the ``q`` of each channel.
        low: int array ``(C,)``, smallest code.
        high: int array ``(C,)``, largest code, at most 4,096 above ``low``.
    """

    def __init__(self, scale, low, high):
        self.scale, self.low, self.high = (np.asarray(v, np.int64) for v in (scale, low, high))
        self.inverse = inverse_scales()[self.scale]

    @classmethod
    def reach(cls, scale):
        """The largest code that channels with bounds of their own need not name: about ``4.5 * sigma + 1``."""
        return (9 << _FRACTION) // (2 * inverse_scales()[np.asarray(scale, np.int64)]) + 1

    def inverse_rms(self):
        """``2^16 / rms`` of each channel's codes, int64 ``(C,)``."""
        keys = zip(self.scale.tolist(), self.low.tolist(), self.high.tolist(), strict=True)
        return np.array([_inverse_rms(*key) for key in keys], np.int64)

    def _upto(self, codes, means):
        """Cumulative frequency of the codes up to and including ``codes`` (…, C)."""
        places = ((2 * codes + 1) * self.inverse >> (_FRACTION + 1 - _UNIT)) - means
        inside = _cumulative()[np.clip(places, -_REACH, _REACH) + _REACH]
        return np.where(codes >= self.high, TOTAL, np.where(codes < self.low, 0, inside))

    def frequencies(self, size, means=0):
        """Tables for the codes ``low, low + 1, …, low + size - 1``.

        Args:
            size: entries per table; those above ``high`` are 0.
            means: int array ``(n, C)`` in units of ``sigma / 1024``, or 0.

        Returns:
            int64 array ``(n * C, size)``, or ``(C, size)`` without means.
        """
        means = np.asarray(means)
        means = means[..., None, :] if means.ndim else means
        codes = self.low + np.arange(-1, size)[:, None]
        upto = self._upto(codes, means)
        tables = np.diff(upto, axis=-2) + _FLOOR * (codes[1:] <= self.high)
        return np.swapaxes(tables, -1, -2).reshape(-1, size)

    def bits(self, codes, means=0):
        """What codes cost, bits, float64; the last axis of all arrays is that of the channels. For choosing only."""
        frequencies = self._upto(codes, means) - self._upto(codes - 1, means) + _FLOOR
        return np.log2((TOTAL + _FLOOR * (self.high - self.low + 1)) / np.maximum(frequencies, 1))
