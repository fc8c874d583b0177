"""What reads merged filters is fitted: what it adds up shall be what it added up in the original network."""

import dataclasses

import keras
import numpy as np

from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.clustering.chains import kernel_values
from scc_tf.clustering.taps import tap_inputs
from scc_tf.inference import batch_for, batches, check_inputs, outputs

__all__ = ["fit_readers"]

SAMPLES, PER_IMAGE = 16_384, 16  # at most: values of an output channel that are compared, and positions of each image
MOST_WEIGHTS = 8_192
_BATCH_SIZE = 128
_HELD_OUT = 4  # every fourth image, to choose the strength of the ridge by
_RIDGES = 10.0 ** np.arange(-5, 2)  # relative to the mean square of an input


def fit_readers(chain, wanted, kept, model, original, images):
    """Change what reads the channels of a chain that are left, so that it adds up the same as in the original.

    For every kernel that reads them, and its bias, least squares with a ridge towards the weights that it has: the
    change is 0 where there is nothing to make up for. The strength of the ridge is the one that does best on images
    that are held out; where none does better than no change, nothing changes. What the chains before this one have
    lost is made up for as well, as their readers come earlier. A kernel with more than `MOST_WEIGHTS` for each output
    stays as it is: its fit would take minutes and gigabytes.

    Args:
        chain: `scc_tf.clustering.chains.Chain` of the model to change.
        wanted: the same chain of the original.
        kept: bool ``(C,)``: the channels that are left; what reads the others is 0.
        model: the model to change. The statistics of its normalizations up to the readers are estimated anew.
        original: the model that it is a copy of, in inference.
        images: inputs of both ``(N, …)``, at least one; the first 1,024, or more where an image has few positions.

    Source: He, Zhang & Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168),
        section 3.1, whose readers are fitted to the original network's answers when channels go.
    """
    pairs = [pair for pair in zip(chain.readers, wanted.readers, strict=True) if pair[0].fan_in <= MOST_WEIGHTS]
    if not pairs:
        return
    now = tap_inputs(model, [reader.layout.layer for reader, _ in pairs])
    before = tap_inputs(original, [reader.layout.layer for _, reader in pairs])
    arrays = check_inputs("images", images, model)
    read = keras.tree.flatten(
        outputs(before, [array[:1] for array in arrays])
    )  # of these the size is known, of inputs it may not be
    fits = [_Fit(*pair, kept, values.shape[1:-1]) for pair, values in zip(pairs, read, strict=True)]
    count = -(-SAMPLES // min(PER_IMAGE, *(fit.windows.positions for fit in fits)))
    arrays = [array[:count] for array in arrays]
    reestimate_batch_statistics(now, arrays)
    rng = np.random.default_rng(0)
    for batch in batches(arrays, batch_for(now, None, _BATCH_SIZE, arrays)):
        read = (keras.tree.flatten(outputs(tapped, batch)) for tapped in (now, before))
        for fit, *values in zip(fits, *read, strict=True):
            fit.add(*values, rng)
    for fit in fits:
        fit.assign()


class _Windows:
    """Where a convolution, or a Dense layer as one with a kernel of one position, looks when it computes an output."""

    def __init__(self, layer, shape):
        dense = isinstance(layer, keras.layers.Dense)
        sizes, strides, dilations = (
            (1,) * len(shape) if dense else getattr(layer, name) for name in ("kernel_size", "strides", "dilation_rate")
        )
        padding = "valid" if dense else layer.padding
        self.outputs, self.pads, self.offsets, self.strides = [], [], [], strides
        for length, size, stride, dilation in zip(shape, sizes, strides, dilations, strict=True):
            span = (size - 1) * dilation
            if padding == "same":
                outputs = -(-length // stride)
                missing = max((outputs - 1) * stride + span + 1 - length, 0)
                pads = (missing // 2, missing - missing // 2)
            else:
                pads = (span if padding == "causal" else 0, 0)
                outputs = (length + sum(pads) - span - 1) // stride + 1
            self.outputs.append(outputs)
            self.pads.append(pads)
            self.offsets.append(dilation * np.arange(size))

    @property
    def positions(self):
        """Number of outputs of one channel."""
        return int(np.prod(self.outputs))

    def draw(self, count, rng):
        """Some positions of ``count`` examples, or all of them, int ``(count, S)``."""
        if self.positions <= PER_IMAGE:
            return np.tile(np.arange(self.positions), (count, 1))
        return rng.integers(self.positions, size=(count, PER_IMAGE))

    def cut(self, values, positions):
        """What is read at these positions: rows of ``(N * S, kernel positions * inputs)``, as in the kernel."""
        padded = np.pad(values, [(0, 0), *self.pads, (0, 0)])
        places, dimensions = np.unravel_index(positions, self.outputs) if self.outputs else (), len(self.outputs)
        index = [np.arange(len(values)).reshape(-1, *[1] * (1 + dimensions))]
        for axis, (place, stride, offsets) in enumerate(zip(places, self.strides, self.offsets, strict=True)):
            shape = [1] * dimensions
            shape[axis] = -1
            index.append((place * stride).reshape(*place.shape, *[1] * dimensions) + offsets.reshape(shape))
        rows = padded[tuple(index)] if dimensions else padded
        width = values.shape[-1] * int(np.prod([len(own) for own in self.offsets]))
        return rows.reshape(positions.size, width).astype(np.float64)


class _Fit:
    """Least squares for one reader: what it should add up beyond what it does, from the channels that are left."""

    def __init__(self, reader, wanted, kept, shape):
        self.layer = reader.layout.layer
        self.windows = _Windows(self.layer, shape)
        inputs = np.zeros(self.layer.kernel.shape[-2], bool)
        inputs[reader.inputs[kept]] = True
        self.weights, self.wanted = (_matrix(own.layout.layer) for own in (reader, wanted))
        self.rows = np.tile(inputs, len(self.weights) // len(inputs))
        sizes, centred = (self.rows.sum(), self.weights.shape[1]), self.layer.bias is not None
        self.fitted, self.held_out = (_Sums.empty(*sizes, centred) for _ in range(2))

    def add(self, now, before, rng):
        """Count a batch of what the reader is given, now and in the original."""
        positions = self.windows.draw(len(now), rng)
        held_out = np.arange(len(now)) % _HELD_OUT == _HELD_OUT - 1
        for sums, part in ((self.fitted, ~held_out), (self.held_out, held_out)):
            read, wanted = (self.windows.cut(values[part], positions[part]) for values in (now, before))
            sums.add(read[:, self.rows], wanted @ self.wanted - read @ self.weights)

    def assign(self):
        """Change kernel and bias."""
        errors = [self.held_out.error(*solution) for solution in self.fitted.solutions(_RIDGES)]
        best = int(np.argmin(errors))
        if errors[best] < 0:
            ((change, offset),) = (self.fitted + self.held_out).solutions(_RIDGES[[best]])
            self.weights[self.rows] += change
            self.layer.kernel.assign(self.weights.reshape(self.layer.kernel.shape))
            if self.layer.bias is not None:
                self.layer.bias.assign_add(offset)


def _matrix(layer):
    """The kernel, float64 ``(kernel positions * inputs, outputs)``."""
    kernel = kernel_values(layer)
    return kernel.reshape(-1, kernel.shape[-1])


@dataclasses.dataclass
class _Sums:
    """Of inputs ``X`` and of what is missing ``R``: all that least squares for ``R ~ X D + c`` need."""

    squares: np.ndarray  # X'X
    products: np.ndarray  # X'R
    inputs: np.ndarray  # sums of the columns
    missing: np.ndarray
    count: int
    centred: bool  # whether there is a bias for c; else c is 0

    @classmethod
    def empty(cls, inputs, outputs, centred):
        """Of so many columns, no row yet."""
        shapes = (inputs, inputs), (inputs, outputs), (inputs,), (outputs,)
        return cls(*map(np.zeros, shapes), 0, centred)

    def __add__(self, other):
        names = ("squares", "products", "inputs", "missing", "count")
        return _Sums(*(getattr(self, name) + getattr(other, name) for name in names), self.centred)

    def add(self, inputs, missing):
        """Count rows of both."""
        self.squares += inputs.T @ inputs
        self.products += inputs.T @ missing
        self.inputs += inputs.sum(axis=0)
        self.missing += missing.sum(axis=0)
        self.count += len(inputs)

    def solutions(self, ridges):
        """For every ridge ``r``, the ``D`` and ``c`` with the least ``|X D + c - R|^2 + r mean(x^2) |D|^2``."""
        squares, products, count = self.squares, self.products, max(self.count, 1)
        if self.centred:
            squares = squares - np.outer(self.inputs, self.inputs) / count
            products = products - np.outer(self.inputs, self.missing) / count
        values, axes = np.linalg.eigh(squares)
        least, turned = max(values.mean(), np.finfo(float).tiny), axes.T @ products
        for ridge in ridges:
            change = axes @ (turned / (values + ridge * least)[:, None])
            yield change, (self.missing - self.inputs @ change) / count if self.centred else 0.0

    def error(self, change, offset):
        """``|X D + c - R|^2 - |R|^2``."""
        slope = np.sum(change * (self.squares @ change - 2 * self.products))
        return float(slope + np.sum(offset * (2 * (self.inputs @ change - self.missing) + self.count * offset)))
