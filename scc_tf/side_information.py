"""What a model carries beside its codes, rounded so that a file needs few bits for it."""

import keras
import numpy as np

from scc_tf.layers import self_compressing_layers

__all__ = ["round_exponents", "round_vectors"]


def round_exponents(model, fraction_bits=3):
    """Round the exponents of all self-compressing kernels to multiples of ``2**-fraction_bits``.

    The steps change by a factor of at most ``2**(2**-(fraction_bits + 1))`` (4.4 % for 3 bits), and codes at the edges
    of a rounding interval with them: re-estimate batch statistics and measure accuracy afterwards.

    Args:
        model: Keras model; the exponents of its self-compressing layers, nested ones included, are assigned.
        fraction_bits: binary places to keep, 0 to 16.

    Raises:
        ValueError: if ``fraction_bits`` is out of range.

    Example:
        >>> import keras, scc_tf
        >>> model = keras.Sequential([keras.Input((3,)), scc_tf.layers.Dense(2)])
        >>> round_exponents(model, 0)
        >>> bool((keras.ops.round(model.layers[0].exponent) == model.layers[0].exponent).numpy().all())
        True
    """
    if not 0 <= fraction_bits <= 16:
        raise ValueError(f"Expected fraction_bits from 0 to 16. Received: fraction_bits={fraction_bits}")
    places = 2.0**fraction_bits
    for layer in self_compressing_layers(model):
        for fmt in layer.formats:
            fmt.exponent.assign(keras.ops.round(fmt.exponent * places) / places)


def round_vectors(model):
    """Round biases, normalization parameters and batch statistics to float16, two bytes each in a file.

    A variable with a value outside float16's range, or so small that float16 loses more than 0.1 % of it, keeps its
    float32 values. Exponents, bit depths and kernels are not touched.

    Args:
        model: Keras model; its float32 variables of rank 0 or 1 are assigned.

    Returns:
        Names of the variables that keep float32, as a tuple of paths.
    """
    formats = {
        id(v)
        for layer in self_compressing_layers(model)
        for fmt in layer.formats
        for v in (fmt.bit_depth, fmt.exponent)
    }
    kept = []
    for variable in model.weights:
        if id(variable) in formats or len(variable.shape) > 1 or variable.dtype != "float32":
            continue
        values = keras.ops.convert_to_numpy(variable)
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16).astype(np.float32)
        if np.all(np.abs(rounded - values) <= 1e-3 * np.abs(values)):
            variable.assign(rounded)
        else:
            kept.append(variable.path)
    return tuple(kept)
