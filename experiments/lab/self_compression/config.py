"""Settings of the main job, and which of them each stage depends on."""

import dataclasses
import hashlib
import math
import zipfile
from pathlib import Path

from lab import models
from lab.settings import check_settings, setting, settings_key
from lab.stage import intact
from scc_tf.size import SIZE_FORMS
from scc_tf.training.model import SIZE_MODELS

__all__ = ["MODES", "NETWORK_SETTINGS", "Config"]

MODES = ("safe", "unsafe", "compare")
NETWORK_SETTINGS = (
    "data_set",
    "model",
    "mirror",
    "augmented_statistics",
    "float_file",
)  # what an experiment on one network has no flags for
_IMAGE_NETWORKS = tuple(name for name in models.__all__ if name != "moons_mlp")

_RULES = (  # names, what they accept, in words
    (("mode",), lambda v: v in MODES, f"to be one of {MODES}"),
    (("model",), lambda v: v in _IMAGE_NETWORKS, f"to be one of {_IMAGE_NETWORKS}"),
    (("float_file",), lambda v: not v or Path(v).is_file(), "to be an existing Keras file"),
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
    augmented_statistics: bool = setting(False, "whether batch statistics are of shifted and mirrored images")
    statistics_bits: int = setting(10, "bits of the mantissa that statistics and biases keep in the end")
    size_model: str = setting("bits", "Q counts bit depths (bits) or what a file takes (entropy)")
    exponent_learning_rate: float = setting(1e-2, "with entropy: peak learning rate of the exponents")
    target_bytes: int = setting(0, "size of the file, to which gamma is steered; 0 leaves gamma alone")
    approach: float = setting(0.5, "share of the steps after which the target size is wanted")
    data_set: str = setting("mnist", "data set, by the name that datasets.load takes")
    model: str = setting("mnist_cnn", "network, one of " + ", ".join(_IMAGE_NETWORKS))
    mirror: bool = setting(False, "whether every other training image is flipped left to right")
    float_file: str = setting("", "Keras file of a float network that was trained before; empty: train one")
    data_dir: str = setting("", "folder of the data sets; MNIST is embedded")

    def __post_init__(self):
        """Refuse settings that no stage could run with."""
        check_settings(self, _RULES)
        if self.ramp and self.target_bytes:
            raise ValueError(
                "Expected ramp=0 with target_bytes, which sets gamma itself. "
                f"Received: ramp={self.ramp}, target_bytes={self.target_bytes}"
            )

    @property
    def float_key(self):
        """What the float network is cached under."""
        return self._key(*(_LOADED if self.float_file else _TRAINED))

    @property
    def safety_key(self):
        """What the safety set is cached under."""
        return self._key(*((*_LOADED, "seed") if self.float_file else _TRAINED), "safety_size")

    def row_key(self, row):
        """What a compression is cached under; that of the row ``"unsafe"`` knows nothing of the responses to a drop."""
        return self._key(*_ROW_SETTINGS[row])

    @property
    def float_hash(self):
        """A short hash of the weights in ``float_file``; what else Keras writes differs from one saving to the next."""
        with intact(self.float_file), zipfile.ZipFile(self.float_file) as file:
            return hashlib.sha256(file.read("model.weights.h5")).hexdigest()[:10]

    def _key(self, *names):
        """A short hash of the named settings, and of what is in the float network's file."""
        key = settings_key(self, *(name for name in names if name != "float_file"))
        return f"{key}-{self.float_hash}" if "float_file" in names and self.float_file else key


_TRAINED = ("seed", "float_epochs", "batch_size", "learning_rate", "shift", "mirror", "augmented_statistics")
_TRAINED += ("data_set", "model")
_LOADED = ("data_set", "float_file")
_SAFE = tuple(f.name for f in dataclasses.fields(Config) if f.name != "mode")
_RESPONSES = ("lambda_safety", "safety_batch_size", "restore_fraction", "restore_bits")  # the unsafe row has none
_ROW_SETTINGS = {"safe": _SAFE, "unsafe": tuple(n for n in _SAFE if n not in _RESPONSES)}
