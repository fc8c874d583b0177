"""Full-batch training with early stopping in one compiled loop: for networks so small that ``fit`` is all overhead."""

import keras
import numpy as np
import tensorflow as tf

from lab.lottery.early_stopping import Stop

__all__ = ["FullBatch"]


class FullBatch:
    """Trains networks of a few shapes on one data set: what ``fit`` does with one batch per epoch, in 0.1 ms an epoch.

    As `keras.callbacks.EarlyStopping` with ``restore_best_weights=True``: a training stops when the validation loss
    has not been below its lowest for ``patience`` epochs, and the weights of that lowest loss are put back. The loop is
    compiled once for each shape of network, so networks have to be alike in all else.

    Args:
        config: `lab.lottery.Config`.
        data: `scc_tf.datasets.Dataset`.

    Attributes:
        jit_compile: whether XLA compiles the loop: 2 s more for every shape, and a third of the time of an epoch.
    """

    jit_compile = True

    def __init__(self, config, data):
        self.config = config
        self._splits = [tuple(map(tf.constant, split)) for split in (data.train, data.validation)]
        self._loops = {}

    def fit(self, network, epochs=None):
        """Train a network in place.

        Args:
            network: Keras model of logits, not compiled; masked layers keep their masks.
            epochs: train for so many epochs and keep the last weights. None: stop early, and restore the best.

        Returns:
            `Stop`.

        Raises:
            FloatingPointError: if the validation loss is never finite.
        """
        shape = tuple(
            (type(layer), layer.name, tuple(tuple(w.shape) for w in layer.weights)) for layer in network.layers
        )
        if shape not in self._loops:
            self._loops[shape] = _Loop(
                keras.models.clone_model(network), self.config.learning_rate, *self._splits, self.jit_compile
            )
        config, stops = self.config, epochs is None
        epochs = config.epochs if stops else epochs
        start = config.start_from_epoch if stops else 0
        stop = self._loops[shape](network, epochs, config.patience if stops else epochs + 1, start, restore=stops)
        if not np.isfinite(stop.validation_loss):
            raise FloatingPointError(f"The validation loss of {network.name!r} was never finite in {epochs} epochs")
        return stop


class _Loop:
    """The compiled loop of one shape of network, with variables of its own."""

    def __init__(self, model, learning_rate, train, validation, jit_compile):
        self._model = model
        self._optimizer = keras.optimizers.Adam(learning_rate)
        self._optimizer.build(model.trainable_variables)
        self._fresh = [variable.numpy() for variable in self._optimizer.variables]

        def loss(labels, logits):
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

        variables = [variable.value for variable in model.trainable_variables]

        def epoch(number, waited, lowest, best_epoch, start, *best):
            with tf.GradientTape() as tape:
                training_loss = loss(train[1], model(train[0], training=True))
            self._optimizer.apply(tape.gradient(training_loss, variables), model.trainable_variables)
            now = loss(validation[1], model(validation[0], training=False))
            better = (number >= start) & (now < lowest)
            waited = tf.where(better | (number < start), 0, waited + 1)
            best = [tf.where(better, variable, value) for variable, value in zip(variables, best, strict=True)]
            lowest, best_epoch = tf.where(better, now, lowest), tf.where(better, number + 1, best_epoch)
            return (number + 1, waited, lowest, best_epoch, start, *best)

        def train_until(epochs, patience, start):
            begin = (0, 0, tf.constant(np.inf), 0, start, *map(tf.identity, variables))
            return tf.while_loop(lambda number, waited, *_: (number < epochs) & (waited < patience), epoch, begin)

        whole_number = tf.TensorSpec((), tf.int32)
        self._train_until = tf.function(train_until, jit_compile=jit_compile).get_concrete_function(*[whole_number] * 3)

    def __call__(self, network, epochs, patience, start, restore):
        self._model.set_weights(network.get_weights())
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        run, _, lowest, best_epoch, _, *best = self._train_until(*map(tf.constant, (epochs, patience, start)))
        for variable, own, value in zip(
            network.trainable_variables, self._model.trainable_variables, best, strict=True
        ):
            variable.assign(value if restore else own)
        return Stop(best_epoch=int(best_epoch), epochs_run=int(run), validation_loss=float(lowest))
