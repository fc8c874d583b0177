"""Settings of filter clustering, and the points that are asked for."""

import dataclasses
import math

from lab.settings import check_settings, setting, settings_key
from scc_tf.clustering import ChainCosts, ClusterBudget, chain_counts, find_chains
from scc_tf.clustering.merging import MERGES, SPACES

__all__ = ["CLUSTERINGS", "METHODS", "Config", "Point", "check_points"]

CLUSTERINGS = {  # method -> what it has of its own, instead of the settings
    "clusters": {},
    "summed": {"merge": "scaled"},
    "effective": {"space": "effective", "merge": "scaled"},
    "founding": {"space": "raw", "merge": "mean", "weighted": False},
}
METHODS = (*CLUSTERINGS, "l1", "l1_fitted", "random")
_RULES = (  # names, what they accept, in words
    (("space",), lambda v: v in SPACES, f"to be one of {SPACES}"),
    (("merge",), lambda v: v in MERGES, f"to be one of {MERGES}"),
    (("batch_size", "statistics_images"), lambda v: v >= 1, ">= 1"),
    (("seed", "shift"), lambda v: v >= 0, ">= 0"),
    (("learning_rate", "temperature"), lambda v: 0 < v < math.inf, "> 0"),
    (("weight_decay",), lambda v: 0 <= v < math.inf, "in [0, inf)"),
    (("distillation",), lambda v: 0 <= v <= 1, "in [0, 1]"),
)
_CLUSTERED = ("seed", "space", "merge", "statistics_images", "shift", "data")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run; the flags of the experiment are made from these fields.

    Fine-tuning learns from the labels alone unless ``distillation`` asks for more: what is compared then is the choice
    of filters, and an epoch needs no answers of the original network.
    """

    seed: int = setting(0, "seed of random filters, order and augmentation")
    space: str = setting("responses", "where filters of the method clusters are alike: " + ", ".join(SPACES))
    merge: str = setting("fitted", "what reads a merged filter of the method clusters: " + ", ".join(MERGES))
    statistics_images: int = setting(8192, "training images for responses and batch statistics")
    batch_size: int = setting(128, "examples per step of fine-tuning")
    learning_rate: float = setting(0.1, "peak learning rate of fine-tuning (one cycle, SGD with momentum 0.9)")
    weight_decay: float = setting(1e-4, "L2 penalty on the kernels, through the momentum as in the papers")
    distillation: float = setting(0.0, "weight of the original network's answers in the loss; 0: labels alone")
    temperature: float = setting(2.0, "by which the logits of both networks are divided where answers are compared")
    shift: int = setting(4, "largest shift of a training image, pixels; images are mirrored, too")
    data: str = setting("cifar10", "data set")
    data_dir: str = setting("", "folder of the data sets")

    def __post_init__(self):
        """Refuse what cannot run."""
        check_settings(self, _RULES)

    def key(self, tuned, method="clusters"):
        """A short hash of the settings that a row of a method, with or without fine-tuning, depends on."""
        names = [field.name for field in dataclasses.fields(self)] if tuned else _CLUSTERED
        own = CLUSTERINGS.get(method, ("space", "merge"))  # where filters are kept, none are merged
        return settings_key(self, *(name for name in names if name not in own))


@dataclasses.dataclass(frozen=True)
class Point:
    """One smaller network.

    Attributes:
        method: "clusters"; "summed", likewise, but what reads them is not fitted; "effective", as that, of filters as
            their normalization scales them, instead of `Config.space`; "founding", the form of the founding document:
            bare weights, means; or what they are compared with: "l1" keeps the filters with the largest L1 norm,
            "l1_fitted" fits what reads them, too, "random" keeps any.
        clusters: filters that stay, a tuple with one int per layer or per stage, or a `scc_tf.ClusterBudget` for the
            method "clusters".
        epochs: of fine-tuning.
        draw: number of the choice of random filters; 0 for all other methods.

    Raises:
        ValueError: if the method is unknown, only clustering takes the budget, only random filters the draw, or a
            number is negative.
    """

    method: str
    clusters: tuple | ClusterBudget
    epochs: int = 0
    draw: int = 0

    def __post_init__(self):
        """Refuse what is no point."""
        budget = isinstance(self.clusters, ClusterBudget)
        unknown = self.method not in METHODS or min(self.epochs, self.draw) < 0
        if unknown or (budget and self.method != "clusters") or (self.draw and self.method != "random"):
            raise ValueError(
                f"Expected a method of {METHODS}, epochs and draw >= 0, a budget for clusters alone, and a draw for "
                f"random filters alone. Received: {self}"
            )

    @property
    def series(self):
        """The method; "budget" where a budget was spread."""
        return "budget" if isinstance(self.clusters, ClusterBudget) else self.method

    @property
    def name(self):
        """Of what is cached for it: method, label, epochs, and what else a budget or a draw depends on."""
        parts = [self.series, self.label.replace("/", "-").replace(" ", "-"), str(self.epochs)]
        if isinstance(self.clusters, ClusterBudget):
            parts.append(settings_key(self.clusters, "fractions"))
        if self.draw:
            parts.append(str(self.draw))
        return "-".join(parts)

    @property
    def label(self):
        """What was asked for, for a table: "8/16/32", "135754 parameters"."""
        if not isinstance(self.clusters, ClusterBudget):
            return "/".join(map(str, self.clusters))
        named = "multiply-accumulates" if self.clusters.parameters is None else "parameters"
        return f"{self.clusters.limit} {named}"


def check_points(network, points):
    """Refuse what a network cannot become, before hours are spent on the other points.

    Args:
        network: functional Keras model.
        points: iterable of `Point`.

    Raises:
        ValueError: for the first point whose numbers or budget do not fit.
    """
    chains = find_chains(network)
    costs = ChainCosts(network, chains)
    for point in points:
        if isinstance(point.clusters, ClusterBudget):
            point.clusters.check(costs)
        else:
            chain_counts(chains, point.clusters)
