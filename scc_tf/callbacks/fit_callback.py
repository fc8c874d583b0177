"""What the callbacks of this package share: a place in ``fit``, values for ``logs``, a state that outlives a kill."""

import keras

from scc_tf.arguments import received

__all__ = ["BACKUP", "FitCallback"]

BACKUP, _COMPANIONS = "scc_tf_backup", "scc_tf_callbacks"  # in the params, which all callbacks of a fit share


class FitCallback(keras.callbacks.Callback):
    """A callback that knows the others of its ``fit``.

    `SelfCompressingModel.fit` puts those with a ``rank`` in its order, however they are listed. `BackupAndRestore`
    keeps what `state` gives, and `restore` takes it after an interruption.
    """

    rank = None  # its place among the others; None: where it is listed
    requires = ()  # callbacks that ``fit`` adds where they are not listed

    @property
    def logged(self):
        """What it adds to ``logs``: a dictionary of floats."""
        return {}

    @property
    def step(self):
        """Training steps taken so far."""
        return int(self.model.optimizer.iterations.numpy())

    def state(self):
        """All that decides what this callback does next: a dictionary of JSON values and arrays."""
        return {}

    def restore(self, state):
        """Take the state of an interrupted ``fit``."""

    def set_params(self, params):
        """Join the callbacks of this ``fit``."""
        super().set_params(params)
        if params is not None and self not in (others := params.setdefault(_COMPANIONS, [])):
            others.append(self)

    def companion(self, kind):
        """The first callback of a class in this ``fit``, or None."""
        return next((other for other in self.companions() if isinstance(other, kind)), None)

    def companions(self):
        """All callbacks of this ``fit`` that are a `FitCallback`."""
        return (self.params or {}).get(_COMPANIONS, [])

    def take_up(self):
        """Restore the state that belongs to the weights, as ``fit`` begins; returns whether there is one."""
        backup = (self.params or {}).get(BACKUP)
        state = None if backup is None else backup.state_of(self)
        if state is not None:
            self.restore(state)
        return state is not None

    def check_model(self):
        """Refuse a model without gamma, bit depths and exponents."""
        if not hasattr(self.model, "gamma"):
            raise ValueError(
                "Expected a compiled scc_tf.SelfCompressingModel, which has a gamma, for "
                f"{type(self).__name__}. {received('model', self.model)}"
            )

    def on_train_batch_end(self, batch, logs=None):
        """Write the latest values into ``logs``."""
        if logs is not None:
            logs.update(self.logged)

    def on_epoch_end(self, epoch, logs=None):
        """Write the latest values into ``logs``."""
        if logs is not None:
            logs.update(self.logged)

    def on_train_end(self, logs=None):
        """End here where nobody calls `on_fit_end`: with a plain Keras model, or in a loop of one's own."""
        if not getattr(self.model, "in_fit", False):
            self.on_fit_end()

    def on_fit_end(self):
        """Act on the weights that ``on_train_end`` of all callbacks has left; see `SelfCompressingModel.fit`."""
