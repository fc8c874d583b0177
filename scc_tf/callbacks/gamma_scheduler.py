"""Let the weight of the size term change during training."""

from collections.abc import Callable

from scc_tf.arguments import check_number, received
from scc_tf.callbacks.fit_callback import FitCallback

__all__ = ["GammaScheduler"]


class GammaScheduler(FitCallback):
    """Assigns ``model.gamma`` before every step and adds ``gamma`` to ``logs``.

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

    rank = 1

    def __init__(self, schedule: Callable):
        super().__init__()
        if not callable(schedule):
            raise ValueError(f"Expected schedule to be a function of the step. {received('schedule', schedule)}")
        self.schedule = schedule

    @property
    def logged(self):
        """The gamma of the last step."""
        return {"gamma": float(self.model.gamma.numpy())}

    def on_train_begin(self, logs=None):
        """Refuse a model without gamma."""
        self.check_model()

    def on_train_batch_begin(self, batch, logs=None):
        """Assign gamma for the coming step."""
        step = self.step
        self.model.gamma.assign(check_number(f"schedule({step})", self.schedule(step), 0))
