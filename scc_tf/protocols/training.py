"""How the networks of a protocol are trained: on the same data, for the same loss."""

import keras

from scc_tf.arguments import check_count, check_number
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.compression.compress import one_cycle
from scc_tf.compression.data import open_data
from scc_tf.compression.objective import objective_of

__all__ = ["Training"]

STATISTICS = 4096  # examples


class Training:
    """Trains networks that take and answer what ``model`` does.

    Args:
        model: Keras model; its loss is used if it is compiled.
        data: see `scc_tf.compress`.
        learning_rate: the peak (Adam).
        loss: as ``compile`` takes it, if model and targets do not tell.
        batch_size: of arrays; None chooses.
        validation_data: as ``data``; None holds out a tenth.
        seed: of the order of the data; it sets that of Keras.
        verbose: as in ``fit``.

    Raises:
        ValueError: if the model does not take the data, or the loss cannot be found out.
    """

    def __init__(
        self, model, data, *, learning_rate=1e-3, loss=None, batch_size=None, validation_data=None, seed=0, verbose=0
    ):
        self.learning_rate = check_number("learning_rate", learning_rate, above=0)
        self.model, self.seed, self.verbose = model, check_count("seed", seed, 0), verbose
        keras.utils.set_random_seed(seed)
        self.data = open_data(model, data, validation_data, batch_size, seed)
        self.objective = objective_of(model, self.data.inputs, self.data.targets, loss)

    def __call__(self, network, epochs, callbacks=(), *, factor=1.0, constant=False, validate=False):
        """Train a network in place, and give its normalization the statistics of the weights that it ends with.

        Args:
            network: Keras model.
            epochs: passes over the data, at most.
            callbacks: of Keras.
            factor: of the learning rate.
            constant: whether the learning rate stays at its peak.
            validate: whether to evaluate the held-out examples after each epoch.

        Returns:
            The network.
        """
        data, rate = self.data, factor * self.learning_rate
        schedule = rate if constant else one_cycle(rate, epochs * data.steps)
        # without XLA, whose convolutions take two to three times as long on a processor
        network.compile(
            keras.optimizers.Adam(schedule), self.objective.loss, metrics=self.objective.metrics, jit_compile=False
        )
        network.fit(
            self.objective.teach(self.model, data.batches(0)),
            epochs=epochs,
            steps_per_epoch=data.steps,
            validation_data=data.validation if validate else None,
            callbacks=[keras.callbacks.TerminateOnNaN(), *callbacks],
            verbose=self.verbose,
            shuffle=False,
        )
        statistics = keras.tree.map_structure(lambda array: array[:STATISTICS], data.inputs)
        reestimate_batch_statistics(network, statistics)
        return network
