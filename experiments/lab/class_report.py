"""Precision, recall and F1 of every class."""

__all__ = ["class_report"]


def class_report(answers, labels, class_names):
    """What a network's answers are worth, class by class.

    Args:
        answers: int ``(N,)``, the class that each image was taken for.
        labels: int ``(N,)``, in ``[0, K)``.
        class_names: ``K`` of them.

    Returns:
        Plain JSON, ``{name: {"precision", "recall", "f1-score", "support"}}``; what is not defined is 0.

    Source: `sklearn.metrics.classification_report`.

    Example:
        >>> class_report([0, 1, 1], [0, 0, 1], ("cat", "dog"))["cat"]["recall"]
        0.5
    """
    from sklearn.metrics import classification_report  # here, because it is slow to import

    names = list(class_names)
    report = classification_report(
        labels, answers, labels=range(len(names)), target_names=names, output_dict=True, zero_division=0.0
    )
    return {name: {key: float(value) for key, value in report[name].items()} for name in names}
