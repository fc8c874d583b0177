"""The calls of layers in a functional model, in order, nested models entered."""

import keras

from scc_tf.arguments import received
from scc_tf.keras_private import all_layers, producing_call

__all__ = ["check_functional", "is_graph", "shared_levels", "walk"]


def is_graph(operation):
    """Whether an operation is a built model that does what the graph of its layers does, and nothing else."""
    if not isinstance(operation, keras.Model) or not getattr(operation, "inputs", None):
        return False
    return type(operation).call.__module__.partition(".")[0] == "keras"  # a call of its own may do anything


def check_functional(model):
    """Refuse what has no known graph.

    Raises:
        ValueError: if ``model`` is not a Keras model, not built, or a subclassed one; a functional model with a
            ``call`` of its own is one.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a Keras model. {received('model', model)}")
    if not is_graph(model):
        raise ValueError(
            "Expected a built Sequential or functional model: the graph of a subclassed model is not known, and a "
            f"Sequential needs an Input (or a first call). Received: {type(model).__name__} {model.name!r}"
        )


def shared_levels(model):
    """The layers that several models of one have, by themselves: ``{layer name: [names of the models]}``."""
    owners = {}
    for owner in (layer for layer in all_layers(model) if is_graph(layer)):
        for layer in owner.layers:
            owners.setdefault(id(layer), (layer.name, []))[1].append(owner.name)
    return {name: models for name, models in owners.values() if len(models) > 1}


def walk(model, arguments, visit):
    """Follow one value per tensor through the graph of a model.

    Args:
        model: built Sequential or functional model.
        arguments: one value per input tensor of ``model``; any objects.
        visit: function ``(layer, input tensors, their values, output tensors) -> values of the output tensors``, called
            once for each call of a layer, in the order of the forward pass. Nested models are entered at each call.

    Returns:
        List of the values of the model's output tensors.
    """
    known = {id(t): value for t, value in zip(model.inputs, arguments, strict=True)}
    waiting = list(reversed(model.outputs))  # a stack: deep models would exhaust Python's own
    while waiting:
        if id(waiting[-1]) in known:
            waiting.pop()
            continue
        operation, inputs, outputs, _ = producing_call(waiting[-1])
        if missing := [t for t in inputs if id(t) not in known]:
            waiting.extend(reversed(missing))
            continue
        values = [known[id(t)] for t in inputs]
        made = walk(operation, values, visit) if is_graph(operation) else visit(operation, inputs, values, outputs)
        known.update((id(t), value) for t, value in zip(outputs, made, strict=True))
    return [known[id(t)] for t in model.outputs]
