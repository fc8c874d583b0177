"""Physical removal of channels: the only code that rebuilds a graph smaller."""

from scc_tf.surgery.removal import SurgeryReport, remove_channels, remove_dead_channels

__all__ = ["SurgeryReport", "remove_channels", "remove_dead_channels"]
