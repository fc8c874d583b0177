"""`compress`: all of the recipe, in the order in which things happen."""

import gzip
import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from scc_tf.arguments import check_choice, check_count, check_folder, check_number, received
from scc_tf.atomic import atomic_path
from scc_tf.callbacks import BackupAndRestore, ChannelRemoval, KernelRestoration, SafetyMonitor, TargetSize
from scc_tf.classifier import class_labels, classes_of, predicted_classes
from scc_tf.compression.data import open_data
from scc_tf.compression.objective import objective_of
from scc_tf.compression.progress import Progress
from scc_tf.compression.result import Compressed
from scc_tf.compression.start import start_of
from scc_tf.conversion import to_plain
from scc_tf.convertible import check_convertible
from scc_tf.export import packed_bytes
from scc_tf.finishing import finish
from scc_tf.finishing.steps import Fidelity
from scc_tf.flops import count_operations
from scc_tf.inference import outputs
from scc_tf.keras_private import all_layers
from scc_tf.layers import self_compressing_layers
from scc_tf.safety import Contract, check_safety_set, safety_accuracy, select_safety_set
from scc_tf.training import default_format_optimizer

__all__ = ["compress"]

STEPS = 3000  # of training, about, that a network needs to become small
MOST_EPOCHS = 100
LOOKS = 24  # at size and safety, in all of the training
FEWEST_BETWEEN = 10  # steps from one look to the next
LEARNING_RATE = 1e-3
FORMAT_LEARNING_RATE = 0.5  # of bit depths; in a training of `REFERENCE_STEPS`
EXPONENT_LEARNING_RATE = 1e-2
REFERENCE_STEPS = 3436  # of the main job, for which gamma was explored
FEWEST_STEPS = 60  # in which a bit depth may move as in the paper; a shorter training must be gentle
SETTLE = 0.25  # last share of the steps, in which bit depths and exponents rest
LAMBDA, SAFETY_BATCH = 0.03, 8
THRESHOLD = 0.05  # of the contract, a fraction
SAFETY_SIZE = 1000
STATISTICS = 4096  # examples
START_GAMMA = 0.3
APPROACH = 0.5  # share of the training after which a target is wanted
AIM = 1.03  # bytes that training aims at, in targets: rounding more weights to 0 costs less than to add weights
PATIENCE = 5  # looks: where a size is asked for, gamma falls first, since a revived channel costs bytes


def compress(  # noqa: PLR0913 (as many as Keras's fit)
    model: keras.Model,
    data: Any,
    target_bytes: int | None = None,
    gamma: float | None = None,
    epochs: int | None = None,
    *,
    loss: Any = None,
    batch_size: int | None = None,
    validation_data: Any = None,
    safety_set: Any = "auto",
    work_dir: str | Path | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    seed: int = 0,
    verbose: int | str = "auto",
) -> Compressed:
    """Make a trained model small, and say what that has cost.

    The layers of a copy learn how many bits each channel needs, a safety set is watched meanwhile, channels without
    bits are cut, and what is left is rounded for a file. All else is found out: the loss, the starting bits, the length
    of the training, the safety set, and a validation set, which is held out of the data.

    ============================  ====================================================  ================================
    call                          minimizes                                             serves
    ============================  ====================================================  ================================
    ``target_bytes=50_000``       what the coder writes, down to that size              the ``.scc`` file
    ``gamma=0.01``                the bits of the widest code of every channel          ``.scc``, and ``.tflite``, which
                                                                                        loses whole channels
    ``epochs=0``                  nothing: the weights are rounded as they are          both, in seconds
    ============================  ====================================================  ================================

    Args:
        model: trained Keras model, Sequential or functional, left untouched. Its loss is used if it is compiled.
        data: what it was trained on, or data like it: ``(inputs, targets)`` or ``inputs`` alone, as arrays, lists or
            dictionaries of arrays; a ``tf.data.Dataset`` of batches that ends; a ``keras.utils.PyDataset``. Without
            targets the answers of ``model`` are the targets. Data that are augmented as in training serve best.
        target_bytes: largest ``.scc`` file that is wanted; what is left of it is spent on the answers.
        gamma: price of a bit per weight, in place of ``target_bytes``: 0.01 costs little, and larger values give
            smaller files. It means the same for a short training and a long one.
        epochs: passes over the data. Default: as many as make 3,000 steps. 0: no training.
        loss: as ``compile`` takes it, if the model is not compiled and its last activation and the targets do not tell.
        batch_size: of arrays; default 64, or less where the examples are few.
        validation_data: as ``data``; default: a tenth of the data, which is not trained on.
        safety_set: `scc_tf.SafetySet` of examples that must not get worse; ``"auto"`` chooses one where the model is a
            classifier; None goes without.
        work_dir: folder to keep the training in after every epoch. The same call goes on from there after an
            interruption, and takes up what is finished.
        callbacks: further Keras callbacks.
        seed: of the order of the data and of all draws; it sets that of Keras.
        verbose: 0 silent, 1 one line that shows progress, 2 a line per epoch, "auto": 1.

    Returns:
        `Compressed`: ``print`` it; ``save("mine.scc")``, ``export_tflite("mine.tflite")``, ``model``.

    Raises:
        ValueError: if an argument is out of range; if the model cannot be converted, see `scc_tf.self_compress`;
            if it does not take the data; if the loss cannot be found out; if the target is below what the
            layers that are not compressed take.

    Example:
        >>> small = scc_tf.compress(trained, (x_train, y_train), target_bytes=50_000)       # doctest: +SKIP
        >>> print(small)                                                                    # doctest: +SKIP
        >>> small.save("mine.scc")                                                          # doctest: +SKIP
    """
    _check(model, target_bytes, gamma, epochs, batch_size, safety_set, work_dir, seed, verbose)
    keras.utils.set_random_seed(seed)
    data = open_data(model, data, validation_data, batch_size, seed)
    objective = objective_of(model, data.inputs, data.targets, loss)
    epochs = min(MOST_EPOCHS, math.ceil(STEPS / data.steps)) if epochs is None else epochs
    steps = epochs * data.steps
    statistics = keras.tree.map_structure(lambda array: array[:STATISTICS], data.inputs)
    safety_set, notes = _safety_set(model, data, objective, safety_set, seed)
    small = start_of(model, statistics, steps, by_size=gamma is None)
    if reasons := small.conversion_report.not_storable:
        named = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(f"Expected layers that a .scc file can hold. Received: {model.name!r} with {named}")
    covered = _parameters_of(self_compressing_layers(small)) / max(1, model.count_params())
    skipped = small.conversion_report.skipped
    if epochs:
        settings = (target_bytes, gamma, epochs, objective.name, seed)
        backup = [] if work_dir is None else [_backup(work_dir, model, data, safety_set, settings)]
        _compile(small, objective, target_bytes, gamma, steps, safety_set)
        ours = _callbacks(target_bytes, steps, safety_set, statistics)
        batches = objective.teach(model, data.batches(sum(kept.finished_epochs for kept in backup)))
        _fit(small, batches, (epochs, data.steps), [*ours, *callbacks, *backup], verbose)
    elif safety_set is not None:
        small.contract = Contract(safety_set, safety_accuracy(model, safety_set), THRESHOLD)
    finished = finish(small, statistics, target_bytes=target_bytes)
    if not data.held_out:
        notes.append("measured on examples that were trained on: there are no others")
    return _measured(model, finished, (covered, skipped), objective, data, target_bytes, notes)


def _check(model, target_bytes, gamma, epochs, batch_size, safety_set, work_dir, seed, verbose):  # noqa: PLR0913
    """Refuse what is wrong before any work."""
    check_convertible(model)
    for name, value, least in (("target_bytes", target_bytes, 1), ("epochs", epochs, 0), ("batch_size", batch_size, 1)):
        if value is not None:
            check_count(name, value, least)
    if gamma is not None:
        check_number("gamma", gamma, 0)
    check_count("seed", seed, 0)
    if isinstance(safety_set, str):
        check_choice("safety_set", safety_set, ("auto",))
    elif safety_set is not None:
        check_safety_set(safety_set)
    if work_dir is not None:
        check_folder("work_dir", work_dir)
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f'Expected verbose to be "auto", 0, 1 or 2. {received("verbose", verbose)}')
    if target_bytes is not None and gamma is not None:
        raise ValueError(
            f"Expected target_bytes or gamma, not both. Received: target_bytes={target_bytes}, gamma={gamma}"
        )
    if target_bytes is None and gamma is None and epochs != 0:
        raise ValueError(
            "Expected target_bytes, the largest file that is wanted; or gamma, the price of a bit; or epochs=0, "
            "to train nothing. Received: none of them"
        )


def _safety_set(model, data, objective, safety_set, seed):
    """The examples that must not get worse, and notes on what stands in the way of having some."""
    if not isinstance(safety_set, str):
        return safety_set, []
    try:
        if len(model.inputs) != 1:
            raise ValueError("the model has several inputs")
        if not objective.of_classes:
            raise ValueError(f"the loss is {objective.name}")
        classes_of(model)
        if data.targets is None:
            labels = predicted_classes(outputs(model, data.inputs), model)
        else:
            labels = class_labels(data.targets, model)
    except ValueError as error:
        reason = str(error).partition(" Received")[0].rstrip(".")
        return None, [f"no safety set: examples are chosen for a classifier with one input ({reason})"]
    size = min(SAFETY_SIZE, max(1, len(labels) // 4))
    return select_safety_set(model, data.inputs, labels, size=size, seed=seed, verbose=0), []


def _parameters_of(layers):
    """Numbers in the weights of layers, without bit depths and exponents."""
    formats = {id(v) for layer in layers for fmt in layer.formats for v in (fmt.bit_depth, fmt.exponent)}
    return sum(math.prod(w.shape) for layer in layers for w in layer.weights if id(w) not in formats)


def _backup(work_dir, model, data, safety_set, settings):
    """The state of an interrupted training in ``work_dir``; refused if it is that of another call."""
    folder, digest = Path(work_dir), hashlib.sha256(repr((data.steps, settings)).encode())
    chosen = None if safety_set is None else [np.asarray(safety_set.labels)]
    for array in keras.tree.flatten([model.get_weights(), data.inputs, data.targets, data.validation, chosen]):
        digest.update(b"none" if array is None else np.ascontiguousarray(array))
    backup, card = BackupAndRestore(folder / "training", keep=True), folder / "compress.txt"
    if card.is_file() and card.read_text() != digest.hexdigest():
        raise ValueError(
            "Expected work_dir to be new, or to hold a training of the same model with the same data and arguments. "
            f"{received('work_dir', str(work_dir))}"
        )
    with atomic_path(card) as partial:
        partial.write_text(digest.hexdigest())
    return backup


def _compile(small, objective, target_bytes, gamma, steps, safety_set):
    """Compile with schedules of the length of the training."""
    moving = max(1, round((1 - SETTLE) * steps))
    if target_bytes is None:
        # fewer steps, each with more effect: so gamma means about the same for a short training and a long one
        rate = FORMAT_LEARNING_RATE * min(REFERENCE_STEPS / steps, steps / FEWEST_STEPS)
        formats = default_format_optimizer(keras.optimizers.schedules.CosineDecay(rate, moving))
    else:
        formats = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(EXPONENT_LEARNING_RATE, moving))
    small.compile(
        keras.optimizers.Adam(one_cycle(LEARNING_RATE, steps)),
        objective.loss,
        metrics=objective.metrics,
        loss_weights=objective.loss_weights,
        gamma=START_GAMMA if gamma is None else gamma * REFERENCE_STEPS / steps,
        size_model="bits" if target_bytes is None else "entropy",
        lambda_safety=0.0 if safety_set is None else LAMBDA,
        safety_set=safety_set,
        safety_batch_size=SAFETY_BATCH,
        format_optimizer=formats,
        jit_compile=False,  # XLA makes convolutions of a processor slower
    )


def one_cycle(peak, steps, warm_up=0.15):
    """Learning rate that rises from a tenth of ``peak`` over ``warm_up`` of the steps, then falls to 0 (cosine).

    Source: Smith & Topin 2017, "Super-Convergence" (arXiv 1708.07120).
    """
    rising = max(1, round(warm_up * steps))
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, steps - rising), alpha=0.0, warmup_target=peak, warmup_steps=rising
    )


def _callbacks(target_bytes, steps, safety_set, statistics):
    every = max(FEWEST_BETWEEN, steps // LOOKS)
    ours = [ChannelRemoval(every)]
    if safety_set is not None:
        watch = SafetyMonitor(safety_set, every, statistics_images=statistics)
        ours.append(KernelRestoration(watch, THRESHOLD, patience=1 if target_bytes is None else PATIENCE))
    if target_bytes is not None:
        ours.append(TargetSize(AIM * target_bytes, every, approach=max(1, round(APPROACH * steps))))
    return ours


def _fit(small, batches, length, callbacks, verbose):
    epochs, steps = length
    shown = [Progress(epochs * steps)] if verbose in (1, "auto") else []
    small.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[keras.callbacks.TerminateOnNaN(), *callbacks, *shown],
        verbose=2 if verbose == 2 else 0,
        shuffle=False,
    )


def _operations(model, notes):
    """Multiply-accumulates of one example; None where a side of the input is open."""
    try:
        count = count_operations(model)
    except ValueError as error:
        notes.append(f"multiply-accumulates are not known: {error}")
        return None
    if count.uncounted:
        notes.append(f"multiply-accumulates without those of {', '.join(count.uncounted)}")
    return count.multiply_accumulates


def _measured(model, finished, coverage, objective, data, target_bytes, notes):
    """Everything about the finished model, from the files that it makes."""
    inputs, targets = data.validation
    answers = [outputs(network, inputs) for network in (model, finished)]
    before, after = (objective.score(given, answers[0] if targets is None else targets) for given in answers)
    written = packed_bytes(finished)
    floats = np.concatenate([np.asarray(w, np.float32).ravel() for w in model.get_weights()]).tobytes()
    contract = finished.contract
    (covered, skipped), parameters = coverage, model.count_params()
    operations = [_operations(network, notes) for network in (model, to_plain(finished))]
    counts = {}
    for layer in all_layers(model):  # layers of nested models may have the same name
        counts[layer.name] = counts.get(layer.name, 0) + layer.count_params()
    return Compressed(
        compressed=finished,
        stored_bytes=len(written),
        target_bytes=target_bytes,
        float32_bytes=4 * parameters,
        gzip_bytes=(len(gzip.compress(floats, 9)), len(gzip.compress(written, 9))),
        scores={name: (before[name], after[name]) for name in before},
        same_answers=objective.agreement(answers[1], answers[0]) if objective.of_classes else None,
        distance=Fidelity(model, inputs).distance(finished),
        safety=contract and (safety_accuracy(model, contract.safety_set), finished.finish_report.safety_accuracy),
        safe=finished.finish_report.safe,
        operations=tuple(operations),
        covered=covered,
        skipped={name: (counts[name], reason) for name, reason in skipped.items()},
        notes=tuple(dict.fromkeys(notes)),
    )
