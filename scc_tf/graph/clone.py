"""A model cloned layer by layer, nested models and shared layers included."""

import keras

from scc_tf.graph.state import copy_state
from scc_tf.graph.walk import check_functional, is_graph
from scc_tf.keras_private import all_layers, copy_lambda, copy_operation

__all__ = ["clone_graph", "copy_layer", "copy_model"]

_KERAS_BUILD = keras.layers.Layer.build_from_config


def copy_layer(layer):
    """A fresh layer of the same configuration."""
    if type(layer) is keras.layers.Lambda:
        return copy_lambda(layer)
    try:
        fresh = layer.__class__.from_config(layer.get_config())
    except Exception as error:  # whatever a class makes of settings that it did not give itself
        raise ValueError(
            f"Expected layers that their get_config makes again. Received: {layer.name!r} of class "
            f"{type(layer).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    if type(layer).build_from_config is not _KERAS_BUILD and not type(layer).__module__.startswith("keras."):
        fresh.build_from_config(layer.get_build_config())
        fresh.built = True
    return fresh


def copy_model(model):
    """A plain functional copy of a model with its weights, not compiled; see `clone_graph`."""
    copied, pairs = clone_graph(model, copy_layer)
    for layer, clone in pairs:
        copy_state(layer, clone)
    return copied


def clone_graph(model, clone_layer, model_class=keras.Model):
    """Clone a model layer by layer; layers may come out with fewer channels than they had.

    A layer or nested model that stands in several places, also on both sides of a nested model's border, is cloned
    once. Nested models become plain functional ones.

    Args:
        model: built Sequential or functional model, left untouched.
        clone_layer: function ``layer -> new layer``, not yet built.
        model_class: class of the clone.

    Returns:
        ``(clone, pairs)``; the pairs are ``(layer, its clone)``, each once. The clone is not compiled, its weights are
        fresh; what is frozen is frozen.

    Raises:
        ValueError: if the model is not a Keras model, a subclassed one, or not built; if a layer has an activation that
            is not registered.
    """
    check_functional(model)
    _check_activations(model)
    clones, pairs, nested = {}, [], []

    def once(operation):
        if id(operation) not in clones:
            clones[id(operation)] = clone_any(operation)
        return clones[id(operation)]

    def clone_any(operation):
        if is_graph(operation):
            nested.append(_Nested(operation, cloned))
            return nested[-1]
        if not isinstance(operation, keras.Layer):  # an operation such as x + y
            return copy_operation(operation)
        pairs.append((operation, clone_layer(operation)))
        return pairs[-1][1]

    def cloned(inner, inputs=None):
        return keras.models.clone_model(
            _functional(inner),
            input_tensors=inputs,
            clone_function=once,
            call_function=lambda operation, *args, **kwargs: operation(*args, **kwargs),
        )

    clone = _functional(cloned(model), model_class)
    known = [(model, clone), *((each.model, each.clone) for each in nested), *pairs]  # from outside in
    for original, cloned_one in known:  # a model that is frozen may have layers that are not
        cloned_one.trainable = original.trainable
    return clone, pairs


def _check_activations(model):
    """Refuse functions that Keras cannot name, and so cannot give to a copy."""
    for layer in all_layers(model):
        for name in ("activation", "recurrent_activation"):
            function = getattr(layer, name, None)
            if callable(function) and not isinstance(function, keras.Layer) and not _has_a_name(function):
                raise ValueError(
                    "Expected activations that Keras knows by name: register your own by "
                    "@keras.saving.register_keras_serializable(). "
                    f"Received: layer {layer.name!r} with {name}={getattr(function, '__name__', function)}"
                )


def _has_a_name(function):
    if getattr(function, "__name__", None) == "<lambda>":  # which Keras would warn of
        return False
    try:
        keras.activations.get(keras.activations.serialize(function))
    except (TypeError, ValueError):
        return False
    return True


def _functional(model, model_class=keras.Model):
    """The same graph of layers as a functional model that is not compiled."""
    if isinstance(model, keras.Sequential):
        return model_class(model.inputs[0], model.outputs[0], name=model.name)
    return model_class(model.input, model.output, name=model.name)  # structures as they are: lists, dictionaries


class _Nested:
    """A nested model, cloned when it is called: only then are the shapes of its inputs known."""

    def __init__(self, model, cloned):
        self.model, self.cloned, self.clone = model, cloned, None

    def __call__(self, *args, **kwargs):
        if self.clone is None:
            shapes = iter(tensor.shape for tensor in keras.tree.flatten(args) or keras.tree.flatten(kwargs))

            def new_input(old):  # what it left open stays open
                shape = [None if was is None else now for was, now in zip(old.shape, next(shapes), strict=True)]
                return keras.Input(batch_shape=shape, dtype=old.dtype, name=old.name)

            self.clone = self.cloned(self.model, keras.tree.map_structure(new_input, _functional(self.model).input))
        return self.clone(*args, **kwargs)
