"""Settings of entropy-penalised self-compression, and those that suit each network."""

import dataclasses
import math

from lab.settings import check_settings, fill_from_presets, setting, settings_key

__all__ = ["PRESETS", "Config"]

PRESETS = {  # found by the error on validation
    "lenet_300_100": {
        "gamma": 2.0,
        "epochs": 120,
        "batch_size": 256,
        "learning_rate": 3e-3,
        "ramp": 0.0,
        "initial_gamma": 0.0,
        "distillation": 0.0,
    },
    "lenet_5": {
        "gamma": 4.0,
        "epochs": 60,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "ramp": 0.3,
        "initial_gamma": 0.0,
        "distillation": 0.0,
    },
    "mnist_cnn": {
        "gamma": 0.1,
        "epochs": 16,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "ramp": 0.15,
        "initial_gamma": 2.0,  # channels that die early make the steps that follow cheap
        "distillation": 0.7,
    },
}
_RULES = (  # names, what they accept, in words
    (("gamma", "initial_gamma"), lambda v: 0 <= v < math.inf, "in [0, inf)"),
    (("learning_rate", "exponent_learning_rate"), lambda v: 0 < v <= 1, "in (0, 1]"),
    (("temperature",), lambda v: 0 < v < math.inf, "in (0, inf)"),
    (("epochs", "batch_size"), lambda v: v >= 1, ">= 1"),
    (("bit_depth",), lambda v: 0 < v <= 24, "in (0, 24]"),
    (("bias_exponent",), lambda v: -24 <= v <= 8, "from -24 to 8"),
    (("exponent_places",), lambda v: 0 <= v <= 16, "from 0 to 16"),
    (("statistics_bits",), lambda v: 0 <= v <= 10, "from 0 to 10"),
    (("cut_share", "distillation"), lambda v: 0 <= v <= 1, "in [0, 1]"),
    (("hold", "ramp"), lambda v: 0 <= v < 1, "in [0, 1)"),
    (("seed", "shift"), lambda v: v >= 0, ">= 0"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run; the flags of the experiments are made from these fields.

    A setting that is None takes the value in `PRESETS` for the model.
    """

    model: str = setting("lenet_300_100", "network, one of " + ", ".join(PRESETS))
    seed: int = setting(0, "seed of weights, order and augmentation")
    gamma: float = setting(None, "weight of Q, the coded bits per weight")
    epochs: int = setting(None, "epochs, from random weights")
    batch_size: int = setting(None, "examples per step")
    learning_rate: float = setting(None, "peak learning rate of the weights (Adam)")
    exponent_learning_rate: float = setting(1e-2, "peak learning rate of the exponents (Adam)")
    hold: float = setting(0.3, "first share of the steps, at the peak; then a cosine to 0")
    bit_depth: float = setting(3.0, "bits that the range of a kernel spans at first; few, so that most codes are 0")
    bias_exponent: int = setting(-4, "biases are multiples of two to this power")
    exponent_places: int = setting(4, "binary places that exponents keep in the end")
    statistics_bits: int = setting(5, "bits of the mantissa that batch statistics keep in the end")
    cut_share: float = setting(0.1, "share of the kernel weights that must be dead before the network is cut")
    shift: int = setting(1, "largest shift of a training image, pixels")
    ramp: float = setting(None, "first share of the steps, over which gamma comes from initial_gamma")
    initial_gamma: float = setting(None, "gamma at the first step of the ramp")
    distillation: float = setting(None, "share of a float network's answers in the labels")
    temperature: float = setting(2.0, "of these answers")
    data_dir: str = setting("", "folder of the data sets; MNIST is embedded")

    def __post_init__(self):
        """Fill in what the model decides, and refuse what no training could run with."""
        fill_from_presets(self, PRESETS)
        check_settings(self, _RULES)

    def key(self):
        """A short hash of all settings."""
        return settings_key(self)
