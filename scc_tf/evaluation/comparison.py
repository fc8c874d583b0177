"""One call that compares two models: what users call."""

from typing import Any

import keras
import numpy as np

from scc_tf import metrics
from scc_tf.arguments import check_count, received
from scc_tf.classifier import class_labels
from scc_tf.evaluation.behaviour import measure_behaviour, measure_curves
from scc_tf.evaluation.footprint import measure_footprint
from scc_tf.evaluation.outputs import check_sets, classifier_outputs, number_of_classes
from scc_tf.evaluation.report import CompressionReport, ModelReport

__all__ = ["evaluate_compression"]


def evaluate_compression(  # noqa: PLR0913 (each is something to choose)
    before: keras.Model,
    after: keras.Model,
    data: Any,
    ood: Any = None,
    *,
    names: tuple[str, str] = ("before", "after"),
    bins: int = 15,
    examples: int | list[int] = 5,
    stored: bool = True,
    batch_size: int | None = None,
) -> CompressionReport:
    """Compare two classifiers: answers, calibration, behaviour out of distribution, size and work.

    Any two models will do, in any order: plain, self-compressing, weight-sharing, masked, pruned, or loaded from a
    packed file. Both are run as they are, on the same inputs; neither is changed. The temperature of each is fitted on
    the validation split, everything else is measured on the test split. Bins hold their upper edges.

    Models should return logits. Outputs that are never negative and sum to 1 in every row are taken for probabilities:
    all is measured the same on their logarithms, except the energy score, which needs a logit for each class and is
    left out; a note in the report says so. One unit, a probability or a logit, tells two classes apart.

    Args:
        before: built Sequential or functional classifier with one output ``(N, K)`` or ``(N, 1)``.
        after: another one for the same inputs and classes.
        data: `scc_tf.datasets.Dataset`, or what has a ``validation`` and a ``test`` split of ``images`` and ``labels``;
            ``images`` are inputs of any kind: an array ``(N, ...)``, or for several inputs a list or dict of arrays.
        ood: inputs of another distribution, in the shape and range of the others: a `scc_tf.datasets.Split`, a
            `scc_tf.datasets.Dataset` (its test split), or such inputs. Labels are not used: no answer is right there.
        names: what to call the two models; up to 40 characters each fit on the figure.
        bins: of the calibration errors, a whole number from 1.
        examples: how many single OOD inputs the figure shows, evenly spread over the set, or the indices of those.
        stored: whether to pack the models for their ``stored_bytes``: about a second per million weights.
        batch_size: examples per forward pass; None: as many as memory allows, 500 at most.

    Returns:
        `CompressionReport`: ``print`` it for a table, ``report.to_json()``, ``report.save_figure("page.png")``. In all
        OOD scores but ``aupr_out``, the test set is positive; see `scc_tf.metrics.ood`.

    Raises:
        ValueError: if a model is subclassed, not built or no classifier for these inputs, the models differ in the
            number of classes, an output is not finite, a split is empty or its labels do not fit, or an argument is
            none of the above.

    Example:
        >>> import keras, scc_tf
        >>> from scc_tf.datasets import Dataset, Split
        >>> rng = np.random.default_rng(0)
        >>> split = Split(rng.random((40, 8), np.float32), rng.integers(0, 3, 40))
        >>> data = Dataset("noise", split, split, split, ("a", "b", "c"))
        >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
        >>> shared = scc_tf.share_weights(plain, clusters=4)
        >>> report = evaluate_compression(plain, shared, data, ood=-split.images)
        >>> report.after.footprint.stored_bytes < report.before.footprint.float32_bytes
        True
    """
    if isinstance(names, str) or len(names) != 2:
        raise ValueError(f"Expected two names. {received('names', names)}")
    models, names, bins = (before, after), tuple(map(str, names)), check_count("bins", bins)
    for argument, model in zip(("before", "after"), models, strict=True):
        if not isinstance(model, keras.Model):
            raise ValueError(f"Expected {argument} to be a Keras model. {received(argument, model)}")
    classes, other = (number_of_classes(model, name) for model, name in zip(models, names, strict=True))
    if classes != other:
        raise ValueError(f"Expected models of the same classes. Received: {classes} and {other} outputs")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    inputs, labels = _sets(data, ood, before)
    sets = [check_sets(model, inputs, name) for model, name in zip(models, names, strict=True)]
    shown = sets[0]["out"][0] if ood is not None else None
    chosen = _chosen(examples, 0 if shown is None else len(shown))
    outputs = [classifier_outputs(*parts, batch_size) for parts in zip(models, sets, names, strict=True)]
    footprints = [measure_footprint(model, stored) for model in models]
    reports = [_report(*parts, labels, bins, chosen) for parts in zip(names, outputs, footprints, strict=True)]
    answers = [output.logits["test"].argmax(axis=1) for output in outputs]
    right = [answer == labels["test"] for answer in answers]
    class_names, notes = _class_names(data, classes)
    for name, output, (_, missing) in zip(names, outputs, footprints, strict=True):
        if not output.are_logits:
            notes += (f"{name}: returns probabilities; their logarithms serve as logits, without an energy score",)
        notes += tuple(f"{name}: {note}" for note in missing)
    return CompressionReport(
        *reports,
        data_name=getattr(data, "name", "data"),
        class_names=class_names,
        images={name: len(arrays[0]) for name, arrays in sets[0].items()},
        bins=bins,
        agreement=float(np.mean(answers[0] == answers[1])),
        newly_wrong=float(np.mean(right[0] & ~right[1])),
        newly_right=float(np.mean(~right[0] & right[1])),
        examples=None if shown is None else shown[chosen],
        notes=notes,
    )


def _sets(data, ood, model):
    """``({set: inputs}, {set: labels})``, the labels as class numbers: before the models are run."""
    splits = {name: getattr(data, name, None) for name in ("validation", "test")}
    missing = [n for n, split in splits.items() if not (hasattr(split, "images") and hasattr(split, "labels"))]
    if missing:
        raise ValueError(
            "Expected data with a validation and a test split of images and labels (see scc_tf.datasets.Split). "
            f"Received: {type(data).__name__} without {' and '.join(missing)}"
        )
    inputs, labels = {name: split.images for name, split in splits.items()}, {}
    for name, split in splits.items():
        if count := len(keras.tree.flatten(split.images)[0]):  # an empty one is told of as inputs
            labels[name] = class_labels(split.labels, model, count, f"labels of the {name} set")
    if ood is not None:
        if (
            isinstance(ood, tuple)
            and len(model.inputs) == 1
            and not hasattr(ood, "images")
            and not hasattr(ood, "test")
        ):
            raise ValueError(f"Expected ood to be inputs, without labels. Received: a tuple of {len(ood)}")
        ood = getattr(ood, "test", ood)
        inputs["out"] = getattr(ood, "images", ood)
    return inputs, labels


def _chosen(examples, count):
    """Indices of the OOD inputs to show, of which there are ``count``."""
    if not isinstance(examples, list | tuple | np.ndarray):
        most = min(check_count("examples", examples, least=0), count)
        return np.unique(np.linspace(0, count - 1, most).round().astype(int))
    chosen = np.asarray(examples)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise ValueError(f"Expected examples to be a number of them, or indices. {received('examples', examples)}")
    if count and not ((chosen >= 0) & (chosen < count)).all():
        raise ValueError(f"Expected examples to be indices of the {count} OOD inputs. {received('examples', examples)}")
    return chosen.astype(int)


def _report(name, outputs, footprint, labels, bins, chosen):
    kinds, ood = tuple(kind for kind in metrics.KINDS if outputs.are_logits or kind != "energy"), None
    if "out" in outputs.logits:
        ood = metrics.ood_report(outputs.logits["test"], outputs.logits["out"], kinds)
    behaviour = measure_behaviour(outputs, labels["validation"], labels["test"], bins)
    return ModelReport(name, behaviour, footprint[0], ood, measure_curves(outputs, labels["test"], bins, chosen))


def _class_names(data, classes):
    """A name for each class, and notes."""
    given = getattr(data, "class_names", None)
    names = () if given is None else tuple(map(str, given))
    if len(names) == classes:
        return names, ()
    notes = (f"{len(names)} class names for {classes} outputs: numbers stand in for them",) if names else ()
    return tuple(map(str, range(classes))), notes
