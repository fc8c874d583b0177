"""Steer gamma until the file has the size that was asked for."""

import math
from collections.abc import Callable

from absl import logging
from keras import ops

from scc_tf.arguments import check_number, received
from scc_tf.callbacks.every_n_steps import EveryNSteps
from scc_tf.callbacks.gamma_scheduler import GammaScheduler
from scc_tf.callbacks.kernel_restoration import KernelRestoration
from scc_tf.finishing.finish import finished_bytes
from scc_tf.finishing.floor import check_target
from scc_tf.finishing.steps import refine_steps
from scc_tf.training import SelfCompressingModel, self_compressing_layers

__all__ = ["TargetSize", "steered"]

GAIN = 3.0  # a tenth more gamma makes a file 2 to 7 % smaller, in the end
LARGEST_CHANGE = 0.5  # of log gamma from one measurement to the next
FAR_BELOW = -0.1  # log(size / wanted size) from which on gamma may fall at once: what has died does not come back
HELD_BACK = 0.2  # what log gamma loses where safety stays beyond its contract; late in training it comes back slowly
MOST_BITS = 12  # that training starts from, to be above a target


def steered(gamma, errors, elapsed, limits):
    """The next gamma: a proportional-integral rule on log gamma, in steps that need no memory.

    ``log gamma += GAIN * (e - e_before + elapsed * e)``, where an error ``e`` is log(size / wanted size). A change is
    at most `LARGEST_CHANGE`, but for a fall where the size is far below what is wanted. Gamma itself is all that is
    carried on, so nothing can wind up behind a limit.

    Args:
        gamma: weight of the size term now, positive.
        errors: ``(e_before, e)``, at the last measurement and now.
        elapsed: training since the last measurement, in units of the time that the size needs to follow gamma.
        limits: ``(smallest, largest)`` gamma.

    Returns:
        float.

    Source: Aström & Hägglund 2006, "Advanced PID Control", section 3.5 (velocity form).

    Example:
        >>> round(steered(1.0, (0.0, 0.1), elapsed=0.5, limits=(1e-4, 1e4)), 3)  # 10 % too large
        1.568
    """
    before, error = errors
    change = GAIN * (error - before + elapsed * error)
    change = min(change if error < FAR_BELOW else max(change, -LARGEST_CHANGE), LARGEST_CHANGE)
    return _within(gamma * math.exp(change), limits)


def _within(gamma, limits):
    return min(max(gamma, limits[0]), limits[1])


class TargetSize(EveryNSteps):
    """Moves ``model.gamma`` so that the file of the trained model has ``target_bytes``.

    Every ``every`` steps the coded size is measured and gamma follows `steered`. The wanted size falls geometrically
    from the first measurement to the target in ``approach`` steps, since the size lags behind gamma: asked for at
    once, a far target would drive gamma far beyond what it needs. Time is weighted by the root of the learning rate,
    relative to the largest so far: as it anneals the size responds less, and gamma is moved less.

    The target is an upper bound, and training comes from above: a model whose file is below it as a first ``fit``
    begins gets more bits, and finer steps that keep the range of every kernel, until its file is not (12 bits at most).
    So its answers come nearer to those of the network that it was made of. A target below what the file takes without
    all compressed kernels is refused.

    Beside a `KernelRestoration` safety wins: at a check beyond the contract gamma does not rise, and from the second in
    a row on it falls, whatever the size. It waits first because a single check is noisy: after a plain fall the size
    would have to be caught up again.

    Adds to ``logs``: ``stored_bytes`` and ``gamma``. At the end of ``fit`` it says what was reached, and why not.

    Args:
        target_bytes: length of the file, at least 1.
        every: training steps between two measurements.
        measure: function ``model -> bytes``; it must not change the model. Default: `scc_tf.finishing.finished_bytes`,
            the length of the file after `scc_tf.finish`.
        approach: steps until the target is wanted, a number from 1.
        horizon: steps at full learning rate in which the size follows gamma, about; larger is slower and calmer. With
            an ``every`` far above it the size swings.
        limits: ``(smallest, largest)`` gamma, positive.

    Attributes:
        history: one dictionary per measurement: ``step``, ``stored_bytes``, ``wanted_bytes``, ``gamma`` (from this step
            on), ``learning_rate``, and ``held_back``, 1.0 where safety made gamma wait or fall, else 0.0.
        reached: whether the weights that ``fit`` leaves are within `tolerance` of the target.
        safe: whether they satisfy the contract; None without a `KernelRestoration`.
        outcome: the same in words.
        tolerance: fraction of the target.

    Raises:
        ValueError: if an argument is out of range; from ``fit``, if the model has no gamma, a `GammaScheduler` sets it
            as well, or the layers that are not compressed take more than the target.

    Example:
        >>> target = TargetSize(4000, every=100, approach=2000)                 # doctest: +SKIP
        >>> compressed.fit(images, labels, callbacks=[target])                  # doctest: +SKIP
        >>> small, fit = scc_tf.finish_to_bytes(compressed, images, 4000)       # doctest: +SKIP
    """

    rank = 5
    tolerance = 0.02

    def __init__(
        self,
        target_bytes: float,
        every: int = 100,
        *,
        measure: Callable | None = None,
        approach: int = 1000,
        horizon: int = 100,
        limits: tuple[float, float] = (1e-4, 1e3),
    ):
        super().__init__(every)
        if measure is not None and not callable(measure):
            raise ValueError(f"Expected measure to be a function model -> bytes. {received('measure', measure)}")
        if not isinstance(limits, tuple | list) or len(limits) != 2:
            raise ValueError(f"Expected limits to be two numbers. {received('limits', limits)}")
        check_number("limits", limits[1], above=check_number("limits", limits[0], above=0))
        for name, value in (("target_bytes", target_bytes), ("approach", approach), ("horizon", horizon)):
            setattr(self, name, check_number(name, value, 1))
        self.measure, self.limits = measure or finished_bytes, limits
        self.reached, self.safe, self.outcome = False, None, None

    @property
    def logged(self):
        """Size and gamma of the last measurement."""
        return {name: self.history[-1][name] for name in ("stored_bytes", "gamma")} if self.history else {}

    def on_train_begin(self, logs=None):
        """Take up the gamma of an interrupted run, or measure the model as it starts."""
        self.check_model()
        if other := self.companion(GammaScheduler):
            raise ValueError(
                f"Expected TargetSize or GammaScheduler, not both: each sets gamma. {received('callback', other)}"
            )
        self.reached, self.safe, self.outcome = False, None, None
        super().on_train_begin(logs)
        self.model.gamma.assign(self.history[-1]["gamma"])

    def at_step(self, step):
        """Measure; move gamma."""
        rate, gamma = float(ops.convert_to_numpy(self.model.optimizer.learning_rate)), float(self.model.gamma.numpy())
        held_back = False
        if not self.history:
            wanted = size = self._first_size(step)
        else:
            before, size, wanted = self.history[-1], float(self.measure(self.model)), self.wanted_bytes(step)
            errors = math.log(before["stored_bytes"] / before["wanted_bytes"]), math.log(size / wanted)
            moved = steered(gamma, errors, self._elapsed(step, rate), self.limits) if step > before["step"] else gamma
            restoration = self.companion(KernelRestoration)
            if held_back := restoration is not None and not restoration.is_kept:
                moved = min(moved, _within(gamma * math.exp(-HELD_BACK * before["held_back"]), self.limits))
            gamma = moved
            self.model.gamma.assign(gamma)
        return {
            "stored_bytes": size,
            "wanted_bytes": wanted,
            "gamma": gamma,
            "learning_rate": rate,
            "held_back": float(held_back),
        }

    def _first_size(self, step):
        """The size as training starts, from above the target; refuses a target that no training can reach."""
        if not isinstance(self.model, SelfCompressingModel):
            return float(self.measure(self.model))
        # once: vectors grow while they train
        check_target(self.model, self.target_bytes, *(() if self.measure is finished_bytes else (self.measure,)))
        before = size = float(self.measure(self.model))
        formats = [f for layer in self_compressing_layers(self.model) for f in layer.formats]
        while step == 0 and size < self.target_bytes:
            if max((float(ops.max(f.bit_depth)) for f in formats), default=MOST_BITS) > MOST_BITS - 1:
                break
            refine_steps(self.model, 1.0)
            if self.model.size_model == "entropy":
                self.model.size_term.update(fresh=True)
            size = float(self.measure(self.model))
        if before < self.target_bytes:
            logging.log(
                logging.INFO if size >= self.target_bytes else logging.WARNING,
                "%s: the file of the start has %s B, %s B before; the target is %s B.",
                "Training starts from finer steps" if size > before else "Training starts below the target",
                *(f"{value:,.0f}" for value in (size, before, self.target_bytes)),
            )
        return size

    def wanted_bytes(self, step):
        """Size that is wanted at a step, after the first measurement."""
        first = self.history[0]
        share = min((step - first["step"]) / self.approach, 1.0)
        return first["stored_bytes"] ** (1 - share) * self.target_bytes**share

    def _elapsed(self, step, rate):
        """Training since the last measurement: steps, weighted by the root of the learning rate, in horizons.

        By the rate itself, gamma would hardly move over the last third of an annealed training.
        """
        before = self.history[-1]
        largest = max(rate, *(entry["learning_rate"] for entry in self.history))
        pace = math.sqrt((before["learning_rate"] + rate) / (2 * largest)) if largest > 0 else 1.0
        return pace * (step - before["step"]) / self.horizon

    def on_fit_end(self):
        """Measure the weights that are left, and say what was reached."""
        super().on_fit_end()
        restoration = self.companion(KernelRestoration)
        self.safe = None if restoration is None else restoration.is_kept
        size, gamma = self.history[-1]["stored_bytes"], self.history[-1]["gamma"]
        error = size / self.target_bytes - 1
        self.reached = abs(error) <= self.tolerance
        self.outcome = (
            f"The file has {size:,.0f} B, {100 * error:+.1f} % off the target of {self.target_bytes:,.0f} B"
            f"{ {None: '', True: '; safety is kept', False: '; safety is not kept'}[self.safe] }"
            f"{'' if self.reached else f': {self._reason(gamma)}'}."
        )
        logging.log(logging.INFO if self.reached and self.safe is not False else logging.WARNING, self.outcome)

    def _reason(self, gamma):
        begun = self.history[0]["step"] + self.approach  # safety in the approach is no reason: there was time left
        late = [entry["held_back"] for entry in self.history if entry["step"] >= begun]
        reasons = []
        if sum(late):
            reasons.append(
                f"safety went first and held gamma back at {sum(late):.0f} of the {len(late)} measurements from where "
                "the target was wanted"
            )
        if gamma in self.limits:
            reasons.append(f"gamma is at its limit of {gamma:g}")
        return " and ".join(reasons) or (
            f"the size was still on its way at gamma={gamma:.3g}; more steps, or a later end of the learning rate"
        )
