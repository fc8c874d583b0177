"""Settings of a float ResNet-20."""

import dataclasses
import math

from lab.optimization import multi_step, one_cycle
from lab.settings import check_settings, setting, settings_key

__all__ = ["SCHEDULES", "Config"]

SCHEDULES = {"one_cycle": one_cycle, "multi_step": multi_step}

_RULES = (  # names, what they accept, in words
    (("schedule",), lambda v: v in SCHEDULES, f"to be one of {tuple(SCHEDULES)}"),
    (("epochs", "batch_size"), lambda v: v >= 1, ">= 1"),
    (("seed", "shift"), lambda v: v >= 0, ">= 0"),
    (("learning_rate",), lambda v: 0 < v < math.inf, "in (0, inf)"),
    (("weight_decay",), lambda v: 0 <= v < math.inf, "in [0, inf)"),
    (("momentum", "average", "scale", "jitter"), lambda v: 0 <= v < 1, "in [0, 1)"),
    (("warp_share", "calm"), lambda v: 0 <= v <= 1, "in [0, 1]"),
    (("share",), lambda v: 0 < v <= 1, "in (0, 1]"),
    (("rotation",), lambda v: 0 <= v <= 180, "from 0 to 180"),
    (("shear",), lambda v: 0 <= v <= 60, "from 0 to 60"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run; the flags of the experiment are made from these fields.

    The defaults are for 40 epochs. Shifts and flips are all that so short a training can take in full; what bends
    and blurs the images goes to a part of them, and the last epochs do without. A longer one bears more, and a
    weaker penalty: He et al. have 1e-4 for 180 epochs.
    """

    seed: int = setting(0, "seed of weights, order and augmentation")
    epochs: int = setting(40, "epochs")
    batch_size: int = setting(128, "examples per step")
    schedule: str = setting(
        "one_cycle", "learning rate: one_cycle, or multi_step (falls after half and three quarters)"
    )
    learning_rate: float = setting(0.2, "peak learning rate (SGD)")
    momentum: float = setting(0.9, "of SGD (Nesterov's)")
    weight_decay: float = setting(3e-4, "factor of the L2 penalty on kernels")
    average: float = setting(0.998, "weight of the past in the moving average of the weights; 0 averages nothing")
    shift: int = setting(4, "largest shift of a training image, pixels")
    mirror: bool = setting(True, "whether every other training image is flipped left to right")
    warp_share: float = setting(0.1, "share of the training images that are rotated, sheared and scaled")
    rotation: float = setting(10.0, "largest rotation, degrees")
    shear: float = setting(10.0, "largest shear, degrees")
    scale: float = setting(0.2, "largest change of an image's size, as a fraction")
    jitter: float = setting(0.05, "largest change of brightness, contrast and saturation, as a fraction")
    calm: float = setting(0.15, "last share of the steps, in which images are shifted and mirrored alone")
    share: float = setting(1.0, "share of the training images that is used, for a short trial")
    data_dir: str = setting("", "folder that holds CIFAR-10; it is downloaded where it is not there")

    def __post_init__(self):
        """Refuse settings that nothing could be trained with."""
        check_settings(self, _RULES)

    def key(self):
        """A short hash of all settings."""
        return settings_key(self)
