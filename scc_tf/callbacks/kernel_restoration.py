"""Give bits back to dead channels when safety drops, and never end below the contract."""

import copy
import math

import numpy as np
from absl import logging

from scc_tf.arguments import check_count, check_number, received
from scc_tf.callbacks.fit_callback import FitCallback
from scc_tf.callbacks.safety_monitor import SafetyMonitor
from scc_tf.optimizer_state import optimizer_slots
from scc_tf.safety import Contract
from scc_tf.training import self_compressing_layers
from scc_tf.training.cuttable import Weights

__all__ = ["KernelRestoration"]


class KernelRestoration(FitCallback):
    """Reacts to a drop in safety accuracy, and keeps the contract.

    When the drop exceeds ``threshold`` in ``patience`` checks of the monitor in a row, every trainable kernel gets
    ``restore_bits`` back in ``restore_fraction`` of its dead channels (rounded up, at random): the exponent is put
    on the range of the latent weights, and the optimizer slots of these channels are cleared, since stale momentum
    would push them down again. Then it rests for ``cooldown`` checks. With ``size_model="entropy"`` a channel is dead
    when all its codes are 0, and its latent weights are scaled to ``restore_bits``: the exponent is the kernel's.

    **Contract:** the weights after ``fit`` satisfy safety accuracy >= reference - threshold, with the reference of
    `SafetyMonitor`: the network that was handed in, and what training has gained since. Where the last weights do not
    satisfy it, the last state that did (kept in memory) is put back, a warning says so and the monitor checks once
    more. This comes after ``on_train_end`` of all callbacks, so after ``EarlyStopping(restore_best_weights=True)`` as
    well. Where already the start breaks the contract, as after a conversion to few bits, a warning says what that cost,
    and training goes on. Until a check satisfies it, the state to go back to is the last one within the threshold of
    the best check. The contract stays with the model, as ``model.contract`` (`scc_tf.safety.Contract`).

    Adds to ``logs``: ``restored_channels``, the number restored so far.

    Args:
        monitor: `SafetyMonitor`; ``fit`` adds it to its callbacks where it is not listed.
        threshold: tolerated drop, a fraction; 0.05 is five percentage points.
        restore_fraction: share of the dead channels of each kernel, in [0, 1]; 0 never restores and keeps the
            contract alone.
        restore_bits: bit depth that a restored channel gets, bits, in (0, 24].
        patience: checks in a row that must be beyond the threshold, at least 1.
        cooldown: checks to leave alone after a restoration.
        seed: seed of the draw.

    Attributes:
        events: one dictionary per restoration: ``step``, ``safety_drop``, ``restored`` (kernel -> channels).
        safe_step: training step of the last state that satisfied the contract.
        reverted: whether ``fit`` ended with that state put back.

    Raises:
        ValueError: if an argument is out of range; from ``fit``, if the model is not self-compressing.

    Source: "Optimizing Deep Neural Networks using Safety-Guided Self Compression", arXiv 2505.00350; the reference,
        the slots and the contract are ours (in the founding code a restoration never fired).
    """

    rank = 6

    def __init__(
        self,
        monitor: SafetyMonitor,
        threshold: float = 0.05,
        *,
        restore_fraction: float = 0.5,
        restore_bits: float = 2.0,
        patience: int = 1,
        cooldown: int = 1,
        seed: int = 0,
    ):
        super().__init__()
        if not isinstance(monitor, SafetyMonitor):
            raise ValueError(f"Expected monitor to be a SafetyMonitor. {received('monitor', monitor)}")
        self.monitor, self.requires = monitor, (monitor,)
        self.threshold = check_number("threshold", threshold, 0, 1)
        self.restore_fraction = check_number("restore_fraction", restore_fraction, 0, 1)
        self.restore_bits = check_number("restore_bits", restore_bits, high=24, above=0)
        self.patience = check_count("patience", patience)
        self.cooldown = check_count("cooldown", cooldown, 0)
        self.seed = check_count("seed", seed, 0)
        self._begin()

    def _begin(self):
        self.events, self.safe_step, self.reverted = [], None, False
        self._safe_weights, self._checks_seen = None, 0

    @property
    def logged(self):
        """How many channels were restored so far."""
        return {"restored_channels": float(sum(sum(event["restored"].values()) for event in self.events))}

    @property
    def contract(self):
        """The `scc_tf.safety.Contract` of the model as of now; its reference may still rise in ``fit``."""
        watch = self.monitor
        return Contract(
            watch.safety_set, watch.reference_accuracy, self.threshold, watch.batch_size, watch.trained_accuracy
        )

    @property
    def is_kept(self):
        """Whether the monitor's last check satisfies the contract, of whatever step it is."""
        return not self._beyond(self.monitor.history[-1])

    @property
    def is_safe(self):
        """Whether the monitor has just checked these weights, and they satisfy the contract."""
        return self.is_kept and self.monitor.history[-1]["step"] == self.step

    def accept(self):
        """Take the model as it is as the state to go back to: it was changed, but gives the outputs last checked."""
        self.safe_step = self.monitor.history[-1]["step"]
        self._safe_weights = copy.deepcopy(self.model.get_weights())  # get_weights may alias

    def on_train_begin(self, logs=None):
        """Take up the state of an interrupted run, or accept the model as it starts."""
        self.check_model()
        # an interrupted fit leaves its monitor active, and callbacks of one fit have the same params
        same_fit = self.monitor.model is self.model and self.monitor.params is self.params and self.monitor.active
        if not same_fit:
            raise ValueError(
                "Expected the SafetyMonitor in the same fit, listed before KernelRestoration. "
                f"Received: monitor={self.monitor}"
            )
        self._begin()
        if not self.take_up():
            if not self.is_kept:
                logging.warning(
                    "The safety contract is broken before the first step: safety accuracy %s. Training goes on; "
                    "convert to more bits (self_compress, initial_bit_depth) to start within it.",
                    self.contract.told(self.monitor.history[-1]["safety_accuracy"]),
                )
            self._follow(may_restore=False)
        self.model.contract = self.contract
        self._checks_seen = len(self.monitor.history)

    def on_train_batch_end(self, batch, logs=None):
        """React if the monitor has just checked."""
        if len(self.monitor.history) > self._checks_seen:
            self._checks_seen = len(self.monitor.history)
            self._follow()
        super().on_train_batch_end(batch, logs)

    def on_fit_end(self):
        """Keep the contract."""
        self.monitor.act()  # another callback may have set weights after its last check
        if not self.is_kept:
            self._go_back(self.monitor.history[-1])
        self.model.contract = self.contract

    def _follow(self, may_restore=True):
        """React to the monitor's last check."""
        check = self.monitor.history[-1]
        self.model.contract = self.contract
        if not self._beyond(check):
            self.accept()
            return
        if self.safe_step is None and self._near_the_best(check):
            self._safe_weights = copy.deepcopy(self.model.get_weights())
        if may_restore and self._due():
            restored = self._restore(check["step"])
            self.events.append({"step": check["step"], "safety_drop": check["safety_drop"], "restored": restored})

    def _go_back(self, check):
        outcome = "No check satisfied it: start from more bits, or with less gamma, or train longer."
        if self.safe_step is not None:
            outcome = f"Went back to step {self.safe_step}, the last state that satisfied it."
        told = self.contract.told(check["safety_accuracy"])
        if self._safe_weights is not None and (self.safe_step is not None or not self._near_the_best(check)):
            self.model.set_weights(self._safe_weights)
            self.reverted = True
            self.monitor.act()
        logging.warning("The safety contract was broken when training ended: safety accuracy %s. %s", told, outcome)

    def _near_the_best(self, check):
        best = max(other["safety_accuracy"] for other in self.monitor.history)
        return check["safety_accuracy"] >= best - self.threshold - 1e-9

    def _beyond(self, check):
        return check["safety_drop"] > self.threshold + 1e-9  # both are differences of rounded fractions

    def _due(self):
        """Whether the last ``patience`` checks are all beyond the threshold, and the cooldown is over."""
        checks = self.monitor.history
        recent = checks[-self.patience :]
        since = [check for check in checks if not self.events or check["step"] > self.events[-1]["step"]]
        rested = not self.events or len(since) > self.cooldown
        beyond = len(recent) == self.patience and all(map(self._beyond, recent))
        return rested and beyond and self.restore_fraction > 0

    def _restore(self, step):
        rng, restored = np.random.default_rng((self.seed, step)), {}
        for layer in self_compressing_layers(self.model):
            for fmt in layer.formats if layer.trainable else ():
                dead = np.flatnonzero(~self.model.has_bits(layer, fmt.name))
                if dead.size:
                    count = math.ceil(self.restore_fraction * dead.size)
                    self._revive(layer, fmt, rng.choice(dead, count, replace=False))
                    restored[f"{layer.name}/{fmt.name}"] = count
        if self.model.size_model == "entropy":
            self.model.fit_bit_depths()
        logging.info("Step %d: safety dropped; restored dead channels: %s", step, restored or "none are dead")
        return restored

    def _revive(self, layer, fmt, channels):
        kernel, chosen = getattr(layer, fmt.name), np.isin(np.arange(fmt.channels), channels)
        seated = np.asarray(fmt.range_exponents(kernel, self.restore_bits))
        fmt.bit_depth.assign(np.where(chosen, self.restore_bits, np.asarray(fmt.bit_depth)))
        moved = [(fmt.bit_depth, self.model.format_optimizer), (kernel, self.model.optimizer)]
        if self.model.size_model == "entropy":
            factors = np.where(chosen, np.exp2(np.asarray(fmt.exponent) - seated), 1.0)
            kernel.assign(kernel * fmt.spread(factors.astype(np.float32)))
        else:
            fmt.exponent.assign(np.where(chosen, seated, np.asarray(fmt.exponent)))
            moved.append((fmt.exponent, self.model.format_optimizer))
        for variable, optimizer in moved:
            mask = chosen if variable is not kernel else chosen.reshape(fmt.broadcast_shape)
            for slot in optimizer_slots(optimizer, variable):
                slot.assign(np.where(mask, 0, np.asarray(slot)))

    def state(self):
        """The restorations so far, and the state to go back to."""
        weights = self._safe_weights
        cuts = None if weights is None else weights.cuts
        return {"events": self.events, "safe_step": self.safe_step, "safe_weights": weights, "safe_cuts": cuts}

    def restore(self, state):
        """Go on with them."""
        self.events, self.safe_step, self._safe_weights = state["events"], state["safe_step"], state["safe_weights"]
        if self._safe_weights is not None:
            self._safe_weights = Weights(self._safe_weights)
            self._safe_weights.cuts = state["safe_cuts"]
