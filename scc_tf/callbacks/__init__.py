"""Keras callbacks for self-compressing models.

Order in ``fit(callbacks=[...])``: `RaiseOnNaN` first, then ``BackupAndRestore``, `GammaScheduler`, `SizeLogger`,
`SafetyMonitor`, `TargetSize`, `KernelRestoration`, `ChannelRemoval`, and after them what reads their logs
(``CSVLogger``, ``TensorBoard``, ``EarlyStopping``). `TargetSize` takes the place of `GammaScheduler`: both set gamma.
The contract of `KernelRestoration` is kept after ``on_train_end`` of all of them. With ``BackupAndRestore``, those that
have one want a ``backup_dir``, outside of its own.
"""

from scc_tf.callbacks.channel_removal import ChannelRemoval
from scc_tf.callbacks.gamma_scheduler import GammaScheduler
from scc_tf.callbacks.kernel_restoration import KernelRestoration
from scc_tf.callbacks.magnitude_pruning import MagnitudePruning
from scc_tf.callbacks.nan_guard import RaiseOnNaN
from scc_tf.callbacks.safety_monitor import SafetyMonitor
from scc_tf.callbacks.size_logger import SizeLogger
from scc_tf.callbacks.target_size import TargetSize

__all__ = [
    "ChannelRemoval",
    "GammaScheduler",
    "KernelRestoration",
    "MagnitudePruning",
    "RaiseOnNaN",
    "SafetyMonitor",
    "SizeLogger",
    "TargetSize",
]
