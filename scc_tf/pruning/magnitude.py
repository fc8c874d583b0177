"""Which weights stay: masks by magnitude, on plain arrays.

A mask is a bool array of the shape of its weights, which are float arrays without NaN; True stays. ``sparsity`` is the
fraction that goes, in [0, 1]; at least one weight stays. Equal magnitudes are told apart in one of two ways, both the
same on every run: ``ties="keep"`` keeps everything at the threshold, as TF-MOT does, so more may stay than was asked
for (all of a layer of which half is 0 already, at a sparsity below 1/2); ``ties="first"`` keeps exactly as many as were
asked for, the first ones in row-major order. All functions raise a ValueError for arguments that are out of range.
"""

import math

import numpy as np

from scc_tf.arguments import check_choice, check_number, received

__all__ = ["POOLINGS", "TIES", "block_mask", "global_masks", "magnitude_mask", "n_of_m_mask", "quality_mask"]

TIES = ("keep", "first")
POOLINGS = ("average", "max")


def magnitude_mask(weights, sparsity, ties="keep"):
    """Keep the largest weights of one layer: ``max(round((1 - sparsity) n), 1)`` of its ``n``.

    The number is rounded in float32, ties to even, and the default treats equal magnitudes as TF-MOT does, so the mask
    is the one that TF-MOT computes.

    Source: Han et al. 2015, "Learning both weights and connections" (arXiv 1506.02626); Zhu & Gupta 2017, "To prune,
        or not to prune" (arXiv 1710.01878), section 3; TensorFlow Model Optimization, ``Pruning._update_mask``.

    Example:
        >>> magnitude_mask(np.array([0.1, -3.0, 2.0, -2.0]), 0.5).tolist()
        [False, True, True, True]
        >>> magnitude_mask(np.array([0.1, -3.0, 2.0, -2.0]), 0.5, ties="first").tolist()
        [False, True, True, False]
    """
    return global_masks([weights], sparsity, ties)[0]


def global_masks(weights, sparsity, ties="keep"):
    """Keep the largest weights of a list of layers by one threshold; see `magnitude_mask`.

    A layer of small weights may lose all of them, which cuts the network in two: look at the masks.

    Source: See, Luong & Manning 2016, "Compression of neural machine translation models via pruning", section 3
        ("class-blind").

    Example:
        >>> [mask.tolist() for mask in global_masks([np.array([0.5, -2.0]), np.array([[1.0, 3.0]])], 0.5)]
        [[False, True], [[False, True]]]
    """
    magnitudes = [_magnitudes(layer) for layer in weights]
    mask = _largest(np.concatenate([m.ravel() for m in magnitudes] or [np.zeros(0)]), sparsity, ties)
    parts = np.split(mask, np.cumsum([m.size for m in magnitudes])[:-1]) if magnitudes else []
    return [part.reshape(m.shape) for part, m in zip(parts, magnitudes, strict=True)]


def quality_mask(weights, quality, mask=None):
    """Keep the weights of one layer that are at least ``quality`` standard deviations large.

    ``|w| >= quality * std``, the standard deviation of the layer's weights around their mean.

    Args:
        weights: float array.
        quality: factor, not negative; per layer, found by its sensitivity.
        mask: bool array of that shape, what an earlier round kept: the standard deviation is then that of the
            surviving weights, and none of the others comes back.

    Source: Han et al. 2015, arXiv 1506.02626, section 4 ("a quality parameter multiplied by the standard deviation of
        a layer's weights").

    Example:
        >>> quality_mask(np.array([0.5, -1.0, 1.5, -3.0]), 0.7).tolist()
        [False, False, True, True]
    """
    magnitudes = _magnitudes(weights)
    alive = np.ones(magnitudes.shape, bool) if mask is None else np.asarray(mask, bool)
    if not quality >= 0 or alive.shape != magnitudes.shape:
        raise ValueError(
            "Expected a quality from 0 and a mask of the shape of the weights. "
            f"Received: {quality=}, mask.shape={alive.shape}, weights.shape={magnitudes.shape}"
        )
    if not alive.any():
        return alive.copy()
    return alive & (magnitudes >= quality * np.std(np.asarray(weights)[alive], dtype=np.float64))


def n_of_m_mask(weights, kept=2, group=4, axis=-2):
    """Keep the ``kept`` largest of every ``group`` consecutive weights along an axis (N:M sparsity).

    The last group may be shorter; of fewer than ``kept`` weights all stay. Of equal magnitudes the first stay.

    Args:
        weights: float array.
        kept: ``N``, from 0 to ``group``. TF-MOT counts the zeros instead: its ``(1, 4)`` is ``kept=3, group=4``.
        group: ``M``, at least 1.
        axis: where the weights are neighbours; the default is the inputs of a Dense kernel ``(inputs, channels)`` or
            a convolution's ``(height, width, inputs, channels)``, along which hardware multiplies.

    Source: Mishra et al. 2021, "Accelerating sparse deep neural networks" (arXiv 2104.08378); TensorFlow Model
        Optimization, ``pruning_utils.generate_m_by_n_mask``.

    Example:
        >>> n_of_m_mask(np.array([4.0, -1.0, 2.0, -3.0, 1.0, 1.0]), kept=2, group=4, axis=0).tolist()
        [True, False, False, True, True, True]
    """
    magnitudes = _magnitudes(weights)
    if not -magnitudes.ndim <= axis < magnitudes.ndim or not 0 <= kept <= group or group < 1:
        raise ValueError(
            "Expected an axis of the weights, and to keep from 0 to all of a group. "
            f"Received: {axis=}, {kept=}, {group=}, weights.shape={magnitudes.shape}"
        )
    rows = np.moveaxis(magnitudes, axis, -1)
    length = rows.shape[-1]
    padding = [(0, 0)] * (rows.ndim - 1) + [(0, -length % group)]
    groups = np.pad(rows, padding, constant_values=-1).reshape(*rows.shape[:-1], -(-length // group), group)
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, np.argsort(-groups, axis=-1, kind="stable")[..., :kept], True, axis=-1)
    mask = mask.reshape(*rows.shape[:-1], -1)[..., :length]
    return np.ascontiguousarray(np.moveaxis(mask, -1, axis))


def block_mask(weights, sparsity, block, pooling="average", ties="keep"):
    """Keep whole blocks of weights: those whose average or largest magnitude is largest.

    Blocks start at index 0 of every axis. Those at the far ends may be smaller, and their average is over what is
    there. Where the blocks divide a matrix evenly, the mask is TF-MOT's. Where they do not, TF-MOT pools blocks that
    are centred, but masks blocks that start at 0.

    Args:
        weights: float array.
        sparsity: fraction of the blocks to remove, rounded as for `magnitude_mask`.
        block: edge lengths of a block, one per axis of ``weights``, at least 1 each.
        pooling: one of `POOLINGS`.
        ties: one of `TIES`, between blocks.

    Source: Narang, Undersander & Diamos 2017, "Block-sparse recurrent neural networks" (arXiv 1711.02782); TensorFlow
        Model Optimization, ``Pruning._maybe_update_block_mask``.

    Example:
        >>> block_mask(np.array([[1.0, 1.0, 0.0, 5.0], [1.0, 1.0, 0.0, 0.0]]), 0.5, (2, 2), "max").tolist()
        [[False, False, True, True], [False, False, True, True]]
    """
    magnitudes = _magnitudes(weights)
    block = tuple(block)
    if len(block) != magnitudes.ndim or min(block, default=1) < 1 or pooling not in POOLINGS:
        raise ValueError(
            f"Expected a block edge from 1 per axis and a pooling of {POOLINGS}. "
            f"Received: {block=}, {pooling=}, weights.shape={magnitudes.shape}"
        )
    pooled = magnitudes.astype(np.result_type(magnitudes, np.float32))
    for axis, edge in enumerate(block):
        starts = np.arange(0, pooled.shape[axis], edge)
        if not starts.size:
            continue
        if pooling == "max":
            pooled = np.maximum.reduceat(pooled, starts, axis=axis)
        else:  # an average of averages is the average: every block is a box
            members = np.diff(np.append(starts, pooled.shape[axis])).astype(pooled.dtype)
            sums = np.add.reduceat(pooled, starts, axis=axis)
            pooled = sums / members.reshape([-1 if a == axis else 1 for a in range(pooled.ndim)])
    mask = _largest(pooled.ravel(), sparsity, ties).reshape(pooled.shape)
    for axis, edge in enumerate(block):
        mask = np.repeat(mask, edge, axis=axis)
    return np.ascontiguousarray(mask[tuple(slice(length) for length in magnitudes.shape)])


def _magnitudes(weights):
    weights, given = np.asarray(weights), weights
    if weights.dtype.kind not in "fiu" or np.isnan(weights).any():
        raise ValueError(f"Expected weights that are real numbers without NaN. {received('weights', given)}")
    return np.abs(weights if weights.dtype.kind == "f" else weights.astype(np.float64))


def _largest(magnitudes, sparsity, ties):
    """Which of ``(n,)`` magnitudes stay."""
    check_number("sparsity", sparsity, 0, 1)
    check_choice("ties", ties, TIES)
    if not magnitudes.size:
        return np.zeros(0, bool)
    share = np.float32(1) - np.float32(sparsity)
    kept = min(max(math.floor(np.rint(np.float32(magnitudes.size) * share)), 1), magnitudes.size)
    if ties == "keep":
        return magnitudes >= np.partition(magnitudes, magnitudes.size - kept)[magnitudes.size - kept]
    mask = np.zeros(magnitudes.size, bool)
    mask[np.argsort(-magnitudes, kind="stable")[:kept]] = True
    return mask
