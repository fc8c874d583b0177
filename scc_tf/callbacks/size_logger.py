"""Watch the size of the model while it trains."""

from scc_tf.callbacks.every_n_steps import EveryNSteps
from scc_tf.size import size_report

__all__ = ["SizeLogger"]


class SizeLogger(EveryNSteps):
    """Writes the model's sizes into ``logs`` every ``every`` steps; changes nothing in the model.

    Adds to ``logs``: ``integer_bytes``, ``entropy_bytes``, ``nominal_bytes`` (see `scc_tf.size.SizeReport`) and
    ``dead_channels``. ``EarlyStopping(monitor="integer_bytes")`` and TensorBoard find them by these names.

    Args:
        every: training steps between two measurements.

    Attributes:
        history: one dictionary per measurement, with its ``step``.
    """

    def __init__(self, every=100):
        super().__init__(every)
        self.history = []

    def on_train_begin(self, logs=None):
        """Measure the model as it starts."""
        super().on_train_begin(logs)
        self.latest = self.at_step(self.step)

    def on_train_end(self, logs=None):
        """Measure the model as it ends."""
        self.latest = self.at_step(self.step)

    def at_step(self, step):
        """Measure."""
        report = size_report(self.model)
        sizes = {
            "integer_bytes": float(report.integer_bytes),
            "entropy_bytes": float(report.entropy_bytes),
            "nominal_bytes": float(report.nominal_bits / 8),
            "dead_channels": float(report.dead_channels),
        }
        self.history.append({"step": step, **sizes})
        return sizes
