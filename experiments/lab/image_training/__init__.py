"""A float ResNet-20 on CIFAR-10, as good as a few hours of two processors allow: what the compressed ones start from.

The training is cached in the work folder under a hash of its settings; an interrupted one goes on from its last epoch,
with the same batches. Everything is chosen by the validation split, which is held out of the training images; the test
set is evaluated once, in the end, with the moving statistics of batch normalization.
"""

import keras
import numpy as np
from absl import logging

from lab import datasets, models
from lab.batches import statistics_images, training_batches
from lab.class_report import class_report
from lab.image_training.augmentation import Augmentation
from lab.image_training.config import SCHEDULES, Config
from lab.optimization import sgd
from lab.settings import provenance
from lab.stage import Stage, accuracy
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.callbacks.fit_callback import FitCallback
from scc_tf.flops import count_trainable

__all__ = ["SCHEDULES", "Augmentation", "Config", "run"]

STATISTICS_IMAGES = 8192
_COLUMNS = {  # of Keras -> of the record
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "val_loss": "validation_loss",
    "val_accuracy": "validation_accuracy",
}


def run(config, work_dir, verbose=1):
    """Train ResNet-20.

    Three networks are compared on validation in the end, and the best is kept: the last weights with the statistics
    that training left, with those of images that are shifted and mirrored alone, and the average of the weights with
    such.

    Args:
        config: `Config`.
        work_dir: folder (`pathlib.Path`) of the cached training; TensorBoard's logs lie in it, too.
        verbose: as in ``fit``.

    Returns:
        ``(record, model)``. The record is plain JSON: ``config``, ``versions``, ``parameters`` (trainable),
        ``seconds`` of all sessions; ``epochs``, one dictionary each with ``epoch`` from 1, ``learning_rate`` at its
        end, ``train_loss`` and ``train_accuracy`` (of augmented images, while they are learned),
        ``validation_loss`` and ``validation_accuracy``; ``candidates``, the validation accuracy of each of the three,
        and the ``chosen`` one; ``validation_accuracy``, ``test_accuracy``, and of each class on test ``precision``,
        ``recall``, ``f1-score`` and ``support``. Accuracies are fractions.
    """
    keras.utils.set_random_seed(config.seed)
    data = datasets.load("cifar10", config.data_dir or None)
    train = _part(data.train, config.share, config.seed)
    model = models.resnet20(config.seed, normalization_of(train.images))
    stage = Stage(work_dir / f"resnet20-float-{config.key()}", backup="backup")
    views = _augmentation(config, len(train.labels))
    batches = training_batches(
        train, config.batch_size, config.seed, skip_epochs=stage.finished_epochs, augmentation=views
    )
    schedule = SCHEDULES[config.schedule](config.learning_rate, batches[1] * config.epochs)
    optimizer = sgd(model, schedule, config.momentum, config.weight_decay, config.average)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # without XLA, whose convolutions take two to three times as long on a processor
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    optimizer.build(model.trainable_variables)  # so that its state can be loaded
    if stage.is_finished:
        record = stage.load(model)
    else:
        last, log = _LastWeights(), _EpochLog()
        callbacks = [last, log, keras.callbacks.TensorBoard(stage.folder / "tensorboard", write_graph=False)]
        validation = (data.validation.images, data.validation.labels)
        seconds = stage.fit(model, batches, config.epochs, callbacks, verbose, validation)
        images = statistics_images(train, STATISTICS_IMAGES, config.seed, config.shift, config.mirror)
        record = {
            "seconds": seconds,
            "epochs": _epochs(log.rows, schedule, batches[1]),
            **_choose(model, last.weights, config.average, images, data.validation),
            **_score(model, data),
        }
        stage.save(model, record)
    return {**provenance(config), "parameters": count_trainable(model), **record}, model


def normalization_of(images):
    """``(scale, offset)`` per colour, with which the images have mean 0 and deviation 1, for `lab.models.resnet20`.

    Three decimals are enough, and short in a file.

    Args:
        images: float ``(N, H, W, C)``.

    Example:
        >>> normalization_of(np.array([0.2, 0.6], np.float32).reshape(2, 1, 1, 1))
        ([5.0], [-2.0])
    """
    mean, deviation = (f(images, axis=(0, 1, 2), dtype=np.float64) for f in (np.mean, np.std))
    return np.round(1 / deviation, 3).tolist(), np.round(-mean / deviation, 3).tolist()


class _LastWeights(keras.callbacks.Callback):
    """Keeps the weights that Keras replaces by their average when ``fit`` ends, before ``on_train_end``."""

    weights = None

    def on_train_begin(self, logs=None):
        """Those of an interrupted training: there may be no epoch left."""
        self.weights = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        """Those of an epoch."""
        self.weights = self.model.get_weights()


class _EpochLog(FitCallback):
    """What Keras says of every epoch, those of earlier sessions included.

    `keras.callbacks.CSVLogger` would append epochs that are trained a second time, and stays open when interrupted.
    """

    rows = ()

    def on_train_begin(self, logs=None):
        """Go on with the rows of an interrupted training."""
        self.rows = []
        self.take_up()

    def on_epoch_end(self, epoch, logs=None):
        """Add an epoch."""
        self.rows.append({"epoch": epoch, **{name: float(logs[name]) for name in _COLUMNS}})

    def state(self):
        """The rows."""
        return {"rows": self.rows}

    def restore(self, state):
        """Go on with them."""
        self.rows = state["rows"]


def _part(split, share, seed):
    """So many of the examples, each class with its share."""
    chosen = datasets.stratified_holdout(split.labels, round(share * len(split.labels)), seed)
    return split if share == 1 else datasets.Split(split.images[chosen], split.labels[chosen])


def _augmentation(config, examples):
    names = ("shift", "mirror", "warp_share", "rotation", "shear", "scale", "jitter")
    calm_from = round((1 - config.calm) * config.epochs * (examples // config.batch_size))
    return Augmentation(**{name: getattr(config, name) for name in names}, calm_from=calm_from)


def _epochs(rows, schedule, steps):
    """The rows of the log, named as in the record, with the learning rate at the end of the epoch."""
    return [
        {
            "epoch": row["epoch"] + 1,
            "learning_rate": float(schedule((row["epoch"] + 1) * steps)),
            **{ours: row[theirs] for theirs, ours in _COLUMNS.items()},
        }
        for row in rows
    ]


def _choose(model, last, average, images, validation):
    """Leave the best of the candidates in the model; returns what the record says of them."""
    weights = {"last": last, "last, new statistics": last}
    if average:
        weights["average, new statistics"] = model.get_weights()
    accuracies = {}
    for name, values in weights.items():
        model.set_weights(values)
        if name != "last":
            reestimate_batch_statistics(model, images)
        accuracies[name], weights[name] = accuracy(model, validation), model.get_weights()
    chosen = max(accuracies, key=accuracies.get)
    model.set_weights(weights[chosen])
    logging.info("On validation: %s", accuracies)
    return {"candidates": accuracies, "chosen": chosen, "validation_accuracy": accuracies[chosen]}


def _score(model, data):
    """What the record says of the test images."""
    answers = model.predict(data.test.images, batch_size=500, verbose=0).argmax(axis=1)
    classes = class_report(answers, data.test.labels, data.class_names)
    return {"test_accuracy": float(np.mean(answers == data.test.labels)), "classes": classes}
