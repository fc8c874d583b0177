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
    """Cut channels off chains, whatever they emit, out of a copy whose readers may be overwritten.

    ``kept`` has pairs of a `Chain` and a bool array ``(C,)``, True stays; not none of a chain. The smaller model is not
    compiled; a ValueError is raised if a channel cannot be removed.
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
    """What each channel of a chain adds up, its normalization included: ``[s w, s b + t]``, float64 ``(C, F + 1)``.

    ``s = gamma / sqrt(variance + epsilon)`` and ``t = beta - s mean``; without normalization 1 and 0. Where the filters
    of two channels are equal in this form, so are their outputs, in inference.
    """
    norm = _Norm(chain)
    factor = norm.gamma / norm.deviation
    return np.column_stack([chain.filters() * factor[:, None], factor * (norm.bias - norm.mean) + norm.beta])


def merge_chain(chain, count, space, merge, weighted, responses=None):
    """Cluster the filters of a chain and write what each cluster merges into to its first member, and to its readers.

    ``count`` is the number of clusters; ``space``, ``merge`` and ``weighted`` are those of `scc_tf.cluster_filters`,
    but "fitted" is "scaled" here, from which `fit_readers` goes on. ``responses`` are those of `channel_responses`, for
    the space of that name. Returns int64 labels ``(C,)``.
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


class _Norm:
    """Bias and normalization of a chain as float64 arrays ``(C,)``, as if it had both."""

    def __init__(self, chain):
        self.chain, norm = chain, chain.norm

        def values(variable, default):
            if variable is None:
                return np.full(chain.channels, float(default))
            return keras.ops.convert_to_numpy(variable).astype(np.float64)

        self.bias = values(chain.layer.bias, 0)
        self.gamma, self.beta = (values(getattr(norm, n, None), d) for n, d in (("gamma", 1), ("beta", 0)))
        self.mean, variance = (values(getattr(norm, f"moving_{n}", None), d) for n, d in (("mean", 0), ("variance", 1)))
        self.deviation = np.sqrt(variance + norm.epsilon) if norm else np.ones(chain.channels)

    def assign(self):
        """Write them back."""
        norm = self.chain.norm
        pairs = [(self.chain.layer.bias, self.bias)]
        if norm is not None:
            variance = np.maximum(self.deviation**2 - norm.epsilon, 0)
            pairs += [(norm.gamma, self.gamma), (norm.beta, self.beta)]
            pairs += [(norm.moving_mean, self.mean), (norm.moving_variance, variance)]
        for variable, values in pairs:
            if variable is not None:
                variable.assign(values)


def _write_normalized(chain, first, merged):
    """The merged channel computes the merged normalized filter; where batches have statistics, it keeps their shape.

    Its scale gamma is the members' mean, not what is left of it when filters that differ are averaged: once the
    statistics are re-estimated, the channel varies as much as its members did.
    """
    together, norm = merged(normalized_filters(chain)), _Norm(chain)
    weights, constants = together[:, :-1], together[:, -1]
    filters = chain.filters()
    if chain.norm is None:
        filters[first], norm.bias[first] = weights, constants
    else:
        beta, deviation, bias = (merged(v) for v in (norm.beta, norm.deviation, norm.bias))
        gamma = norm.gamma[first] if chain.norm.gamma is None else merged(np.abs(norm.gamma))
        dead = gamma == 0
        unit = np.where(dead, 0, deviation / np.where(dead, 1, gamma))
        filters[first] = np.where(dead[:, None], merged(filters), weights * unit[:, None])
        norm.gamma[first], norm.beta[first] = gamma, np.where(dead, constants, beta)
        norm.mean[first] = bias + (beta - constants) * unit
        norm.deviation[first], norm.bias[first] = deviation, bias
    chain.assign_filters(filters)
    norm.assign()


def _write_raw(chain, first, merged):
    """Every weight and statistic of the merged channel is the mean of its members'."""
    filters, norm = chain.filters(), _Norm(chain)
    filters[first] = merged(filters)
    for name in ("bias", "gamma", "beta", "mean"):
        values = getattr(norm, name)
        values[first] = merged(values)
    epsilon = chain.norm.epsilon if chain.norm else 0
    norm.deviation[first] = np.sqrt(merged(norm.deviation**2 - epsilon) + epsilon)
    chain.assign_filters(filters)
    norm.assign()
