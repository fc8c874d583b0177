"""Write what the filters of each cluster merge into, and cut the others off."""

import keras
import numpy as np

from scc_tf.pruning import first_members, fit_scales, group_filters, merge_members, sum_readers
from scc_tf.surgery.plan import make_plan
from scc_tf.surgery.removal import cut_channels

__all__ = ["MERGES", "SPACES", "cut_chains", "merge_chain", "normalized_filters", "silence"]

SPACES = ("responses", "effective", "raw")
MERGES = ("fitted", "scaled", "sum", "mean")


def cut_chains(model, kept):
    """Cut channels off chains, whatever they emit: their readers get nothing in its place.

    Args:
        model: built Sequential or functional model whose readers may be overwritten: a copy.
        kept: list of ``(Chain, bool array (C,))``; True stays. Not none of a chain.

    Returns:
        The smaller model, not compiled.

    Raises:
        ValueError: if a channel cannot be removed.
    """
    for chain, mask in kept:
        silence(chain, mask)
    masks = {(id(chain.layer), "kernel"): mask for chain, mask in kept}
    smaller, report, _ = cut_channels(model, make_plan(model, masks, zeros_read=False))
    if report.kept_dead:
        raise ValueError(f"Expected a model that can be cut. Received: {report.kept_dead}")
    return smaller


def silence(chain, kept):
    """Let what reads the channels of a chain of a copy read nothing of those that are not kept."""
    for reader in chain.readers:
        slices = reader.slices()
        slices[~kept] = 0
        reader.assign(slices)


def normalized_filters(chain):
    """What each channel of a chain adds up, its normalization included: ``s w`` and ``s b + t``.

    ``s = gamma / sqrt(variance + epsilon)`` and ``t = beta - s mean``; without normalization 1 and 0. Where the filters
    of two channels are equal in this form, so are their outputs, in inference.

    Returns:
        float64 ``(C, F + 1)``, the constant last.
    """
    bias = _values(chain.layer.bias, chain.channels, 0)
    if chain.norm is None:
        return np.column_stack([chain.filters(), bias])
    gamma, beta, mean, deviation = _norm_values(chain)
    factor = gamma / deviation
    return np.column_stack([chain.filters() * factor[:, None], factor * (bias - mean) + beta])


def merge_chain(chain, count, space, merge, weighted, responses=None):
    """Cluster the filters of a chain and write what each cluster merges into to its first member, and to its readers.

    Args:
        chain: of the model to change.
        count: clusters, from 1 to ``C``.
        space: see `scc_tf.cluster_filters`.
        merge: likewise; "fitted" is "scaled" here, and `scc_tf.clustering.fitting.fit_readers` goes on from that.
        weighted: likewise.
        responses: float ``(C, S)`` of `scc_tf.clustering.activations.channel_responses`, for the space "responses".

    Returns:
        int64 labels ``(C,)``.
    """
    slices = [reader.slices() for reader in chain.readers]
    weights = sum((s**2).reshape(chain.channels, -1).sum(axis=1) for s in slices) if weighted else None
    of_space = {"raw": chain.filters, "effective": lambda: normalized_filters(chain), "responses": lambda: responses}
    points = of_space[space]()
    # where a normalization follows, filters that are multiples of each other are not: it takes factors out
    scaled = merge in ("fitted", "scaled") and chain.homogeneous and (space != "raw" or chain.norm is None)
    labels = group_filters(points, count, weights, scaled)
    if labels.max() + 1 == chain.channels:
        return labels  # not a bit changes
    scales = fit_scales(points, labels, weights) if scaled else None
    first = first_members(labels)
    if space == "raw":
        _write_raw(chain, first, lambda values: merge_members(values, labels, weights=weights))
    else:
        _write_normalized(chain, first, lambda values: merge_members(values, labels, scales, weights))
    for reader, values in zip(chain.readers, slices, strict=True):
        sums = sum_readers(values, labels, scales)
        if merge == "mean":
            sums /= np.bincount(labels).reshape(-1, *[1] * (values.ndim - 1))
        values[first] = sums
        values[~first] = 0  # a reader that is clustered later is told apart by what will be left of it
        reader.assign(values)
    return labels


def _write_normalized(chain, first, merged):
    """The merged channel computes the merged normalized filter; where batches have statistics, it keeps their shape.

    Its scale gamma is the members' mean, not what is left of it when filters that differ are averaged: once the
    statistics are re-estimated, the channel varies as much as its members did.
    """
    together = merged(normalized_filters(chain))
    weights, constants = together[:, :-1], together[:, -1]
    filters, bias = chain.filters(), _values(chain.layer.bias, chain.channels, 0)
    if chain.norm is None:
        filters[first], bias[first] = weights, constants
    else:
        gamma, beta, mean, deviation = _norm_values(chain)
        new_beta, new_deviation, new_bias = (merged(v) for v in (beta, deviation, bias))
        new_gamma = gamma[first] if chain.norm.gamma is None else merged(np.abs(gamma))
        dead = new_gamma == 0
        unit = np.where(dead, 0, new_deviation / np.where(dead, 1, new_gamma))
        filters[first] = np.where(dead[:, None], merged(filters), weights * unit[:, None])
        gamma[first], beta[first] = new_gamma, np.where(dead, constants, new_beta)
        mean[first] = new_bias + (new_beta - constants) * unit
        deviation[first], bias[first] = new_deviation, new_bias
        _assign_norm(chain.norm, gamma, beta, mean, deviation**2 - chain.norm.epsilon)
    chain.assign_filters(filters)
    if chain.layer.bias is not None:
        chain.layer.bias.assign(bias)


def _write_raw(chain, first, merged):
    """Every weight and statistic of the merged channel is the mean of its members'."""

    def averaged(values):
        values[first] = merged(values)
        return values

    chain.assign_filters(averaged(chain.filters()))
    if chain.layer.bias is not None:
        chain.layer.bias.assign(averaged(_values(chain.layer.bias, chain.channels, 0)))
    if chain.norm is not None:
        gamma, beta, mean, deviation = _norm_values(chain)
        variance = deviation**2 - chain.norm.epsilon
        _assign_norm(chain.norm, *(averaged(v) for v in (gamma, beta, mean, variance)))


def _values(variable, channels, default):
    if variable is None:
        return np.full(channels, float(default))
    return keras.ops.convert_to_numpy(variable).astype(np.float64)


def _norm_values(chain):
    """gamma, beta, mean and standard deviation, float64 ``(C,)`` each."""
    norm, channels = chain.norm, chain.channels
    gamma, beta = _values(norm.gamma, channels, 1), _values(norm.beta, channels, 0)
    deviation = np.sqrt(_values(norm.moving_variance, channels, 1) + norm.epsilon)
    return gamma, beta, _values(norm.moving_mean, channels, 0), deviation


def _assign_norm(norm, gamma, beta, mean, variance):
    if norm.gamma is not None:
        norm.gamma.assign(gamma)
    if norm.beta is not None:
        norm.beta.assign(beta)
    norm.moving_mean.assign(mean)
    norm.moving_variance.assign(np.maximum(variance, 0))
