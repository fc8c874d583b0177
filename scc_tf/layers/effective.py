"""Layers that do not multiply by a float variable, but by a kernel that they make of other variables.

`EffectiveKernels` says what every family of such layers has in common: `scc_tf.layers.SelfCompressing` and
`scc_tf.layers.WeightSharing` say how the kernel is made. One mixin per stock class says how it is applied. A layer is
made of three classes, in this order: the family, the mixin of the stock class, the stock class.
"""

import keras
from keras import ops

from scc_tf.layers.axes import einsum_letters

__all__ = [
    "EffectiveConv1D",
    "EffectiveConv2D",
    "EffectiveConv2DTranspose",
    "EffectiveDense",
    "EffectiveDepthwiseConv2D",
    "EffectiveEinsumDense",
    "EffectiveKernels",
    "EffectiveSeparableConv2D",
]


class EffectiveKernels:
    """Mixin of the layers that multiply by ``effective(kernel_name)`` instead of a variable.

    Attributes:
        kernel_names: the kernels, in the order in which they are applied.
    """

    kernel_names = ("kernel",)

    # The stock layers save a fixed list of variables, and would drop all others in silence.
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    def channel_axes(self, kernel_name):
        """The axes of a kernel that number its output channels."""
        del kernel_name
        return (-1,)

    def effective(self, kernel_name="kernel"):
        """The kernel that the layer multiplies by, float32 in the kernel's shape."""
        raise NotImplementedError

    def effective_bias(self):
        """The bias that the layer adds; None if it has none."""
        return getattr(self, "bias", None)

    def _compute(self, kernel_name="kernel"):
        return ops.cast(self.effective(kernel_name), self.compute_dtype)

    def _compute_bias(self):
        return ops.cast(self.effective_bias(), self.compute_dtype)

    def _named(self, parts, kernel_name):
        """The one of ``parts`` that belongs to a kernel.

        Raises:
            ValueError: if the layer is not built or has no kernel of that name.
        """
        for part in parts:
            if part.name == kernel_name:
                return part
        raise ValueError(
            f"Expected a built layer and one of its kernels {self.kernel_names}. "
            f"Received: kernel_name={kernel_name!r}, layer={self.name!r}, built={self.built}"
        )

    def _add_bias_and_activate(self, outputs):
        if self.use_bias:
            shape = [1] * len(outputs.shape)
            shape[-1 if self.data_format == "channels_last" else 1] = -1
            outputs = ops.add(outputs, ops.reshape(self._compute_bias(), shape))
        return outputs if self.activation is None else self.activation(outputs)

    def quantize(self, mode=None, **kwargs):
        """Refused: the layer already has a compressed kernel of its own."""
        del kwargs
        raise ValueError(
            f"Layer {self.name!r} makes its own compressed kernel. Expected a stock layer for quantize(): "
            f"call scc_tf.to_plain(model) first. Received: mode={mode!r}"
        )

    def enable_lora(self, rank, **kwargs):
        """Refused: with an update of low rank the kernel would no longer be a compressed one."""
        del kwargs
        raise ValueError(
            f"Layer {self.name!r} makes its own compressed kernel, which a low-rank update would leave. Expected a "
            f"stock layer for enable_lora(): call scc_tf.to_plain(model) first. Received: rank={rank!r}"
        )


class EffectiveDense(EffectiveKernels):
    """How `keras.layers.Dense` applies its kernel ``(inputs, units)``."""

    def call(self, inputs, training=None):
        """Multiply by the effective kernel, add the bias, activate."""
        del training
        outputs = ops.matmul(inputs, self._compute())
        if self.use_bias:
            outputs = ops.add(outputs, self._compute_bias())
        return outputs if self.activation is None else self.activation(outputs)


class EffectiveEinsumDense(EffectiveKernels):
    """How `keras.layers.EinsumDense` applies its kernel."""

    def channel_axes(self, kernel_name):
        """The kernel axes whose letters appear in the output of the equation."""
        del kernel_name
        _, kernel, output = einsum_letters(self.equation)
        return tuple(axis for axis, letter in enumerate(kernel) if letter in output)

    def call(self, inputs, training=None):
        """Contract with the effective kernel, add the bias, activate."""
        del training
        outputs = ops.einsum(self.equation, inputs, self._compute())
        if self.bias is not None:
            outputs = ops.add(outputs, self._compute_bias())
        return outputs if self.activation is None else self.activation(outputs)


class EffectiveConv1D(EffectiveKernels):
    """How `keras.layers.Conv1D` applies its kernel ``(width, inputs, filters)``."""

    def call(self, inputs):
        """Convolve with the effective kernel, add the bias, activate."""
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


class EffectiveConv2D(EffectiveKernels):
    """How `keras.layers.Conv2D` applies its kernel ``(h, w, inputs, filters)``."""

    def convolution_op(self, inputs, kernel):
        """Convolve with the effective kernel, whatever ``kernel`` is."""
        del kernel  # the latent one
        return super().convolution_op(inputs, self._compute())

    def call(self, inputs):
        """Convolve, add the bias, activate."""
        return self._add_bias_and_activate(self.convolution_op(inputs, self.kernel))


class EffectiveDepthwiseConv2D(EffectiveKernels):
    """How `keras.layers.DepthwiseConv2D` applies its kernel ``(h, w, inputs, multiplier)``."""

    def channel_axes(self, kernel_name):
        """Inputs and multiplier together number the output channels."""
        del kernel_name
        return (-2, -1)

    def call(self, inputs):
        """Convolve each input channel with its effective kernels, add the bias, activate."""
        outputs = ops.depthwise_conv(
            inputs,
            self._compute(),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self._add_bias_and_activate(outputs)


class EffectiveSeparableConv2D(EffectiveKernels):
    """How `keras.layers.SeparableConv2D` applies its two kernels."""

    kernel_names = ("depthwise_kernel", "pointwise_kernel")

    def channel_axes(self, kernel_name):
        """Inputs and multiplier for the depthwise kernel, filters for the pointwise one."""
        return (-2, -1) if kernel_name == "depthwise_kernel" else (-1,)

    def call(self, inputs):
        """Convolve with both effective kernels, add the bias, activate."""
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


class EffectiveConv2DTranspose(EffectiveKernels):
    """How `keras.layers.Conv2DTranspose` applies its kernel ``(h, w, filters, inputs)``."""

    def channel_axes(self, kernel_name):
        """The filters stand on the axis before the last."""
        del kernel_name
        return (-2,)

    def call(self, inputs):
        """Transposed convolution with the effective kernel, add the bias, activate."""
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
