"""What layers of a model are given."""

import keras

__all__ = ["tap_inputs"]


def tap_inputs(model, layers):
    """A model that says what some layers of another one read.

    Args:
        model: built Sequential or functional model; the new one shares its layers.
        layers: list of layers of that model, each called once.

    Returns:
        Functional Keras model with one output per layer.

    Raises:
        ValueError: if a layer lies in a nested model.
    """
    if nested := [layer.name for layer in layers if layer not in model.layers]:
        raise ValueError(f"Expected chains of the model itself, not of models nested in it. Received: {nested}")
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input  # the structure as it is
    return keras.Model(inputs, [layer.input for layer in layers])
