"""Take dead channels out of the network while it trains."""

import math
import statistics
import time

import numpy as np
from absl import logging

from scc_tf.arguments import check_number
from scc_tf.callbacks.every_n_steps import EveryNSteps
from scc_tf.callbacks.kernel_restoration import KernelRestoration
from scc_tf.graph import trace_kernels
from scc_tf.surgery import SurgeryReport

__all__ = ["ChannelRemoval"]

STEPS_TO_BUILD = 2  # in which TensorFlow traces the training step: no measure of its speed


class ChannelRemoval(EveryNSteps):
    """Removes channels for good that have had no bits at two looks in a row: the network becomes smaller and faster.

    With ``size_model="entropy"`` a channel has no bits when all its codes are 0.

    Outputs, optimizers, metrics and callbacks go on as they were (`SelfCompressingModel.remove_dead_channels`).
    TensorFlow builds the training step again, which takes seconds, so nothing is cut until ``min_share`` of the kernel
    weights would go.

    A channel that is gone comes back only with an earlier state as a whole: ``EarlyStopping`` with
    ``restore_best_weights``, ``set_weights`` and ``load_weights`` give the network the channels that it had then.
    Beside a `KernelRestoration`, channels are removed only right after a safety check that satisfied its contract, and
    the state after the removal is the one to go back to.

    Adds to ``logs``: ``channels``, ``parameters``, and ``step_ms``, the median wall time of a step since the last
    look (NaN before the first steps were timed).

    Args:
        every: training steps between two looks; beside a `KernelRestoration`, a multiple of its monitor's ``every`` at
            best.
        min_share: share of the kernel weights that must go at once, in [0, 1].

    Attributes:
        history: one dictionary per look: ``step``, ``channels``, ``parameters``, ``step_ms``.
        reports: one `scc_tf.SurgeryReport` per removal.

    Raises:
        ValueError: if an argument is out of range; from ``fit``, if the model is not self-compressing.

    Example:
        >>> removal = ChannelRemoval(every=200)                                 # doctest: +SKIP
        >>> compressed.fit(images, labels, callbacks=[removal])                 # doctest: +SKIP
    """

    rank = 7

    def __init__(self, every: int = 200, *, min_share: float = 0.05):
        super().__init__(every)
        self.min_share = check_number("min_share", min_share, 0, 1)
        self.reports, self._dead_before = [], {}
        self._times, self._began, self._building = [], None, 0

    def on_train_begin(self, logs=None):
        """Look at the model as it starts."""
        self.check_model()
        self.reports, self._dead_before = [], {}
        self._times, self._building = [], STEPS_TO_BUILD
        super().on_train_begin(logs)

    def on_train_batch_begin(self, batch, logs=None):
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Stop the clock; look if it is time."""
        if self._building:
            self._building -= 1
        else:
            self._times.append(1000 * (time.perf_counter() - self._began))
        super().on_train_batch_end(batch, logs)

    def at_step(self, step):
        """Look, and cut if it is worth it."""
        dead = self._dead()
        twice = {kernel: mask & self._dead_before.get(kernel, False) for kernel, mask in dead.items()}
        restoration = self.companion(KernelRestoration)
        if any(mask.any() for mask in twice.values()) and (restoration is None or restoration.is_safe):
            report = self.model.remove_dead_channels({kernel: ~mask for kernel, mask in twice.items()}, self.min_share)
            if report is not None:
                self.reports.append(report)
                self._building = STEPS_TO_BUILD
                logging.info("Step %d: removed %d channels", step, report.removed)
                if restoration is not None:
                    restoration.accept()
        self._dead_before = self._dead()
        step_ms = statistics.median(self._times) if self._times else self.logged.get("step_ms", math.nan)
        self._times = []
        return {
            "channels": float(sum(len(mask) for mask in self._dead_before.values())),
            "parameters": float(self.model.count_params()),
            "step_ms": step_ms,
        }

    def _dead(self):
        """``{(layer, kernel name): bool array (C,)}``: the channels without bits."""
        kernels = [(node.layer, node.layout.name) for node in trace_kernels(self.model)]
        return {kernel: ~self.model.has_bits(*kernel) for kernel in kernels}

    def state(self):
        """The looks so far, what was cut, and what had no bits at the last look."""
        dead = [self._dead_before.get(kernel, np.zeros_like(mask)) for kernel, mask in self._dead().items()]
        return {**super().state(), "dead": dead, "reports": [report.to_json() for report in self.reports]}

    def restore(self, state):
        """Go on with them."""
        super().restore(state)
        self.reports = [SurgeryReport.from_json(report) for report in state["reports"]]
        self._dead_before = dict(zip(self._dead(), state["dead"], strict=True))
