"""What the exporter wrote, for people and for records."""

import dataclasses

from scc_tf.export.tflite.answers import Likeness
from scc_tf.reports import Report, Table
from scc_tf.safety.contract import verdict

__all__ = ["StoredKernel", "TFLiteReport"]


@dataclasses.dataclass(frozen=True)
class StoredKernel:
    """One constant filter of the file.

    Attributes:
        layer: the layer, with the kernel's name where it has several; the tensor's name if it is of no known layer.
        op: TFLite operator that takes it.
        type: how it is stored: ``"int4"``, ``"int8"``, ``"float16"`` or ``"float32"``.
        compute: ``"integer"`` if the operator takes the integers, ``"float"`` if they are unpacked first.
        channels: output channels.
        weights: number of weights.
        bytes: length of the stored weights, without scales and zero points.
    """

    layer: str
    op: str
    type: str
    compute: str
    channels: int
    weights: int
    bytes: int


@dataclasses.dataclass(frozen=True, repr=False)
class TFLiteReport(Report):
    """What `export_tflite` wrote.

    Attributes:
        path: the file.
        compute: as asked for.
        storage: as asked for.
        bytes: length of the file.
        float32_bytes: length of the same model with float32 weights and activations, equally stripped.
        kernels: one `StoredKernel` per constant filter.
        fallbacks: pairs ``(layer or tensor, reason)`` for what is not stored or computed as asked for.
        agreement: share of the classes, in [0, 1], that the file, run by LiteRT, and Keras have in common, in the
            worst of the outputs, of every pixel or step where there are several; None if no output is of classes.
        error: root mean square of the differences between their answers, over the standard deviation of the answers,
            in the worst of the outputs; NaN if they cannot be compared, as those of a model that draws numbers.
        compared_on: the inputs that both were asked.
        safe: whether the file keeps the safety contract of the model (`scc_tf.safety.contract`); None without one.
        safety_accuracy: of the file on the safety set, a fraction.
        safety_drop: how far that is below the reference, a fraction.
    """

    path: str
    compute: str
    storage: str
    bytes: int
    float32_bytes: int
    kernels: tuple
    fallbacks: tuple
    agreement: float | None = None
    error: float = float("nan")
    compared_on: str = ""
    safe: bool | None = None
    safety_accuracy: float | None = None
    safety_drop: float | None = None

    def parts(self):
        """A table with one row per filter, the length of the file, how it answers, and the fallbacks."""
        head = ("kernel", "operator", "type", "compute", "channels", "weights", "bytes")
        rows = [
            (k.layer[:27], k.op, k.type, k.compute, k.channels, f"{k.weights:,}", f"{k.bytes:,}") for k in self.kernels
        ]
        ratio = self.float32_bytes / self.bytes
        yield Table("{:<28}{:<20}{:>9}{:>9}{:>10}{:>11}{:>11}", rows, head)
        yield f"file: {self.bytes:,} bytes; as float32: {self.float32_bytes:,} bytes ({ratio:.2f}x)"
        yield f"{Likeness(self.error, self.agreement)}, on {self.compared_on}"
        if self.safe is not None:
            yield verdict(self)
        yield from (f"fallback {name}: {reason}" for name, reason in self.fallbacks)
