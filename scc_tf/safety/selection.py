"""The safety set: which training examples must not get worse, and why each of them was chosen.

Shapes: ``N`` images handed in, ``S`` of them selected, ``K`` classes, images ``H x W x C``.
"""

import dataclasses
import operator
import os
import sys

import keras
import numpy as np

from scc_tf.arguments import check_path
from scc_tf.arrays_file import read_arrays_file
from scc_tf.atomic import atomic_path
from scc_tf.safety import diversity
from scc_tf.safety.attention import attention_score, cam_batches, check_images, check_model, resize_maps
from scc_tf.safety.uncertainty import margin

__all__ = ["REASONS", "SafetySet", "select_safety_set"]

REASONS = ("attention", "uncertainty", "diversity")

_FORMAT = "scc_tf.safety_set/1"
_KINDS = {  # of the parts of a file
    "images": "fiub",
    "labels": "iu",
    "indices": "iu",
    "reasons": "U",
    "attention": "f",
    "margin": "f",
    "cluster": "iu",
    "heat_maps": "u",
    "format": "U",
}


@dataclasses.dataclass(frozen=True, eq=False)
class SafetySet:
    """Examples that must not get worse, and why each was chosen.

    Attributes:
        images: float32 ``(S, H, W, C)``, as they were handed in.
        labels: int64 ``(S,)``.
        indices: int64 ``(S,)``, positions in the images handed in; no repeats.
        reasons: str ``(S,)``, the criterion that chose the example: "attention", "uncertainty" or "diversity".
        attention: float32 ``(S,)``, sum of the heat map at the resolution of the last convolution.
        margin: float32 ``(S,)``, probability of the first class minus that of the second, fraction.
        cluster: int64 ``(S,)``, k-means cluster; -1 where nothing was clustered.
        heat_maps: uint8 ``(S, H, W)``, Grad-CAM; 255 is the hottest pixel of an image.

    Raises:
        ValueError: if the parts do not belong together.
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
        shapes = {field.name: getattr(self, field.name).shape for field in dataclasses.fields(self)}
        flat = (self.labels, self.indices, self.reasons, self.attention, self.margin, self.cluster)
        if self.images.ndim != 4 or any(part.shape != self.images.shape[:1] for part in flat):
            raise ValueError(f"Expected images (S, H, W, C) and one number per image. Received: {shapes}")
        if self.heat_maps.shape != self.images.shape[:3]:
            raise ValueError(f"Expected one heat map of the size of each image. Received: {shapes}")
        if not set(self.reasons.tolist()) <= set(REASONS):
            raise ValueError(f"Expected reasons out of {REASONS}. Received: {set(self.reasons.tolist())}")

    def __len__(self):
        return len(self.images)

    def save(self, path: str | os.PathLike) -> None:
        """Write the set to one ``.npz`` file; the file at ``path`` is replaced only once all is written.

        Args:
            path: where to; used as it is, no suffix is added.
        """
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, format=np.array(_FORMAT), **parts)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SafetySet":
        """Read a set that `save` wrote.

        Args:
            path: the file.

        Returns:
            The set, equal to the bit.

        Raises:
            ValueError: if there is no such file, it is not a safety set, or it is damaged.
        """
        path = check_path("path", path)
        if not path.is_file():
            raise ValueError(f"Expected a safety set file. Received: path={str(path)!r}, where there is no file")
        try:
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
    batch_size: int = 256,
    verbose: int | str = "auto",
) -> SafetySet:
    """Choose the examples that compression must not harm.

    Three criteria choose in turn, each skipping what is taken: the examples with the largest attention score
    (sum of the Grad-CAM heat map), those with the smallest margin between the two most probable classes, and
    equal numbers from each of ten k-means clusters of the last convolution's features, drawn at random. One
    forward pass over the images, in inference mode, serves all three; the model is not changed.

    Hand in training or validation examples, never test examples: the safety set takes part in training.

    Args:
        model: a built functional or `Sequential` classifier with a 2-D convolution; output ``(N, K)``, logits or
            probabilities. It should be trained: what it attends to is the criterion.
        images: float ``(N, H, W, C)``, scaled as the model expects, within [-100, 100]: 0..255 is taken for a mistake.
        labels: int ``(N,)``, in ``[0, K)``.
        size: examples to choose ``S``, at most ``N``.
        seed: of the clustering and of the draw from clusters; the first two criteria are deterministic.
        shares: relative shares of attention, uncertainty and diversity. What does not divide evenly goes to the
            largest fractions, earlier criteria first. With no share for diversity nothing is clustered.
        batch_size: images per step.
        verbose: 0 is silent, 1 shows a progress bar, "auto" shows one in a terminal or notebook.

    Returns:
        Exactly ``size`` different examples: first the attended ones (highest score first), then the uncertain ones
        (smallest margin first), then the diverse ones (clusters take turns).

    Raises:
        ValueError: if the model is subclassed, unbuilt, without a convolution or returns NaN; if the images are
            not finite floats in [-100, 100] of the model's shape; if the labels do not fit; if the size is not in
            ``[1, N]``.

    Source: the founding scheme, arXiv 2505.00350; Selvaraju et al. 2017, arXiv 1610.02391 (Grad-CAM); Scheffer et
    al. 2001 (margin sampling). Where the founding code differs from its text, the text is followed: margin
    instead of least confidence, k-means over the whole set instead of per batch, no dropout.

    Example:
        >>> safety_set = select_safety_set(model, x_train, y_train, size=1000)  # doctest: +SKIP
        >>> safety_set.save("mnist_safety.npz")  # doctest: +SKIP
    """
    images = check_images(check_model(model), images)
    labels = _check_labels(labels, len(images), model.outputs[0].shape[1])
    counts = _check_counts(size, len(images), shares)
    clustered = counts[2] > 0
    maps, margins, embeddings = _observe(model, images, batch_size, _bar(verbose, len(images)), clustered)
    attention = attention_score(maps)
    clusters = diversity.cluster(embeddings, seed=seed) if clustered else np.full(len(images), -1)

    attended = np.argsort(-attention, kind="stable")[: counts[0]]
    by_margin = np.argsort(margins, kind="stable")
    uncertain = by_margin[~np.isin(by_margin, attended)][: counts[1]]
    taken = np.concatenate([attended, uncertain])
    chosen = np.concatenate([taken, diversity.equal_draw(clusters, counts[2], seed, taken)])
    return SafetySet(
        images=images[chosen].astype(np.float32),
        labels=labels[chosen],
        indices=chosen,
        reasons=np.repeat(REASONS, counts),
        attention=attention[chosen],
        margin=margins[chosen],
        cluster=clusters[chosen],
        heat_maps=np.rint(255 * resize_maps(maps[chosen], images.shape[1:3])).astype(np.uint8),
    )


def _observe(model, images, batch_size, bar, clustered):
    """Maps (N, h, w), margins (N,) and, if they are to be clustered, embeddings (N, D), in one pass."""
    maps, margins, embeddings = [], [], []
    for batch in cam_batches(model, images, batch_size):
        maps.append(batch.maps)
        margins.append(margin(batch.probabilities))
        if clustered:
            embeddings.append(diversity.pool_features(batch.features))
        if bar is not None:
            bar.add(len(batch.maps))
    return np.concatenate(maps), np.concatenate(margins), np.concatenate(embeddings or [[]])


def _bar(verbose, target):
    if verbose not in ("auto", 0, 1):
        raise ValueError(f'Expected verbose "auto", 0 or 1. Received: verbose={verbose!r}')
    if verbose == "auto":  # in a log file every step of a bar would be a line of its own
        verbose = sys.stdout.isatty() or "ipykernel" in sys.modules
    return keras.utils.Progbar(target, unit_name="image") if verbose else None


def _check_labels(labels, count, n_classes):
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Expected one integer label per image, shape ({count},), not one-hot. "
            f"Received: shape={labels.shape}, dtype={labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"Expected labels in [0, {n_classes}). Received: labels from {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)


def _check_counts(size, available, shares):
    """How many examples each criterion chooses: they sum to ``size``."""
    try:
        size = operator.index(size)
    except TypeError:
        raise ValueError(f"Expected an integer size. Received: size={size!r}") from None
    if not 1 <= size <= available:
        raise ValueError(f"Expected a size between 1 and the {available} images. Received: size={size}")
    parts = np.asarray(shares, np.float64)
    if parts.shape != (3,) or not np.isfinite(parts).all() or (parts < 0).any() or parts.sum() == 0:
        raise ValueError(f"Expected three shares >= 0, not all 0, for {REASONS}. Received: shares={shares!r}")
    exact = size * parts / parts.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: size - counts.sum()]] += 1
    return counts
