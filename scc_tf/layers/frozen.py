"""Which layers a user has frozen."""

from scc_tf.keras_private import all_layers, own_trainable_variables

__all__ = ["frozen_variables", "is_frozen"]


def is_frozen(layer):
    """Whether training leaves the kernels of a layer as they are.

    That is so with ``trainable=False`` of the layer, or of a model that it is in, and with ``trainable=False`` of one
    of its trainable variables of rank 2 or more.

    Args:
        layer: Keras layer.

    Example:
        >>> import keras
        >>> is_frozen(keras.layers.Dense(2, trainable=False))
        True
    """
    kernels = [variable for variable in own_trainable_variables(layer) if len(variable.shape) >= 2]
    return not layer.trainable or not all(kernel.trainable for kernel in kernels)


def frozen_variables(model):
    """The ids of the variables of a model that a user has frozen.

    They are all variables of frozen layers, batch statistics too, and of other layers those that training would change
    if they were trainable.
    """
    found = set()
    for layer in all_layers(model):
        own = layer.weights if is_frozen(layer) else [v for v in own_trainable_variables(layer) if not v.trainable]
        found.update(id(variable) for variable in own)
    return found
