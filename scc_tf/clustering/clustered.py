"""Cluster the filters of a model: what users call."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from scc_tf.arguments import received
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.clustering.activations import channel_responses, check_not_nested
from scc_tf.clustering.budget import ClusterBudget, chain_errors, spread
from scc_tf.clustering.chains import find_chains
from scc_tf.clustering.costs import ChainCosts
from scc_tf.clustering.counts import chain_counts, check_clusters
from scc_tf.clustering.fitting import fit_readers
from scc_tf.clustering.merging import MERGES, SPACES, cut_chains, merge_chain, silence
from scc_tf.flops import count_trainable
from scc_tf.graph import check_functional, copy_model
from scc_tf.inference import check_inputs, check_weights
from scc_tf.pruning import first_members
from scc_tf.reports import Report, Table

__all__ = ["ClusterReport", "cluster_filters", "keep_filters"]

_SENSITIVITY_EXAMPLES = 512  # what a chain costs in accuracy need not be known closely, and is asked dozens of times


@dataclasses.dataclass(frozen=True, repr=False)
class ClusterReport(Report):
    """What was merged.

    Attributes:
        clusters: ``{layer: tuple of int (C,)}``: the cluster of each of its filters.
        parameters: ``(before, after)``, trainable ones.
        errors: with a budget, ``{layer: {number of clusters: error}}``: how much the outputs change when that layer
            alone is clustered, see `scc_tf.clustering.budget.chain_errors`; otherwise None.
    """

    clusters: dict
    parameters: tuple
    errors: dict | None = None

    @property
    def channels(self):
        """``{layer: (before, after)}``."""
        return {name: (len(labels), len(set(labels))) for name, labels in self.clusters.items()}

    def parts(self):
        """One line per layer, then the parameters."""
        rows = [(name, f"{after} of {before} filters") for name, (before, after) in self.channels.items()]
        rows.append(("parameters", "{1:,} of {0:,}".format(*self.parameters)))
        return [Table("{:<40}{:>24}", rows)]


def cluster_filters(
    model: keras.Model,
    clusters: Any,
    inputs: Any = None,
    space: str | None = None,
    merge: str | None = None,
    weighted: bool = True,
) -> tuple[keras.Model, ClusterReport]:
    """Merge the filters of a model that are alike; the original is untouched.

    For each convolution or Dense layer whose channels only other such layers read (`find_chains`), with or without a
    BatchNormalization behind it, the filters are clustered by k-means. A cluster becomes one filter, its mean, the
    normalization included; what read its members reads that, with the sum of their weights. So filters that are equal
    merge without a change of the outputs. Where inputs are given, the layers that read merged filters are then fitted,
    one after the other, to what they add up in the original network.

    What is alike is decided in one of three ways. ``"responses"``: what the next layer is given, behind normalization
    and activation, sampled on inputs: what differs there is what the outputs feel. ``"effective"``: the filters as the
    normalization scales and shifts them (``w gamma / sigma``). ``"raw"``: the bare weights, whatever normalization does
    to them afterwards; its weights and statistics are averaged.

    Args:
        model: built Sequential or functional model.
        clusters: filters that are left: an int for all such layers (no more than they have); ``{layer name: int}``,
            where other layers stay as they are; a sequence with one int per layer, or per stage (a run of layers with
            equally many channels); or a `ClusterBudget`.
        inputs: some training examples ``(N, …)``, a few hundred or thousand, augmented as in training. If given, the
            statistics of all BatchNormalization layers are estimated on them afterwards.
        space: "responses", "effective" or "raw", see above; None is "responses" with inputs, "effective" without.
        merge: what reads a merged filter. "sum": the sum of the weights, see above. "scaled": likewise, and filters
            that are positive multiples of each other are alike: each member's reader counts by the member's scale.
            This is exact behind ReLU, its leaky form and pooling; behind other activations, and for raw filters in
            front of a normalization, it is "sum". "fitted": "scaled", then fitted, see above; the sensitivities behind
            a budget are measured without that. "mean": readers are averaged, which makes what a cluster says smaller
            by its number of members. None is "fitted" with inputs, "scaled" without.
        weighted: whether a filter counts by the squared weights of what reads it.

    Returns:
        ``(smaller model, ClusterReport)``: a plain functional model with the same names of layers, not compiled.

    Raises:
        ValueError: if the model is subclassed or not built, has no such layer, or ``clusters`` does not fit it; if an
            option is unknown; if inputs are missing for the space "responses", the merge "fitted" or a budget, or, for
            these two, a layer that reads merged filters is in a nested model; if no choice is within the budget.

    Source: the founding notebook that clusters the filters of a ResNet-20 has the raw space and the mean. Statistics
        that are estimated again when channels have been averaged: Jordan et al. 2023, "REPAIR: REnormalizing Permuted
        Activations for Interpolation Repair" (arXiv 2211.08403). Readers that are fitted: He, Zhang & Sun 2017,
        "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168).

    Example:
        >>> import keras, scc_tf
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="a", activation="relu"),
        ...     keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> smaller, report = scc_tf.cluster_filters(model, 3)
        >>> report.channels, smaller.get_layer("a").filters
        ({'a': (4, 3)}, 3)
    """
    has_budget = isinstance(clusters, ClusterBudget)
    if not has_budget:
        check_clusters(clusters)
    model, inputs = _copied(model, inputs)
    space = space or ("effective" if inputs is None else "responses")
    merge = merge or ("scaled" if inputs is None else "fitted")
    if space not in SPACES or merge not in MERGES:
        raise ValueError(f"Expected space in {SPACES} and merge in {MERGES}. Received: {space=}, {merge=}")
    if inputs is None and (space == "responses" or merge == "fitted" or has_budget):
        raise ValueError('Expected inputs for the space "responses", the merge "fitted" and a budget. Received: none')
    chains = find_chains(model)
    counts = chain_counts(chains, {} if has_budget else clusters)
    if space == "responses" or merge == "fitted":
        check_not_nested(model, chains)
    costs, errors = ChainCosts(model, chains), None
    responses = channel_responses(model, chains, inputs) if space == "responses" else [None] * len(chains)

    def clustered(counts, inputs, merge):
        copy = copy_model(model)
        labels, kept = [], []
        for chain, wanted, count, own in zip(find_chains(copy), chains, counts, responses, strict=True):
            labels.append(merge_chain(chain, count, space, merge, weighted, own))
            kept.append((chain, first_members(labels[-1])))
            if merge == "fitted" and not kept[-1][1].all():
                fit_readers(chain, wanted, kept[-1][1], copy, model, inputs)
        return _cut(copy, kept, inputs), labels

    if has_budget:
        clusters.check(costs)
        options = [clusters.options(chain.channels) for chain in chains]
        few, quick = [array[:_SENSITIVITY_EXAMPLES] for array in inputs], "scaled" if merge == "fitted" else merge
        found = chain_errors(few, options, lambda counts: clustered(counts, few, quick)[0])
        counts = spread(options, found, clusters.cost(costs), clusters.limit)
        pairs = zip(chains, options, found, strict=True)
        errors = {chain.name: dict(zip(numbers, own, strict=True)) for chain, numbers, own in pairs}
    smaller, labels = clustered(counts, inputs, merge)
    named = {chain.name: tuple(own.tolist()) for chain, own in zip(chains, labels, strict=True)}
    return smaller, ClusterReport(named, (costs.parameters(costs.full), count_trainable(smaller)), errors)


def _copied(model, inputs):
    """A copy of a model, no layer of which is called in another model, too, and the arrays of its inputs."""
    check_functional(model)
    check_weights(model)
    arrays = None if inputs is None else check_inputs("inputs", inputs, model)
    return copy_model(model), arrays


def _cut(model, kept, inputs):
    smaller = cut_chains(model, kept)
    if inputs is not None:
        reestimate_batch_statistics(smaller, inputs)
    return smaller


def keep_filters(model, kept, inputs=None, fitted=False):
    """Keep some filters of a model and drop the others with all that they say; the original is untouched.

    The control of `cluster_filters`: the same layers, the same cut, but nothing takes the place of what goes, unless
    the layers that read what is left are fitted as they are there.

    Args:
        model: built Sequential or functional model.
        kept: ``{layer name: bool array (C,)}``, True stays; not none of a layer. Other layers stay as they are.
        inputs: as for `cluster_filters`.
        fitted: whether to fit these layers to what they add up in the original network; needs inputs.

    Raises:
        ValueError: if the model is subclassed or not built, a mask is not of a layer that `find_chains` finds, or for
            the fit inputs are missing or a layer is in a nested model.
    """
    if fitted and inputs is None:
        raise ValueError("Expected inputs to fit what is left to. Received: inputs=None")
    model, inputs = _copied(model, inputs)
    copy = copy_model(model)
    chains = {chain.name: chain for chain in find_chains(copy)}
    if not isinstance(kept, Mapping):
        raise ValueError(f"Expected kept to be a dictionary of bool arrays by layer. {received('kept', kept)}")
    masks = {name: np.asarray(mask) for name, mask in kept.items()}
    for name, mask in masks.items():
        if name not in chains or mask.shape != (chains[name].channels,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"Expected masks, not all False, of { ({n: c.channels for n, c in chains.items()}) }. "
                f"Received: {name!r}: {mask.dtype} {mask.shape}"
            )
    if fitted:
        originals = find_chains(model)  # in the order of the forward pass
        check_not_nested(model, originals)
        for wanted in originals:
            if wanted.name in masks and not masks[wanted.name].all():
                chain, mask = chains[wanted.name], masks[wanted.name]
                silence(chain, mask)
                fit_readers(chain, wanted, mask, copy, model, inputs)
    return _cut(copy, [(chains[name], mask) for name, mask in masks.items()], inputs)
