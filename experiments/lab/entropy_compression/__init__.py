"""The smallest files: self-compression with the entropy model from random weights, surgery, and the coder.

A training is cached in the work folder under a hash of its settings; an interrupted one goes on from its last epoch.
Everything is chosen by the error on validation; the test set is for whoever reads the file.

Source: Cséfalvay & Imber 2023 (arXiv 2301.13142) for what is learned; Oktay et al. 2020, "Scalable Model Compression
by Entropy Penalized Reparameterization" (arXiv 1906.06624), for the rate as a loss.
"""

import dataclasses

import keras
from absl import logging

from lab import datasets, models
from lab.batches import training_batches
from lab.entropy_compression.config import PRESETS, Config
from lab.entropy_compression.published import PUBLISHED
from lab.optimization import hold_then_cosine
from lab.settings import provenance
from lab.stage import Stage, error_percent
from lab.teacher import one_hot, soft_labels
from scc_tf.callbacks import ChannelRemoval, GammaScheduler
from scc_tf.conversion import self_compress
from scc_tf.export.packed import packed_report
from scc_tf.finishing import finish

__all__ = ["PRESETS", "PUBLISHED", "Config", "run"]

STATISTICS_IMAGES = 8192
_LOOK_EVERY = 500  # steps between two looks for dead channels
_DENSE = ("lenet_300_100",)  # XLA speeds up what is not convolution, and slows down convolutions on a processor


def run(config, work_dir, verbose=1):
    """Train and compress one network.

    Args:
        config: `Config`.
        work_dir: folder (`pathlib.Path`) of the cached trainings.
        verbose: as in ``fit``.

    Returns:
        ``(record, compressed model)``. The record is plain JSON: ``config``, ``versions``, ``seconds`` of training in
        all sessions, without the teacher's; ``trained_validation_error`` and ``validation_error``, per cent, before and
        after surgery and rounding; ``float32_bytes`` of the starting network; ``stored_bytes`` of a packed file and its
        ``parts``.
    """
    keras.utils.set_random_seed(config.seed)
    data = datasets.load("mnist", config.data_dir or None)
    plain = getattr(models, config.model)(seed=config.seed)
    model = self_compress(plain, config.bit_depth, exponent_per="kernel", bias_exponent=config.bias_exponent)
    stage = Stage(work_dir / f"entropy-{config.model}-{config.key()}", backup="backup")
    soft, validation = None, data.validation
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if config.distillation and not stage.is_finished:  # a network that is loaded needs no teacher
        soft = soft_labels(data, config.shift, config.distillation, config.temperature, work_dir, verbose)
    if config.distillation:
        validation = validation._replace(labels=one_hot(validation.labels, data.num_classes))
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    batches, steps = training_batches(
        data.train, config.batch_size, config.seed, config.shift, stage.finished_epochs, soft_labels=soft
    )
    total = steps * config.epochs
    model.compile(
        keras.optimizers.Adam(hold_then_cosine(config.learning_rate, total, config.hold)),
        loss,
        metrics=["accuracy"],
        gamma=config.gamma,
        size_model="entropy",
        format_optimizer=keras.optimizers.Adam(hold_then_cosine(config.exponent_learning_rate, total, config.hold)),
        jit_compile=config.model in _DENSE,
    )
    if stage.is_finished:
        record = stage.load(model)
    else:
        removal = ChannelRemoval(_LOOK_EVERY, min_share=config.cut_share)
        rise = round(config.ramp * total)
        ramp = keras.optimizers.schedules.PolynomialDecay(config.initial_gamma, max(rise, 1), config.gamma)
        callbacks = [GammaScheduler(ramp), removal] if rise else [removal]
        seconds = stage.fit(model, (batches, steps), config.epochs, callbacks, verbose)
        trained_error = error_percent(model, validation)
        model = finish(model, data.train.images[:STATISTICS_IMAGES], config.exponent_places, config.statistics_bits)
        record = {
            "seconds": seconds,
            "trained_validation_error": trained_error,
            "validation_error": error_percent(model, validation),
        }
        stage.save(model, record)
    file = packed_report(model)
    logging.info("%s", file)
    return {
        **provenance(config),
        **record,
        "float32_bytes": 4 * plain.count_params(),
        "stored_bytes": file.stored_bytes,
        "parts": {part: value for part, value in dataclasses.asdict(file).items() if value is not None},
    }, model
