"""Settings of Deep Compression, and those that suit each network."""

import dataclasses
import math

from lab.settings import check_settings, fill_from_presets, setting, settings_key
from scc_tf.coding.codebook import STARTS

__all__ = ["PRESETS", "Config"]

PRESETS = {  # found by the error on validation
    "lenet_300_100": {
        "float_epochs": 10,
        "rounds": 5,
        "round_epochs": 4,
        "last_epochs": 20,
        "density": 0.04,
        "batch_size": 256,
        "learning_rate": 3e-3,
        "tune_steps": 200,
        "last_tune_steps": 1000,
    },
    "lenet_5": {
        "float_epochs": 10,
        "rounds": 4,
        "round_epochs": 3,
        "last_epochs": 16,
        "density": 0.04,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "tune_steps": 200,
        "last_tune_steps": 1000,
    },
    "mnist_cnn": {
        "float_epochs": 2,
        "rounds": 3,
        "round_epochs": 1,
        "last_epochs": 3,
        "density": 0.1,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "tune_steps": 100,
        "last_tune_steps": 400,
    },
    "resnet20": {
        "float_epochs": 2,
        "rounds": 1,
        "round_epochs": 1,
        "last_epochs": 1,
        "density": 0.3,
        "batch_size": 128,
        "learning_rate": 5e-3,
        "tune_steps": 20,
        "last_tune_steps": 50,
    },
}

_WITH_DROPOUT = ("lenet_300_100", "lenet_5")
_RULES = (  # names, what they accept, in words
    (("learning_rate", "retrain_factor", "tune_factor"), lambda v: 0 < v <= 1, "in (0, 1]"),
    (("density",), lambda v: 0 < v <= 1, "in (0, 1]"),
    (("weight_decay",), lambda v: 0 <= v < math.inf, "in [0, inf)"),
    (("dropout",), lambda v: 0 <= v < 1, "in [0, 1)"),
    (("float_epochs", "rounds", "round_epochs", "last_epochs"), lambda v: v >= 1, ">= 1"),
    (("batch_size", "tune_steps", "last_tune_steps"), lambda v: v >= 1, ">= 1"),
    (("clusters",), lambda v: 1 <= v <= 65535, "from 1 to 65,535"),
    (("seed", "shift"), lambda v: v >= 0, ">= 0"),
    (("start",), lambda v: v in STARTS, f"to be one of {STARTS}"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run; the flags of the experiment are made from these fields.

    A setting that is None takes the value in `PRESETS` for the model.
    """

    model: str = setting("lenet_300_100", "network, one of " + ", ".join(PRESETS))
    seed: int = setting(0, "seed of weights, order and augmentation")
    float_epochs: int = setting(None, "epochs of the float network")
    rounds: int = setting(None, "rounds of pruning, each followed by retraining")
    round_epochs: int = setting(None, "epochs of retraining after each round but the last")
    last_epochs: int = setting(None, "epochs of retraining after the last round")
    density: float = setting(None, "fraction of the weights that is left after the last round")
    batch_size: int = setting(None, "examples per step")
    learning_rate: float = setting(None, "peak learning rate of the float network (one cycle, Adam)")
    retrain_factor: float = setting(1.0, "peak learning rate of a retraining, as a fraction of the float network's")
    weight_decay: float = setting(0.1, "decoupled weight decay, times the learning rate (AdamW)")
    dropout: float = setting(0.0, "dropout rate of the float network, rescaled when connections go")
    clusters: int = setting(16, "different weights of a layer")
    start: str = setting("linear", "first centroids: " + ", ".join(STARTS))
    tune_steps: int = setting(None, "steps of training of shared weights, for the points of the comparison")
    last_tune_steps: int = setting(None, "steps of training of shared weights, for the final network")
    tune_factor: float = setting(0.1, "peak learning rate of shared weights, as a fraction of the float network's")
    shift: int = setting(1, "largest shift of a training image, pixels")
    data_dir: str = setting("", "folder of the data sets; MNIST is embedded")

    def __post_init__(self):
        """Fill in what the model decides, and refuse what no stage could run with."""
        fill_from_presets(self, PRESETS)
        check_settings(self, _RULES)
        if self.dropout and self.model not in _WITH_DROPOUT:
            raise ValueError(
                f"Expected dropout for {_WITH_DROPOUT} alone. Received: dropout={self.dropout}, model={self.model!r}"
            )

    def key(self, *names):
        """A short hash of the named settings."""
        return settings_key(self, *names)
