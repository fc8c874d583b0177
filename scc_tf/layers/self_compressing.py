"""Self-compressing layers: every output channel learns its own bit depth and exponent.

Such a layer takes every argument of the stock layer and three more, and is a drop-in for it. ``layer.kernel`` stays
the latent float kernel; the forward pass multiplies by ``layer.quantized("kernel")``. One `ChannelFormat` per kernel
holds the bit depths and exponents, flat, one entry per output channel in the order of the kernel.
"""

import math

import keras
from keras import ops

from scc_tf.arguments import check_choice, check_count, check_number
from scc_tf.keras_private import all_layers
from scc_tf.layers.compressed import CompressedKernels
from scc_tf.layers.registry import KernelLayout
from scc_tf.quantization import ROUNDINGS, integer_codes, quantize, range_exponent, round_ste

__all__ = ["ChannelFormat", "SelfCompressing", "check_format", "self_compressing_layers"]

_BITS_TO_127 = 1.0 + math.log2(127)  # of which the half range is 127 steps


class ChannelFormat(KernelLayout):
    """The number format of one kernel: its layout, and the two learned vectors.

    Attributes:
        kernel: the latent kernel, a variable.
        bit_depth: float32 variable ``(C,)``, bits, kept at or above 0 by a constraint.
        exponent: float32 variable ``(C,)``; the step of a channel is ``2**exponent``.
    """

    def __init__(self, layer, spec):
        self.kernel = getattr(layer, spec.name)
        super().__init__(layer, spec, self.kernel.shape)
        settings = {"shape": (self.channels,), "dtype": "float32", "autocast": False}
        self.bit_depth = layer.add_weight(
            name=f"{self.prefix}bit_depth",
            initializer=keras.initializers.Constant(layer.initial_bit_depth),
            constraint=keras.constraints.NonNeg(),
            **settings,
        )
        self.exponent = layer.add_weight(
            name=f"{self.prefix}exponent",
            initializer=lambda shape, dtype: ops.cast(
                self.range_exponents(self.kernel, layer.initial_bit_depth), dtype
            ),
            **settings,
        )

    def range_exponents(self, kernel, bit_depth):
        """Exponents ``(C,)`` at which ``bit_depth`` bits (a float or ``(C,)``) just span each channel.

        At 8 bits the largest weight gets the code 127 or -127, with a step that is 0.8 % wider: -128 has no place in
        integer arithmetic, and a kernel that holds it is computed in float (`scc_tf.export_tflite`).
        """
        bits = ops.broadcast_to(ops.convert_to_tensor(bit_depth, "float32"), (self.channels,))
        bits = ops.where(bits > 8.0, bits, ops.minimum(bits, _BITS_TO_127))
        kernel = ops.cast(ops.convert_to_tensor(kernel), "float32")
        return ops.reshape(range_exponent(kernel, self.spread(bits), self.other_axes), (self.channels,))


def check_format(initial_bit_depth, rounding, bias_exponent=None):
    """Raise a ValueError for a format that no layer can start from; see `SelfCompressing`."""
    check_number("initial_bit_depth", initial_bit_depth, high=24, above=0)
    check_choice("rounding", rounding, ROUNDINGS)
    if bias_exponent is not None:
        check_count("bias_exponent", bias_exponent, least=-24, most=8)


class SelfCompressing(CompressedKernels):
    """Mixin that gives a Keras layer learned number formats. List it before the stock class.

    Args:
        initial_bit_depth: where the bit depth of every channel starts, bits; positive. The exponents start
            where that many bits just span the channel's initial kernel.
        rounding: ``"nearest"`` or ``"floor"``, see `scc_tf.quantization.quantize`.
        bias_exponent: int; the layer adds its bias rounded to multiples of ``2**bias_exponent``, straight-through.
            None adds it as it is.
        *args: as the stock layer takes them.
        **kwargs: as the stock layer takes them.

    Attributes:
        formats: tuple of `ChannelFormat`, one per kernel, once the layer is built.

    Raises:
        ValueError: if ``initial_bit_depth`` is not in (0, 24] (float32 holds no wider integers), ``rounding`` is
            unknown, or ``bias_exponent`` is not an integer from -24 to 8.

    Source: Cséfalvay & Imber 2023, section 3 (arXiv 2301.13142).
    """

    def __init__(self, *args, initial_bit_depth=8.0, rounding="nearest", bias_exponent=None, **kwargs):
        super().__init__(*args, **kwargs)
        check_format(initial_bit_depth, rounding, bias_exponent)
        self.initial_bit_depth = float(initial_bit_depth)
        self.rounding = rounding
        self.bias_exponent = None if bias_exponent is None else int(bias_exponent)
        self.formats = ()

    def add_weight(self, *args, name=None, **kwargs):
        """Create a variable; what has codes is never autocast, so that they are the same in mixed precision."""
        if name in (*self.kernel_names, "bias"):
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def build(self, input_shape):
        """Create the stock weights, then the formats of every kernel."""
        super().build(input_shape)
        self.formats = tuple(ChannelFormat(self, spec) for spec in self.entry.kernels)

    def format_of(self, kernel_name="kernel"):
        """The `ChannelFormat` of a kernel; a ValueError if the layer is not built or has no such kernel."""
        return self._of_kernel(self.formats, kernel_name)

    @property
    def bit_depth(self):
        """Bit depths ``(C,)`` of the layer's only kernel."""
        return self.format_of("kernel").bit_depth

    @property
    def exponent(self):
        """Exponents ``(C,)`` of the layer's only kernel."""
        return self.format_of("kernel").exponent

    def quantized(self, kernel_name="kernel"):
        """The quantized kernel, float32 in the kernel's shape: what the layer multiplies by."""
        return self._with_format(quantize, kernel_name)

    def codes(self, kernel_name="kernel"):
        """The integer codes of a kernel, int32 in the kernel's shape."""
        return self._with_format(integer_codes, kernel_name)

    def _with_format(self, function, kernel_name):
        fmt = self.format_of(kernel_name)
        kernel = ops.cast(ops.convert_to_tensor(fmt.kernel), "float32")
        return function(kernel, fmt.spread(fmt.bit_depth), fmt.spread(fmt.exponent), self.rounding)

    @property
    def has_quantized_bias(self):
        """Whether the layer rounds a bias."""
        return self.bias_exponent is not None and super().quantized_bias() is not None

    def scaled_bias(self):
        """The latent bias in steps of ``2**bias_exponent``, float32; its integers are the codes."""
        return ops.cast(ops.convert_to_tensor(super().quantized_bias()), "float32") * 2.0**-self.bias_exponent

    def quantized_bias(self):
        """The bias that the layer adds, rounded if it has a ``bias_exponent``; None if it has none."""
        if not self.has_quantized_bias:
            return super().quantized_bias()
        return round_ste(self.scaled_bias()) * 2.0**self.bias_exponent

    def get_config(self):
        """The stock configuration with ``initial_bit_depth``, ``rounding`` and ``bias_exponent``."""
        own = {name: getattr(self, name) for name in ("initial_bit_depth", "rounding", "bias_exponent")}
        return {**super().get_config(), **own}


def self_compressing_layers(model):
    """The self-compressing layers of a model, nested ones included, each once."""
    return [layer for layer in all_layers(model) if isinstance(layer, SelfCompressing)]
