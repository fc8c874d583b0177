"""Dense and EinsumDense."""

import math

import keras

from scc_tf.layers.forms import add_layer
from scc_tf.layers.registry import KernelSpec, elements

__all__ = ["Dense", "EinsumDense", "WeightSharingDense", "WeightSharingEinsumDense"]


class _Einsum(KernelSpec):
    """Any axes in any order: the equation tells."""

    any_order = True

    def _letters(self, layer):
        """Of the inputs, the kernel and the output: ``("abc", "cd", "abd")`` for ``"abc,cd->abd"``."""
        inputs, rest = layer.equation.replace(" ", "").split(",")
        return inputs, *rest.split("->")

    def channel_axes(self, layer):
        _, kernel, output = self._letters(layer)
        return tuple(axis for axis, letter in enumerate(kernel) if letter in output)

    def input_axis(self, layout):
        return layout.other_axes[0] if len(layout.other_axes) == 1 else None

    def is_exact(self, layout):
        return True

    def reads_channels(self, layer, rank, axis):
        inputs, kernel, output = self._letters(layer)
        summed = (set(inputs) | set(kernel)) - set(output)  # "abc,cd->ad" sums the positions too
        return summed == {inputs[-1]} and inputs[-1] in kernel and axis == rank - 1

    def writes_channels(self, layer):
        _, kernel, output = self._letters(layer)
        return set(kernel) & set(output) == {output[-1]} and layer.bias_axes in (None, "", output[-1])

    def positions(self, layout, inputs, outputs, channels):
        letters, kernel, _ = self._letters(layout.layer)
        return elements(inputs, layout.layer) // math.prod(
            n for a, n in zip(kernel, layout.shape, strict=True) if a in letters
        )


Dense, WeightSharingDense = add_layer(
    keras.layers.Dense, [KernelSpec()], "kernel ``(inputs, units)``, the channels are the units"
)
EinsumDense, WeightSharingEinsumDense = add_layer(
    keras.layers.EinsumDense,
    [_Einsum()],
    "a channel is one index into the kernel's axes that reach the output: ``d * e`` of them in ``abc,cde->abde``",
)
