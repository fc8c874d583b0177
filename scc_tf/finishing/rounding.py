"""What a model carries beside its codes, rounded so that a file needs few bits for it."""

import keras
import numpy as np

from scc_tf.arguments import check_count
from scc_tf.inference import check_model
from scc_tf.keras_private import all_layers
from scc_tf.layers import frozen_variables, is_frozen, self_compressing_layers

__all__ = ["round_exponents", "round_vectors"]

_FAR = 8.0  # standard deviations: means beyond lose more than those of usual networks


def round_exponents(model, fraction_bits=3, rescale=False, *, include_frozen=False):
    """Round the exponents of all self-compressing kernels to multiples of ``2**-fraction_bits``.

    The steps change by a factor of at most ``2**(2**-(fraction_bits + 1))`` (4.4 % for 3 bits), and codes at the edges
    of a rounding interval with them: re-estimate batch statistics and measure accuracy afterwards.

    Args:
        model: Keras model; the exponents of its self-compressing layers, nested ones included, are assigned.
        fraction_bits: binary places to keep, 0 to 16.
        rescale: whether latent kernels move along with their steps, so that the codes stay. Weights that were trained
            with ``size_model="entropy"`` gather at the edges: without this, many codes would change.
        include_frozen: whether layers with ``trainable=False`` are rounded, too.

    Raises:
        ValueError: if ``fraction_bits`` is out of range.

    Example:
        >>> import keras, scc_tf
        >>> model = keras.Sequential([keras.Input((3,)), scc_tf.layers.Dense(2)])
        >>> round_exponents(model, 0)
        >>> bool((keras.ops.round(model.layers[0].exponent) == model.layers[0].exponent).numpy().all())
        True
    """
    check_model(model)
    places = 2.0 ** check_count("fraction_bits", fraction_bits, least=0, most=16)
    for layer in self_compressing_layers(model):
        for fmt in layer.formats if include_frozen or not is_frozen(layer) else ():
            rounded = keras.ops.round(fmt.exponent * places) / places
            if rescale:
                kernel = getattr(layer, fmt.name)
                kernel.assign(kernel * keras.ops.power(2.0, fmt.spread(rounded - fmt.exponent)))
            fmt.exponent.assign(rounded)


def round_vectors(model, mantissa_bits=10, *, include_frozen=False):
    """Round biases, normalization parameters and batch statistics to few bits, as many as float16 has or fewer.

    A quantized bias becomes what its layer adds. Of the others, a variable with a value outside float16's range, or so
    small that float16 loses more than it does elsewhere, keeps its float32 values; and so do the means of a
    BatchNormalization, where one of them is more than eight standard deviations from 0 and loses by it. Exponents, bit
    depths, kernels, and what a `Normalization` has learned of its inputs, are not touched.

    Args:
        model: Keras model; its float32 variables of rank 0 or 1 are assigned.
        mantissa_bits: bits behind the leading one, from 0 to 10 (float16: two bytes each in a file).
        include_frozen: whether layers with ``trainable=False`` are rounded, too.

    Returns:
        Names of the variables that keep float32, as a tuple of paths.

    Raises:
        ValueError: if ``mantissa_bits`` is out of range.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> _ = model.layers[0].bias.assign([1.3, -0.1])
        >>> round_vectors(model, mantissa_bits=2)
        ()
        >>> model.layers[0].bias.numpy().tolist()
        [1.25, -0.09375]
    """
    check_model(model)
    check_count("mantissa_bits", mantissa_bits, least=0, most=10)
    done = set() if include_frozen else frozen_variables(model)
    for layer in all_layers(model):
        if hasattr(layer, "finalize_state"):  # it has made constants of what it knows of its data
            done |= {id(v) for v in layer.weights}
    for layer in self_compressing_layers(model):
        done |= {id(v) for fmt in layer.formats for v in (fmt.bit_depth, fmt.exponent)}
        if layer.has_quantized_bias and id(layer.bias) not in done:
            layer.bias.assign(layer.quantized_bias())
            done.add(id(layer.bias))
    deviations, kept = _deviations(model), []
    for variable in model.weights:
        if id(variable) in done or len(variable.shape) > 1 or variable.dtype != "float32":
            continue
        values = keras.ops.convert_to_numpy(variable)
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16).astype(np.float32)
        if np.all(np.abs(rounded - values) <= 1e-3 * np.abs(values)):
            rounded = rounded if mantissa_bits == 10 else _rounded(values, mantissa_bits)
            moved = np.abs(rounded - values) / deviations.get(id(variable), np.inf)
            if np.any(moved > _FAR * 2.0 ** -(mantissa_bits + 1)):
                kept.append(variable.path)
                continue
            variable.assign(rounded)
        else:
            kept.append(variable.path)
    return tuple(kept)


def _deviations(model):
    """``{id of a moving mean: standard deviations}``: what a mean is rounded by counts in these."""
    norms = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    return {id(n.moving_mean): np.sqrt(np.asarray(n.moving_variance) + n.epsilon) for n in norms if n.built}


def _rounded(values, mantissa_bits):
    mantissas, exponents = np.frexp(values)  # from 1/2 on, so one bit more
    places = mantissa_bits + 1
    return np.ldexp(np.rint(np.ldexp(mantissas, places)), exponents - places).astype(np.float32)
