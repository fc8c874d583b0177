"""The base of callbacks that act every so many training steps."""

import hashlib

from scc_tf.arguments import check_count
from scc_tf.callbacks.fit_callback import FitCallback

__all__ = ["EveryNSteps"]


class EveryNSteps(FitCallback):
    """Calls `at_step` at the start of ``fit``, whenever ``every`` steps have passed, and on the final weights.

    Steps are the optimizer's iterations, so the rhythm survives an interruption and ``steps_per_execution``.

    Args:
        every: training steps between two actions, at least 1.

    Attributes:
        history: one dictionary per action: ``step`` and what `at_step` returned. The last one is of the weights
            that ``fit`` leaves.
        active: whether its ``fit`` has begun and has not ended.
    """

    def __init__(self, every):
        super().__init__()
        self.every = check_count("every", every)
        self.history, self.active = [], False
        self._last_step, self._acted_on = 0, None

    @property
    def logged(self):
        """The values of the last action."""
        return {name: value for name, value in self.history[-1].items() if name != "step"} if self.history else {}

    def at_step(self, step):
        """Act; return a dictionary of floats."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        """Take up the history of an interrupted run, or act on the model as it starts."""
        self.active, self.history, self._acted_on = True, [], None
        taken_up = self.take_up()
        self._last_step = self.step
        if not taken_up:
            self.act()

    def on_train_batch_end(self, batch, logs=None):
        """Act if a multiple of ``every`` was passed."""
        step = self.step
        if step // self.every > self._last_step // self.every:
            self.act()
        self._last_step = step
        super().on_train_batch_end(batch, logs)

    def on_train_end(self, logs=None):
        """Act on the last weights; other callbacks may have changed them since the last step."""
        self.act()
        super().on_train_end(logs)

    def on_fit_end(self):
        """Act on the weights that are left."""
        self.act()
        self.active = False

    def act(self):
        """Act now, unless step and weights are those of the last action: the same evidence must not count twice."""
        if self._evidence() != self._acted_on:
            self.history.append({"step": self.step, **self.at_step(self.step)})
            self._acted_on = self._evidence()  # afterwards: acting may re-estimate batch statistics

    def state(self):
        """The history, and what it was last measured on."""
        return {"history": self.history, "acted_on": self._acted_on}

    def restore(self, state):
        """Go on with a history."""
        self.history, self._acted_on = state["history"], state["acted_on"]

    def _evidence(self):
        digest = hashlib.blake2b()
        for weight in self.model.get_weights():
            digest.update(weight.tobytes())
        return [self.step, digest.hexdigest()]
