"""Watch the size of the model while it trains."""

from scc_tf.callbacks.every_n_steps import EveryNSteps
from scc_tf.size_report import size_report

__all__ = ["SizeLogger"]


class SizeLogger(EveryNSteps):
    """Measures the model's sizes every ``every`` steps, at the start and at the end; changes nothing in the model.

    Adds to ``logs``: ``integer_bytes``, ``entropy_bytes``, ``nominal_bytes`` (see `scc_tf.SizeReport`) and
    ``dead_channels``, for ``EarlyStopping(monitor="integer_bytes", mode="min")``, TensorBoard and others.

    Args:
        every: training steps between two measurements.

    Attributes:
        history: one dictionary per measurement, with its ``step``. The last one is of the weights that ``fit`` leaves.
    """

    rank = 3

    def __init__(self, every: int = 100):
        super().__init__(every)

    def at_step(self, step):
        """Measure."""
        report = size_report(self.model, stored=False)
        return {
            "integer_bytes": float(report.integer_bytes),
            "entropy_bytes": float(report.entropy_bytes),
            "nominal_bytes": float(report.nominal_bits / 8),
            "dead_channels": float(report.dead_channels),
        }
