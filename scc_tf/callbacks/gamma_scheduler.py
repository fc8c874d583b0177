"""Let the weight of the size term change during training."""

import keras

from scc_tf.arguments import check_number, received

__all__ = ["GammaScheduler"]


class GammaScheduler(keras.callbacks.Callback):
    """Assigns ``model.gamma`` before every step and writes ``gamma`` into ``logs``.

    With ``steps_per_execution`` it acts once per execution, whose steps then share the gamma of the first.

    Args:
        schedule: function ``step -> gamma``, or any of ``keras.optimizers.schedules``. The step is the optimizer's,
            so an interrupted run goes on where it was.

    Raises:
        ValueError: if ``schedule`` is not callable, or returns a negative or non-finite gamma; from ``fit``, if the
            model has no gamma.

    Example:
        >>> import keras
        >>> rise = keras.optimizers.schedules.PolynomialDecay(0.0, decay_steps=500, end_learning_rate=0.01)
        >>> scheduler = GammaScheduler(rise)  # gamma grows from 0 to 0.01 over 500 steps, then stays
    """

    def __init__(self, schedule):
        super().__init__()
        if not callable(schedule):
            raise ValueError(f"Expected schedule to be a function of the step. {received('schedule', schedule)}")
        self.schedule = schedule

    def on_train_begin(self, logs=None):
        """Refuse a model without gamma."""
        if not hasattr(self.model, "gamma"):
            raise ValueError(
                f"Expected a compiled scc_tf.SelfCompressingModel, which has a gamma. Received: {self.model.name!r}"
            )

    def on_train_batch_begin(self, batch, logs=None):
        """Assign gamma for the coming step."""
        step = int(self.model.optimizer.iterations.numpy())
        self.model.gamma.assign(check_number(f"schedule({step})", self.schedule(step), 0))

    def on_train_batch_end(self, batch, logs=None):
        """Log it."""
        if logs is not None:
            logs["gamma"] = float(self.model.gamma.numpy())

    on_epoch_end = on_train_batch_end
