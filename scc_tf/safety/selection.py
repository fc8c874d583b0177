"""The safety set: which training examples must not get worse, and why each of them was chosen.

Shapes: ``N`` images handed in, ``S`` of them selected, ``K`` classes, images ``H x W x C``.
"""

import dataclasses
import math
import os
import sys

import keras
import numpy as np
from absl import logging

from scc_tf.arguments import check_array, check_count, check_path, received
from scc_tf.arrays_file import read_arrays_file
from scc_tf.atomic import atomic_path
from scc_tf.classifier import class_labels, classes_of
from scc_tf.inference import check_inputs, check_weights
from scc_tf.safety.attention import cam_batches, last_convolution, resize_maps
from scc_tf.safety.criteria import cluster, equal_draw, margin, pool_features

__all__ = ["REASONS", "SafetySet", "select_safety_set"]

REASONS = ("attention", "uncertainty", "diversity")

_FORMAT = "scc_tf.safety_set/1"
_KINDS = {"images": "fiub", "labels": "iu", "indices": "iu", "reasons": "U"}  # of the parts of a file
_KINDS |= {"attention": "f", "margin": "f", "cluster": "iu", "heat_maps": "u", "format": "U"}


@dataclasses.dataclass(frozen=True, eq=False)
class SafetySet:
    """Examples that must not get worse, and why each was chosen.

    Attributes:
        images: ``(S, H, W, C)``, or whatever else a network takes: values and type as they were handed in.
        labels: int64 ``(S,)``.
        indices: int64 ``(S,)``, positions in the images handed in; no repeats.
        reasons: str ``(S,)``, the criterion that chose the example: "attention", "uncertainty" or "diversity".
        attention: float32 ``(S,)``, sum of the heat map at the resolution of the last convolution; 0 without one.
        margin: float32 ``(S,)``, probability of the first class minus that of the second, fraction.
        cluster: int64 ``(S,)``, k-means cluster; -1 where nothing was clustered.
        heat_maps: uint8 ``(S, H, W)``, Grad-CAM; 255 is the hottest pixel of an image. Without a convolution
            ``(S, 0, 0)``.

    Raises:
        ValueError: if a part is no array, or the parts do not belong together.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    reasons: np.ndarray
    attention: np.ndarray
    margin: np.ndarray
    cluster: np.ndarray
    heat_maps: np.ndarray

    def __post_init__(self):
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, part in parts.items():
            if not isinstance(part, np.ndarray):
                raise ValueError(f"Expected {name} to be a NumPy array. {received(name, part)}")
        shapes = {name: part.shape for name, part in parts.items()}
        flat = (self.labels, self.indices, self.reasons, self.attention, self.margin, self.cluster)
        if self.images.ndim < 1 or any(part.shape != self.images.shape[:1] for part in flat):
            raise ValueError(f"Expected images (S, …) and one number per image. Received: {shapes}")
        if self.heat_maps.shape not in (self.images.shape[:3], (len(self), 0, 0)):
            raise ValueError(f"Expected one heat map of the size of each image. Received: {shapes}")
        if self.labels.dtype.kind not in "iu":
            raise ValueError(f"Expected labels to be whole numbers. {received('labels', self.labels)}")
        if not set(self.reasons.tolist()) <= set(REASONS):
            raise ValueError(f"Expected reasons out of {REASONS}. Received: {set(self.reasons.tolist())}")

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        """One line."""
        counts = ", ".join(f"{np.sum(self.reasons == reason)} for {reason}" for reason in REASONS)
        return f"SafetySet of {len(self)} examples {self.images.shape[1:]}: {counts}"

    def save(self, path: str | os.PathLike) -> None:
        """Write the set to one ``.npz`` file at ``path``, as it is; an old one is replaced only once all is written."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, format=np.array(_FORMAT), **parts)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SafetySet":
        """Read a set that `save` wrote, equal to the bit; a missing, damaged or foreign file raises ``ValueError``."""
        path = check_path("path", path)
        try:
            if not path.is_file():
                raise ValueError("there is no file")
            parts = read_arrays_file(path, _KINDS)
            if str(parts.pop("format")) != _FORMAT:
                raise ValueError("its format is another")
            return cls(**parts)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"Expected a file that SafetySet.save wrote ({_FORMAT}). "
                f"Received: path={str(path)!r}, which is something else or damaged: {error}"
            ) from error


def select_safety_set(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    size: int = 1000,
    seed: int = 0,
    shares: tuple[float, float, float] = (1, 1, 1),
    batch_size: int | None = None,
    verbose: int | str = "auto",
) -> SafetySet:
    """Choose the examples that compression must not harm.

    Three criteria choose in turn, each skipping what is taken: the examples with the largest attention score
    (sum of the Grad-CAM heat map), those with the smallest margin between the two most probable classes, and
    equal numbers from each of ten k-means clusters of the last convolution's features, drawn at random. One
    forward pass over the images, in inference mode, serves all three; the model is not changed.

    The images are those that the network takes in ``fit``: bytes, 0 to 255, scaled or not. A warning says so where it
    gets no more of them right than by chance, as with a wrong scale. Without a 2-D convolution there is no attention:
    the other two criteria share the set, what clusters are made of is what the last layer reads, and a warning says so.

    Hand in training or validation examples, never test examples: the safety set takes part in training.

    Args:
        model: a built functional or `Sequential` classifier with one input, see `scc_tf.classifier`. It should be
            trained: what it attends to is the criterion.
        images: ``(N, …)``, as the model takes them.
        labels: ``(N,)`` or ``(N, 1)``, whole numbers in ``[0, K)``; or one-hot rows ``(N, K)``.
        size: examples to choose ``S``, at most ``N``.
        seed: of the clustering and of the draw from clusters; the first two criteria are deterministic.
        shares: relative shares of attention, uncertainty and diversity. What does not divide evenly goes to the
            largest fractions, earlier criteria first. With no share for diversity nothing is clustered.
        batch_size: images per step; None: as many as memory allows, 256 at most.
        verbose: 0 is silent, 1 shows a progress bar, "auto" shows one in a terminal or notebook.

    Returns:
        Exactly ``size`` different examples: first the attended ones (highest score first), then the uncertain ones
        (smallest margin first), then the diverse ones (clusters take turns).

    Raises:
        ValueError: if the model is no such classifier or returns NaN; if it cannot take the images, or one is not
            finite; if the labels do not fit; if the size is not in ``[1, N]``; if only attention has a share, and the
            model has no 2-D convolution.

    Source: the founding scheme, arXiv 2505.00350; Selvaraju et al. 2017, arXiv 1610.02391 (Grad-CAM); Scheffer et
    al. 2001 (margin sampling). Where the founding code differs from its text, the text is followed: margin
    instead of least confidence, k-means over the whole set instead of per batch, no dropout.

    Example:
        >>> safety_set = select_safety_set(model, x_train, y_train, size=1000)  # doctest: +SKIP
        >>> safety_set.save("mnist_safety.npz")  # doctest: +SKIP
    """
    classes = classes_of(model)
    if len(model.inputs) != 1:
        raise ValueError(f"Expected model to have one input. Received: {model.name!r} with {len(model.inputs)} inputs")
    check_weights(model)
    arrays, images = check_inputs("images", images, model), np.asarray(images)
    labels = class_labels(labels, model, len(images))
    has_maps = last_convolution(model) is not None
    counts = _check_counts(size, len(images), shares, has_maps)
    seed, clustered = check_count("seed", seed, 0), counts[2] > 0
    if counts[0] == 0 and not has_maps:
        logging.warning(
            "%r has no 2-D convolution whose attention could be seen: uncertainty and diversity choose.", model.name
        )
    maps, margins, answers, embeddings = _observe(model, arrays, batch_size, _bar(verbose, len(images)), clustered)
    attention = maps.sum(axis=(1, 2)) if has_maps else np.zeros_like(margins)
    _warn_of_chance(model, answers, labels, classes)
    clusters = cluster(embeddings, seed=seed) if clustered else np.full(len(images), -1)

    attended = np.argsort(-attention, kind="stable")[: counts[0]]
    by_margin = np.argsort(margins, kind="stable")
    uncertain = by_margin[~np.isin(by_margin, attended)][: counts[1]]
    taken = np.concatenate([attended, uncertain])
    chosen = np.concatenate([taken, equal_draw(clusters, counts[2], seed, taken)])
    heat_maps = np.zeros((len(chosen), 0, 0), np.uint8)
    if has_maps:
        heat_maps = np.rint(255 * resize_maps(maps[chosen], images.shape[1:3])).astype(np.uint8)
    return SafetySet(
        images=images[chosen],
        labels=labels[chosen],
        indices=chosen,
        reasons=np.repeat(REASONS, counts),
        attention=attention[chosen],
        margin=margins[chosen],
        cluster=clusters[chosen],
        heat_maps=heat_maps,
    )


def _observe(model, arrays, batch_size, bar, clustered):
    """What one pass tells of all images: maps (or None), margins, most probable classes, embeddings (or None)."""
    seen = []
    for batch in cam_batches(model, arrays, batch_size):
        embeddings = pool_features(batch.features) if clustered else None
        seen.append((batch.maps, margin(batch.probabilities), batch.probabilities.argmax(axis=1), embeddings))
        if bar is not None:
            bar.add(len(batch.probabilities))
    return [None if parts[0] is None else np.concatenate(parts) for parts in zip(*seen, strict=True)]


def _warn_of_chance(model, answers, labels, classes):
    """Say where a model answers like a coin: it is not trained, or its images or labels are not as in training."""
    right = float(np.mean(answers == labels))
    chance = max(1 / classes, np.bincount(labels).max() / len(labels))
    if right <= chance + math.sqrt(chance * (1 - chance) / len(labels)):
        logging.warning(
            "%r gets %.1f %% of these examples right, where chance gives %.1f %%. Is it trained? Are images scaled and "
            "labels numbered as they were in training?",
            model.name,
            100 * right,
            100 * chance,
        )


def _bar(verbose, target):
    if verbose not in ("auto", 0, 1):
        raise ValueError(f'Expected verbose "auto", 0 or 1. Received: verbose={verbose!r}')
    if verbose == "auto":  # in a log file every step of a bar would be a line of its own
        verbose = sys.stdout.isatty() or "ipykernel" in sys.modules
    return keras.utils.Progbar(target, unit_name="image") if verbose else None


def _check_counts(size, available, shares, has_maps):
    """How many examples each criterion chooses: they sum to ``size``."""
    if check_count("size", size) > available:
        raise ValueError(f"Expected a size between 1 and the {available} images. Received: size={size}")
    parts = check_array("shares", shares).astype(np.float64)
    if parts.shape != (3,) or (parts < 0).any() or parts.sum() == 0:
        raise ValueError(f"Expected three shares >= 0, not all 0, for {REASONS}. Received: shares={shares!r}")
    if not has_maps:
        parts[0] = 0
        if not parts.any():
            raise ValueError(
                "Expected shares of uncertainty or diversity for a model without a 2-D convolution, whose attention is "
                f"not known. Received: shares={shares!r}"
            )
    exact = size * parts / parts.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: size - counts.sum()]] += 1
    return counts
