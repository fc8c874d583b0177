"""What reads merged filters is fitted: what it adds up shall be what it added up in the original network."""

import dataclasses

import keras
import numpy as np

from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.clustering.taps import tap_inputs

__all__ = ["fit_readers"]

SAMPLES, PER_IMAGE = 16_384, 16  # at most: values of an output channel that are compared, and positions of each image
_BATCH_SIZE = 128
_HELD_OUT = 4  # every fourth image, to choose the strength of the ridge by
_RIDGES = 10.0 ** np.arange(-5, 2)  # relative to the mean square of an input


def fit_readers(chain, wanted, kept, model, original, images):
    """Change what reads the channels of a chain that are left, so that it adds up the same as in the original.

    For every kernel that reads them, least squares with a ridge towards the weights that it has: the change is 0
    where there is nothing to make up for. The strength of the ridge is the one that does best on images that are held
    out; where none does better than no change, nothing changes. What the chains before this one have lost is made up
    for as well, as their readers come earlier.

    Args:
        chain: `scc_tf.clustering.chains.Chain` of the model to change.
        wanted: the same chain of the original.
        kept: bool ``(C,)``: the channels that are left; what reads the others is 0.
        model: the model to change. The statistics of its normalizations up to the readers are estimated anew.
        original: the model that it is a copy of, in inference.
        images: inputs of both ``(N, …)``, at least one; the first 1,024, or more where an image has few positions.

    Raises:
        ValueError: if a reader lies in a nested model.

    Source: He, Zhang & Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168),
        section 3.1, whose readers are fitted to the original network's answers when channels go.
    """
    now, before = (
        tap_inputs(of, [reader.layout.layer for reader in own.readers])
        for of, own in ((model, chain), (original, wanted))
    )
    windows = [_Windows(reader.layout.layer) for reader in chain.readers]
    images = images[: -(-SAMPLES // min(PER_IMAGE, *(w.positions for w in windows)))]
    reestimate_batch_statistics(now, images)
    rng = np.random.default_rng(0)
    fits = [_Fit(*pair, window, kept) for *pair, window in zip(chain.readers, wanted.readers, windows, strict=True)]
    for start in range(0, len(images), _BATCH_SIZE):
        batch = images[start : start + _BATCH_SIZE]
        read = (keras.tree.flatten(tapped(batch, training=False)) for tapped in (now, before))
        for fit, *values in zip(fits, *read, strict=True):
            fit.add(*map(keras.ops.convert_to_numpy, values), rng)
    for fit in fits:
        fit.assign()


class _Windows:
    """Where a convolution, or a Dense layer as one with a kernel of one position, looks when it computes an output."""

    def __init__(self, layer):
        shape = layer.input.shape[1:-1]
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
        """Some positions of ``count`` examples, int ``(count, S)``."""
        return rng.integers(self.positions, size=(count, min(PER_IMAGE, self.positions)))

    def cut(self, values, positions):
        """What is read at these positions: rows of ``(N * S, kernel positions * inputs)``, as in the kernel."""
        padded = np.pad(values.astype(np.float64), [(0, 0), *self.pads, (0, 0)])
        places, dimensions = np.unravel_index(positions, self.outputs) if self.outputs else (), len(self.outputs)
        index = [np.arange(len(values)).reshape(-1, *[1] * (1 + dimensions))]
        for axis, (place, stride, offsets) in enumerate(zip(places, self.strides, self.offsets, strict=True)):
            shape = [1] * dimensions
            shape[axis] = -1
            index.append((place * stride).reshape(*place.shape, *[1] * dimensions) + offsets.reshape(shape))
        rows = padded[tuple(index)] if dimensions else padded
        return rows.reshape(positions.size, values.shape[-1] * int(np.prod([len(own) for own in self.offsets])))


class _Fit:
    """Least squares for one reader: what it should add up beyond what it does, from the channels that are left."""

    def __init__(self, reader, wanted, windows, kept):
        self.layer, self.windows = reader.layout.layer, windows
        inputs = np.zeros(self.layer.kernel.shape[-2], bool)
        inputs[reader.inputs[kept]] = True
        self.weights, self.wanted = (_matrix(own.layout.layer) for own in (reader, wanted))
        self.rows = np.tile(inputs, len(self.weights) // len(inputs))
        shapes = (self.rows.sum(), self.rows.sum()), (self.rows.sum(), self.weights.shape[1])
        self.fitted, self.held_out = (_Sums(*map(np.zeros, shapes)) for _ in range(2))

    def add(self, now, before, rng):
        """Count a batch of what the reader is given, now and in the original."""
        positions = self.windows.draw(len(now), rng)
        held_out = np.arange(len(now)) % _HELD_OUT == _HELD_OUT - 1
        for sums, part in ((self.fitted, ~held_out), (self.held_out, held_out)):
            read, wanted = (self.windows.cut(values[part], positions[part]) for values in (now, before))
            sums.add(read[:, self.rows], wanted @ self.wanted - read @ self.weights)

    def assign(self):
        """Change the kernel."""
        fitted, held_out = self.fitted, self.held_out
        candidates = fitted.solutions(_RIDGES)
        errors = [held_out.error(change) for change in candidates]
        best = int(np.argmin(errors))
        if errors[best] < 0:
            self.weights[self.rows] += (fitted + held_out).solutions(_RIDGES[[best]])[0]
            self.layer.kernel.assign(self.weights.reshape(self.layer.kernel.shape))


def _matrix(layer):
    """The kernel, float64 ``(kernel positions * inputs, outputs)``."""
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)
    return kernel.reshape(-1, kernel.shape[-1])


@dataclasses.dataclass
class _Sums:
    """Products of inputs ``X`` with themselves, and with what is missing ``R``: all that least squares need."""

    squares: np.ndarray
    products: np.ndarray

    def __add__(self, other):
        return _Sums(self.squares + other.squares, self.products + other.products)

    def add(self, inputs, missing):
        """Count rows of both."""
        self.squares += inputs.T @ inputs
        self.products += inputs.T @ missing

    def solutions(self, ridges):
        """For every ridge ``r``, the ``D`` with the least ``|X D - R|^2 + r mean(x^2) |D|^2``."""
        values, axes = np.linalg.eigh(self.squares)
        least = max(values.mean(), np.finfo(float).tiny)
        return [axes @ ((axes.T @ self.products) / (values + ridge * least)[:, None]) for ridge in ridges]

    def error(self, change):
        """``|X D - R|^2 - |R|^2``."""
        return float(np.sum(change * (self.squares @ change - 2 * self.products)))
