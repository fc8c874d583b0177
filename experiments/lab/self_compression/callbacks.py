"""The callbacks of one compression, and what they saw."""

import keras

from scc_tf.callbacks import ChannelRemoval, GammaScheduler, KernelRestoration, SafetyMonitor, SizeLogger, TargetSize
from scc_tf.finishing.finish import finished_bytes

__all__ = ["Callbacks"]

AIM = 1.03  # bytes that training aims at, in targets: the dead zone then prunes, which costs less than to add weights
PATIENCE = 5  # checks: where a size is asked for, gamma waits and falls first, since a revival costs bytes


class Callbacks:
    """The callbacks of one compression, and what they saw.

    Args:
        config: `lab.self_compression.Config`.
        safe: whether to restore what a drop of safety asks for; otherwise the monitor only watches.
        safety_set: `scc_tf.SafetySet`.
        statistics_images: training images ``(N, H, W, C)`` to re-estimate batch statistics from.
        steps: of the whole training.
    """

    def __init__(self, config, safe, safety_set, statistics_images, steps):
        self.threshold_points = config.threshold_points
        every = config.check_every
        self.sizes = SizeLogger(every)
        self.monitor = SafetyMonitor(safety_set, every, statistics_images=statistics_images)
        self.restoration = None
        self.callbacks = []
        if config.ramp:
            rise = max(1, round(config.ramp * steps))
            self.callbacks.append(GammaScheduler(keras.optimizers.schedules.PolynomialDecay(0.0, rise, config.gamma)))
        self.callbacks += [self.sizes, self.monitor]
        self.target = None
        if safe:
            self.restoration = KernelRestoration(
                self.monitor,
                config.threshold_points / 100,
                patience=PATIENCE if config.target_bytes else 1,
                restore_fraction=config.restore_fraction,
                restore_bits=config.restore_bits,
                seed=config.seed,
            )
        if config.target_bytes:
            self.target = TargetSize(
                AIM * config.target_bytes,
                every,
                measure=lambda model: finished_bytes(model, config.exponent_places, config.statistics_bits),
                approach=max(1, round(config.approach * steps)),
            )
        self.callbacks += [callback for callback in (self.target, self.restoration) if callback]
        self.removal = ChannelRemoval(every, min_share=config.cut_share)
        self.callbacks.append(self.removal)

    def record(self):
        """What happened during ``fit``, as plain JSON; all that those who finish the model need of it."""
        sizes = {entry["step"]: entry for entry in self.sizes.history}
        reverted = self.restoration is not None and self.restoration.reverted
        return {
            "threshold_points": self.threshold_points,
            "reference_accuracy": self.monitor.reference_accuracy,
            "safety_accuracy_start": self.monitor.history[0]["safety_accuracy"],
            "reverted_to_step": self.restoration.safe_step if reverted else None,
            "events": self.restoration.events if self.restoration else [],
            "network": [{k: v for k, v in look.items() if v == v} for look in self.removal.history],  # NaN: not timed
            "history": [{**sizes[c["step"]], **c} for c in self.monitor.history if c["step"] in sizes],
            **({"target": {"outcome": self.target.outcome, "history": self.target.history}} if self.target else {}),
        }
