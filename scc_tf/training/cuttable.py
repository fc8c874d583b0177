"""A functional model whose channels go, and come back, while it stays the same model for all who hold it."""

import json

import keras
import numpy as np

from scc_tf.graph import Flow
from scc_tf.keras_private import exchange_graph, hold, replica_scope
from scc_tf.optimizer_state import move_optimizer
from scc_tf.surgery.plan import Plan
from scc_tf.surgery.rebuild import regrow
from scc_tf.surgery.removal import cut_channels, followed

__all__ = ["CuttableModel", "Weights"]


class Weights(list):
    """What `CuttableModel.get_weights` returns: arrays, and the ``cuts`` of the model; a new list has none."""

    cuts = ()


class CuttableModel(keras.Model):
    """Functional Keras model that exchanges its graph for one with other channels, and nothing else.

    Only what stands for the graph is exchanged: layers, and the variables that the optimizers train. Everything else
    is untouched and goes on: compiled metrics and losses with their state, iterations, learning rates, loss scale.

    A state is weights **and** cuts. ``set_weights`` and ``load_weights`` therefore cut the model, or give channels back
    to it, until it has the channels that the weights have. Slots of optimizers for what comes back start anew.

    Attributes:
        cuts: what was removed, in order, as plain JSON.
    """

    cuts = ()
    _seen = ()  # pairs of shapes of weights, and the cuts of the model that had them

    def get_weights(self):
        """The values of all weights as NumPy arrays, in a list that remembers the cuts; see `set_weights`."""
        weights = Weights(super().get_weights())
        weights.cuts = list(self.cuts)
        return weights

    def set_weights(self, weights):
        """Set all weights, also those of an earlier state with more channels, or of a later one with fewer.

        In a list that `get_weights` has not returned, the shapes tell the channels: those that the model has, or has
        had. Others raise ``ValueError``.
        """
        if isinstance(weights, Weights):
            self.go_to(weights.cuts)
        else:
            shapes = [tuple(np.shape(w)) for w in weights]
            if shapes != self._shapes():
                self.go_to(next((cuts for seen, cuts in self._seen if seen == shapes), self.cuts))
        super().set_weights(weights)

    def cut(self, plan):
        """Carry out a `scc_tf.surgery.plan.Plan` on this very model; returns its `scc_tf.SurgeryReport`."""
        with replica_scope(self):
            smaller, report, cuts = cut_channels(self, plan)
            self._become(smaller, cuts, smaller.cuts)
        return report

    def go_to(self, cuts):
        """Exchange the graph for the one after these cuts; weights of what comes back are those of new layers.

        Cuts of another architecture, and those that cannot be undone, raise ``ValueError``; the model is unchanged.
        """
        here = list(self.cuts)
        common = 0
        while common < min(len(here), len(cuts)) and _same(here[common], cuts[common]):
            common += 1
        if any("undo" not in cut for cut in here[common:]):
            raise ValueError(
                f"Expected weights of a model that lost the same channels as {self.name!r}, or more: how it was before "
                f"it lost them is not known. Received: weights after {len(cuts)} cuts, {common} of them the same, for "
                f"a model after {len(here)}"
            )
        state = self.get_weights() if cuts[common:] else None
        for cut in reversed(here[common:]):
            with replica_scope(self):
                larger, grown = regrow(self, cut)
                self._become(larger, grown, self.cuts[:-1])
        try:
            for cut in cuts[common:]:
                self.cut(Plan.from_json(Flow(self), cut))
        except ValueError:
            self.set_weights(state)
            raise

    def descend_from(self, other, cut):
        """Take over what a model that was cut keeps of itself."""
        hold(self, "cuts", [*other.cuts, cut])

    def exchanged(self):
        """Renew what was made from the graph; called after each exchange."""

    def _become(self, other, follows, cuts):
        """Take the graph of another model; ``follows`` says which variable goes on as which."""
        for optimizer, variables in followed(self, other, follows).values():
            move_optimizer(optimizer, variables, follows)
        seen = [(self._shapes(), list(self.cuts)), *self._seen]
        exchange_graph(self, other)
        hold(self, "cuts", list(cuts))
        hold(self, "_seen", seen)
        self.exchanged()
        for name in ("train", "test", "predict"):
            if getattr(self, f"{name}_function", None) is not None:  # one that runs is replaced for its next batch
                getattr(self, f"make_{name}_function")(force=True)

    def _shapes(self):
        return [tuple(weight.shape) for weight in self.weights]

    def save_own_variables(self, store):
        """Add the cuts to what Keras stores."""
        super().save_own_variables(store)
        if self.cuts:
            store["cuts"] = np.frombuffer(json.dumps(self.cuts).encode(), np.uint8)

    def load_own_variables(self, store):
        """Give this model the channels that the stored one had, before the weights of its layers are read."""
        self.go_to(json.loads(bytes(np.asarray(store["cuts"]))) if "cuts" in store else [])

    def get_config(self):
        """The functional configuration with ``cuts``."""
        return {**super().get_config(), "cuts": list(self.cuts)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Rebuild the model; see `get_config`."""
        model = super().from_config({k: v for k, v in config.items() if k != "cuts"}, custom_objects=custom_objects)
        hold(model, "cuts", list(config.get("cuts", ())))
        return model


def _same(cut, other):
    return all(cut.get(name) == other.get(name) for name in ("removed", "biased"))
