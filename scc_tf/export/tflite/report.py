"""What the exporter wrote, for people and for records."""

import dataclasses
import json

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


@dataclasses.dataclass(frozen=True)
class TFLiteReport:
    """What `export_tflite` wrote.

    Attributes:
        path: the file.
        compute: as asked for.
        storage: as asked for.
        bytes: length of the file.
        float32_bytes: length of the same model with float32 weights and activations, equally stripped.
        kernels: one `StoredKernel` per constant filter.
        fallbacks: pairs ``(layer or tensor, reason)`` for what is not stored or computed as asked for.
    """

    path: str
    compute: str
    storage: str
    bytes: int
    float32_bytes: int
    kernels: tuple
    fallbacks: tuple

    def to_json(self):
        """All of it as one JSON string."""
        return json.dumps(dataclasses.asdict(self))

    def __str__(self):
        """A table with one row per filter, the length of the file, and the fallbacks."""
        columns = "{:<28}{:<20}{:>9}{:>9}{:>10}{:>11}{:>11}"
        lines = [columns.format("kernel", "operator", "type", "compute", "channels", "weights", "bytes")]
        lines += [
            columns.format(k.layer[:27], k.op, k.type, k.compute, k.channels, f"{k.weights:,}", f"{k.bytes:,}")
            for k in self.kernels
        ]
        ratio = self.float32_bytes / self.bytes
        lines.append(f"file: {self.bytes:,} bytes; as float32: {self.float32_bytes:,} bytes ({ratio:.2f}x)")
        return "\n".join(lines + [f"fallback {name}: {reason}" for name, reason in self.fallbacks])
