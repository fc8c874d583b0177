"""Keras callbacks for self-compressing models.

Order in ``fit(callbacks=[...])``: `RaiseOnNaN` first, then `GammaScheduler`, `SizeLogger`, `SafetyMonitor`,
`TargetSize`, `KernelRestoration`, `ChannelRemoval`, after them what reads their logs (``CSVLogger``, ``TensorBoard``,
``EarlyStopping``), and `BackupAndRestore` last. `TargetSize` takes the place of `GammaScheduler`: both set gamma. The
contract of `KernelRestoration` is kept after ``on_train_end`` of all of them.

``keras.callbacks.BackupAndRestore`` stands behind `RaiseOnNaN` instead. It knows only the weights: those of the others
that have one want a ``backup_dir`` then, outside of its own, and a kill while it writes costs the run.
"""

from scc_tf.callbacks.backup_and_restore import BackupAndRestore
from scc_tf.callbacks.channel_removal import ChannelRemoval
from scc_tf.callbacks.gamma_scheduler import GammaScheduler
from scc_tf.callbacks.kernel_restoration import KernelRestoration
from scc_tf.callbacks.magnitude_pruning import MagnitudePruning
from scc_tf.callbacks.nan_guard import RaiseOnNaN
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
