"""The main job: a float network, a safety set, and compression with and without the safety machinery.

Stages are cached in the work folder under a hash of the settings that they depend on; an interrupted one goes on
from its last epoch. Nothing is selected, stopped or restored on test: the test set is evaluated once per row.
"""

import dataclasses
import json
import math
import time

import keras
import numpy as np
from absl import logging

from scc_tf import datasets, models
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.callbacks import ChannelRemoval, GammaScheduler, KernelRestoration, SafetyMonitor, SizeLogger, TargetSize
from scc_tf.conversion import self_compress
from scc_tf.pipelines.batches import one_cycle, training_batches
from scc_tf.pipelines.finishing import finish, finish_to_bytes, finished_bytes
from scc_tf.pipelines.settings import check_settings, provenance, setting, settings_key
from scc_tf.pipelines.stage import Stage, accuracy, intact
from scc_tf.report import size_report
from scc_tf.safety import SafetySet, safety_accuracy, select_safety_set
from scc_tf.size import SIZE_FORMS
from scc_tf.training import default_format_optimizer, self_compressing_layers
from scc_tf.training.model import SIZE_MODELS

__all__ = ["MODES", "Config", "finish", "restored_channels", "run"]

MODES = ("safe", "unsafe", "compare")
STATISTICS_IMAGES = 4096
BIAS_EXPONENT = -4  # of biases that an entropy coder writes
AIM = 1.03  # bytes that training aims at, in targets: the dead zone then prunes, which costs less than to add weights

_RULES = (  # names, what they accept, in words
    (("mode",), lambda v: v in MODES, f"to be one of {MODES}"),
    (("size_form",), lambda v: v in SIZE_FORMS, f"to be one of {SIZE_FORMS}"),
    (("size_model",), lambda v: v in SIZE_MODELS, f"to be one of {SIZE_MODELS}"),
    (("target_bytes",), lambda v: v >= 0, ">= 0"),
    (("approach",), lambda v: 0 < v <= 1, "in (0, 1]"),
    (("gamma", "lambda_safety"), lambda v: 0 <= v < math.inf, "in [0, inf)"),
    (("learning_rate", "format_learning_rate", "exponent_learning_rate"), lambda v: 0 <= v < math.inf, "in [0, inf)"),
    (("settle", "ramp", "restore_fraction", "cut_share"), lambda v: 0 <= v <= 1, "in [0, 1]"),
    (("threshold_points",), lambda v: 0 <= v <= 100, "in [0, 100]"),
    (("bit_depth", "restore_bits"), lambda v: 0 < v <= 24, "in (0, 24]"),
    (("float_epochs", "epochs", "batch_size"), lambda v: v >= 1, ">= 1"),
    (("safety_size", "safety_batch_size", "check_every"), lambda v: v >= 1, ">= 1"),
    (("seed", "shift"), lambda v: v >= 0, ">= 0"),
    (("exponent_places",), lambda v: 0 <= v <= 16, "from 0 to 16"),
    (("statistics_bits",), lambda v: 0 <= v <= 10, "from 0 to 10"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run; the flags of the experiments are made from these fields."""

    gamma: float = setting(0.01, "weight of the size term Q (average bits per weight)")
    lambda_safety: float = setting(0.03, "weight of the safety loss; the unsafe row has none")
    mode: str = setting("safe", "safe, unsafe, or compare (both, from the same start)")
    seed: int = setting(0, "seed of weights, order, augmentation and safety set")
    float_epochs: int = setting(2, "epochs of the float baseline")
    epochs: int = setting(4, "epochs of compression")
    batch_size: int = setting(64, "examples per step")
    learning_rate: float = setting(2e-3, "peak learning rate of the weights (one cycle, Adam), both trainings")
    bit_depth: float = setting(4.0, "bits that every channel starts from")
    format_learning_rate: float = setting(0.5, "peak learning rate of bit depths and exponents (Adam)")
    settle: float = setting(0.25, "last share of the compression steps, in which the formats rest")
    ramp: float = setting(0.0, "share of the compression steps over which gamma rises from 0")
    shift: int = setting(1, "largest shift of a training image, pixels")
    safety_size: int = setting(1000, "examples in the safety set")
    safety_batch_size: int = setting(8, "safety examples per step")
    check_every: int = setting(200, "steps between safety checks")
    threshold_points: float = setting(5.0, "tolerated drop of safety accuracy, percentage points")
    restore_fraction: float = setting(0.5, "share of the dead channels that a restoration revives")
    restore_bits: float = setting(2.0, "bits that a revived channel gets")
    cut_share: float = setting(0.05, "share of the kernel weights that must be dead before the network is cut")
    exponent_places: int = setting(3, "binary places that exponents keep in the end")
    size_form: str = setting("coupled", "Q with the consumers' weights (coupled) or without (sum)")
    statistics_bits: int = setting(10, "bits of the mantissa that statistics and biases keep in the end", before=10)
    size_model: str = setting("bits", "Q counts bit depths (bits) or what a file takes (entropy)", before="bits")
    exponent_learning_rate: float = setting(1e-2, "with entropy: peak learning rate of the exponents", before=1e-2)
    target_bytes: int = setting(0, "size of the file, to which gamma is steered; 0 leaves gamma alone", before=0)
    approach: float = setting(0.5, "share of the steps after which the target size is wanted", before=0.5)
    data_dir: str = setting("", "folder of the data sets; MNIST is embedded")

    def __post_init__(self):
        """Refuse settings that no stage could run with."""
        check_settings(self, _RULES)
        if self.ramp and self.target_bytes:
            raise ValueError(
                "Expected ramp=0 with target_bytes, which sets gamma itself. "
                f"Received: ramp={self.ramp}, target_bytes={self.target_bytes}"
            )

    def key(self, *names):
        """A short hash of the named settings."""
        return settings_key(self, *names)


_FLOAT_SETTINGS = ("seed", "float_epochs", "batch_size", "learning_rate", "shift", "data_dir")
_SAFETY_SETTINGS = (*_FLOAT_SETTINGS, "safety_size")
_SAFE_SETTINGS = tuple(f.name for f in dataclasses.fields(Config) if f.name != "mode")
_RESPONSES = ("lambda_safety", "safety_batch_size", "restore_fraction", "restore_bits")  # the unsafe row has none
_ROW_SETTINGS = {"safe": _SAFE_SETTINGS, "unsafe": tuple(n for n in _SAFE_SETTINGS if n not in _RESPONSES)}


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


def float_model(config, data, work_dir, verbose=1):
    """Stage 1: train the float baseline; returns the model and its record."""
    stage = Stage(work_dir / f"float-{config.key(*_FLOAT_SETTINGS)}", backup="backup")
    model = models.mnist_cnn(seed=config.seed)
    batches = training_batches(data.train, config.batch_size, config.seed, config.shift, stage.finished_epochs)
    optimizer = keras.optimizers.Adam(one_cycle(config.learning_rate, batches[1] * config.float_epochs))
    model.compile(optimizer, _loss(), metrics=["accuracy"])

    def finish(model):
        reestimate_batch_statistics(model, data.train.images[:STATISTICS_IMAGES])
        return {"validation_accuracy": accuracy(model, data.validation), "test_accuracy": accuracy(model, data.test)}

    return model, stage.train(model, batches, config.float_epochs, finish, verbose)


def safety_set_of(config, model, data, work_dir, verbose=1):
    """Stage 2: choose the safety set from the training split."""
    path = work_dir / f"safety-{config.key(*_SAFETY_SETTINGS)}.npz"
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
    stage = Stage(work_dir / f"{row}-{config.key(*_ROW_SETTINGS[row])}", backup="backup/keras")
    batches, steps = training_batches(
        data.train, config.batch_size, config.seed + 1, config.shift, stage.finished_epochs
    )
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
        jit_compile=False if config.size_model == "entropy" else "auto",
    )
    if stage.is_finished:
        record = stage.load(compressed)  # cuts it, too
        return compressed, record
    start = size_report(compressed, stored=False)
    before = {
        "start_integer_bytes": start.integer_bytes,
        "start_float32_bytes": start.float32_bytes,
        "bit_depths_before": _bit_depths(compressed),
    }
    watch = _Watch(config, safe, safety_set, data.train.images[:STATISTICS_IMAGES], total, stage)
    seconds = stage.fit(compressed, (batches, steps), config.epochs, watch.callbacks, verbose)
    trained_validation = accuracy(compressed, data.validation)
    compressed, fit = _finish(config, compressed, watch, data.train.images[:STATISTICS_IMAGES])
    report = size_report(compressed)
    after = _bit_depths(compressed)
    removed = {name: len(bits) - len(after[name]) for name, bits in before["bit_depths_before"].items()}
    record = {
        "seconds": seconds,
        "trained_validation_accuracy": trained_validation,
        "validation_accuracy": accuracy(compressed, data.validation),
        "test_accuracy": accuracy(compressed, data.test),
        "safety_accuracy": safety_accuracy(compressed, safety_set),
        "size": json.loads(report.to_json()),
        "dead_channels": report.dead_channels + sum(removed.values()),
        **before,
        **watch.record(),
        **({"target": watch.target_record(fit, safety_accuracy(compressed, safety_set))} if fit else {}),
        "bit_depths": {name: bits + [0.0] * removed[name] for name, bits in after.items()},
        "code_counts": _code_counts(compressed),
    }
    stage.save(compressed, record)
    return compressed, record


def _finish(config, model, watch, images):
    """The finished model, and a `scc_tf.dead_zone.SizeFit` if a size was asked for."""
    places, bits = config.exponent_places, config.statistics_bits
    if not config.target_bytes:
        return finish(model, images, places, bits), None
    return finish_to_bytes(model, images, config.target_bytes, places, bits, watch.is_safe)


class _Watch:
    """The callbacks of one compression, and what they saw."""

    def __init__(self, config, safe, safety_set, statistics_images, steps, stage):
        self.threshold_points = config.threshold_points
        every, kept = config.check_every, stage.folder / "backup" / "safety"
        self.sizes = SizeLogger(every, backup_dir=kept)
        self.monitor = SafetyMonitor(safety_set, every, statistics_images=statistics_images, backup_dir=kept)
        self.restoration = None
        self.callbacks = []
        if config.ramp:
            rise = max(1, round(config.ramp * steps))
            self.callbacks.append(GammaScheduler(keras.optimizers.schedules.PolynomialDecay(0.0, rise, config.gamma)))
        self.callbacks += [self.sizes, self.monitor]
        self.target = None
        if safe:
            self.restoration = KernelRestoration(
                self.monitor,
                config.threshold_points / 100,
                restore_fraction=config.restore_fraction,
                restore_bits=config.restore_bits,
                seed=config.seed,
                backup_dir=kept,
            )
        if config.target_bytes:
            self.target = TargetSize(
                AIM * config.target_bytes,
                every,
                measure=lambda model: finished_bytes(model, config.exponent_places, config.statistics_bits),
                restoration=self.restoration,
                approach=max(1, round(config.approach * steps)),
                backup_dir=kept,
            )
        self.callbacks += [callback for callback in (self.target, self.restoration) if callback]
        self.removal = ChannelRemoval(every, min_share=config.cut_share, restoration=self.restoration, backup_dir=kept)
        self.callbacks.append(self.removal)

    def drop(self, accuracy):
        """Points of safety accuracy below the reference."""
        return 100 * (self.monitor.reference_accuracy - accuracy)

    def is_safe(self, model):
        """Whether a finished model keeps the contract; the unsafe row has none."""
        if self.restoration is None:
            return True
        accuracy = safety_accuracy(model, self.monitor.safety_set)
        return self.drop(accuracy) <= self.threshold_points + 1e-7  # a difference of rounded fractions

    def target_record(self, fit, accuracy):
        """What became of the size that was asked for, as plain JSON."""
        first = "; safety went first" if fit.refused else ""
        return {
            **dataclasses.asdict(fit),
            "error_percent": 100 * (fit.stored_bytes / fit.target_bytes - 1),
            "safety_drop_points": self.drop(accuracy),
            "safe": self.drop(accuracy) <= self.threshold_points + 1e-7,
            "outcome": f"{fit}{first}. In training: {self.target.outcome}",
            "history": self.target.history,
        }

    def record(self):
        """What happened during ``fit``, as plain JSON."""
        sizes = {entry["step"]: entry for entry in self.sizes.history}
        reverted = self.restoration is not None and self.restoration.reverted
        return {
            "threshold_points": self.threshold_points,
            "safety_accuracy_start": self.monitor.history[0]["safety_accuracy"],
            "reverted_to_step": self.restoration.safe_step if reverted else None,
            "events": self.restoration.events if self.restoration else [],
            "network": [{k: v for k, v in look.items() if v == v} for look in self.removal.history],  # NaN: not timed
            "history": [{**sizes[c["step"]], **c} for c in self.monitor.history if c["step"] in sizes],
        }


def run(config, work_dir, verbose=1):
    """Run the main job.

    Args:
        config: `Config`.
        work_dir: folder (`pathlib.Path`) of the cached stages.
        verbose: as in ``fit``.

    Returns:
        ``(record, safety set, {row: compressed model})``. The record is plain JSON: the settings but ``data_dir``,
        and under ``rows`` one record for ``float`` and for each of ``unsafe`` and ``safe`` that ``mode`` asks for.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(config.seed)
    data = datasets.load("mnist", config.data_dir or None)
    model, float_record = float_model(config, data, work_dir, verbose)
    safety_set = safety_set_of(config, model, data, work_dir, verbose)
    bytes_float32 = 4 * model.count_params()
    rows = {
        "float": {
            **float_record,
            "safety_accuracy": safety_accuracy(model, safety_set),
            "size": {"float32_bytes": bytes_float32},
        }
    }
    compressed = {}
    for row in ("unsafe", "safe") if config.mode == "compare" else (config.mode,):
        logging.info("Compressing, %s", row)
        compressed[row], rows[row] = compress(config, row, model, safety_set, data, work_dir, verbose)
    record = {
        **provenance(config),
        "seconds": time.monotonic() - started,
        "rows": rows,
    }
    return record, safety_set, compressed


def restored_channels(record):
    """How many times a channel was restored in a row of the record; 0 for ``float``."""
    return sum(sum(event["restored"].values()) for event in record.get("events", ()))


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
