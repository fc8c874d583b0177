"""Settings of the lottery-ticket pipeline, and those that suit each network."""

import dataclasses
import math

from lab.settings import check_settings, fill_from_presets, setting, settings_key
from scc_tf.protocols.lottery import PROTOCOLS
from scc_tf.protocols.subnetworks import STRUCTURES

__all__ = ["PRESETS", "Config"]

PRESETS = {
    "moons_mlp": {
        "ratios": "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
        "epochs": 2000,
        "patience": 20,
        "batch_size": 0,
        "learning_rate": 1e-2,
        "shift": 0,
        "ood": "",
    },
    "cifar_cnn": {
        "ratios": "0.2,0.4,0.6,0.8",
        "epochs": 30,
        "patience": 3,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "shift": 2,
        "ood": "cifar100",
    },
}
_RULES = (  # names, what they accept, in words
    (("learning_rate",), lambda v: 0 < v <= 1, "in (0, 1]"),
    (("epochs", "patience", "rounds", "runs"), lambda v: v >= 1, ">= 1"),
    (("batch_size", "seed", "shift", "rewind_steps", "start_from_epoch"), lambda v: v >= 0, ">= 0"),
    (("structure",), lambda v: v in STRUCTURES, f"to be one of {tuple(STRUCTURES)}"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run; the flags of the experiments are made from these fields.

    A setting that is None takes the value in `PRESETS` for the model.
    """

    model: str = setting("moons_mlp", "network, one of " + ", ".join(PRESETS))
    seed: int = setting(0, "seed of initial weights, order of the examples and random choices, of the first run")
    runs: int = setting(1, "number of seeds, from seed on")
    structure: str = setting("structured", "structured: neurons and filters go; unstructured: single weights")
    ratios: str = setting(None, "fractions to prune, separated by commas; the dense network is always there")
    protocols: str = setting(",".join(PROTOCOLS), "separated by commas, of " + ", ".join(PROTOCOLS))
    rounds: int = setting(5, "rounds of iterative pruning, each a training")
    rewind_steps: int = setting(0, "step of the dense training that iterative pruning rewinds to; 0: initial weights")
    epochs: int = setting(None, "epochs of a training at most")
    patience: int = setting(None, "epochs without a lower validation loss after which a training stops")
    start_from_epoch: int = setting(0, "epochs before the validation loss is first looked at")
    batch_size: int = setting(None, "examples per step; 0: all at once, and no augmentation")
    learning_rate: float = setting(None, "constant learning rate (Adam)")
    shift: int = setting(None, "largest shift of a training image, pixels; CIFAR images are mirrored, too")
    ood: str = setting(None, "data set whose test images are out of distribution; empty: none")
    data_dir: str = setting("", "folder of the data sets; the moons are made")

    def __post_init__(self):
        """Fill in what the model decides, and refuse what cannot run."""
        fill_from_presets(self, PRESETS)
        check_settings(self, _RULES)
        names = [name.strip() for name in self.protocols.split(",")]
        object.__setattr__(self, "protocols", ",".join(names))
        if set(names) - set(PROTOCOLS) or len(set(names)) < len(names):
            raise ValueError(f"Expected different protocols of {PROTOCOLS}. Received: protocols={self.protocols!r}")
        if not _are_ratios(self.ratios):
            raise ValueError(f"Expected ratios in [0, 1), separated by commas. Received: ratios={self.ratios!r}")
        if self.model == "moons_mlp" and (self.shift or self.ood):
            raise ValueError(
                "Expected shift=0 and no ood for the moons, which are no images. "
                f"Received: shift={self.shift}, ood={self.ood!r}"
            )
        if self.start_from_epoch >= self.epochs:
            raise ValueError(
                "Expected start_from_epoch below epochs. "
                f"Received: start_from_epoch={self.start_from_epoch}, epochs={self.epochs}"
            )

    @property
    def pruned_ratios(self):
        """The ratios above 0, ascending, each once."""
        return sorted({float(ratio) for ratio in self.ratios.split(",")} - {0.0})

    @property
    def seeds(self):
        """Of the runs."""
        return range(self.seed, self.seed + self.runs)

    def key(self, *names):
        """A short hash of the named settings."""
        return settings_key(self, *names)


def _are_ratios(text):
    try:
        return all(0 <= float(part) < 1 and math.isfinite(float(part)) for part in text.split(","))
    except ValueError:
        return False
