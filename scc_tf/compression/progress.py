"""One line that shows how a compression goes on: size, answers and the time that is left."""

import keras

__all__ = ["Progress"]

_SHOWN = ("loss", "accuracy", "stored_bytes", "bits_per_weight", "safety_accuracy")


class Progress(keras.callbacks.Callback):
    """A progress bar over all steps of ``fit``, not one for each epoch."""

    def __init__(self, steps):
        super().__init__()
        self._bar = keras.utils.Progbar(steps, stateful_metrics=_SHOWN, unit_name="step")

    def on_train_batch_end(self, batch, logs=None):
        """Show the step."""
        shown = [(name, float(logs[name])) for name in _SHOWN if name in logs]
        self._bar.update(min(int(self.model.optimizer.iterations.numpy()), self._bar.target), shown)
