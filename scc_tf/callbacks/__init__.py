"""Keras callbacks for self-compressing models.

List them in any order: ``fit`` of a self-compressing model calls them in the right one, before callbacks of others see
the end of an epoch. `TargetSize` takes the place of `GammaScheduler`: both set gamma. `BackupAndRestore` keeps the
state of all of them.
"""

from scc_tf.callbacks.backup_and_restore import BackupAndRestore
from scc_tf.callbacks.channel_removal import ChannelRemoval
from scc_tf.callbacks.gamma_scheduler import GammaScheduler
from scc_tf.callbacks.kernel_restoration import KernelRestoration
from scc_tf.callbacks.magnitude_pruning import MagnitudePruning
from scc_tf.callbacks.raise_on_nan import RaiseOnNaN
from scc_tf.callbacks.safety_monitor import SafetyMonitor
from scc_tf.callbacks.size_logger import SizeLogger
from scc_tf.callbacks.target_size import TargetSize

__all__ = [
    "BackupAndRestore",
    "ChannelRemoval",
    "GammaScheduler",
    "KernelRestoration",
    "MagnitudePruning",
    "RaiseOnNaN",
    "SafetyMonitor",
    "SizeLogger",
    "TargetSize",
]
