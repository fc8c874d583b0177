"""Watch the examples that must not get worse."""

from typing import Any

import keras
from absl import logging

from scc_tf.arguments import check_array, check_choice, check_count, check_number
from scc_tf.batch_statistics import reestimate_batch_statistics, trainable_norms
from scc_tf.callbacks.every_n_steps import EveryNSteps
from scc_tf.safety import check_safety_set, safety_accuracy

__all__ = ["REFERENCES", "SafetyMonitor"]

REFERENCES = ("best", "average")


class SafetyMonitor(EveryNSteps):
    """Evaluates the safety set every ``every`` steps, at the start of ``fit`` and on its final weights.

    The drop is measured against a reference::

        reference = handed_in + max(0, best - max(handed_in, start))

    ``handed_in`` is the safety accuracy of the network that was handed to `scc_tf.self_compress`, ``best`` the highest
    of the checks (or their moving average), ``start`` the check before the first step. So what the first rounding costs
    is part of the drop, training raises the reference, and what re-estimated batch statistics gain before it does not.
    Where the network is not known, as in a model that was loaded from a file, the reference is ``best`` alone, and a
    warning says so.

    Adds to ``logs``: ``safety_accuracy`` and ``safety_drop`` (reference minus accuracy, at least 0), fractions. With
    ``statistics_images`` it re-estimates the model's BatchNormalization statistics before each check; it writes
    nothing else to the model, and nothing at all without them.

    Args:
        safety_set: `scc_tf.SafetySet`, or anything with ``images`` and ``labels``, not empty.
        every: training steps between two checks.
        reference: ``"best"`` or ``"average"``: of the checks.
        decay: weight of the past in the moving average.
        reference_accuracy: ``handed_in``, a fraction, where it is not known to the model or is not to be measured;
            None measures it.
        statistics_images: training images to re-estimate BatchNormalization statistics from (4,096 are plenty),
            augmented as in training, see `scc_tf.batch_statistics.reestimate_batch_statistics`.
            None leaves the running statistics alone; those of trainable layers lag behind the weights and make the
            checks noisy, so ``fit`` begins with a warning.
        batch_size: examples per evaluation batch; None: as many as memory allows.

    Attributes:
        history: one dictionary per check: ``step``, ``safety_accuracy``, ``safety_drop``. The last one is of the
            weights that ``fit`` leaves.
        trained_accuracy: ``handed_in``, a fraction; None where it is not known.

    Raises:
        ValueError: if the safety set is empty, or an argument is out of range; from ``fit``, if the model cannot be
            scored.

    Example:
        >>> monitor = SafetyMonitor(safety_set, every=50)                       # doctest: +SKIP
        >>> model.fit(images, labels, callbacks=[monitor])                      # doctest: +SKIP
    """

    rank = 4

    def __init__(
        self,
        safety_set: Any,
        every: int = 100,
        *,
        reference: str = "best",
        decay: float = 0.9,
        reference_accuracy: float | None = None,
        statistics_images: Any = None,
        batch_size: int | None = None,
    ):
        super().__init__(every)
        self.safety_set = check_safety_set(safety_set)
        self.reference = check_choice("reference", reference, REFERENCES)
        self.decay = check_number("decay", decay, 0, below=1)
        if reference_accuracy is not None:
            reference_accuracy = check_number("reference_accuracy", reference_accuracy, 0, 1)
        self.given_accuracy = self.trained_accuracy = reference_accuracy
        for images in () if statistics_images is None else keras.tree.flatten(statistics_images):
            check_array("statistics_images", images)
        self.statistics_images = statistics_images
        self.batch_size = batch_size if batch_size is None else check_count("batch_size", batch_size)

    @property
    def reference_accuracy(self):
        """What the next check is compared with, a fraction; never below `trained_accuracy`."""
        accuracies = [check["safety_accuracy"] for check in self.history]
        if not accuracies:
            return self.trained_accuracy or 0.0
        reached = max(accuracies)
        if self.reference == "average":
            reached = accuracies[0]
            for accuracy in accuracies[1:]:
                reached = self.decay * reached + (1 - self.decay) * accuracy
        if self.trained_accuracy is None:
            return reached
        # a later fit of the same model starts from what was reached by training
        start = accuracies[0] if self.history[0]["step"] == 0 else 0.0
        return self.trained_accuracy + max(0.0, reached - max(self.trained_accuracy, start))

    def on_train_begin(self, logs=None):
        """Score the network that was handed in; take up the checks of an interrupted run, or check the model."""
        if self.statistics_images is None and trainable_norms(self.model):
            logging.warning(
                "The safety checks use running BatchNormalization statistics, which lag behind the weights: their "
                "noise may look like a drop. Give SafetyMonitor statistics_images."
            )
        self.trained_accuracy = self._accuracy_handed_in() if self.given_accuracy is None else self.given_accuracy
        super().on_train_begin(logs)

    def _accuracy_handed_in(self):
        """That of the network that the model was made of; None if there is none."""
        reference = getattr(self.model, "reference", None)
        if reference is not None and reference.network is not None:
            return safety_accuracy(reference.network, self.safety_set, self.batch_size)
        if hasattr(self.model, "reference"):  # other models are themselves what was handed in
            logging.warning(
                "The network that %r was made of %s: the reference of the safety checks is the model as fit finds it, "
                "and what it has lost before is not seen. Give SafetyMonitor reference_accuracy to measure against it.",
                self.model.name,
                "is not known" if reference is None else "has other weights since",
            )
        return None

    def at_step(self, step):
        """Check."""
        accuracy = self.safety_accuracy()
        return {"safety_accuracy": accuracy, "safety_drop": max(self.reference_accuracy - accuracy, 0.0)}

    def safety_accuracy(self):
        """Re-estimate the batch statistics, then measure the accuracy on the safety set, a fraction."""
        if self.statistics_images is not None:
            reestimate_batch_statistics(self.model, self.statistics_images)
        return safety_accuracy(self.model, self.safety_set, self.batch_size)

    def state(self):
        """The checks, and what they are measured against."""
        return {**super().state(), "trained_accuracy": self.trained_accuracy}

    def restore(self, state):
        """Go on with them."""
        super().restore(state)
        self.trained_accuracy = state["trained_accuracy"]
