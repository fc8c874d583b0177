"""Which learned kernel is this constant? The converter merges names and folds scales, so kernels go by content.

A batch normalization folded into the kernel before it leaves ``w[c] = k[c] * q[c]`` with the learned integers
``q`` of channel ``c``; one folded into the Dense kernel after it leaves ``w[c, i] = k[c] * g[i] * q[c, i]``.
Every kernel is compared as a matrix ``(channels, weights per channel)``, which is the same for Keras and TFLite.
"""

import dataclasses
import itertools

import numpy as np
from keras import ops

from scc_tf.export.tflite.flatbuffer import FLOAT32
from scc_tf.keras_private import all_layers
from scc_tf.layers import SelfCompressing, kernels_of

__all__ = [
    "FILTER_OPS",
    "Filter",
    "Kernel",
    "as_tensor",
    "channel_axis",
    "find_filters",
    "find_kernels",
    "match_filters",
]

FILTER_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
TOLERANCE = 2e-6  # relative; the converter's own products are off by a few units of the last place


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of the Keras model.

    Attributes:
        layer: name of the layer.
        label: the same, with the kernel's name where the layer has several.
        values: matrices ``(C, n)`` of the same kernel in the orders that the converter may choose: integer codes of
            a learned kernel, floats of one that is not self-compressing.
        steps: float32 ``(C,)`` per matrix: what one code is worth; empty if not learned.
    """

    layer: str
    label: str
    values: tuple
    steps: tuple

    @property
    def learned(self):
        """Whether the kernel has learned integers."""
        return bool(self.steps)


@dataclasses.dataclass(eq=False)
class Filter:
    """One constant filter of the TFLite graph, and the kernel that it was found to be.

    Attributes:
        tensor: its name in the main graph.
        op: name of the operator that takes it.
        weights: float32 matrix ``(C, n)``.
        kernel: `Kernel`, or None if nothing fits.
        codes: int64 matrix ``(C, n)`` for a learned kernel.
        scale: float64 ``(C,)``, signed: ``weights = scale * codes`` (times ``input_scale``); 0 for constant channels.
        input_scale: float64 ``(n,)`` if a scale per input stands in the weights as well, else None.
        output_scale: float64 ``(C,)`` if the output is multiplied by these positive numbers next, else None.
    """

    tensor: str
    op: str
    weights: np.ndarray
    kernel: Kernel | None = None
    codes: np.ndarray | None = None
    scale: np.ndarray | None = None
    input_scale: np.ndarray | None = None
    output_scale: np.ndarray | None = None

    def __str__(self):
        """The kernel, or the tensor if it is of no known layer."""
        return self.tensor if self.kernel is None else self.kernel.label


def channel_axis(op):
    """The axis of the channels in TFLite's layout of a filter: last for depthwise, first otherwise."""
    return 3 if op == "DEPTHWISE_CONV_2D" else 0


def as_tensor(matrix, op, shape):
    """A matrix ``(C, n)`` in TFLite's layout of a filter."""
    return (matrix.T if channel_axis(op) else matrix).reshape(shape)


def find_kernels(model):
    """The kernels of all layers that are compressed or could be, as `Kernel`, in the order of the model, each once."""
    return [_kernel(layout) for layer in all_layers(model) for layout in kernels_of(layer)]


def _kernel(layout):
    layer, steps, axes, every = layout.layer, (), layout.channel_axes, layout.spec.any_order
    if isinstance(layer, SelfCompressing):
        own = layer.format_of(layout.name)
        values = np.asarray(ops.convert_to_numpy(layer.codes(layout.name)), np.int64)
        steps = np.asarray(ops.convert_to_numpy(own.spread(ops.power(2.0, own.exponent))), np.float32)
        steps = tuple(m[:, 0] for m in _orders(np.broadcast_to(steps, values.shape), axes, every))
    else:
        values = np.asarray(layout.values(), np.float64)
    return Kernel(layer.name, layout.label, tuple(_orders(values, axes, every)), steps)


def _orders(array, channel_axes, every):
    """Matrices ``(C, n)`` of a kernel; with ``every``, for all orders of the axes on either side."""
    others = tuple(axis for axis in range(array.ndim) if axis not in channel_axes)
    both = (itertools.permutations(axes) if every else [axes] for axes in (channel_axes, others))
    columns = int(np.prod([array.shape[axis] for axis in others], dtype=np.int64))
    return [array.transpose(*first, *second).reshape(-1, columns) for first, second in itertools.product(*both)]


def find_filters(file):
    """The constant float32 filters of a `TFLiteFile`, whose tensors have different names, as `Filter`, in order."""
    found = {}
    for operator in file.graph.operators:
        if (op := file.op(operator)) not in FILTER_OPS:
            continue
        index = int(operator.inputs[1])
        array = file.array(index) if file.graph.tensors[index].type == FLOAT32 else None
        if array is not None and index not in found:
            matrix = array.reshape(-1, array.shape[-1]).T if channel_axis(op) else array.reshape(len(array), -1)
            found[index] = Filter(file.name(index), op, matrix)
    return list(found.values())


def match_filters(filters, kernels):
    """Fill in, for every filter, the kernel that it is, its codes and its scales.

    A filter that several kernels explain goes to the one that explains most channels that are not all zero, then to
    one whose layer its name mentions, then to the one used least, then to the first. What no kernel explains with a
    scale per channel is tried, in a Dense layer, with a scale per input as well, for the kernels still missing. Returns
    the learned kernels that are in no filter.
    """
    uses = dict.fromkeys(kernels, 0)
    for item in filters:
        found = []
        for kernel in kernels:
            for order, values in enumerate(kernel.values):
                scale = _scales(item.weights, values)
                if scale is not None:
                    rank = (np.count_nonzero(scale), kernel.layer in item.tensor, -uses[kernel])
                    found.append((rank, kernel, order, scale))
        if found:
            _, kernel, order, scale = max(found, key=lambda entry: entry[0])  # the first of equals
            _assign(item, kernel, order, scale)
            uses[kernel] += 1
    for item in filters:
        if item.kernel is None and item.op == "FULLY_CONNECTED":
            _match_both_sides(item, uses)
    return [kernel for kernel, count in uses.items() if kernel.learned and not count]


def _match_both_sides(item, uses):
    for kernel in [kernel for kernel, count in uses.items() if kernel.learned and not count]:
        for order, (values, steps) in enumerate(zip(kernel.values, kernel.steps, strict=True)):
            scales = _two_sided_scales(item.weights, values, steps)
            if scales is not None:
                _assign(item, kernel, order, scales[0])
                item.input_scale = scales[1]
                uses[kernel] += 1
                return


def _assign(item, kernel, order, scale):
    item.kernel = kernel
    if not kernel.learned:
        return
    item.codes = np.where(scale[:, None] != 0, kernel.values[order], 0)
    steps = kernel.steps[order]
    exact = (item.weights == item.codes.astype(np.float32) * steps[:, None]).all(axis=1) & (scale != 0)
    item.scale = np.where(exact, steps.astype(np.float64), scale)


def _scales(weights, codes):
    """``k`` (C,) with ``weights = k[:, None] * codes``, or None; 0 where the weights of a channel are all zero."""
    if weights.shape != codes.shape:
        return None
    largest = np.argmax(np.abs(codes), axis=1)[:, None]
    code = np.take_along_axis(codes, largest, 1)[:, 0].astype(np.float64)
    weight = np.take_along_axis(weights, largest, 1)[:, 0].astype(np.float64)
    scale = np.divide(weight, code, out=np.zeros_like(weight), where=code != 0)
    return scale if _reproduces(weights, scale[:, None] * codes) else None


def _reproduces(weights, product):
    return bool((np.abs(weights - product) <= TOLERANCE * np.abs(product)).all())


def _two_sided_scales(weights, codes, steps):
    """``k`` (C,) and ``g`` (n,) with ``weights = k[:, None] * g * codes``, or None.

    The ratios ``weights / codes`` are a matrix of rank one, known where there is a code. From one row with the
    learned step for ``k``, rows and columns are added as far as entries connect them; then from another one.
    """
    if weights.shape != codes.shape:
        return None
    live = codes != 0
    ratio = np.divide(weights, codes, out=np.zeros(codes.shape), where=live)
    live = live & (ratio != 0)
    rows, columns = np.zeros(len(codes)), np.zeros(codes.shape[1])  # 0: not known yet
    for seed in np.argsort(-live.sum(axis=1), kind="stable"):
        if rows[seed] or not live[seed].any():
            continue
        rows[seed], waiting = steps[seed], [seed]
        while waiting:
            row = waiting.pop()
            new = np.flatnonzero(live[row] & (columns == 0))
            columns[new] = ratio[row, new] / rows[row]
            for column in new:
                added = np.flatnonzero(live[:, column] & (rows == 0))
                rows[added] = ratio[added, column] / columns[column]
                waiting.extend(added)
    columns = np.where(columns == 0, 1.0, columns)
    return (rows, columns) if _reproduces(weights, rows[:, None] * columns * codes) else None
