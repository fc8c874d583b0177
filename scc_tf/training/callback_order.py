"""The order in which ``fit`` calls its callbacks, however they are listed."""

import keras
from absl import logging

__all__ = ["LAST", "in_order"]

LAST = 100  # the rank from which on a callback stands behind all others


class _LogsFirst(keras.callbacks.Callback):
    """Writes what our callbacks have found into the logs, before those that are listed before them read these."""

    def __init__(self, ours):
        super().__init__()
        self._ours = ours

    def on_train_batch_end(self, batch, logs=None):
        """What they found at the last step; they write what they find at this one."""
        for callback in self._ours:
            logs.update(callback.logged)

    def on_epoch_end(self, epoch, logs=None):
        """What they found in the epoch."""
        for callback in self._ours:
            logs.update(callback.logged)


def in_order(callbacks, model):
    """The callbacks of a ``fit`` in the order in which they have to be called.

    Those of `scc_tf.callbacks` have a ``rank``. They stand together, by their rank, where the first of them was listed;
    one with a negative rank stands before all others, one with `LAST` behind them. What they add to the logs of an
    epoch is there before anybody reads it. All others stay in their order. A callback that one of them ``requires`` is
    added.

    Args:
        callbacks: as for Keras's ``fit``.
        model: whose ``fit`` it is.

    Returns:
        A list; a ``CallbackList`` is put in order and returned.
    """
    given = isinstance(callbacks, keras.callbacks.CallbackList)
    listed = callbacks.callbacks if given else [c for c in keras.tree.flatten(callbacks) if c is not None]
    ranked = [c for c in listed if getattr(c, "rank", None) is not None]
    if not ranked:
        return callbacks
    added = [other for c in ranked for other in c.requires if other not in listed]
    ours = sorted(dict.fromkeys([*ranked, *added]), key=lambda c: c.rank)
    first, last = [c for c in ours if c.rank < 0], [c for c in ours if c.rank >= LAST]
    inner = [c for c in ours if c not in [*first, *last]]
    theirs = [c for c in listed if c not in ours]
    backups = [c for c in theirs if isinstance(c, keras.callbacks.BackupAndRestore)]  # they put back the weights
    forgetful = [type(c).__name__ for c in inner if hasattr(c, "history")]
    if backups and forgetful:
        logging.warning(
            "keras.callbacks.BackupAndRestore keeps the weights alone: after an interruption %s would begin anew. "
            "scc_tf.callbacks.BackupAndRestore keeps all of a fit.",
            ", ".join(forgetful),
        )
    place = next((i for i, c in enumerate(listed) if c in inner), 0)
    before = [c for c in listed[:place] if c in theirs and c not in backups]
    after = [c for c in theirs if c not in [*before, *backups]]
    logs = [_LogsFirst(inner)] if inner else []
    ordered = [*first, *backups, *logs, *before, *inner, *after, *last]
    if not given:
        return ordered
    for new in [*added, *logs]:
        new.set_model(model)
        new.set_params(callbacks.params)
    callbacks.callbacks = ordered
    return callbacks
