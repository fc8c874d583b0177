"""Inputs that a model can be asked, made up from what its first layers read."""

import keras
import numpy as np

from scc_tf.graph.walk import check_functional, walk
from scc_tf.keras_private import all_layers

__all__ = ["probe_inputs"]

OPEN_SIZES = (16, 32, 64, 128, 256)  # of axes that a model leaves open
_LOOKUPS = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization)


def probe_inputs(model, count=4, seed=0):
    """Draw inputs that suit a model: its shapes and dtypes, and what the layers that read them can take.

    Integers stay below the rows of the embeddings that they reach; texts and tokens are of the vocabulary; numbers are
    spread as a `Normalization`, `Rescaling` or `Discretization` expects them. Others are normal, bytes 0 to 255.

    Args:
        model: built Sequential or functional model.
        count: examples; a model with a fixed batch takes that many.
        seed: of the draw.

    Returns:
        NumPy arrays in the structure that the model takes.

    Raises:
        ValueError: if the model has no known graph.

    Example:
        >>> model = keras.Sequential([keras.Input((5,), dtype="int32"), keras.layers.Embedding(7, 2)])
        >>> inputs = probe_inputs(model)
        >>> inputs.shape, bool((inputs < 7).all())
        ((4, 5), True)
    """
    check_functional(model)
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    readers, size = _readers(model), _open_size(model, structure)
    random = np.random.default_rng(seed)

    def draw(tensor):
        shape = (tensor.shape[0] or count, *_sizes(tensor, size))
        place = next(place for place, known in enumerate(model.inputs) if known is tensor)
        return _draw(random, shape, keras.backend.standardize_dtype(tensor.dtype), readers[place])

    return keras.tree.map_structure(draw, structure)


def _readers(model):
    """For each input the layers that it reaches before any weights, inner ones included."""
    readers = [[] for _ in model.inputs]

    def visit(operation, tensors, values, outputs):
        del tensors
        reaching = set().union(*values)
        inner = all_layers(operation) if isinstance(operation, keras.Layer) else [operation]
        for place in reaching:
            readers[place].extend(inner)
        return [set() if getattr(operation, "weights", None) else reaching] * len(outputs)

    walk(model, [{place} for place in range(len(model.inputs))], visit)
    return readers


def _sizes(tensor, size):
    return [size if axis is None else axis for axis in tensor.shape[1:]]


def _open_size(model, structure):
    """A size for the axes that are open, large enough for the model."""
    if all(None not in tensor.shape[1:] for tensor in keras.tree.flatten(structure)):
        return None
    for size in OPEN_SIZES[:-1]:
        try:
            model.compute_output_spec(
                keras.tree.map_structure(
                    lambda t, size=size: keras.KerasTensor((t.shape[0], *_sizes(t, size)), dtype=t.dtype), structure
                )
            )
        except Exception:  # whatever a layer says of inputs that are smaller than its kernel
            continue
        return size
    return OPEN_SIZES[-1]


def _draw(random, shape, dtype, readers):
    words = next((_words(layer) for layer in readers if isinstance(layer, _LOOKUPS)), [])
    if words or dtype == "string":
        return random.choice(np.array(words or ["a", "b", "c"]), shape).astype(object if dtype == "string" else dtype)
    if limits := [limit for layer in readers if (limit := _limit(layer))]:
        return random.integers(0, min(limits), shape).astype(dtype)
    spread = next((found for layer in readers if (found := _spread(layer))), None)
    if dtype == "bool" or (spread is None and "int" in dtype):
        return random.integers(0, 256 if dtype == "uint8" else 2, shape).astype(dtype)
    mean, deviation = spread or (0.0, 1.0)
    values = mean + deviation * random.standard_normal(shape)
    return (np.clip(np.rint(values), 0, 255) if "int" in dtype else values).astype(dtype)


def _words(layer):
    """What a lookup knows, texts of a few words for one that splits them."""
    words = layer.get_vocabulary(include_special_tokens=False)
    if isinstance(layer, keras.layers.TextVectorization):
        return [" ".join(words[start : start + 3]) for start in range(0, len(words), 2)]
    return words


def _limit(layer):
    """The integers that a layer takes are below this; None if any will do."""
    if isinstance(layer, keras.layers.Embedding):
        return layer.input_dim
    return layer.num_tokens if isinstance(layer, keras.layers.CategoryEncoding) else None


def _spread(layer):
    """Mean and standard deviation of the numbers that a layer expects; None if it expects none."""
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
        return (0.5 - offset) / scale, 0.25 / np.abs(scale)
    if isinstance(layer, keras.layers.Normalization) and layer.mean is not None and not layer.invert:
        return np.asarray(layer.mean), np.sqrt(np.asarray(layer.variance))
    if isinstance(layer, keras.layers.Discretization) and layer.bin_boundaries is not None:
        return np.mean(layer.bin_boundaries), np.ptp(layer.bin_boundaries) + 1.0
    return None
