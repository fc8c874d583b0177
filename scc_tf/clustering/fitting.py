"""What reads merged filters is fitted: what it adds up shall be what it added up in the original network."""

import math

import keras
import numpy as np

from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.clustering.activations import input_model
from scc_tf.clustering.chains import kernel_values
from scc_tf.inference import batch_for, batches, check_inputs, outputs

__all__ = ["fit_readers"]

SAMPLES = 16_384  # values of an output channel that are compared, at most
PER_EXAMPLE = 16  # positions, at most
MOST_WEIGHTS = 8_192
_BATCH_SIZE = 128
_HELD_OUT = 4  # every fourth example, to choose the strength of the ridge by
_RIDGES = 10.0 ** np.arange(-5, 2)  # relative to the mean square of an input


def fit_readers(chain, wanted, kept, model, original, inputs):
    """Change what reads the channels of a chain that are left, so that it adds up the same as in the original.

    For every kernel that reads them, and its bias, least squares with a ridge towards the weights that it has: the
    change is 0 where there is nothing to make up for. The strength of the ridge is the one that does best on examples
    that are held out; where none does better than no change, nothing changes. What the chains before this one have
    lost is made up for as well, as their readers come earlier. A kernel with more than `MOST_WEIGHTS` for each output
    stays as it is: its fit would take minutes and gigabytes.

    ``wanted`` is the same chain of ``original``, the model that ``model`` is a copy of; ``kept`` is a bool array
    ``(C,)`` of the channels that are left: what reads the others is 0. The first 1,024 inputs are used, or more where
    an example has few positions. The statistics of the normalizations up to the readers are estimated anew.

    Source: He, Zhang & Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168),
        section 3.1, whose readers are fitted to the original network's answers when channels go.
    """
    pairs = [
        pair
        for pair in zip(chain.readers, wanted.readers, strict=True)
        if math.prod(pair[0].layer.kernel.shape[:-1]) <= MOST_WEIGHTS
    ]
    if not pairs:
        return
    now = input_model(model, [reader.layer for reader, _ in pairs])
    before = input_model(original, [reader.layer for _, reader in pairs])
    arrays = check_inputs("inputs", inputs, model)
    read = keras.tree.flatten(outputs(before, [array[:1] for array in arrays]))  # its size may be open in the model
    fits = [_Fit(*pair, kept, values.shape[1:-1]) for pair, values in zip(pairs, read, strict=True)]
    count = -(-SAMPLES // min(PER_EXAMPLE, *(fit.windows.positions for fit in fits)))
    arrays = [array[:count] for array in arrays]
    reestimate_batch_statistics(now, arrays)
    rng = np.random.default_rng(0)
    for batch in batches(arrays, batch_for(now, None, _BATCH_SIZE, arrays)):
        read = (keras.tree.flatten(outputs(which, batch)) for which in (now, before))
        for fit, *values in zip(fits, *read, strict=True):
            fit.add(*values, rng)
    for fit in fits:
        fit.assign()


class _Windows:
    """Where a convolution, or a Dense layer as one with a kernel of one position, looks when it computes an output.

    Args:
        layer: the layer.
        shape: positions of its input.
    """

    def __init__(self, layer, shape):
        dense, self.pads, self.outputs = isinstance(layer, keras.layers.Dense), [], []
        sizes, self.strides, self.dilations = (
            (1,) * len(shape) if dense else getattr(layer, name) for name in ("kernel_size", "strides", "dilation_rate")
        )
        self.spans = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, self.dilations, strict=True)]
        padding = "valid" if dense else layer.padding
        for length, span, stride in zip(shape, self.spans, self.strides, strict=True):
            missing = max((-(-length // stride) - 1) * stride + span - length, 0)
            pads = {"same": (missing // 2, missing - missing // 2), "causal": (span - 1, 0)}.get(padding, (0, 0))
            self.pads.append(pads)
            self.outputs.append((length + sum(pads) - span) // stride + 1)

    @property
    def positions(self):
        """Number of outputs of one channel."""
        return math.prod(self.outputs)

    def draw(self, count, rng):
        """Some positions of ``count`` examples, or all of them, int ``(count, S)``."""
        if self.positions <= PER_EXAMPLE:
            return np.tile(np.arange(self.positions), (count, 1))
        return rng.integers(self.positions, size=(count, PER_EXAMPLE))

    def cut(self, values, positions):
        """What is read at these positions: rows of ``(N * S, kernel positions * inputs)``, as in the kernel."""
        rank = len(self.outputs)
        padded = np.pad(values, [(0, 0), *self.pads, (0, 0)])
        views = np.lib.stride_tricks.sliding_window_view(padded, self.spans, tuple(range(1, rank + 1)))
        every = [slice(None, None, step) for step in (1, *self.strides, 1, *self.dilations)]
        places = np.unravel_index(positions, self.outputs) if rank else ()
        rows = views[tuple(every)][np.arange(len(values))[:, None], *places]
        return np.moveaxis(rows, 2, -1).reshape(positions.size, math.prod(rows.shape[2:])).astype(np.float64)


class _Fit:
    """Least squares for one reader: what it should add up beyond what it does, from the channels that are left.

    Of inputs ``X`` and of what is missing ``R``, all that ``R ~ X D + c`` needs are the products of the columns of
    ``[X, R, 1]``. Where there is no bias for ``c``, it is 0.
    """

    def __init__(self, reader, wanted, kept, shape):
        self.layer = reader.layer
        self.windows = _Windows(self.layer, shape)
        inputs = np.zeros(self.layer.kernel.shape[-2], bool)
        inputs[reader.inputs[kept]] = True
        self.weights, self.wanted = (_matrix(own.layer) for own in (reader, wanted))
        self.rows = np.tile(inputs, len(self.weights) // len(inputs))
        columns = self.rows.sum() + self.weights.shape[1] + 1
        self.fitted, self.held_out = np.zeros((2, columns, columns))

    def add(self, now, before, rng):
        """Count a batch of what the reader is given, now and in the original."""
        positions = self.windows.draw(len(now), rng)
        held_out = np.arange(len(now)) % _HELD_OUT == _HELD_OUT - 1
        for products, part in ((self.fitted, ~held_out), (self.held_out, held_out)):
            read, wanted = (self.windows.cut(values[part], positions[part]) for values in (now, before))
            missing = wanted @ self.wanted - read @ self.weights
            columns = np.concatenate([read[:, self.rows], missing, np.ones((len(read), 1))], axis=1)
            products += columns.T @ columns

    def assign(self):
        """Change kernel and bias."""
        errors = [self._error(*solution) for solution in self._solutions(self.fitted, _RIDGES)]
        best = int(np.argmin(errors))
        if errors[best] < 0:
            ((change, offset),) = self._solutions(self.fitted + self.held_out, _RIDGES[[best]])
            self.weights[self.rows] += change
            self.layer.kernel.assign(self.weights.reshape(self.layer.kernel.shape))
            if self.layer.bias is not None:
                self.layer.bias.assign_add(offset)

    def _blocks(self, products):
        """``X'X``, ``X'R``, the sums of the columns of both, and the number of rows."""
        read = slice(self.rows.sum())
        missing = slice(read.stop, -1)
        return (
            products[read, read],
            products[read, missing],
            products[-1, read],
            products[-1, missing],
            products[-1, -1],
        )

    def _solutions(self, products, ridges):
        """For every ridge ``r``, the ``D`` and ``c`` with the least ``|X D + c - R|^2 + r mean(x^2) |D|^2``."""
        squares, mixed, inputs, missing, count = self._blocks(products)
        count, centred = max(count, 1), self.layer.bias is not None
        if centred:
            squares, mixed = squares - np.outer(inputs, inputs) / count, mixed - np.outer(inputs, missing) / count
        values, axes = np.linalg.eigh(squares)
        least, turned = max(values.mean(), np.finfo(float).tiny), axes.T @ mixed
        for ridge in ridges:
            change = axes @ (turned / (values + ridge * least)[:, None])
            yield change, (missing - inputs @ change) / count if centred else 0.0

    def _error(self, change, offset):
        """``|X D + c - R|^2 - |R|^2`` of what was held out."""
        squares, mixed, inputs, missing, count = self._blocks(self.held_out)
        slope = np.sum(change * (squares @ change - 2 * mixed))
        return float(slope + np.sum(offset * (2 * (inputs @ change - missing) + count * offset)))


def _matrix(layer):
    """The kernel, float64 ``(kernel positions * inputs, outputs)``."""
    kernel = kernel_values(layer)
    return kernel.reshape(-1, kernel.shape[-1])
