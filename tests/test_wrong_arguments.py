"""Every public name refuses wrong arguments in one line that names them, before it does any work."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import scc_tf
from scc_tf import batch_statistics, clustering, coding, pruning, quantization, tfmot
from scc_tf.callbacks import __all__ as CALLBACKS
from scc_tf.finishing import fit_to_size, rounding

NAN = float("nan")
RNG = np.random.default_rng(0)
X = RNG.random((16, 8, 8, 1)).astype("float32")
Y = np.arange(16) % 3
SAFETY = scc_tf.datasets.Split(X[:8], Y[:8])
LOGITS = RNG.normal(size=(6, 3))
PROBABILITIES = scc_tf.metrics.softmax(LOGITS)
LABELS = np.arange(6) % 3


def network():
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3, name="head")])


class Networks:
    """What the rows below need, made once."""

    def __init__(self, folder):
        self.plain = network()
        self.small = scc_tf.self_compress(self.plain, 4)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.small.compile("adam", loss, gamma=0.01, jit_compile=False)
        self.watch = scc_tf.callbacks.SafetyMonitor(SAFETY)
        self.folder = folder
        self.file = folder / "new"
        scc_tf.save_packed(self.small, folder / "small.scc")
        scc_tf.export_tflite(self.small, folder / "small.tflite")
        self.data = scc_tf.datasets.Dataset("toy", SAFETY, SAFETY, SAFETY, ("a", "b", "c"))

    def fresh(self):
        """A model whose ``compile`` may be called."""
        return scc_tf.self_compress(self.plain, 4)


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    return Networks(tmp_path_factory.mktemp("nets"))


WRONG = {
    "count": ["x", None, 1.5, NAN, -3, [4], True],
    "count or None": ["x", 1.5, NAN, -3, [4]],
    "whole or None": ["x", 1.5, NAN, [4]],
    "size": ["x", None, NAN, -3, [4]],
    "number": ["x", None, NAN, [1, 2], 1j],
    "fraction": ["x", None, NAN, -0.5, 1.5, [0.5]],
    "choice": ["no such", None, 3, ["a"]],
    "path": [None, 5, "FOLDER"],
    "file": [None, 5, "FOLDER"],
    "array": [None, "x", np.array(["a"] * 16), np.full((16, 8, 8, 1), np.nan), X[:0], {}],
    "model": [None, "x", 5, keras.layers.Dense(2)],
    "numbers": [None, "x", np.array(["a"] * 16), np.full(4, np.nan), {}],
    "function": [None, "x", 5],
    "names": [5, ["no such layer"], [3]],
}

# Every public function and class that takes arguments from a user: how to call it, and of what kind each argument is.
ROWS = {
    "self_compress": (
        lambda n: (scc_tf.self_compress, {"model": n.plain}),
        {
            "model": "model",
            "initial_bit_depth": "number",
            "rounding": "choice",
            "exclude": "names",
            "exponent_per": "choice",
            "bias_exponent": "whole or None",
        },
    ),
    "compress": (
        lambda n: (scc_tf.compress, {"model": n.plain, "data": (X, np.arange(len(X)) % 3), "epochs": 0}),
        {
            "model": "model",
            "data": "array",
            "target_bytes": "count or None",
            "gamma": "gamma or None",
            "epochs": "epochs",
            "batch_size": "count or None",
            "safety_set": "unknown",
            "work_dir": "directory",
            "seed": "count",
            "verbose": "unknown",
        },
    ),
    "add_masks": (lambda n: (scc_tf.add_masks, {"model": n.plain}), {"model": "model", "exclude": "names"}),
    "share_weights": (
        lambda n: (scc_tf.share_weights, {"model": n.plain, "clusters": 4}),
        {
            "model": "model",
            "clusters": "count",
            "start": "choice",
            "zeros": "choice",
            "exclude": "names",
            "seed": "count",
        },
    ),
    "to_plain": (lambda n: (scc_tf.to_plain, {"model": n.small}), {"model": "model"}),
    "cluster_filters": (
        lambda n: (scc_tf.cluster_filters, {"model": n.plain, "clusters": 2, "inputs": X}),
        {"model": "model", "clusters": "clusters", "space": "unknown", "merge": "unknown"},
    ),
    "ClusterBudget": (
        lambda n: (scc_tf.ClusterBudget, {"parameters": 100}),
        {"parameters": "count", "fractions": "unknown"},
    ),
    "evaluate_compression": (
        lambda n: (scc_tf.evaluate_compression, {"before": n.plain, "after": n.small, "data": n.data}),
        {"before": "model", "after": "model", "data": "unknown", "bins": "count", "examples": "examples"},
    ),
    "export_tflite": (
        lambda n: (scc_tf.export_tflite, {"model": n.small, "path": n.file}),
        {
            "model": "model",
            "path": "path",
            "compute": "choice",
            "storage": "choice",
            "lanes": "count or None",
        },
    ),
    "finish": (
        lambda n: (scc_tf.finish, {"model": n.small, "images": X}),
        {"model": "model", "images": "array", "exponent_places": "count", "statistics_bits": "count"},
    ),
    "finish_to_bytes": (
        lambda n: (scc_tf.finish_to_bytes, {"model": n.small, "images": X, "target_bytes": 1000}),
        {
            "model": "model",
            "images": "array",
            "target_bytes": "count",
            "exponent_places": "count",
            "statistics_bits": "count",
        },
    ),
    "load_packed": (
        lambda n: (scc_tf.load_packed, {"path": n.folder / "small.scc"}),
        {"path": "file", "max_weights": "count"},
    ),
    "save_packed": (
        lambda n: (scc_tf.save_packed, {"model": n.small, "path": n.file}),
        {"model": "model", "path": "path"},
    ),
    "remove_channels": (
        lambda n: (scc_tf.remove_channels, {"model": n.plain, "kept": {}}),
        {"model": "model", "kept": "unknown"},
    ),
    "remove_dead_channels": (lambda n: (scc_tf.remove_dead_channels, {"model": n.small}), {"model": "model"}),
    "select_safety_set": (
        lambda n: (scc_tf.select_safety_set, {"model": n.plain, "images": X, "labels": Y, "size": 6, "verbose": 0}),
        {
            "model": "model",
            "images": "array",
            "labels": "array",
            "size": "count",
            "seed": "count",
            "shares": "unknown",
            "batch_size": "count or None",
        },
    ),
    "size_report": (lambda n: (scc_tf.size_report, {"model": n.small}), {"model": "model"}),
    "SizeTerm": (
        lambda n: (scc_tf.SizeTerm, {"model": n.small}),
        {"model": "model", "form": "choice", "unit": "choice", "starting_weights": "count or None"},
    ),
    "RateTerm": (
        lambda n: (scc_tf.RateTerm, {"model": n.small}),
        {"model": "model", "unit": "choice", "starting_weights": "count or None", "momentum": "fraction"},
    ),
    "SafetySet": (
        lambda n: (
            scc_tf.SafetySet,
            dict(
                zip(
                    ("images", "labels", "indices", "reasons", "attention", "margin", "cluster", "heat_maps"),
                    (
                        X[:2],
                        Y[:2],
                        Y[:2],
                        np.array(["margin"] * 2),
                        X[:2, 0, 0, 0],
                        X[:2, 0, 0, 0],
                        Y[:2],
                        X[:2, :, :, 0],
                    ),
                    strict=True,
                )
            ),
        ),
        {"images": "unknown", "labels": "unknown", "indices": "unknown"},
    ),
    "SelfCompressingModel.compile": (
        lambda n: (n.fresh().compile, {"optimizer": "sgd", "loss": "mse"}),
        {
            "gamma": "number",
            "lambda_safety": "number",
            "safety_set": "unknown",
            "safety_batch_size": "count",
            "size_model": "choice",
            "size_form": "choice",
            "unit": "choice",
        },
    ),
    # callbacks
    "BackupAndRestore": (
        lambda n: (scc_tf.callbacks.BackupAndRestore, {}),
        {"backup_dir": "folder"},
    ),
    "ChannelRemoval": (
        lambda n: (scc_tf.callbacks.ChannelRemoval, {}),
        {"every": "count", "min_share": "fraction"},
    ),
    "GammaScheduler": (lambda n: (scc_tf.callbacks.GammaScheduler, {}), {"schedule": "function"}),
    "KernelRestoration": (
        lambda n: (scc_tf.callbacks.KernelRestoration, {"monitor": n.watch}),
        {
            "monitor": "function",
            "threshold": "fraction",
            "restore_fraction": "fraction",
            "restore_bits": "number",
            "patience": "count",
            "cooldown": "count",
            "seed": "count",
        },
    ),
    "MagnitudePruning": (
        lambda n: (scc_tf.callbacks.MagnitudePruning, {"schedule": tfmot.ConstantSparsity(0.5, 0)}),
        {"schedule": "function", "scope": "choice", "quality": "number", "pooling": "choice"},
    ),
    "SafetyMonitor": (
        lambda n: (scc_tf.callbacks.SafetyMonitor, {"safety_set": SAFETY}),
        {
            "safety_set": "unknown",
            "every": "count",
            "reference": "choice",
            "decay": "fraction",
            "statistics_images": "images or None",
            "batch_size": "count or None",
        },
    ),
    "SizeLogger": (lambda n: (scc_tf.callbacks.SizeLogger, {}), {"every": "count"}),
    "TargetSize": (
        lambda n: (scc_tf.callbacks.TargetSize, {"target_bytes": 1000}),
        {
            "target_bytes": "size",
            "every": "count",
            "measure": "unknown",
            "approach": "size",
            "horizon": "size",
            "limits": "unknown",
        },
    ),
    # metrics
    **{
        f"metrics.{name}": (
            lambda n, name=name: (getattr(scc_tf.metrics, name), {"probabilities": PROBABILITIES, "labels": LABELS}),
            {"probabilities": "array", "labels": "array", **extra},
        )
        for name, extra in {
            "accuracy": {},
            "negative_log_likelihood": {},
            "brier_score": {},
            "risk_coverage": {},
            "reliability_bins": {"bins": "count", "scheme": "choice"},
            "expected_calibration_error": {"bins": "count", "scheme": "choice"},
            "maximum_calibration_error": {"bins": "count", "scheme": "choice"},
            "uncertainty_calibration_error": {"bins": "count"},
        }.items()
    },
    "metrics.fit_temperature": (
        lambda n: (scc_tf.metrics.fit_temperature, {"logits": LOGITS, "labels": LABELS}),
        {"logits": "array", "labels": "array"},
    ),
    "metrics.softmax": (
        lambda n: (scc_tf.metrics.softmax, {"logits": LOGITS}),
        {"logits": "array", "temperature": "number"},
    ),
    "metrics.log_softmax": (
        lambda n: (scc_tf.metrics.log_softmax, {"logits": LOGITS}),
        {"logits": "array", "temperature": "number"},
    ),
    "metrics.normalized_entropy": (
        lambda n: (scc_tf.metrics.normalized_entropy, {"probabilities": PROBABILITIES}),
        {"probabilities": "array"},
    ),
    "metrics.ood_report": (
        lambda n: (scc_tf.metrics.ood_report, {"in_logits": LOGITS, "out_logits": LOGITS}),
        {"in_logits": "array", "out_logits": "array", "kinds": "unknown"},
    ),
    "metrics.ood_scores": (
        lambda n: (scc_tf.metrics.ood_scores, {"logits": LOGITS, "kind": "energy"}),
        {"logits": "array", "kind": "choice"},
    ),
    # parts that users call on their own
    "safety.safety_accuracy": (
        lambda n: (scc_tf.safety.safety_accuracy, {"model": n.plain, "safety_set": SAFETY}),
        {"model": "model", "safety_set": "unknown", "batch_size": "count or None"},
    ),
    "export.run_tflite": (
        lambda n: (scc_tf.export.run_tflite, {"path": n.folder / "small.tflite", "inputs": X[:2]}),
        {"path": "file", "inputs": "array", "threads": "count"},
    ),
    "export.measure_latency": (
        lambda n: (scc_tf.export.measure_latency, {"paths": {"a": n.folder / "small.tflite"}, "rounds": 1, "calls": 1}),
        {"paths": "unknown", "threads": "count", "rounds": "count", "calls": "count"},
    ),
    "export.packed_bytes": (
        lambda n: (scc_tf.export.packed_bytes, {"model": n.small}),
        {"model": "model"},
    ),
    "clustering.keep_filters": (
        lambda n: (clustering.keep_filters, {"model": n.plain, "kept": {}}),
        {"model": "model", "kept": "unknown"},
    ),
    "batch_statistics.reestimate_batch_statistics": (
        lambda n: (batch_statistics.reestimate_batch_statistics, {"model": n.plain, "inputs": X}),
        {"model": "model", "inputs": "array", "batch_size": "count or None"},
    ),
    "rounding.round_exponents": (
        lambda n: (rounding.round_exponents, {"model": n.small}),
        {"model": "model", "fraction_bits": "count"},
    ),
    "rounding.round_vectors": (
        lambda n: (rounding.round_vectors, {"model": n.small}),
        {"model": "model", "mantissa_bits": "count"},
    ),
    "fit_to_size.fit_to_bytes": (
        lambda n: (fit_to_size.fit_to_bytes, {"model": n.small, "target_bytes": 100, "measure": lambda model: 90}),
        {"target_bytes": "count", "measure": "function", "reach": "number", "tries": "count"},
    ),
    "fit_to_size.widen_dead_zone": (
        lambda n: (fit_to_size.widen_dead_zone, {"model": n.small, "widening": 0.0}),
        {"model": "model", "widening": "number"},
    ),
    "quantization.quantize": (
        lambda n: (quantization.quantize, {"x": tf.ones(2), "bit_depth": 4.0, "exponent": 0.0}),
        {"rounding": "choice"},
    ),
    "tfmot.ConstantSparsity": (
        lambda n: (tfmot.ConstantSparsity, {"target_sparsity": 0.5, "begin_step": 0}),
        {"target_sparsity": "fraction", "begin_step": "count", "frequency": "count"},
    ),
    "tfmot.PolynomialDecay": (
        lambda n: (
            tfmot.PolynomialDecay,
            {"initial_sparsity": 0.1, "final_sparsity": 0.5, "begin_step": 0, "end_step": 9},
        ),
        {"initial_sparsity": "fraction", "final_sparsity": "fraction", "begin_step": "count", "frequency": "count"},
    ),
    "pruning.magnitude_mask": (
        lambda n: (pruning.magnitude_mask, {"weights": LOGITS, "sparsity": 0.5}),
        {"weights": "numbers", "sparsity": "fraction", "ties": "choice"},
    ),
    "pruning.group_filters": (
        lambda n: (pruning.group_filters, {"points": LOGITS, "count": 2}),
        {"points": "array", "count": "count"},
    ),
    "coding.share_weights": (
        lambda n: (coding.share_weights, {"values": LOGITS.ravel(), "clusters": 2}),
        {"values": "array", "clusters": "count", "start": "choice"},
    ),
    "coding.huffman_encode": (
        lambda n: (coding.huffman_encode, {"values": LABELS}),
        {"values": "numbers"},
    ),
}
WRONG |= {
    "unknown": ["no such", 5.5],
    "directory": [5, "FILE"],
    "folder": [None, 5, "FILE"],
    "gamma or None": ["x", NAN, -1],
    "epochs": ["x", 1.5, -1, NAN],
    "clusters": ["x", None, 1.5, NAN, -3, True],
    "examples": ["x", None, 1.5, NAN, -3],
    "images or None": ["x", X[:0], np.full((16, 8, 8, 1), np.nan)],
}
CASES = [(name, argument) for name, (_, kinds) in ROWS.items() for argument in kinds]


def complaint(call, argument):
    """What is wrong with the way in which a call is refused; None if nothing is."""
    try:
        call()
    except (ValueError, TypeError, OSError) as error:
        said = str(error)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:90]!r}"
    else:
        return "accepted"
    if argument not in said or "Received" not in said:
        return f"not told what was wrong: {said[:120]!r}"
    return f"{said.strip().count(chr(10)) + 1} lines" if "\n" in said.strip() else None


@pytest.mark.parametrize(("name", "argument"), CASES, ids=[f"{name}-{argument}" for name, argument in CASES])
def test_a_wrong_argument_is_refused_by_its_name(name, argument, nets):
    make, kinds = ROWS[name]
    function, settings = make(nets)
    assert argument in inspect.signature(function).parameters
    places = {"FOLDER": nets.folder, "FILE": nets.folder / "small.scc"}
    found = {}
    for value in WRONG[kinds[argument]]:
        value = places.get(value, value) if isinstance(value, str) else value
        problem = complaint(lambda value=value: function(**{**settings, argument: value}), argument)
        found |= {f"{argument}={value!r}"[:60]: problem} if problem else {}
    assert not found
    assert not nets.file.exists()


def test_every_public_function_has_a_row():
    takers = {name for name in scc_tf.__all__ if inspect.isroutine(getattr(scc_tf, name))} | set(CALLBACKS)
    takes = {
        name
        for name in takers
        if inspect.signature(getattr(scc_tf, name, None) or getattr(scc_tf.callbacks, name)).parameters
    }
    assert takes <= set(ROWS)
