"""Keras callbacks for self-compressing models.

Order in ``fit(callbacks=[...])``: ``BackupAndRestore`` first, then `GammaScheduler`, `SizeLogger`,
`SafetyMonitor`, `KernelRestoration`, and after them what reads their logs (``CSVLogger``, ``TensorBoard``,
``EarlyStopping``).
"""

from scc_tf.callbacks.gamma_scheduler import GammaScheduler
from scc_tf.callbacks.kernel_restoration import KernelRestoration
from scc_tf.callbacks.nan_guard import RaiseOnNaN
from scc_tf.callbacks.safety_monitor import SafetyMonitor
from scc_tf.callbacks.size_logger import SizeLogger

__all__ = ["GammaScheduler", "KernelRestoration", "RaiseOnNaN", "SafetyMonitor", "SizeLogger"]
