"""The integer codes of kernels: clipped Gaussians, predicted from the neighbours in the filter.

Trained filters are smooth: on the founding network 10 to 20 % of a code's variance is explained by its neighbours to
the left, above, above left and above right. A kernel is written position by position, in raster order; one position
holds a code for each input and channel, and all of them are coded at once with what the earlier positions tell:

* per channel, the scale of a clipped Gaussian (`scc_tf.coding.gaussian`) and, if it is clipped, its two bounds;
* per kernel, four weights of the neighbours in units of 1/32.

The weights of all channels of a kernel have about the same standard deviation, so a channel's scale is guessed from
its exponent, and only the error of that is written.

Channels of zeros cost one flag each, inputs that no channel reads likewise. A kernel whose codes no Gaussian fits
(most of them 0, say), or a very large one, is written with frequencies instead (`scc_tf.coding.entropy`), in one
context per scale.

A kernel is an int32 array ``(height, width, inputs, channels)``. One without positions, ``(1, 1, inputs, channels)``,
may still be the consumer of an image that was flattened; the writer then finds the square image whose neighbours
predict each other.
"""

import numpy as np

from scc_tf.coding.entropy import read_symbols, write_symbols
from scc_tf.coding.gaussian import SCALES, Normal
from scc_tf.coding.numbers import (
    read_flags,
    read_floats,
    read_integers,
    write_flags,
    write_floats,
    write_integers,
)
from scc_tf.coding.plans import (
    SIDES,
    WEIGHTS,
    WIDEST,
    Plan,
    check_side,
    guess_of,
    make_plan,
    mean_of,
    middle,
    predict,
)

__all__ = ["read_kernels", "write_kernels"]

_ROWS = 1 << 18  # entries of the tables that are made at once


def write_kernels(writer, kernels, exponents):
    """Write the codes of all kernels of a model; what their channels need is coded together.

    Args:
        writer: `scc_tf.coding.Writer`.
        kernels: list of int32 arrays ``(height, width, inputs, channels)``.
        exponents: list of float32 arrays ``(channels,)``, finite. Those of channels of zeros are not written.

    Returns:
        float: how much of it the exponents are, bits.

    Example:
        >>> from scc_tf.coding import Reader, Writer
        >>> writer, kernel = Writer(), np.arange(-4, 5).reshape(3, 3, 1, 1)
        >>> _ = write_kernels(writer, [kernel], [np.float32([-2.5])])
        >>> kernels, exponents = read_kernels(Reader(writer.getvalue()), [kernel.shape])
        >>> bool((kernels[0] == kernel).all()), exponents
        (True, [array([-2.5], dtype=float32)])
    """
    plans = [make_plan(np.asarray(k, np.int64), e) for k, e in zip(kernels, exponents, strict=True)]
    write_flags(writer, _join([p.live for p in plans], bool))
    before = writer.bits
    write_floats(writer, _join([e[p.live] for p, e in zip(plans, exponents, strict=True)], np.float32))
    bits = writer.bits - before
    plans = [p for p in plans if p.channels]
    for plan in plans:
        if plan.may_be_flat:
            writer.uniform(plan.side, SIDES)
        writer.uniform(int(not plan.inputs.all()), 2)
        if not plan.inputs.all():
            write_flags(writer, plan.inputs)
        writer.uniform(int(plan.gaussian), 2)
    errors = [p.scale - p.guess for p in plans]
    common = [middle(e) for e in errors]
    write_integers(writer, common)
    write_integers(writer, _join([e - c for e, c in zip(errors, common, strict=True)]))
    gaussian = [p for p in plans if p.gaussian]
    clipped = _join([p.clipped for p in gaussian], bool)
    high = _join([p.high for p in gaussian])[clipped]
    write_flags(writer, clipped)
    write_integers(writer, high)
    write_integers(writer, high + _join([p.low for p in gaussian])[clipped])
    for plan in plans:
        _write_codes(writer, plan)
    return bits


def read_kernels(reader, shapes):
    """Read what `write_kernels` wrote.

    Args:
        reader: `scc_tf.coding.Reader`.
        shapes: list of shapes ``(height, width, inputs, channels)``.

    Returns:
        ``(kernels, exponents)``, lists of int32 arrays and of float32 arrays ``(channels,)``; the exponent of a
        channel of zeros is 0.

    Raises:
        ValueError: if the stream is damaged.
    """
    sizes = [shape[3] for shape in shapes]
    alive = read_flags(reader, sum(sizes))
    everything = [Plan(tuple(s), live) for s, live in zip(shapes, _cut(alive, sizes), strict=True)]
    exponents = np.zeros(alive.size, np.float32)
    exponents[alive] = read_floats(reader, int(alive.sum()))
    if not np.isfinite(exponents).all():
        raise ValueError("Expected finite exponents. Received: others")
    exponents = _cut(exponents, sizes)
    for plan, own in zip(everything, exponents, strict=True):
        plan.guess = guess_of(own[plan.live])
    plans = [p for p in everything if p.channels]
    for plan in plans:
        _read_layout(reader, plan)
    _read_formats(reader, plans)
    for plan in plans:
        _read_codes(reader, plan)
    return [_restored(p) for p in everything], exponents


def _read_layout(reader, plan):
    if plan.may_be_flat:
        plan.side = int(reader.uniform(1, SIDES)[0])
        check_side(plan.side, plan.shape[2])
    inputs = plan.split()[2]
    plan.inputs = read_flags(reader, inputs) if reader.uniform(1, 2)[0] else np.ones(inputs, bool)
    plan.gaussian = bool(reader.uniform(1, 2)[0])


def _read_formats(reader, plans):
    """Scales and bounds of all channels."""
    common = read_integers(reader, len(plans))
    guesses = [p.guess + c for p, c in zip(plans, common, strict=True)]
    scales = _join(guesses) + read_integers(reader, sum(p.channels for p in plans))
    gaussian = _join([np.full(p.channels, p.gaussian) for p in plans], bool)
    if scales.size and not 0 <= scales.min() <= scales.max() < SCALES:
        raise ValueError(f"Expected scales below {SCALES}. Received: from {scales.min()} to {scales.max()}")
    high = Normal.reach(scales)
    low = -high
    clipped = np.zeros(scales.size, bool)
    clipped[gaussian] = read_flags(reader, int(gaussian.sum()))
    high[clipped] = read_integers(reader, int(clipped.sum()))
    low[clipped] = read_integers(reader, int(clipped.sum())) - high[clipped]
    span = np.where(gaussian, high - low, 0)
    if span.size and not (0 <= span.min() <= span.max() <= WIDEST and np.abs(low + high).max() < 1 << 31):
        raise ValueError(f"Expected bounds at most {WIDEST} apart. Received: {span.min()} to {span.max()}")
    parts = zip(*(_cut(v, [p.channels for p in plans]) for v in (scales, low, high)), strict=True)
    for plan, own in zip(plans, parts, strict=True):
        plan.scale, plan.low, plan.high = own


def _cut(values, sizes):
    ends = np.cumsum(sizes, dtype=int)
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _join(parts, dtype=np.int64):
    return np.concatenate([*parts, np.zeros(0, dtype)])


def _restored(plan):
    kernel = np.zeros(plan.shape, np.int32)
    if plan.channels:
        left = np.zeros(plan.split(), np.int32)
        left[:, :, plan.inputs] = plan.codes
        kernel[..., plan.live] = left.reshape(*plan.shape[:3], plan.channels)
    return kernel


def _contexts(plan):
    return np.broadcast_to(plan.scale, plan.codes.shape)


def _write_codes(writer, plan):
    if not plan.gaussian:
        write_symbols(writer, plan.codes, _contexts(plan))
        return
    if plan.codes[..., 0, 0].size > 1:
        writer.uniform(plan.weights + WEIGHTS // 2, WEIGHTS)
    for chosen, normal, size in _parts(plan):
        for part, tables in _steps(plan.codes[..., chosen], plan.weights, normal, size):
            writer.rows((part - normal.low).ravel(), tables)


def _read_codes(reader, plan):
    height, width, _, channels = plan.split()
    plan.codes = np.zeros((height, width, int(plan.inputs.sum()), channels), np.int64)
    if not plan.gaussian:
        plan.codes = read_symbols(reader, plan.codes.size, _contexts(plan)).reshape(plan.codes.shape)
        return
    plan.weights = np.zeros(4, np.int64)
    if height * width > 1:
        plan.weights = reader.uniform(4, WEIGHTS) - WEIGHTS // 2
    for chosen, normal, size in _parts(plan):
        codes = np.zeros((*plan.codes.shape[:3], chosen.size), np.int64)
        for part, tables in _steps(codes, plan.weights, normal, size):
            part[:] = np.minimum(reader.rows(tables).reshape(part.shape) + normal.low, normal.high)
        plan.codes[..., chosen] = codes


def _parts(plan):
    """Yield ``(channel numbers, normal, table size)``: channels whose tables have about the same size."""
    lengths = np.frexp((plan.high - plan.low).astype(np.float64))[1]  # tables of up to 2**length entries
    for length in np.unique(lengths):
        group = np.flatnonzero(lengths == length)
        size = max(int((plan.high - plan.low)[group].max()) + 1, 2)
        some = max(_ROWS // size, 1)
        for start in range(0, group.size, some):
            chosen = group[start : start + some]
            yield chosen, Normal(plan.scale[chosen], plan.low[chosen], plan.high[chosen]), size


def _steps(codes, weights, normal, size):
    """Yield ``(part, tables)``: a view of codes to be coded at once, and a table for each. What comes before is known.

    Both sides share this order: positions in raster order, and few enough inputs at once for tables of bounded size.
    """
    height, width, inputs, channels = codes.shape
    inverse_rms = normal.inverse_rms() if height * width > 1 else np.zeros(channels, np.int64)
    rows = max(_ROWS // size // channels, 1)
    for row, column in np.ndindex(height, width):
        for first in range(0, inputs, rows):
            block = codes[:, :, first : first + rows]
            means = mean_of(predict(block, weights, row, column), inverse_rms)
            yield block[row, column], normal.frequencies(size, means)
