"""LeNet-300-100 pruned to a budget of bytes: edges chosen as in a knapsack, against the largest ones, both fine-tuned.

An edge that stays costs its code and its relative index, as Deep Compression stores it; the budget is for edges alone.
Nothing is selected on test: each network is scored once, when it is finished.
"""

import dataclasses

import keras
import numpy as np

from scc_tf import datasets, models
from scc_tf.conversion import add_masks
from scc_tf.pipelines.settings import setting
from scc_tf.pruning import global_masks, reduce_layer

__all__ = ["METHODS", "Config", "edge_saliency", "run"]

METHODS = ("knapsack", "magnitude")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run; the flags of the experiment are made from these fields."""

    seed: int = setting(0, "seed of weights, order and calibration examples")
    float_epochs: int = setting(10, "epochs of the float network")
    epochs: int = setting(5, "epochs of fine-tuning after pruning")
    batch_size: int = setting(128, "examples per step")
    learning_rate: float = setting(1e-3, "learning rate of both trainings (Adam)")
    calibration: int = setting(2000, "training examples that the saliency of an edge is measured on")
    code_bits: int = setting(5, "bits of an edge's weight")
    index_bits: int = setting(5, "bits of an edge's relative index")
    data_dir: str = setting("", "folder of the data sets; MNIST is embedded")

    def __post_init__(self):
        """Refuse settings that cannot run."""
        for name in ("float_epochs", "epochs", "batch_size", "calibration", "code_bits"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} >= 1. Received: {name}={getattr(self, name)}")
        if not 0 < self.learning_rate < 1 or self.index_bits < 0 or self.seed < 0:
            raise ValueError(
                "Expected learning_rate in (0, 1), index_bits >= 0 and seed >= 0. Received: "
                f"learning_rate={self.learning_rate}, index_bits={self.index_bits}, seed={self.seed}"
            )


def edge_saliency(model, layers, images):
    """What share of its neuron's input energy each edge gives: ``w^2 E[x^2]`` over the sum of its neuron's edges.

    Chosen on validation among three, all weaker than plain magnitude once fine-tuned: the squared product of gradient
    and weight (Molchanov et al. 2019), and the energy without the division, are worse still.

    Args:
        model: Keras model.
        layers: list of its Dense layers.
        images: calibration examples ``(N, …)``.

    Returns:
        List of float64 arrays ``(inputs, units)``, each entry at least 0; a neuron whose edges carry nothing has zeros.
    """
    inputs = keras.Model(model.inputs[0], [layer.input for layer in layers]).predict(images, batch_size=500, verbose=0)
    saliency = []
    for layer, x in zip(layers, inputs if len(layers) > 1 else [inputs], strict=True):
        energy = np.mean(np.square(x, dtype=np.float64), axis=0)[:, None] * np.square(layer.kernel, dtype=np.float64)
        total = energy.sum(axis=0)
        saliency.append(energy / np.where(total > 0, total, 1))
    return saliency


def _compile(model, learning_rate):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    return model


def _accuracy(model, split):
    return float(model.evaluate(split.images, split.labels, batch_size=1000, verbose=0, return_dict=True)["accuracy"])


def _masks(method, config, kernels, saliency, budget):
    bits = config.code_bits + config.index_bits
    if method == "knapsack":
        return reduce_layer(saliency, [bits] * len(kernels), budget)
    count = sum(kernel.size for kernel in kernels)
    return global_masks(kernels, 1 - (8 * budget // bits) / count, ties="first")


def run(config, budgets, verbose=1):
    """Train once, then prune and fine-tune for every budget and method.

    Args:
        config: `Config`.
        budgets: bytes for the edges, whole numbers.
        verbose: as in ``fit``.

    Returns:
        Plain JSON: ``config``, ``float`` (accuracies) and ``rows``, one per budget and method: ``budget_bytes``,
        ``method``, ``edges``, ``kept`` (share of the edges by layer), and the accuracies on validation before
        fine-tuning, on validation after it, and on test.
    """
    keras.utils.set_random_seed(config.seed)
    data = datasets.load("mnist", config.data_dir or None)
    settings = {"batch_size": config.batch_size, "verbose": verbose}
    model = _compile(models.lenet_300_100(seed=config.seed), config.learning_rate)
    model.fit(data.train.images, data.train.labels, epochs=config.float_epochs, **settings)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    chosen = np.random.default_rng(config.seed).permutation(len(data.train.labels))[: config.calibration]
    saliency = edge_saliency(model, layers, data.train.images[chosen])
    kernels = [np.asarray(layer.kernel) for layer in layers]
    rows = []
    for budget in budgets:
        for method in METHODS:
            masks = _masks(method, config, kernels, saliency, budget)
            pruned = _compile(add_masks(model), config.learning_rate)
            for layer, mask in zip(layers, masks, strict=True):
                pruned.get_layer(layer.name).prune(mask)
            before = _accuracy(pruned, data.validation)
            pruned.fit(data.train.images, data.train.labels, epochs=config.epochs, **settings)
            rows.append(
                {
                    "budget_bytes": budget,
                    "method": method,
                    "edges": int(sum(mask.sum() for mask in masks)),
                    "kept": {layer.name: float(mask.mean()) for layer, mask in zip(layers, masks, strict=True)},
                    "validation_accuracy_before": before,
                    "validation_accuracy": _accuracy(pruned, data.validation),
                    "test_accuracy": _accuracy(pruned, data.test),
                }
            )
    return {
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name != "data_dir"},
        "float": {
            "edges": int(sum(kernel.size for kernel in kernels)),
            "validation_accuracy": _accuracy(model, data.validation),
            "test_accuracy": _accuracy(model, data.test),
        },
        "rows": rows,
    }
