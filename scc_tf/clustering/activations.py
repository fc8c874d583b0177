"""What layers of a model are given, and what the channels of a chain say there: filters are alike if that is."""

import keras
import numpy as np

from scc_tf.inference import batch_for, batches, check_inputs, outputs

__all__ = ["channel_responses", "check_not_nested", "input_model"]

EXAMPLES, SAMPLES = 512, 8  # at most; of each example
_BATCH_SIZE = 128


def check_not_nested(model, chains):
    """Raise a ValueError where a reader of a chain lies in a nested model, of which `input_model` cannot tell."""
    readers = [reader.layer for chain in chains for reader in chain.readers]
    if nested := sorted({layer.name for layer in readers if layer not in model.layers}):
        raise ValueError(
            "Expected layers of the model itself to read what is merged by responses or fitted; those of models nested "
            f'in it can be with space="effective" and merge="scaled". Received: {nested}'
        )


def input_model(model, layers):
    """A model whose outputs are what some layers of ``model`` read, each of which is called once; it shares them."""
    return keras.Model(model.input, [layer.input for layer in layers])


def channel_responses(model, chains, inputs):
    """Sample what the readers of each chain are given, behind normalization and activation.

    The first 512 inputs are used, at 8 random positions each. For each chain, the rows of a float64 array
    ``(C, S <= C)`` have the inner products of the sampled values of two channels, divided by the number of samples: so
    distances are the same as between the samples.
    """
    arrays = [array[:EXAMPLES] for array in check_inputs("inputs", inputs, model)]
    read = input_model(model, [chain.readers[0].layer for chain in chains])
    rng = np.random.default_rng(0)
    grams = [np.zeros((chain.channels, chain.channels)) for chain in chains]
    for batch in batches(arrays, batch_for(read, None, _BATCH_SIZE, arrays)):
        for gram, chain, values in zip(grams, chains, keras.tree.flatten(outputs(read, batch)), strict=True):
            sampled = _sampled(chain, values, rng)
            gram += sampled @ sampled.T / (SAMPLES * len(arrays[0]))
    return [_factor(gram) for gram in grams]


def _sampled(chain, values, rng):
    """Values of every channel at some positions of every example, float64 ``(C, examples * 8)``."""
    values = values.reshape(len(values), -1, values.shape[-1])[..., chain.readers[0].inputs]
    values = np.moveaxis(values, 2, 0).reshape(chain.channels, len(values), -1)
    positions = rng.integers(values.shape[2], size=(1, values.shape[1], SAMPLES))
    return np.take_along_axis(values, positions, axis=2).reshape(chain.channels, -1).astype(np.float64)


def _factor(gram):
    """A matrix whose rows have these inner products."""
    squares, axes = np.linalg.eigh(gram)
    return axes * np.sqrt(np.maximum(squares, 0))
