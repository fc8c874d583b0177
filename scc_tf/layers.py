"""Self-compressing twins of the Keras layers: every output channel learns its own bit depth and exponent.

A twin takes every argument of the stock layer and two more, and is a drop-in for it. ``layer.kernel`` stays the
latent float kernel; the forward pass multiplies by ``layer.quantized("kernel")``. One `ChannelFormat` per kernel
holds the bit depths and exponents, flat, one entry per output channel in the order of the kernel.
"""

import math

import keras
from keras import ops

from scc_tf.quantization import ROUNDINGS, integer_codes, quantize, range_exponent

__all__ = [
    "TWINS",
    "ChannelFormat",
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "DepthwiseConv2D",
    "EinsumDense",
    "SelfCompressing",
    "SeparableConv2D",
    "check_format",
    "einsum_letters",
    "self_compressing_layers",
]


class ChannelFormat:
    """The number format of one kernel: which axes are its channels, and the two learned vectors.

    Attributes:
        name: attribute of the layer that holds the latent kernel, e.g. ``"kernel"``.
        bit_depth: float32 variable ``(C,)``, bits, kept at or above 0 by a constraint.
        exponent: float32 variable ``(C,)``; the step of a channel is ``2**exponent``.
        channels: ``C``.
        fan_in: weights per channel.
    """

    def __init__(self, name, kernel_shape, channel_axes):
        self.name = name
        self.kernel_shape = tuple(kernel_shape)
        self.channel_axes = tuple(axis % len(kernel_shape) for axis in channel_axes)
        self.other_axes = tuple(a for a in range(len(kernel_shape)) if a not in self.channel_axes)
        self.broadcast_shape = tuple(d if a in self.channel_axes else 1 for a, d in enumerate(kernel_shape))
        self.channels = math.prod(self.broadcast_shape)
        self.fan_in = math.prod(kernel_shape) // self.channels
        self.bit_depth = self.exponent = None  # variables, set by the layer

    def spread(self, per_channel):
        """Reshape a ``(C,)`` vector so that it broadcasts against the kernel."""
        return ops.reshape(per_channel, self.broadcast_shape)

    def range_exponents(self, kernel, bit_depth):
        """Exponents ``(C,)`` at which ``bit_depth`` bits (a float or ``(C,)``) just span each channel."""
        bits = ops.broadcast_to(ops.convert_to_tensor(bit_depth, "float32"), (self.channels,))
        kernel = ops.cast(ops.convert_to_tensor(kernel), "float32")
        return ops.reshape(range_exponent(kernel, self.spread(bits), self.other_axes), (self.channels,))


def check_format(initial_bit_depth, rounding):
    """Refuse a format that no layer can start from.

    Raises:
        ValueError: if ``initial_bit_depth`` is not in (0, 24] (float32 holds no wider integers) or
            ``rounding`` is unknown.
    """
    if not 0 < initial_bit_depth <= 24:
        raise ValueError(f"Expected initial_bit_depth in (0, 24]. Received: initial_bit_depth={initial_bit_depth}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"Expected rounding to be one of {ROUNDINGS}. Received: rounding={rounding!r}")


class SelfCompressing:
    """Mixin that gives a Keras layer learned number formats. List it before the stock class.

    Args:
        initial_bit_depth: where the bit depth of every channel starts, bits; positive. The exponents start
            where that many bits just span the channel's initial kernel.
        rounding: ``"nearest"`` or ``"floor"``, see `scc_tf.quantization.quantize`.
        *args, **kwargs: everything that the stock layer takes.

    Raises:
        ValueError: if ``initial_bit_depth`` is not in (0, 24] (float32 holds no wider integers) or
            ``rounding`` is unknown.

    Source: Cséfalvay & Imber 2023, section 3 (arXiv 2301.13142).
    """

    kernel_names = ("kernel",)

    # The stock layers save a fixed list of variables, and would drop the number formats in silence.
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    def __init__(self, *args, initial_bit_depth=8.0, rounding="nearest", **kwargs):
        super().__init__(*args, **kwargs)
        check_format(initial_bit_depth, rounding)
        self.initial_bit_depth = float(initial_bit_depth)
        self.rounding = rounding
        self.formats = ()

    def channel_axes(self, kernel_name):
        """The axes of a kernel that number its output channels."""
        del kernel_name
        return (-1,)

    def add_weight(self, *args, name=None, **kwargs):
        """Create a variable; a kernel is never autocast, so that its codes are the same in mixed precision."""
        if name in self.kernel_names:
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def build(self, input_shape):
        """Create the stock weights, then the formats of every kernel."""
        super().build(input_shape)
        self.formats = tuple(self._add_format(name) for name in self.kernel_names)

    def _add_format(self, name):
        kernel = getattr(self, name)
        channel_format = ChannelFormat(name, kernel.shape, self.channel_axes(name))
        prefix = name.removesuffix("kernel")

        def spanning_exponents(shape, dtype=None):
            del shape
            return ops.cast(channel_format.range_exponents(kernel, self.initial_bit_depth), dtype)

        settings = {"shape": (channel_format.channels,), "dtype": "float32", "autocast": False}
        channel_format.bit_depth = self.add_weight(
            name=f"{prefix}bit_depth",
            initializer=keras.initializers.Constant(self.initial_bit_depth),
            constraint=keras.constraints.NonNeg(),
            **settings,
        )
        channel_format.exponent = self.add_weight(name=f"{prefix}exponent", initializer=spanning_exponents, **settings)
        return channel_format

    def format_of(self, kernel_name="kernel"):
        """The `ChannelFormat` of a kernel.

        Raises:
            ValueError: if the layer is not built or has no kernel of that name.
        """
        for channel_format in self.formats:
            if channel_format.name == kernel_name:
                return channel_format
        raise ValueError(
            f"Expected a built layer and one of its kernels {self.kernel_names}. "
            f"Received: kernel_name={kernel_name!r}, layer={self.name!r}, built={self.built}"
        )

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
        kernel = ops.cast(ops.convert_to_tensor(getattr(self, kernel_name)), "float32")
        return function(kernel, fmt.spread(fmt.bit_depth), fmt.spread(fmt.exponent), self.rounding)

    def _compute(self, kernel_name="kernel"):
        return ops.cast(self.quantized(kernel_name), self.compute_dtype)

    def _add_bias_and_activate(self, outputs):
        if self.use_bias:
            shape = [1] * len(outputs.shape)
            shape[-1 if self.data_format == "channels_last" else 1] = -1
            outputs = ops.add(outputs, ops.reshape(self.bias, shape))
        return outputs if self.activation is None else self.activation(outputs)

    def quantize(self, mode=None, **kwargs):
        """Refused: the layer already learns its own format."""
        del kwargs
        raise ValueError(
            f"Layer {self.name!r} learns its own number format. Expected a stock layer for quantize(): "
            f"call scc_tf.to_plain(model) first. Received: mode={mode!r}"
        )

    def enable_lora(self, rank, **kwargs):
        """Refused: an update of low rank does not stay on the grid."""
        del kwargs
        raise ValueError(
            f"Layer {self.name!r} learns its own number format, which a low-rank update would leave. Expected a "
            f"stock layer for enable_lora(): call scc_tf.to_plain(model) first. Received: rank={rank!r}"
        )

    def get_config(self):
        """The stock configuration with ``initial_bit_depth`` and ``rounding``."""
        config = super().get_config()
        config.update(initial_bit_depth=self.initial_bit_depth, rounding=self.rounding)
        return config


@keras.saving.register_keras_serializable(package="scc_tf")
class Dense(SelfCompressing, keras.layers.Dense):
    """`keras.layers.Dense` with a learned number format per unit; kernel ``(inputs, units)``."""

    def call(self, inputs, training=None):
        """Multiply by the quantized kernel, add the bias, activate."""
        del training
        outputs = ops.matmul(inputs, self._compute())
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


def einsum_letters(equation):
    """The letters of the inputs, of the kernel and of the output: ``("abc", "cd", "abd")`` for ``"abc,cd->abd"``."""
    inputs, rest = equation.replace(" ", "").split(",")
    return inputs, *rest.split("->")


@keras.saving.register_keras_serializable(package="scc_tf")
class EinsumDense(SelfCompressing, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense`; a channel is one index into the kernel's axes that reach the output.

    For ``"abc,cde->abde"`` the kernel ``(c, d, e)`` has ``d * e`` channels of fan-in ``c``.
    """

    def channel_axes(self, kernel_name):
        """The kernel axes whose letters appear in the output of the equation."""
        del kernel_name
        _, kernel, output = einsum_letters(self.equation)
        return tuple(axis for axis, letter in enumerate(kernel) if letter in output)

    def call(self, inputs, training=None):
        """Contract with the quantized kernel, add the bias, activate."""
        del training
        outputs = ops.einsum(self.equation, inputs, self._compute())
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable(package="scc_tf")
class Conv1D(SelfCompressing, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with a learned number format per filter; kernel ``(width, inputs, filters)``."""

    def call(self, inputs):
        """Convolve with the quantized kernel, add the bias, activate."""
        padding = self.padding
        if padding == "causal":
            left = (self.dilation_rate[0] * (self.kernel_size[0] - 1), 0)
            last = self.data_format == "channels_last"
            inputs = ops.pad(inputs, ((0, 0), left, (0, 0)) if last else ((0, 0), (0, 0), left))
            padding = "valid"
        outputs = ops.conv(
            inputs,
            self._compute(),
            strides=list(self.strides),
            padding=padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self._add_bias_and_activate(outputs)


@keras.saving.register_keras_serializable(package="scc_tf")
class Conv2D(SelfCompressing, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a learned number format per filter; kernel ``(h, w, inputs, filters)``."""

    def convolution_op(self, inputs, kernel):
        """Convolve with the quantized kernel, whatever ``kernel`` is."""
        del kernel  # the latent one
        return super().convolution_op(inputs, self._compute())


@keras.saving.register_keras_serializable(package="scc_tf")
class DepthwiseConv2D(SelfCompressing, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D`; kernel ``(h, w, inputs, multiplier)``, ``inputs * multiplier`` channels."""

    def channel_axes(self, kernel_name):
        """Inputs and multiplier together number the output channels."""
        del kernel_name
        return (-2, -1)

    def call(self, inputs):
        """Convolve each input channel with its quantized kernels, add the bias, activate."""
        outputs = ops.depthwise_conv(
            inputs,
            self._compute(),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self._add_bias_and_activate(outputs)


@keras.saving.register_keras_serializable(package="scc_tf")
class SeparableConv2D(SelfCompressing, keras.layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D`; the depthwise and the pointwise kernel each have their own formats."""

    kernel_names = ("depthwise_kernel", "pointwise_kernel")

    def channel_axes(self, kernel_name):
        """Inputs and multiplier for the depthwise kernel, filters for the pointwise one."""
        return (-2, -1) if kernel_name == "depthwise_kernel" else (-1,)

    def call(self, inputs):
        """Convolve with both quantized kernels, add the bias, activate."""
        outputs = ops.separable_conv(
            inputs,
            self._compute("depthwise_kernel"),
            self._compute("pointwise_kernel"),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self._add_bias_and_activate(outputs)


@keras.saving.register_keras_serializable(package="scc_tf")
class Conv2DTranspose(SelfCompressing, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose`; kernel ``(h, w, filters, inputs)``, the channels are the filters."""

    def channel_axes(self, kernel_name):
        """The filters stand on the axis before the last."""
        del kernel_name
        return (-2,)

    def call(self, inputs):
        """Transposed convolution with the quantized kernel, add the bias, activate."""
        outputs = ops.conv_transpose(
            inputs,
            self._compute(),
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self._add_bias_and_activate(outputs)


TWINS = {
    keras.layers.Conv1D: Conv1D,
    keras.layers.Conv2D: Conv2D,
    keras.layers.DepthwiseConv2D: DepthwiseConv2D,
    keras.layers.SeparableConv2D: SeparableConv2D,
    keras.layers.Conv2DTranspose: Conv2DTranspose,
    keras.layers.Dense: Dense,
    keras.layers.EinsumDense: EinsumDense,
}


def self_compressing_layers(model):
    """The self-compressing layers of a model, nested ones included, each once."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, SelfCompressing)]
