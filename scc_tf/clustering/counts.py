"""How many clusters each chain gets, from what the caller says."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

from scc_tf.arguments import received

__all__ = ["chain_counts", "check_clusters", "stages"]

_FORMS = "Expected clusters to be a whole number from 1, a dictionary or sequence of them, or a ClusterBudget. "


def check_clusters(clusters):
    """Raise a ValueError for what is no number of clusters, whatever the model; see `chain_counts`."""
    counts = clusters.values() if isinstance(clusters, Mapping) else clusters
    counts = [counts] if isinstance(counts, Integral | str) or not isinstance(counts, Iterable) else counts
    if not all(isinstance(count, Integral) and not isinstance(count, bool) and count >= 1 for count in counts):
        raise ValueError(_FORMS + received("clusters", clusters))


def stages(chains):
    """The number of its stage, from 0 on, for every `Chain`: a stage is a run of chains with equally many channels."""
    numbers = []
    for place, chain in enumerate(chains):
        new = place > 0 and chain.channels != chains[place - 1].channels
        numbers.append(numbers[-1] + new if numbers else 0)
    return numbers


def chain_counts(chains, clusters):
    """One number of clusters per chain.

    ``clusters`` is an int for all chains (no more than their channels); ``{layer name: int}``, other chains stay as
    they are; or a sequence, one int per chain or one per stage (see `stages`). A ValueError is raised if there are no
    chains, a name is not that of one chain, a sequence has another length, or a number does not fit its chain.
    """
    check_clusters(clusters)
    if not chains:
        raise ValueError("Expected a model with a convolution whose channels only other kernels read. Received: none")
    if isinstance(clusters, Mapping):
        names = [chain.name for chain in chains]
        if unknown := [name for name in clusters if names.count(name) != 1]:
            raise ValueError(f"Expected names of chains, each once in the model, of {names}. Received: {unknown}")
        counts = [clusters.get(chain.name, chain.channels) for chain in chains]
    elif isinstance(clusters, Integral):
        counts = [min(clusters, chain.channels) for chain in chains]
    elif isinstance(clusters, Sequence):
        per_stage = stages(chains)
        if len(clusters) not in (len(chains), per_stage[-1] + 1):
            raise ValueError(
                f"Expected one number per chain, {len(chains)}, or per stage, {per_stage[-1] + 1}. Received: {clusters}"
            )
        counts = clusters if len(clusters) == len(chains) else [clusters[stage] for stage in per_stage]
    else:
        raise ValueError(_FORMS + received("clusters", clusters))
    for chain, count in zip(chains, counts, strict=True):
        if count > chain.channels:
            raise ValueError(f"Expected from 1 to {chain.channels} clusters for {chain.name!r}. Received: {count!r}")
    return [int(count) for count in counts]
