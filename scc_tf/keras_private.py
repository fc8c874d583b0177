"""Every private corner of Keras that is used here. `tests/test_keras_private.py` fails where Keras changes one."""

import contextlib
from typing import Any, NamedTuple

import keras

__all__ = [
    "all_layers",
    "calls_of",
    "copy_lambda",
    "copy_operation",
    "exchange_graph",
    "forget_built",
    "hold",
    "loss_tracker",
    "own_trainable_variables",
    "own_variables",
    "producing_call",
    "replica_scope",
    "seed_states",
    "track_variable",
    "trained_by",
]


class Call(NamedTuple):
    """One symbolic call of an operation, and which of its outputs was asked for."""

    operation: Any
    inputs: list
    outputs: list
    place: int


def all_layers(layer, include_self=True):
    """A layer or model and all layers inside it, at any depth, each once; Keras's ``layers`` is one level."""
    return layer._flatten_layers(include_self=include_self)


def own_trainable_variables(layer):
    """The variables of a layer, not of its inner ones, that training changes unless something is frozen."""
    return list(layer._trainable_variables)


def own_variables(layer):
    """The weights of a layer that belong to none of its inner layers."""
    variables = [*layer._trainable_variables, *layer._non_trainable_variables]
    if getattr(layer, "quantization_mode", None):  # else their order tells whether the layer was built before
        return sorted(variables, key=lambda variable: variable.name)
    return variables


def seed_states(layer):
    """The states of a layer's own random generators, which Keras neither lists nor saves."""
    return [generator.state for generator in layer._seed_generators]


def producing_call(tensor):
    """The `Call` that made a symbolic tensor."""
    operation, number, place = tensor._keras_history
    node = operation._inbound_nodes[number]
    return Call(operation, node.input_tensors, node.output_tensors, place)


def calls_of(operation):
    """``(input tensors, output tensors)`` of every symbolic call of an operation."""
    return [(node.input_tensors, node.output_tensors) for node in operation._inbound_nodes]


def copy_operation(operation):
    """An operation of the same settings, called nowhere, also where Keras has no configuration of them."""
    try:
        return operation.__class__.from_config(operation.get_config())
    except NotImplementedError:  # it was made with arrays
        fresh = object.__new__(type(operation))
        vars(fresh).update({**vars(operation), "_inbound_nodes": [], "_outbound_nodes": []})
        return fresh


def copy_lambda(layer):
    """A Lambda of the same code: Keras does not load Python code unasked, but this code is here already."""
    config = keras.layers.Layer.get_config(layer)
    return keras.layers.Lambda(layer.function, layer._output_shape, layer.mask, layer.arguments, **config)


def hold(model, name, value):
    """Set an attribute in whose value nobody looks for what to save; TensorFlow lets go of the value before."""
    if name in vars(model):
        delattr(model, name)
    vars(model)[name] = value


def exchange_graph(model, other):
    """Let a functional model have the layers and the graph of another one, and stay what it is in all else."""
    for layer in model.layers:
        model._tracker.untrack(layer)
    graph = vars(keras.Function(other.input, other.output))
    for name in graph.keys() - vars(keras.Operation()).keys():
        hold(model, name, graph[name])
    for layer in model.layers:
        model._tracker.track(layer)
    if model._layers != model.layers:  # Keras 3.12 keeps a list of its own
        hold(model, "_layers", model.layers)
    if model.compiled:
        hold(model, "_compiled_trainable_state", {layer: layer.trainable for layer in all_layers(model)})


def replica_scope(model):
    """Where variables have to be made that a model gets after ``compile``."""
    strategy = model._distribute_strategy
    return strategy.scope() if strategy else contextlib.nullcontext()


def loss_tracker(model):
    """The metric that Keras logs as ``loss``."""
    return model._loss_tracker


def trained_by(optimizer):
    """The variables that a built optimizer trains, and all variables that it keeps: two lists."""
    return list(optimizer._trainable_variables), list(optimizer._variables)


def forget_built(optimizer):
    """Take an optimizer back to where it was before ``build``: it keeps its iterations and its learning rate."""
    kept = [v for v in optimizer._variables if v is optimizer._iterations or v is optimizer._learning_rate]
    tracker = vars(optimizer).pop("_tracker")  # without it, an attribute is not tracked
    optimizer._variables = kept
    tracker.config["variables"] = (tracker.config["variables"][0], kept)
    tracker.stored_ids["variables"] = {id(v) for v in kept}  # a list that shrinks cannot be exported
    optimizer._tracker = tracker
    optimizer._trainable_variables_indices = {}
    optimizer.built = False


def track_variable(optimizer, variable):
    """Let an optimizer list a variable again that it made in its ``__init__``, and that ``build`` did not."""
    if all(variable is not known for known in optimizer._variables):
        optimizer._track_variable(variable)
