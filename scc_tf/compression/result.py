"""What `scc_tf.compress` returns: the small model, what became of it, and the ways out."""

import dataclasses
import functools
import typing
from pathlib import Path
from typing import Any

from scc_tf.arguments import received
from scc_tf.atomic import atomic_path
from scc_tf.conversion import to_plain
from scc_tf.export import export_tflite, save_packed
from scc_tf.reports import Report, Table

__all__ = ["Compressed"]


@dataclasses.dataclass(frozen=True, repr=False)
class Compressed(Report):
    """A compressed model, and what became of it. ``print`` it for a table.

    Attributes:
        compressed: the finished `scc_tf.SelfCompressingModel`, whose layers hold the integers of the files.
        stored_bytes: length of the ``.scc`` file.
        target_bytes: what was asked for, or None.
        float32_bytes: of the network that was handed in, 4 for each parameter.
        gzip_bytes: ``(before, after)``: the float32 weights, and the ``.scc`` file, under gzip.
        scores: ``{name: (before, after)}`` on the validation data: the loss, and the accuracy of a classifier.
        same_answers: share of the validation examples that both networks put into the same class; None for others.
        distance: how far the answers are from those of the network that was handed in, in [0, 1].
        safety: ``(before, after)`` accuracy on the safety set, or None.
        safe: whether the contract is kept; None without one.
        operations: ``(before, after)``: multiply-accumulates for one example; None where a side of the input is open.
        covered: share of the parameters that are in compressed layers.
        skipped: ``{layer name: (parameters, reason)}`` of layers with a kernel that are not compressed.
        notes: what else there is to know, a line each.
    """

    compressed: typing.Any = dataclasses.field(repr=False)
    stored_bytes: int
    target_bytes: int | None
    float32_bytes: int
    gzip_bytes: tuple
    scores: dict
    same_answers: float | None
    distance: float
    safety: tuple | None
    safe: bool | None
    operations: tuple
    covered: float
    skipped: dict
    notes: tuple = ()

    @functools.cached_property
    def model(self):
        """The same network of stock Keras layers, with the quantized weights in them."""
        return to_plain(self.compressed)

    def save(self, path: str | Path) -> Any:
        """Write the network to a file: ``.scc``, or ``.keras`` with stock layers.

        Args:
            path: where to; the suffix says what.

        Returns:
            `scc_tf.PackedReport` of a ``.scc`` file; None for ``.keras``.

        Raises:
            ValueError: if the suffix is another one.
        """
        suffix = Path(path).suffix
        if suffix == ".scc":
            return save_packed(self.compressed, path)
        if suffix != ".keras":
            raise ValueError(
                f"Expected path to end in .scc or .keras; export_tflite writes .tflite. {received('path', path)}"
            )
        with atomic_path(path) as partial:
            self.model.save(partial)
        return None

    def export_tflite(self, path: str | Path, **options) -> Any:
        """Write the network to a ``.tflite`` file; see `scc_tf.export_tflite` for the options and what is returned."""
        return export_tflite(self.compressed, path, **options)

    def parts(self):
        """How much smaller; the table; a line for each layer that was skipped, and each note."""
        yield f"{self.float32_bytes / self.stored_bytes:.1f} times smaller" + self._target()
        yield Table("{:<22}{:>22}{:>22}", list(self._rows()), ("", "before", "after"))
        for name, (count, reason) in self.skipped.items():
            yield f"not compressed: {name}, {count:,} parameters: {reason}"
        yield from self.notes

    def _rows(self):
        yield "bytes", f"{self.float32_bytes:,} (float32)", f"{self.stored_bytes:,} (.scc)"
        yield "bytes under gzip", *(f"{size:,}" for size in self.gzip_bytes)
        for name, scores in self.scores.items():
            style = "{:.2%}" if name == "accuracy" else "{:.4g}"
            yield name, *map(style.format, scores)
        if self.same_answers is not None:
            yield "same class as before", "", f"{self.same_answers:.2%}"
        yield "answers off by", "", f"{self.distance:.2%}"
        if self.safety:
            kept = "" if self.safe is None else " (kept)" if self.safe else " (BROKEN)"
            yield "safety accuracy", f"{self.safety[0]:.2%}", f"{self.safety[1]:.2%}{kept}"
        yield "multiply-accumulates", *("unknown" if count is None else f"{count:,}" for count in self.operations)
        yield "parameters covered", "", f"{self.covered:.1%}"

    def _target(self):
        if self.target_bytes is None:
            return ""
        if self.stored_bytes <= self.target_bytes:
            return f", within the target of {self.target_bytes:,} bytes"
        return f"; the target of {self.target_bytes:,} bytes is MISSED"
