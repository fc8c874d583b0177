"""Whether a TFLite file answers as its Keras model does, and what it weighs."""

import numpy as np

import scc_tf
from scc_tf.export import run_tflite


def measured(model, path, test, logits, **arguments):
    """Export a model, run the file with LiteRT on all test images, and print and return what was measured.

    Args:
        model: Keras model.
        path: `pathlib.Path` of the file.
        test: `scc_tf.datasets.Split`.
        logits: ``(N, K)``, of the Keras model on the same images.
        **arguments: of `scc_tf.export_tflite`.
    """
    report = scc_tf.export_tflite(model, path, **arguments)
    outputs = run_tflite(path, test.images)
    row = {
        "bytes": report.bytes,
        "of_float32": report.bytes / report.float32_bytes,
        "agreement": float((outputs.argmax(1) == logits.argmax(1)).mean()),
        "test_accuracy": float((outputs.argmax(1) == test.labels).mean()),
        "largest_difference": float(np.abs(outputs - logits).max()),
        "fallbacks": report.fallbacks,
    }
    print(
        "{:22} {bytes:>8,} B {of_float32:7.1%} of float32  same class {agreement:.2%}  test {test_accuracy:.2%}  "
        "largest difference {largest_difference:.2g}".format(path.stem, **row)
    )
    return row
