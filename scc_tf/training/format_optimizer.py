"""The optimizer of bit depths and exponents."""

import keras

from scc_tf.arguments import received
from scc_tf.optimizer_state import optimizer_parts

__all__ = ["checked_optimizer", "default_format_optimizer"]


def default_format_optimizer(learning_rate=0.5):
    """Adam for bit depths and exponents as in the paper: learning rate 0.5, epsilon 1e-3.

    The gradients of gamma * Q are far below that epsilon, so Adam acts like momentum SGD there and a larger gamma
    moves the bits faster. With the usual epsilon every bit would move by one learning rate per step whatever
    gamma is.

    Args:
        learning_rate: float or Keras schedule.

    Source: Cséfalvay & Imber 2023, section 4 (arXiv 2301.13142).
    """
    return keras.optimizers.Adam(learning_rate, epsilon=1e-3, name="format_adam")


def checked_optimizer(name, optimizer):
    """The optimizer that an argument stands for; none, and one that keeps averages of the weights, raise."""
    try:
        chosen = keras.optimizers.get(optimizer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {name} to be an optimizer of Keras. {received(name, optimizer)}") from error
    if chosen is not None and any(getattr(part, "use_ema", False) for part in optimizer_parts(chosen)):
        raise ValueError(  # at the end of fit Keras gives one optimizer all variables to average
            f"Expected {name} without use_ema: it has only some of the variables. Received: "
            f"{name}={chosen.name} with use_ema=True"
        )
    return chosen
