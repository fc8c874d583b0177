"""Layers with arguments and inputs that reach every branch of them; `layer_checks` says what must hold."""

import dataclasses

import numpy as np
from keras import constraints, regularizers

from scc_tf import layers


def learn_formats(layer):
    """Move bit depths and exponents, each channel its own way, as training would."""
    rng = np.random.default_rng(7)
    for fmt in layer.formats:
        fmt.bit_depth.assign(rng.uniform(1.2, 6, fmt.channels))
        fmt.exponent.assign_add(rng.uniform(-0.5, 2, fmt.channels))


def prune_and_move_centroids(layer):
    """Prune half of the weights and move the centroids, as Deep Compression would."""
    rng = np.random.default_rng(7)
    for shared in layer.shared_kernels:
        indices = np.asarray(shared.indices) * rng.integers(0, 2, shared.shape)
        layer.share(rng.normal(size=shared.centroids.shape), indices, shared.name)


@dataclasses.dataclass(frozen=True)
class Case:
    """A twin with the arguments of its stock layer, and the shape of one input."""

    twin: type
    arguments: dict
    input_shape: tuple
    channels_last: callable = lambda outputs: outputs  # the last axes number the channels after it

    @property
    def stock(self):
        return self.twin.entry.stock

    @property
    def self_compresses(self):
        return issubclass(self.twin, layers.SelfCompressing)

    @property
    def settings(self):
        """Arguments of the twin alone, none of them at its default."""
        own = {"initial_bit_depth": 3.0, "rounding": "floor", "bias_exponent": -3}
        return own if self.self_compresses else {"clusters": 3}

    def __str__(self):
        shown = (f"{k}={v}" if isinstance(v, int | str | tuple) else k for k, v in self.arguments.items())
        return f"{self.twin.__name__}({','.join(shown)})"

    def inputs(self, dtype="float32"):
        return np.random.default_rng(3).normal(size=(2, *self.input_shape)).astype(dtype)

    def layer(self, **extra):
        """The twin, built, with a bias that is not zero."""
        rng = np.random.default_rng(5)
        layer = self.twin(**self.arguments, **extra)
        layer.build((None, *self.input_shape))
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
        return layer

    def trained_layer(self, **extra):
        """The twin with its settings, and variables as after training."""
        layer = self.layer(**self.settings, **extra)
        learn_formats(layer) if self.self_compresses else prune_and_move_centroids(layer)
        return layer

    def stock_layer(self, like, **extra):
        """The stock layer with the kernels that a twin multiplies by and the bias that it adds."""
        layer = self.stock(**self.arguments, **extra)
        layer.build((None, *self.input_shape))
        for weight in layer.weights:
            weight.assign(like.quantized_bias() if weight.name == "bias" else like.quantized(weight.name))
        return layer

    def weight_sharing(self):
        """The same case for the weight-sharing layer, which takes no constraints on kernels."""
        arguments = {k: v for k, v in self.arguments.items() if k != "kernel_constraint"}
        return dataclasses.replace(self, twin=self.twin.entry.weight_sharing, arguments=arguments)


REGULARIZED = {
    "kernel_regularizer": regularizers.L2(0.1),
    "bias_constraint": constraints.NonNeg(),
    "kernel_constraint": constraints.MaxNorm(2),
}
# The first case of each layer stands for it in the checks that are slow.
CASES = [
    Case(layers.Dense, {"units": 4}, (5,)),
    Case(layers.Dense, {"units": 3, "use_bias": False, "activation": "tanh"}, (2, 5)),
    Case(layers.Dense, dict(units=3, **REGULARIZED), (5,)),
    Case(layers.EinsumDense, {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"}, (4, 3)),
    Case(layers.EinsumDense, {"equation": "...x,xy->...y", "output_shape": 4, "bias_axes": "y"}, (3, 5)),
    Case(layers.EinsumDense, {"equation": "...x,xy->...y", "output_shape": 4, "activation": "tanh"}, (5,)),
    Case(layers.EinsumDense, dict(equation="abde,dec->abc", output_shape=(None, 4), **REGULARIZED), (4, 2, 3)),
    Case(layers.EinsumDense, {"equation": "abc,bcd->abd", "output_shape": (2, 3)}, (2, 5)),
    Case(
        layers.EinsumDense,
        {"equation": "abc,cde->abed", "output_shape": (None, 3, 2), "bias_axes": "e"},
        (4, 3),
        lambda outputs: np.swapaxes(outputs, -1, -2),
    ),
    Case(layers.Conv1D, {"filters": 4, "kernel_size": 3}, (7, 2)),
    Case(
        layers.Conv1D,
        {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2, "use_bias": False},
        (7, 2),
    ),
    Case(
        layers.Conv1D,
        {"filters": 4, "kernel_size": 2, "padding": "same", "strides": 2, "groups": 2, "activation": "tanh"},
        (6, 4),
    ),
    Case(layers.Conv1D, dict(filters=3, kernel_size=2, data_format="channels_last", **REGULARIZED), (6, 4)),
    Case(layers.Conv2D, {"filters": 4, "kernel_size": 3}, (6, 5, 2)),
    Case(
        layers.Conv2D,
        {"filters": 4, "kernel_size": (3, 2), "padding": "same", "strides": 2, "use_bias": False},
        (6, 5, 2),
    ),
    Case(layers.Conv2D, {"filters": 4, "kernel_size": 2, "groups": 2, "activation": "tanh"}, (4, 4, 4)),
    Case(
        layers.Conv2D,
        dict(filters=3, kernel_size=3, dilation_rate=2, data_format="channels_last", **REGULARIZED),
        (6, 6, 2),
    ),
    Case(layers.DepthwiseConv2D, {"kernel_size": 3}, (6, 5, 3)),
    Case(layers.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2}, (6, 6, 3)),
    Case(
        layers.DepthwiseConv2D,
        {"kernel_size": 2, "dilation_rate": 2, "use_bias": False, "activation": "tanh"},
        (6, 5, 3),
    ),
    Case(layers.SeparableConv2D, {"filters": 4, "kernel_size": 3}, (6, 5, 3)),
    Case(
        layers.SeparableConv2D,
        {"filters": 4, "kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2},
        (6, 6, 3),
    ),
    Case(
        layers.SeparableConv2D,
        {
            "filters": 3,
            "kernel_size": 2,
            "use_bias": False,
            "activation": "tanh",
            "pointwise_regularizer": regularizers.L1(0.1),
        },
        (6, 5, 3),
    ),
    Case(layers.Conv2DTranspose, {"filters": 4, "kernel_size": 3}, (4, 5, 2)),
    Case(
        layers.Conv2DTranspose,
        {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1},
        (3, 3, 2),
    ),
    Case(layers.Conv2DTranspose, {"filters": 3, "kernel_size": 2, "use_bias": False, "activation": "tanh"}, (4, 5, 2)),
]
ONE_OF_EACH = list({case.twin: case for case in reversed(CASES)}.values())[::-1]
