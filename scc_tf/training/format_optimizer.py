"""The optimizer of bit depths and exponents."""

import keras

__all__ = ["averages_weights", "default_format_optimizer"]


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


def averages_weights(optimizer):
    """Whether an optimizer, or one inside it, keeps averages of the weights."""
    parts = (optimizer, getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ()))
    return any(getattr(part, "use_ema", False) for part in parts)
