"""One training, epoch by epoch."""

import os

from matplotlib.ticker import MaxNLocator

from lab.figures.fields import fields, numbers
from scc_tf.plots.canvas import BLUE, GREY, ORANGE, drawing

__all__ = ["training_curves"]


def training_curves(record: dict, path: str | os.PathLike) -> None:
    """Draw accuracy, loss and learning rate against the epoch, those of training beside those of validation.

    Args:
        record: of `lab.image_training.run`: ``test_accuracy``, and under ``epochs`` one dictionary each
            with ``epoch``, ``learning_rate``, ``train_accuracy``, ``validation_accuracy`` (fractions), ``train_loss``
            and ``validation_loss``.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, there are no epochs, or a number is not finite.
    """
    (rows,), (test,) = fields(record, "epochs"), numbers([record], "test_accuracy")[0]
    epochs, rate = numbers(rows, "epoch", "learning_rate")
    curves = {
        "accuracy (%)": 100 * numbers(rows, "train_accuracy", "validation_accuracy"),
        "loss": numbers(rows, "train_loss", "validation_loss"),
    }
    look = {"marker": "o", "ms": 3.5} if len(epochs) < 3 else {}  # a line of one epoch would not be seen
    with drawing(path, 7.4, 7.0) as figure:
        *panels, below = figure.subplots(3, sharex=True, height_ratios=(4, 3, 1.5))
        for axes, (name, (train, validation)) in zip(panels, curves.items(), strict=True):
            axes.plot(epochs, train, color=ORANGE, label="training images, augmented, while they are learned", **look)
            axes.plot(epochs, validation, color=BLUE, label="validation images", **look)
            axes.set_ylabel(name)
        count = f"{epochs[-1]:.0f} epoch{'s' if epochs[-1] > 1 else ''}"
        panels[0].set_title(f"{100 * test:.2f} % on test after {count}", pad=12)
        below.plot(epochs, rate, color=GREY, **look)
        below.set_ylabel("learning\nrate")
        below.set_ylim(bottom=0)
        below.set_xlabel("epoch")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].legend(loc="lower right")
