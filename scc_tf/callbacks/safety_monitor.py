"""Watch the examples that must not get worse."""

from absl import logging

from scc_tf.batch_statistics import reestimate_batch_statistics, trainable_norms
from scc_tf.callbacks.every_n_steps import EveryNSteps
from scc_tf.safety import safety_accuracy

__all__ = ["REFERENCES", "SafetyMonitor"]

REFERENCES = ("best", "average")


class SafetyMonitor(EveryNSteps):
    """Evaluates the safety set every ``every`` steps, at the start of ``fit`` and on its final weights.

    The drop is measured against a reference: the best accuracy so far, or its moving average. Never against the
    last value alone, so a slow decay is caught.

    Adds to ``logs``: ``safety_accuracy`` and ``safety_drop`` (reference minus accuracy), fractions. With
    ``statistics_images`` it re-estimates the model's BatchNormalization statistics before each check; it writes
    nothing else to the model, and nothing at all without them.

    Args:
        safety_set: `scc_tf.SafetySet`, or anything with ``images`` and ``labels``, not empty.
        every: training steps between two checks.
        reference: ``"best"`` or ``"average"``.
        decay: weight of the past in the moving average.
        statistics_images: training images to re-estimate BatchNormalization statistics from (4,096 are plenty),
            augmented as in training, see `scc_tf.batch_statistics.reestimate_batch_statistics`.
            None leaves the running statistics alone; those of trainable layers lag behind the weights and make the
            checks noisy, so ``fit`` begins with a warning.
        batch_size: examples per evaluation batch.
        backup_dir: folder that keeps the checks of an interrupted ``fit``, for use with ``BackupAndRestore``; emptied
            when ``fit`` ends. Without it the reference starts anew in a ``fit`` that goes on after an interruption.

    Attributes:
        history: one dictionary per check: ``step``, ``safety_accuracy``, ``safety_drop``. The last one is of the
            weights that ``fit`` leaves.
        active: whether its ``fit`` has begun and has not ended.

    Raises:
        ValueError: if the safety set is empty, or an argument is out of range.

    Example:
        >>> monitor = SafetyMonitor(safety_set, every=50)                       # doctest: +SKIP
        >>> model.fit(images, labels, callbacks=[monitor])                      # doctest: +SKIP
    """

    names = ("safety_accuracy", "safety_drop")
    backup_name = "safety_monitor.json"
    starts_anew = "the reference starts with the weights as they are now, and drops before this step are not seen"

    def __init__(
        self,
        safety_set,
        every=100,
        *,
        reference="best",
        decay=0.9,
        statistics_images=None,
        batch_size=500,
        backup_dir=None,
    ):
        super().__init__(every, backup_dir)
        if len(safety_set.labels) == 0 or len(safety_set.labels) != len(safety_set.images):
            raise ValueError(
                "Expected a safety set with at least one example and one label for each. "
                f"Received: {len(safety_set.images)} images, {len(safety_set.labels)} labels"
            )
        if reference not in REFERENCES:
            raise ValueError(f"Expected reference to be one of {REFERENCES}. Received: reference={reference!r}")
        if not 0 <= decay < 1:
            raise ValueError(f"Expected decay in [0, 1). Received: decay={decay}")
        self.safety_set = safety_set
        self.reference = reference
        self.decay = decay
        self.statistics_images = statistics_images
        self.batch_size = batch_size

    @property
    def reference_accuracy(self):
        """What the next check is compared with, a fraction; 0 before the first check."""
        accuracies = [check["safety_accuracy"] for check in self.history]
        if not accuracies:
            return 0.0
        if self.reference == "best":
            return max(accuracies)
        average = accuracies[0]
        for accuracy in accuracies[1:]:
            average = self.decay * average + (1 - self.decay) * accuracy
        return average

    def on_train_begin(self, logs=None):
        """Take up the checks of an interrupted run, or check the model as it starts."""
        if self.statistics_images is None and trainable_norms(self.model):
            logging.warning(
                "The safety checks use running BatchNormalization statistics, which lag behind the weights: their "
                "noise may look like a drop. Give SafetyMonitor statistics_images."
            )
        super().on_train_begin(logs)

    def at_step(self, step):
        """Check."""
        accuracy = self.safety_accuracy()
        return {"safety_accuracy": accuracy, "safety_drop": max(self.reference_accuracy - accuracy, 0.0)}

    def safety_accuracy(self):
        """Re-estimate the batch statistics, then measure the accuracy on the safety set, a fraction."""
        if self.statistics_images is not None:
            reestimate_batch_statistics(self.model, self.statistics_images)
        return safety_accuracy(self.model, self.safety_set, self.batch_size)
