"""The result of a comparison, for people and for machines."""

import dataclasses
import json

import numpy as np

from scc_tf.evaluation.behaviour import Behaviour, Curves
from scc_tf.evaluation.footprint import Footprint
from scc_tf.evaluation.table import table
from scc_tf.metrics import OODReport

__all__ = ["CompressionReport", "ModelReport"]


@dataclasses.dataclass(frozen=True, eq=False)
class ModelReport:
    """All about one of the two models.

    Attributes:
        name: what the caller calls it.
        behaviour: `Behaviour`, numbers on the test split.
        footprint: `Footprint`, size and work.
        ood: `scc_tf.metrics.OODReport`; None without OOD images.
        curves: `Curves`, what the figure shows.
    """

    name: str
    behaviour: Behaviour
    footprint: Footprint
    ood: OODReport | None
    curves: Curves


@dataclasses.dataclass(frozen=True, eq=False)
class CompressionReport:
    """Two models compared; see `scc_tf.evaluate_compression`.

    Attributes:
        before, after: `ModelReport` of each.
        data_name: of the data set.
        class_names: one for each class.
        images: ``{"validation": …, "test": …, "out": …}``, how many there were; "out" only with OOD images.
        bins: of the calibration errors.
        agreement: share of the test images to which both give the same answer.
        newly_wrong: share that only the first model gets right.
        newly_right: share that only the second model gets right.
        examples: ``(E, ...)``, the single OOD images of the figure; None without any. Not in the JSON.
        notes: str each, what is missing or special about the numbers.
    """

    before: ModelReport
    after: ModelReport
    data_name: str
    class_names: tuple
    images: dict
    bins: int
    agreement: float
    newly_wrong: float
    newly_right: float
    examples: np.ndarray | None = dataclasses.field(repr=False)
    notes: tuple = ()

    @property
    def compression_ratio(self):
        """float32 bytes of the first model over the whole file of the second; None without a file."""
        return _ratio(self.before.footprint.float32_bytes, self.after.footprint.stored_bytes)

    @property
    def float32_ratio(self):
        """float32 bytes of the first model over those of the second; None if that one has no parameters.

        What surgery has cut: it leaves a plain network, without a packed file. Zeros and short codes do not count.
        """
        return _ratio(self.before.footprint.float32_bytes, self.after.footprint.float32_bytes)

    @property
    def speedup(self):
        """Multiply-accumulates of the first model over those of the second without its dead channels, or None.

        A theoretical one: what a machine gains depends on the machine.
        """
        return _ratio(self.before.footprint.multiply_accumulates, self.after.footprint.live_multiply_accumulates)

    @property
    def nonzero_speedup(self):
        """Multiply-accumulates of the first model over those of the second with weights that are not 0, or None.

        What a machine can gain that skips single weights; few do.
        """
        return _ratio(self.before.footprint.multiply_accumulates, self.after.footprint.nonzero_multiply_accumulates)

    def to_json(self):
        """All numbers and curves as one JSON string; the example images are left out."""
        names = ("compression_ratio", "float32_ratio", "speedup", "nonzero_speedup")
        ratios = {name: getattr(self, name) for name in names}
        record = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "examples"}
        return json.dumps({**ratios, **record})

    def save_figure(self, path):
        """Draw the report on one page.

        Reliability and confidence of both models, risk against coverage, and what both make of single OOD images.

        Args:
            path: the PNG file to write; its name ends in .png.
        """
        from scc_tf.plots import compression_page  # here, so that matplotlib is loaded only where it draws

        compression_page(self, path)

    def __str__(self):
        """A table: one row per number, before, after, and what has changed."""
        return table(self)


def _ratio(before, after):
    return before / after if before and after else None


def _plain(value):
    """What JSON can hold: dataclasses and named tuples as dictionaries, arrays as lists, their items as numbers."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else value
