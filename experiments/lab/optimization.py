"""Learning rates for a fixed number of steps, and SGD as the papers have it."""

import keras
import tensorflow as tf

from scc_tf.compression.compress import one_cycle

__all__ = ["hold_then_cosine", "multi_step", "one_cycle", "sgd"]


def sgd(model, learning_rate, momentum, weight_decay, average):
    """SGD with Nesterov's momentum and an L2 penalty on kernels, for a model that is built.

    Keras shrinks weights by ``learning_rate * weight_decay`` in a step, past the momentum. A penalty of the papers,
    ``weight_decay / 2 * |w|^2`` in the loss, goes through it, where every gradient acts ``1 / (1 - momentum)`` times
    in all: that is the factor between the two. Biases and normalization are not shrunk.

    Args:
        model: built Keras model.
        learning_rate: number or schedule.
        momentum: in [0, 1).
        weight_decay: of the papers: 1e-4 in He et al. 2016.
        average: weight of the past in the average of the weights, which they are replaced by when ``fit`` ends; 0: no
            average.

    Returns:
        `keras.optimizers.SGD`, not built.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> round(sgd(model, 0.1, 0.9, 1e-4, 0.0).weight_decay, 9)
        0.001
    """
    optimizer = keras.optimizers.SGD(
        learning_rate,
        momentum,
        nesterov=True,
        weight_decay=weight_decay / (1 - momentum),
        use_ema=average > 0,
        ema_momentum=average,
    )
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) < 2])
    return optimizer


def multi_step(peak, steps, falls=(0.5, 0.75), factor=0.1):
    """Learning rate that starts at ``peak`` and is multiplied by ``factor`` after each of these shares of the steps.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2: 32,000 and 48,000 of 64,000.
    """
    rates = [peak * factor**n for n in range(len(falls) + 1)]
    # PiecewiseConstantDecay still has the old rate at its boundary
    return keras.optimizers.schedules.PiecewiseConstantDecay([round(share * steps) - 1 for share in falls], rates)


def hold_then_cosine(peak, steps, hold, warm_up=200):
    """Learning rate that rises to ``peak`` in ``warm_up`` steps, stays until ``hold`` of all, then falls to 0 (cosine).

    Until then the size of a network finds its balance with the loss; while the rate falls, both fall together.
    """
    held = max(round(hold * steps), min(warm_up, steps - 1), 1)
    return _HoldThenCosine(peak, steps, held, min(warm_up, held))


@keras.saving.register_keras_serializable(package="scc_tf")
class _HoldThenCosine(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, peak, steps, held, warm_up):
        super().__init__()
        self.settings = {"peak": peak, "steps": steps, "held": held, "warm_up": warm_up}
        self._falling = keras.optimizers.schedules.CosineDecay(peak, max(steps - held, 1))

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        rising = tf.minimum(1.0, (step + 1) / self.settings["warm_up"])
        return rising * self._falling(tf.maximum(step - self.settings["held"], 0.0))

    def get_config(self):
        return self.settings
