"""All weights of a model in one stream, without names and shapes: the architecture has those.

In order:

1. every self-compressing kernel: which channels have a code other than 0, the exponents of these, the codes;
2. every weight-sharing kernel: the centroids, and its indices as a kernel of signed numbers around the one that a
   pruned weight has, 0: those of negative centroids are below it;
3. every masked kernel of a stock layer: which entries the mask keeps or are not 0, the values of these, and which of
   them the mask prunes, which is none but for a kernel that is not what its mask made it;
4. every mask of a self-compressing kernel: where it is not 1 just where the code is not 0;
5. the other variables, those of one name and dtype together.

Bit depths are not stored: on reading, a channel has the smallest that holds its codes, and 0 if all are 0; its
exponent is then 0 too. The latent kernel is the quantized one, save for the last bit where that would quantize to
another code. An entry that is in no list is restored as +0.
"""

import math

import numpy as np
from keras import ops

from scc_tf.coding import Stream, check_range, code_array, code_floats
from scc_tf.keras_private import all_layers
from scc_tf.layers import Masked, SelfCompressing, layout_of, weight_sharing_layers
from scc_tf.training import self_compressing_layers

__all__ = ["code_weights", "sparse_variables", "stored_arrays"]

_STEPS = 16  # units in the last place by which a latent weight may move
_SIXTEENTHS = 16
_FIRST_STEP, _FIRST_MEAN = -3 * _SIXTEENTHS, -5 * _SIXTEENTHS  # what is usual where all are the same, and where not
_LARGEST_STEP = 1 << 12  # sixteenths; float32 ends before
_STEP, _FLOATS, _POINTS = range(3)  # _POINTS + f: multiples of 2^-f


def code_weights(stream, model):
    """Write all weights of a model, or read them into it.

    Args:
        stream: `scc_tf.coding.Stream`.
        model: functional model.

    Returns:
        ``(bits, kernels)``: bits per part ``{"codes": …, "exponents": …, "others": …}``, and of each layer with shared
        or masked kernels, layers of one name added up, ``{layer name: {"weights": …, "indices": …, "codebook": …}}``.
        Weights and positions of shared kernels are coded together; what the positions would take on their own counts
        as indices.

    Raises:
        ValueError: if a kernel is not finite, or what is read is damaged.
    """
    bits, kernels, step = dict.fromkeys(("codes", "exponents", "others"), 0.0), {}, None
    for layer, fmt in _quantized_kernels(model):
        start = stream.bits
        own, step = _code_quantized(stream, layer, fmt, step)
        bits["exponents"] += own
        bits["codes"] += stream.bits - start - own
    for layer, kernel in _shared_kernels(model):
        _add(kernels, layer, _code_shared(stream, layer, kernel))
    for layer, name in _masked_kernels(model):
        _add(kernels, layer, _code_masked(stream, layer, name))
    arrays, start = stored_arrays(model), stream.bits
    for variable in _other_variables(model):
        array = arrays[id(variable)]
        code_array(stream, array)
        if stream.reading:
            variable.assign(array)
    return {**bits, "others": stream.bits - start}, kernels


def _add(kernels, layer, parts):
    own = kernels.setdefault(layer.name, {"weights": 0.0, "indices": 0.0, "codebook": 0.0})
    own.update({part: own[part] + cost for part, cost in parts.items()})


class _HWIO:
    """One kernel as ``(height, width, inputs, channels)``, the shape that `scc_tf.coding` knows.

    Args:
        layout: `scc_tf.layers.KernelLayout` of the kernel.
    """

    def __init__(self, layout):
        self._axes = layout.other_axes + layout.channel_axes
        self._sizes = [layout.shape[axis] for axis in self._axes]
        others = [layout.shape[axis] for axis in layout.other_axes] + [1] * layout.is_depthwise
        if layout.input_axis is None or len(others) > 3:
            others = [math.prod(others)]
        self.shape = (*[1] * (3 - len(others)), *others, layout.channels)

    def arranged(self, kernel):
        """An array in the kernel's own shape, rearranged."""
        return np.asarray(kernel).transpose(self._axes).reshape(self.shape)

    def restored(self, arranged):
        """The array that `arranged` took."""
        return arranged.reshape(self._sizes).transpose(np.argsort(self._axes))


def _finite(values, layer):
    if not np.isfinite(values).all():
        raise ValueError(f"Expected finite weights. Received: layer {layer.name!r} with weights that are not")
    return values


# Self-compressing kernels --------------------------------------------------------------------------------------------


def _quantized_kernels(model):
    return [(layer, fmt) for layer in self_compressing_layers(model) for fmt in layer.formats]


def _live_codes(layer, fmt):
    """The codes, those that quantize to 0 being 0, int32 in the kernel's shape."""
    codes = ops.convert_to_numpy(layer.codes(fmt.name)).astype(np.int32)
    quantized = _finite(ops.convert_to_numpy(layer.quantized(fmt.name)), layer)
    return np.where(quantized != 0, codes, 0)


def _code_quantized(stream, layer, fmt, step):
    """Code a kernel and its exponents; returns the bits of these, and the last step, see `_code_exponents`."""
    order = _HWIO(fmt)
    if stream.reading:
        codes, exponents = np.zeros(order.shape, np.int32), np.zeros(fmt.channels, np.float32)
    else:
        codes = order.arranged(_live_codes(layer, fmt))
        exponents = np.array(ops.convert_to_numpy(fmt.exponent), np.float32)
    live = stream.channels(codes)
    start = stream.bits
    if live.any():
        own = exponents[live]
        step = _code_exponents(stream, own, step)
        exponents[live] = own
    bits = stream.bits - start
    scales = np.rint(np.clip(exponents, -100, 100) * _SIXTEENTHS).astype(np.int64)
    stream.kernel(codes, live, scales)
    if stream.reading:
        _assign_kernel(layer, fmt, order, codes, exponents)
    return bits, step


def _code_exponents(stream, exponents, step):
    """Code the exponents of live channels, float32 ``(n,)`` and not empty, in place.

    All one multiple of 1/16: its difference from the last exponent, ``step``, in sixteenths. Multiples of
    ``2^-f``, ``f`` up to 4: in these units, the distance of each from a running mean. Others: as floats.

    Returns:
        The last multiple now, in sixteenths.
    """
    form, values = _FLOATS, np.zeros(exponents.size, np.int64)
    if not stream.reading and _are_sixteenths(exponents):
        values = (exponents * _SIXTEENTHS).astype(np.int64)
        form = _STEP if (values == values[0]).all() else _POINTS + 4 - min(_trailing_zeros(values), 4)
    form = check_range("forms of exponents", stream.number(form, "flag"), 0, _POINTS + 4)
    if form == _FLOATS:
        code_floats(stream, exponents)
        if not np.isfinite(exponents).all():
            raise ValueError("Expected finite exponents. Received: others")
        return step
    if form == _STEP:
        step = _FIRST_STEP if step is None else step
        values[:] = step + stream.number(int(values[0]) - step, "step")
    else:
        unit = 1 << _POINTS + 4 - form
        mean = (_FIRST_MEAN if step is None else step) // unit
        values = unit * _code_points(stream, values // unit, mean)
    check_range("exponents in sixteenths", values, -_LARGEST_STEP, _LARGEST_STEP)
    exponents[:] = values / _SIXTEENTHS
    return int(values[-1])


def _code_points(stream, values, mean):
    """Code integers ``(n,)`` by their distances from a running mean, which outliers move little; returns them."""
    distances = np.zeros_like(values)
    for i, value in enumerate(values if not stream.reading else ()):
        distances[i] = value - mean
        mean += min(max(int(distances[i]), -4), 4) // 2
    start = mean if stream.reading else 0
    stream.numbers(distances, "fixed")
    check_range("distances", distances, -2 * _LARGEST_STEP, 2 * _LARGEST_STEP)
    for i, distance in enumerate(distances.tolist() if stream.reading else ()):
        values[i] = start + distance
        start += min(max(distance, -4), 4) // 2
    return values


def _are_sixteenths(exponents):
    if np.abs(exponents).max() > _LARGEST_STEP / _SIXTEENTHS or np.signbit(exponents[exponents == 0]).any():
        return False
    return (np.rint(exponents * _SIXTEENTHS) == exponents * _SIXTEENTHS).all()


def _trailing_zeros(values):
    used = int(np.bitwise_or.reduce(values))
    return (used & -used).bit_length() - 1 if used else 4


def _assign_kernel(layer, fmt, order, codes, exponents):
    """Give a layer a kernel: codes as arranged, and exponents ``(channels,)``, 0 for channels of zeros."""
    flat = codes.reshape(-1, fmt.channels)
    fmt.bit_depth.assign(_smallest_bit_depth(flat.min(axis=0), flat.max(axis=0)))
    fmt.exponent.assign(exponents)
    codes = order.restored(codes)
    steps = ops.convert_to_numpy(ops.power(2.0, fmt.spread(fmt.exponent)))
    dtype = ops.convert_to_numpy(getattr(layer, fmt.name)).dtype
    with np.errstate(over="ignore", invalid="ignore"):
        latent = _finite((codes.astype(np.float32) * steps).astype(dtype), layer)
    for _ in range(_STEPS):
        getattr(layer, fmt.name).assign(latent)
        missing = codes - ops.convert_to_numpy(layer.codes(fmt.name))
        if not missing.any():
            return
        towards = np.where(missing > 0, np.inf, -np.inf).astype(dtype)
        latent = np.where(missing, np.nextafter(latent, towards), latent)
    raise ValueError(f"Expected codes that a kernel can have in layer {layer.name!r}. Received: others")


def _smallest_bit_depth(low, high):
    """Bits ``b`` with ``-2^(b-1) <= low`` and ``high <= 2^(b-1) - 1``; 0 where both are 0."""
    magnitude = np.maximum(-low.astype(np.int64), high.astype(np.int64) + 1)
    bits = 1 + np.frexp((magnitude - 1).astype(np.float64))[1]
    return np.where((low == 0) & (high == 0), 0, bits).astype(np.float32)


# Kernels with shared weights, and with masks -------------------------------------------------------------------------


def _shared_kernels(model):
    return [(layer, shared) for layer in weight_sharing_layers(model) for shared in layer.shared_kernels]


def _code_shared(stream, layer, kernel):
    order, clusters, start = _HWIO(kernel), kernel.centroids.shape[0], stream.bits
    centroids = np.array(ops.convert_to_numpy(kernel.centroids))
    code_floats(stream, centroids)
    below = np.count_nonzero(_finite(centroids, layer) < 0)
    middle, codes = stream.bits, np.zeros(order.shape, np.int32)
    if stream.reading:
        stream.kernel(codes, stream.channels(codes))
        indices = np.where(codes, codes + below + (codes < 0), 0)
        check_range("clusters", indices[codes != 0], 1, clusters)
        layer.share(centroids, order.restored(indices), kernel.name)
        return {}
    indices = order.arranged(kernel.indices).astype(np.int32)
    codes = np.where(indices, indices - np.int32(below) - (indices <= below), 0)
    stream.kernel(codes, stream.channels(codes))
    alone = Stream()
    alone.kernel(codes != 0, alone.channels(codes != 0))
    positions = min(alone.bits, stream.bits - middle)
    return {"codebook": middle - start, "indices": positions, "weights": stream.bits - middle - positions}


def _masked_kernels(model):
    """``(layer, kernel name)`` of every mask, those of stock layers first."""
    layers = [layer for layer in all_layers(model) if isinstance(layer, Masked)]
    return sorted(
        ((layer, name) for layer in layers for name in layer.masks),
        key=lambda pair: isinstance(pair[0], SelfCompressing),
    )


def _code_masked(stream, layer, name):
    mask, start = layer.masks[name], stream.bits
    order = _HWIO(layout_of(layer, name))
    kept = order.arranged(mask) != 0
    if isinstance(layer, SelfCompressing):
        live = order.arranged(_live_codes(layer, layer.format_of(name))) != 0
        others = _code_entries(stream, kept != live)
        if stream.reading:
            mask.assign(order.restored(others != live))
        return {"indices": stream.bits - start}
    kernel = getattr(layer, name)
    values = order.arranged(_finite(ops.convert_to_numpy(kernel), layer))
    stored = _code_entries(stream, kept | (values != 0))
    before = stream.bits
    own = np.ascontiguousarray(values[stored])
    code_array(stream, own)
    weights = stream.bits - before
    pruned = 1 - kept[stored].astype(np.int64)
    stream.numbers(pruned, "flag")
    if stream.reading:
        values, kept = np.zeros(order.shape, values.dtype), np.zeros(order.shape, bool)
        values[stored], kept[stored] = _finite(own, layer), pruned == 0
        kernel.assign(order.restored(values))
        mask.assign(order.restored(kept))
    return {"indices": stream.bits - start - weights, "weights": weights}


def _code_entries(stream, entries):
    """Code a kernel of flags, and return it."""
    codes = np.zeros(entries.shape, np.int32) if stream.reading else entries.astype(np.int32)
    stream.kernel(codes, stream.channels(codes))
    return codes != 0


# Other variables -----------------------------------------------------------------------------------------------------


def sparse_variables(model):
    """The variables of weight-sharing and masked kernels."""
    variables = [v for _, shared in _shared_kernels(model) for v in (shared.centroids, shared.indices)]
    for layer, name in _masked_kernels(model):
        variables += [layer.masks[name]] + [getattr(layer, name)] * (not isinstance(layer, SelfCompressing))
    return variables


def _other_variables(model):
    """The variables that no kernel's own form holds, each once, grouped by name and dtype."""
    known = {id(v) for layer, f in _quantized_kernels(model) for v in (getattr(layer, f.name), f.bit_depth, f.exponent)}
    known |= {id(v) for v in sparse_variables(model)}
    groups = {}
    for variable in {id(v): v for v in model.weights if id(v) not in known}.values():
        groups.setdefault((variable.name, str(variable.dtype)), []).append(variable)
    return [variable for group in groups.values() for variable in group]


def stored_arrays(model):
    """``{id of a variable: array}`` of all in no kernel's own form: what a file holds of each, a copy.

    That is its value; but the bias of a self-compressing layer is the one that the layer adds, which it may have
    rounded, and 0 where that is -0.
    """
    arrays = {id(v): np.array(ops.convert_to_numpy(v), order="C") for v in _other_variables(model)}
    for layer in self_compressing_layers(model):
        bias = layer.quantized_bias()
        if bias is not None:
            dtype = arrays[id(layer.bias)].dtype
            arrays[id(layer.bias)] = ops.convert_to_numpy(bias).astype(dtype) + np.zeros((), dtype)  # -0 + 0 is 0
    return arrays
