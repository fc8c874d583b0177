"""Layers that do not multiply by a float variable, but by a kernel that they make of other variables.

The stock class computes: while it does, ``self.kernel`` and ``self.bias`` are what `quantized` and `quantized_bias`
give. At all other times they are the latent variables.
"""

import contextlib
import functools
import inspect
import threading

import keras
from keras import ops

__all__ = ["CompressedKernels", "compressed_class"]

_RUNNING = threading.local()  # the layers whose stock code runs in this thread


class CompressedKernels:
    """Mixin of the layers that multiply by ``quantized(kernel_name)`` instead of a variable.

    Attributes:
        entry: the `scc_tf.layers.registry.Entry` of the stock class.
        kernel_names: the kernels, in the order in which they are applied.
    """

    kernel_names = ("kernel",)

    # The stock layers save a fixed list of variables, and would drop all others in silence.
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    def quantized(self, kernel_name="kernel"):
        """The quantized kernel, float32 in the kernel's shape: what the layer multiplies by."""
        raise NotImplementedError

    def quantized_bias(self):
        """The bias that the layer adds; None if it has none."""
        return vars(self).get("bias")

    def _of_kernel(self, parts, kernel_name):
        """The one of ``parts`` that belongs to a kernel."""
        for part in parts:
            if part.name == kernel_name:
                return part
        raise ValueError(
            f"Expected a built layer and one of its kernels {self.kernel_names}. "
            f"Received: kernel_name={kernel_name!r}, layer={self.name!r}, built={self.built}"
        )

    def quantize(self, *args, **kwargs):
        """Refused, as are updates of low rank: the layer already has a compressed kernel of its own."""
        raise ValueError(
            "Expected a stock layer for quantize() or enable_lora(): call scc_tf.to_plain(model) first. "
            f"Received: layer {self.name!r}, which makes its own compressed kernel, with {args=}, {kwargs=}"
        )

    enable_lora = quantize


class _Substitute:
    """An attribute of a layer, the latent one; what the layer computes with while its stock code runs."""

    def __init__(self, stock, name):
        self._name, self._inherited = name, inspect.getattr_static(stock, name, None)

    def __get__(self, layer, owner=None):
        if layer is None:
            return self
        if id(layer) in getattr(_RUNNING, "layers", ()):
            value = layer.quantized_bias() if self._name == "bias" else layer.quantized(self._name)
            return None if value is None else ops.cast(value, layer.compute_dtype)
        if self._inherited is not None:
            return self._inherited.__get__(layer, owner)
        if self._name not in vars(layer):
            raise AttributeError(f"{type(layer).__name__!r} object has no attribute {self._name!r}")
        return vars(layer)[self._name]

    def __set__(self, layer, value):
        vars(layer)[self._name] = value


@contextlib.contextmanager
def _running(layer):
    before = getattr(_RUNNING, "layers", frozenset())
    _RUNNING.layers = before | {id(layer)}
    try:
        yield
    finally:
        _RUNNING.layers = before


def compressed_class(name, family, stock, names, doc):
    """A registered class: ``stock``, whose code computes, with kernels of a ``family`` of `CompressedKernels`."""

    @functools.wraps(stock.call)
    def call(self, *args, **kwargs):
        with _running(self):
            return stock.call(self, *args, **kwargs)

    substitutes = {n: _Substitute(stock, n) for n in (*names, "bias")}
    members = {"__doc__": doc, "__module__": "scc_tf.layers", "kernel_names": names, "call": call, **substitutes}
    return keras.saving.register_keras_serializable(package="scc_tf")(type(name, (family, stock), members))
