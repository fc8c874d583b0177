"""Layers with masks: pruned kernel entries are zero, and stay zero whatever the optimizer does.

Each kernel has a mask, a non-trainable weight in its shape, so it is saved and restored with the layer. The mask is
applied by the kernel's constraint, after momentum and weight decay have moved it: the forward pass costs what it did.
"""

import keras
import numpy as np
from keras import ops

__all__ = ["KernelMask", "Masked", "masked_class"]


class KernelMask(keras.constraints.Constraint):
    """The constraint of a masked kernel: the one that it had, if any, and then the mask, a variable of 0 and 1."""

    def __init__(self, mask, constraint=None):
        self.mask, self.constraint = mask, constraint

    def __call__(self, kernel):
        """The kernel as it may be, tensor in its shape."""
        kernel = kernel if self.constraint is None else self.constraint(kernel)
        return ops.multiply(kernel, ops.cast(self.mask, kernel.dtype))


class Masked:
    """Mixin that gives every kernel of a layer a mask. List it before the layer's class.

    Attributes:
        masks: ``{kernel name: variable}``, float32 in the kernel's shape: 1 keeps, 0 prunes. Set them with `prune`.
    """

    kernel_names = ("kernel",)

    # The stock layers save a fixed list of variables, and would drop the masks in silence.
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    def build(self, input_shape):
        """Create the layer's weights, then the masks of its kernels."""
        super().build(input_shape)
        self.masks = {}
        for spec in self.entry.kernels:
            kernel = getattr(self, spec.name)
            mask = self.add_weight(
                name=f"{spec.prefix}mask",
                shape=kernel.shape,
                initializer="ones",
                dtype="float32",
                autocast=False,
                trainable=False,
            )
            kernel.constraint = KernelMask(mask, kernel.constraint)
            self.masks[spec.name] = mask

    def prune(self, keep, kernel_name="kernel"):
        """Set the mask of a kernel, and the entries that it prunes to zero.

        Args:
            keep: bool array in the kernel's shape.
            kernel_name: which kernel.

        Raises:
            ValueError: if the layer is not built, has no such kernel, or ``keep`` has another shape.
        """
        mask = getattr(self, "masks", {}).get(kernel_name)
        keep = np.asarray(keep)
        if mask is None or keep.shape != tuple(mask.shape):
            raise ValueError(
                f"Expected a built layer, one of its kernels {self.kernel_names} and a mask in its shape. Received: "
                f"kernel_name={kernel_name!r}, layer={self.name!r}, shape {keep.shape}"
            )
        mask.assign(keep)
        kernel = getattr(self, kernel_name)
        kernel.assign(kernel.constraint(kernel))


def masked_class(name, cls, names):
    """A registered class: a stock or self-compressing one with a mask for each of the kernels ``names``."""
    doc = f"`{cls.__module__.partition('.src')[0]}.{cls.__name__}` with a mask for every kernel; see `Masked`."
    members = {"__doc__": doc, "__module__": "scc_tf.layers", "kernel_names": names}
    return keras.saving.register_keras_serializable(package="scc_tf")(type(name, (Masked, cls), members))
