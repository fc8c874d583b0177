"""Watch the size of the model while it trains."""

from scc_tf.callbacks.every_n_steps import EveryNSteps
from scc_tf.report import size_report

__all__ = ["SizeLogger"]


class SizeLogger(EveryNSteps):
    """Measures the model's sizes every ``every`` steps, at the start and at the end; changes nothing in the model.

    The last measurement is of the weights that ``fit`` leaves, after `KernelRestoration` has gone back, if it had to.

    Adds to ``logs``: ``integer_bytes``, ``entropy_bytes``, ``nominal_bytes`` (see `scc_tf.size.SizeReport`) and
    ``dead_channels``. ``EarlyStopping(monitor="integer_bytes", mode="min")`` and TensorBoard find them by these
    names.

    Args:
        every: training steps between two measurements.
        backup_dir: folder that keeps the measurements of an interrupted ``fit``, for use with the
            ``BackupAndRestore`` of Keras; emptied when ``fit`` ends. That of `scc_tf.callbacks` needs none.

    Attributes:
        history: one dictionary per measurement, with its ``step``.
    """

    names = ("integer_bytes", "entropy_bytes", "nominal_bytes", "dead_channels")
    backup_name = "size_logger"

    def __init__(self, every=100, *, backup_dir=None):
        super().__init__(every, backup_dir)

    def at_step(self, step):
        """Measure."""
        report = size_report(self.model, stored=False)
        return {
            "integer_bytes": float(report.integer_bytes),
            "entropy_bytes": float(report.entropy_bytes),
            "nominal_bytes": float(report.nominal_bits / 8),
            "dead_channels": float(report.dead_channels),
        }
