"""Which learned kernel is this constant? The converter merges names and folds scales, so kernels go by content.

A batch normalization folded into the kernel before it leaves ``w[c] = k[c] * q[c]`` with the learned integers
``q`` of channel ``c``; one folded into the Dense kernel after it leaves ``w[c, i] = k[c] * g[i] * q[c, i]``.
Every kernel is compared as a matrix ``(channels, weights per channel)``, which is the same for Keras and TFLite.
"""

import dataclasses
import itertools

import numpy as np
from keras import ops

from scc_tf.export.tflite.flatbuffer import array_of, opcode_name, schema
from scc_tf.keras_private import all_layers
from scc_tf.layers import SelfCompressing, entry_of, layout_of

__all__ = [
    "FILTER_OPS",
    "Filter",
    "Kernel",
    "as_matrix",
    "as_tensor",
    "channel_axis",
    "find_filters",
    "kernels_of",
    "match_filters",
]

FILTER_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
TOLERANCE = 2e-6  # relative; the converter's own products are off by a few units of the last place


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of the Keras model.

    Attributes:
        layer: name of the layer.
        name: attribute of the layer that holds the kernel.
        values: matrices ``(C, n)`` of the same kernel in the orders that the converter may choose: integer codes of
            a learned kernel, floats of one that is not self-compressing.
        steps: float32 ``(C,)`` per matrix: what one code is worth; empty if not learned.
    """

    layer: str
    name: str
    values: tuple
    steps: tuple

    @property
    def learned(self):
        """Whether the kernel has learned integers."""
        return bool(self.steps)

    def __str__(self):
        """``layer``, or ``layer/kernel`` where a layer has several."""
        return self.layer if self.name == "kernel" else f"{self.layer}/{self.name}"


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


def channel_axis(op):
    """The axis of the channels in TFLite's layout of a filter: last for depthwise, first otherwise."""
    return 3 if op == "DEPTHWISE_CONV_2D" else 0


def as_matrix(array, op):
    """A filter in TFLite's layout as a matrix ``(C, n)``."""
    return array.reshape(-1, array.shape[-1]).T if channel_axis(op) else array.reshape(array.shape[0], -1)


def as_tensor(matrix, op, shape):
    """The inverse of `as_matrix`."""
    return (matrix.T if channel_axis(op) else matrix).reshape(shape)


def _orders(array, channel_axes, every):
    """Matrices ``(C, n)`` of a kernel; with ``every``, for all orders of the axes on either side."""
    others = tuple(a for a in range(array.ndim) if a not in channel_axes)
    if not every:
        return [array.transpose(*channel_axes, *others).reshape(-1, _size(array, others))]
    return [
        array.transpose(*first, *second).reshape(-1, _size(array, others))
        for first in itertools.permutations(channel_axes)
        for second in itertools.permutations(others)
    ]


def _size(array, axes):
    return int(np.prod([array.shape[a] for a in axes], dtype=np.int64))


def _learned_kernel(layer, fmt):
    codes = np.asarray(ops.convert_to_numpy(layer.codes(fmt.name)), np.int64)
    steps = np.asarray(ops.convert_to_numpy(fmt.spread(ops.power(2.0, fmt.exponent))), np.float32)
    every = fmt.spec.any_order
    return Kernel(
        layer.name,
        fmt.name,
        tuple(_orders(codes, fmt.channel_axes, every)),
        tuple(m[:, 0] for m in _orders(np.broadcast_to(steps, codes.shape), fmt.channel_axes, every)),
    )


def _stock_kernel(layer, name):
    values = np.asarray(ops.convert_to_numpy(getattr(layer, name)), np.float64)
    layout = layout_of(layer, name)
    return Kernel(layer.name, name, tuple(_orders(values, layout.channel_axes, layout.spec.any_order)), ())


def kernels_of(model):
    """The kernels of all layers that are self-compressing or could be, in the order of the model, each once.

    Args:
        model: Keras model.

    Returns:
        List of `Kernel`.
    """
    kernels = []
    for layer in {id(layer): layer for layer in all_layers(model)}.values():
        if isinstance(layer, SelfCompressing):
            kernels += [_learned_kernel(layer, fmt) for fmt in layer.formats]
        elif (entry := entry_of(layer)) is not None and layer.built:
            kernels += [_stock_kernel(layer, spec.name) for spec in entry.kernels]
    return kernels


def find_filters(model):
    """The constant float32 filters of a model's main graph, in the order of its operators.

    Args:
        model: ``ModelT`` whose tensors have different names.

    Returns:
        List of `Filter` without kernels.
    """
    graph, found = model.subgraphs[0], {}
    for operator in graph.operators:
        op = opcode_name(model, operator)
        if op not in FILTER_OPS:
            continue
        index = int(operator.inputs[1])
        tensor = graph.tensors[index]
        array = array_of(model, tensor) if tensor.type == schema.TensorType.FLOAT32 else None
        if array is not None and index not in found:
            found[index] = Filter(tensor.name.decode(), op, as_matrix(array, op))
    return list(found.values())


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


def match_filters(filters, kernels):
    """Fill in, for every filter, the kernel that it is, its codes and its scales.

    A filter that several kernels explain goes to the one that explains most channels that are not all zero, then to
    one whose layer its name mentions, then to the one used least, then to the first. What no kernel explains with a
    scale per channel is tried, in a Dense layer, with a scale per input as well, for the kernels still missing.

    Args:
        filters: list of `Filter`, changed in place.
        kernels: list of `Kernel`.

    Returns:
        List of the learned kernels that are in no filter.
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
