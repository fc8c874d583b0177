"""What the channels of a chain say about images: filters are alike if these are."""

import keras
import numpy as np

from scc_tf.clustering.taps import tap_inputs

__all__ = ["channel_responses"]

IMAGES, SAMPLES = 512, 8  # at most; of each image
_BATCH_SIZE = 128


def channel_responses(model, chains, images):
    """Sample what the readers of each chain are given, behind normalization and activation.

    Args:
        model: functional model whose layers are called in no other.
        chains: list of `scc_tf.clustering.chains.Chain` of that model.
        images: inputs of the model ``(N, …)``; the first 512 are used, at 8 random positions each.

    Returns:
        One float64 array ``(C, S)`` per chain, ``S <= C``: the inner products of its rows are those of the sampled
        values of two channels, divided by the number of samples. So distances are the same as between the samples.

    Raises:
        ValueError: if there are no images.
    """
    if len(images) == 0:
        raise ValueError("Expected at least one image. Received: none")
    taps = tap_inputs(model, [chain.readers[0].layout.layer for chain in chains])
    rng = np.random.default_rng(0)
    grams = [np.zeros((chain.channels, chain.channels)) for chain in chains]
    images = images[:IMAGES]
    for start in range(0, len(images), _BATCH_SIZE):
        values = taps(images[start : start + _BATCH_SIZE], training=False)
        for gram, chain, array in zip(grams, chains, keras.tree.flatten(values), strict=True):
            sampled = _sampled(chain, keras.ops.convert_to_numpy(array), rng)
            gram += sampled @ sampled.T / (SAMPLES * len(images))
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
