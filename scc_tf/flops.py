"""How large a model is and how much it computes for one example: trainable parameters, multiply-accumulates."""

import dataclasses
import math
from typing import ClassVar

import keras
import numpy as np

from scc_tf.graph import check_functional, walk
from scc_tf.layers import kernels_of
from scc_tf.reports import Report, Table

__all__ = ["KernelOperations", "OperationCount", "count_operations", "count_trainable"]

_LOOK_UPS = (keras.layers.Embedding, keras.layers.Normalization, keras.layers.PReLU)  # no kernel, whatever their rank


def count_trainable(model):
    """Trainable parameters of a built model, as papers count them: without running statistics.

    Example:
        >>> count_trainable(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
        15
    """
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


@dataclasses.dataclass(frozen=True)
class KernelOperations:
    """One application of one kernel; see `OperationCount` for the units."""

    layer: str
    kernel: str
    multiply_accumulates: int
    nonzero: int


@dataclasses.dataclass(frozen=True, repr=False)
class OperationCount(Report):
    """What one forward pass of one example takes.

    Attributes:
        kernels: one `KernelOperations` per application of a kernel, in the order of the forward pass; a shared layer
            stands here once for each of its calls.
        uncounted: names of layers with weights of rank 2 or more that are not known here (recurrent ones, attention):
            they come on top.
    """

    kernels: tuple
    uncounted: tuple
    totals: ClassVar = ("multiply_accumulates", "nonzero_multiply_accumulates")

    @property
    def multiply_accumulates(self):
        """Multiplications with a weight, each followed by an addition, as dense hardware executes them."""
        return sum(k.multiply_accumulates for k in self.kernels)

    @property
    def nonzero_multiply_accumulates(self):
        """Those with a weight that is not 0: the least that hardware for sparse weights has to do."""
        return sum(k.nonzero for k in self.kernels)

    @property
    def flops(self):
        """Floating-point operations: two for each multiply-accumulate."""
        return 2 * self.multiply_accumulates

    def parts(self):
        """A table: one row per application of a kernel, then the totals."""
        rows = [(f"{k.layer}/{k.kernel}"[:39], k.multiply_accumulates, k.nonzero) for k in self.kernels]
        rows.append(("total", self.multiply_accumulates, self.nonzero_multiply_accumulates))
        rows = [(name, f"{dense:,}", f"{dense - nonzero:,}") for name, dense, nonzero in rows]
        table = Table("{:<40}{:>22}{:>16}", rows, ("kernel", "multiply-accumulates", "with weight 0"))
        return [table, *(f"not counted: {name}" for name in self.uncounted)]


def count_operations(model):
    """Count the multiply-accumulates of a model for one example.

    ``weights * positions`` for each kernel, where the positions are those of the output (of the input for a transposed
    convolution, before it is cropped), padding included. Counted are Conv1D, Conv2D, DepthwiseConv2D, SeparableConv2D,
    Conv2DTranspose, Dense, EinsumDense and their self-compressing, weight-sharing and masked forms; their kernels are
    those that they multiply by. Biases, normalization, activations and pooling are not counted, which is the custom:
    they are some per mille, and the normalization folds into the kernels.

    Channels that are dead but not removed count: a dense machine computes them. See `scc_tf.remove_dead_channels`.

    Args:
        model: built Sequential or functional model; nested models and shared layers count once per call.

    Returns:
        `OperationCount`; ``print`` it for a table.

    Raises:
        ValueError: if the model is subclassed or not built, or the size of an input of a kernel is not fixed.

    Source: Blalock et al. 2020, "What is the State of Neural Network Pruning?" (arXiv 2003.03033), which asks for
        multiply-accumulates before and after beside the size.

    Example:
        >>> model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
        >>> count_operations(model).multiply_accumulates  # 72 weights at 4 x 4 positions
        1152
    """
    check_functional(model)
    kernels, uncounted = [], []

    def visit(layer, inputs, values, outputs):
        del values
        found = kernels_of(layer)
        channels = found[-1].channels if found else None
        for layout in found:
            positions = layout.spec.positions(layout, inputs[0].shape, outputs[0].shape, channels)
            nonzero = int(np.count_nonzero(layout.values()))
            operations = positions * math.prod(layout.shape), positions * nonzero
            kernels.append(KernelOperations(layer.name, layout.name, *operations))
        if not found and _has_kernel(layer):
            uncounted.append(layer.name)
        return [None] * len(outputs)

    walk(model, [None] * len(model.inputs), visit)
    return OperationCount(tuple(kernels), tuple(dict.fromkeys(uncounted)))


def _has_kernel(layer):
    weights = getattr(layer, "weights", ())  # an operation such as x + y has none
    return not isinstance(layer, _LOOK_UPS) and any(len(w.shape) >= 2 for w in weights)
