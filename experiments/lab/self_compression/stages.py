"""The stages of the main job: a float network, a safety set, a compression. Each is cached in the work folder."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np

from lab import models
from lab.batches import statistics_images, training_batches
from lab.optimization import one_cycle
from lab.self_compression.callbacks import Callbacks
from lab.stage import Stage, accuracy, fingerprint, intact
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.conversion import self_compress
from scc_tf.finishing import finish, finish_to_bytes
from scc_tf.safety import Contract, SafetySet, safety_accuracy, select_safety_set
from scc_tf.size_report import size_report
from scc_tf.training import default_format_optimizer, self_compressing_layers

__all__ = ["compress", "float_model", "safety_set_of"]

STATISTICS_IMAGES = 4096
BIAS_EXPONENT = -4  # of biases that an entropy coder writes
_FILLED = 0.98  # of a target, which a file that has reached it takes at least


def _loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _format_optimizer(config, steps):
    """Adam for the formats, the paper's for bit depths; its rate falls to 0 (cosine) before the last weights settle."""
    moving = max(1, round((1 - config.settle) * steps))
    if config.size_model == "entropy":
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(config.exponent_learning_rate, moving))
    return default_format_optimizer(keras.optimizers.schedules.CosineDecay(config.format_learning_rate, moving))


def _convert(config, model):
    """The self-compressing network, with the side information that its size model can pay for."""
    if config.size_model == "entropy":
        return self_compress(model, config.bit_depth, exponent_per="kernel", bias_exponent=BIAS_EXPONENT)
    return self_compress(model, config.bit_depth)


def _jit_compile(config):
    """XLA makes convolutions of a processor slower, those of the MNIST network aside, whose records were made with it.

    The entropy model never had it.
    """
    return "auto" if config.model == "mnist_cnn" and config.size_model == "bits" else False


def _batches(config, data, seed, skip_epochs):
    return training_batches(data.train, config.batch_size, seed, config.shift, skip_epochs, config.mirror)


def _statistics_images(config, data):
    """Training images; as they are for MNIST's records, whose borders are black whether they are shifted or not."""
    if not config.augmented_statistics:
        return data.train.images[:STATISTICS_IMAGES]
    return statistics_images(data.train, STATISTICS_IMAGES, config.seed, config.shift, config.mirror)


def float_model(config, data, work_dir, verbose=1):
    """Stage 1: train the float baseline, or take the one in ``float_file``; returns the model and its record."""
    stage = Stage(work_dir / f"float-{config.float_key}", backup="backup")
    if config.float_file:
        return _loaded(config, data, stage)
    model = getattr(models, config.model)(seed=config.seed)
    batches = _batches(config, data, config.seed, stage.finished_epochs)
    optimizer = keras.optimizers.Adam(one_cycle(config.learning_rate, batches[1] * config.float_epochs))
    jit_compile = "auto" if config.model == "mnist_cnn" else False
    model.compile(optimizer, _loss(), metrics=["accuracy"], jit_compile=jit_compile)

    def finish(model):
        reestimate_batch_statistics(model, _statistics_images(config, data))
        return _accuracies(model, data)

    return model, stage.train(model, batches, config.float_epochs, finish, verbose)


def _loaded(config, data, stage):
    """The network of a file, as it is; its record says which file that was, and has no ``seconds``."""
    with intact(config.float_file):
        model = keras.models.load_model(config.float_file, compile=False)
    shapes = [tuple(tensor.shape[1:]) for tensor in (model.inputs[0], model.outputs[0])]
    if shapes != [data.train.images.shape[1:], (data.num_classes,)]:
        raise ValueError(
            f"Expected a network from {data.train.images.shape[1:]} to {data.num_classes} classes in float_file. "
            f"Received: {config.float_file}, from {shapes[0]} to {shapes[1]}"
        )
    model.compile(loss=_loss(), metrics=["accuracy"], jit_compile=False)
    if not stage.is_finished:
        stage.save(model, _accuracies(model, data))
    return model, {"file": Path(config.float_file).name, "weights": fingerprint(model), **stage.load(model)}


def _accuracies(model, data):
    return {"validation_accuracy": accuracy(model, data.validation), "test_accuracy": accuracy(model, data.test)}


def safety_set_of(config, model, data, work_dir, verbose=1):
    """Stage 2: choose the safety set from the training split."""
    path = work_dir / f"safety-{config.safety_key}.npz"
    if path.exists():
        with intact(path):
            return SafetySet.load(path)
    safety_set = select_safety_set(
        model,
        data.train.images,
        data.train.labels,
        size=config.safety_size,
        seed=config.seed,
        verbose=min(verbose, 1),
    )
    safety_set.save(path)
    return safety_set


def compress(config, row, model, safety_set, data, work_dir, verbose=1):
    """Stage 3: compress a float model; returns the compressed model and its record.

    What was trained is saved before it is finished, which takes minutes where a size is asked for: a call that comes
    after a stop in there goes on from it.

    Args:
        config: `Config`.
        row: ``"safe"`` (safety loss and restoration) or ``"unsafe"`` (the monitor only watches).
        model: the float model, left untouched.
        safety_set: `SafetySet`.
        data: `scc_tf.datasets.Dataset`.
        work_dir: folder of the cached stages.
        verbose: as in ``fit``.
    """
    safe = row == "safe"
    stage = Stage(work_dir / f"{row}-{config.row_key(row)}", backup="backup")
    trained = Stage(stage.folder / "backup" / "trained", backup="epochs")
    batches, steps = _batches(config, data, config.seed + 1, trained.finished_epochs)
    total = steps * config.epochs
    compressed = _convert(config, model)
    compressed.compile(
        keras.optimizers.Adam(one_cycle(config.learning_rate, total)),
        _loss(),
        metrics=["accuracy"],
        gamma=config.gamma,
        lambda_safety=config.lambda_safety if safe else 0.0,
        safety_set=safety_set if safe else None,
        safety_batch_size=config.safety_batch_size,
        format_optimizer=_format_optimizer(config, total),
        size_form=config.size_form,
        size_model=config.size_model,
        jit_compile=_jit_compile(config),
    )
    if stage.is_finished:
        record = stage.load(compressed)  # cuts it, too
        compressed.contract = _contract(config, safety_set, record) if safe else None
        return compressed, record
    start = size_report(compressed, stored=False)
    before = {
        "start_integer_bytes": start.integer_bytes,
        "start_float32_bytes": start.float32_bytes,
        "bit_depths_before": _bit_depths(compressed),
    }
    images = _statistics_images(config, data)
    if trained.is_finished:
        seen = trained.load(compressed)  # cuts it, too
    else:
        watch = Callbacks(config, safe, safety_set, images, total)
        seconds = trained.fit(compressed, (batches, steps), config.epochs, watch.callbacks, verbose)
        seen = {"seconds": seconds, **watch.record()}
        trained.save(compressed, seen)
    trained_validation = accuracy(compressed, data.validation)
    contract = _contract(config, safety_set, seen)
    compressed.contract = contract if safe else None  # a training that was loaded has none
    compressed, fit = _finish(config, compressed, images)
    report = size_report(compressed)
    after = _bit_depths(compressed)
    removed = {name: len(bits) - len(after[name]) for name, bits in before["bit_depths_before"].items()}
    safety = safety_accuracy(compressed, safety_set)
    record = {
        **seen,
        "trained_validation_accuracy": trained_validation,
        **_accuracies(compressed, data),
        "safety_accuracy": safety,
        "safety_drop_points": 100 * contract.drop(safety),
        "safe": contract.allows(safety),
        "size": json.loads(report.to_json()),
        "dead_channels": report.dead_channels + sum(removed.values()),
        **before,
        "bit_depths": {name: bits + [0.0] * removed[name] for name, bits in after.items()},
        "code_counts": _code_counts(compressed),
    }
    if fit:
        record["target"] = _target_record(fit, seen["target"])
    stage.save(compressed, record)
    return compressed, record


def _contract(config, safety_set, seen):
    """What the row owes to the safety set, from what was seen in training."""
    return Contract(safety_set, seen["reference_accuracy"], config.threshold_points / 100)


def _finish(config, model, images):
    """The finished model, and its `scc_tf.finishing.FinishReport` if a size was asked for."""
    places, bits = config.exponent_places, config.statistics_bits
    if not config.target_bytes:
        return finish(model, images, places, bits), None
    return finish_to_bytes(model, images, config.target_bytes, places, bits)


def _target_record(fit, training):
    """What became of the size that was asked for, as plain JSON."""
    first = "; safety went first" if fit.refused else ""
    return {
        **dataclasses.asdict(fit),
        "reached": _FILLED * fit.target_bytes <= fit.stored_bytes <= fit.target_bytes,
        "error_percent": 100 * (fit.stored_bytes / fit.target_bytes - 1),
        "outcome": f"{fit}{first}. In training: {training['outcome']}",
        "history": training["history"],
    }


def _bit_depths(model):
    formats = {f"{layer.name}/{f.name}": f for layer in self_compressing_layers(model) for f in layer.formats}
    return {name: [round(float(b), 4) for b in np.asarray(f.bit_depth)] for name, f in formats.items()}


def _code_counts(model):
    """``{kernel: [[code, how often], …]}``."""
    counts = {}
    for layer in self_compressing_layers(model):
        for name in layer.kernel_names:
            values, number = np.unique(np.asarray(layer.codes(name)), return_counts=True)
            counts[f"{layer.name}/{name}"] = [[int(v), int(n)] for v, n in zip(values, number, strict=True)]
    return counts
