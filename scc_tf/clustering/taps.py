"""What layers of a model are given."""

import keras

__all__ = ["check_not_nested", "tap_inputs"]


def check_not_nested(model, chains):
    """Refuse chains whose readers cannot be tapped.

    Args:
        model: functional model.
        chains: list of `scc_tf.clustering.chains.Chain` of that model.

    Raises:
        ValueError: if a reader lies in a nested model.
    """
    readers = [reader.layout.layer for chain in chains for reader in chain.readers]
    if nested := sorted({layer.name for layer in readers if layer not in model.layers}):
        raise ValueError(
            "Expected layers of the model itself to read what is merged by responses or fitted; those of models nested "
            f'in it can be with space="effective" and merge="scaled". Received: {nested}'
        )


def tap_inputs(model, layers):
    """A model that says what some layers of another one read.

    Args:
        model: functional model; the new one shares its layers.
        layers: list of layers of that model itself, each called once, in this model and in no other: of a copy.

    Returns:
        Functional Keras model with one output per layer.
    """
    return keras.Model(model.input, [layer.input for layer in layers])
