"""Write the packed networks of the repository anew, after a change of the format.

python benchmarks/repack.py --keras_dir=FOLDER

Once, with the version of the library that reads the files as they are, ``scc_tf.load_packed(file)`` each and save it as
``FOLDER/name.keras``. Then, with the version that is to write them, this script. Each network is packed and read back;
whatever differs from the ``.keras`` file in a bit is an error. The table says what each file took before and takes
now, and what gzip and xz make of it; the cards beside the files get the new sizes.
"""

import dataclasses
import gzip
import json
import lzma
from pathlib import Path

import keras
import numpy as np
from absl import app, flags

import scc_tf
from scc_tf.atomic import atomic_path

ROOT = Path(__file__).resolve().parents[1]

flags.DEFINE_string("keras_dir", None, "folder of the networks as Keras saves them", required=True)
flags.DEFINE_string("model_dir", str(ROOT / "saved_models"), "folder of packed networks")
flags.DEFINE_string("out", str(ROOT / "experiments" / "results" / "repacked.json"), "file of the record")


def differences(model, other):
    """How many weights differ: quantized kernels, and all other variables but bit depths and exponents."""
    count = 0
    for ours, theirs in zip(keras_layers(model), keras_layers(other), strict=True):
        own = set()
        for name in getattr(ours, "kernel_names", ()) if hasattr(ours, "formats") else ():
            pairs = (keras.ops.convert_to_numpy(layer.quantized(name)) for layer in (ours, theirs))
            count += int(np.count_nonzero(np.not_equal(*pairs)))
            fmt = ours.format_of(name)
            own |= {id(getattr(ours, name)), id(fmt.bit_depth), id(fmt.exponent)}
        for mine, its in zip(ours.weights, theirs.weights, strict=True):
            if id(mine) not in own:
                count += int(np.count_nonzero(keras.ops.convert_to_numpy(mine) != keras.ops.convert_to_numpy(its)))
    return count


def keras_layers(model):
    """All layers that hold weights of their own."""
    return [layer for layer in model.layers if layer.weights]


def repacked(path, model):
    """Write one file; returns a row of the table."""
    before, report = path.stat().st_size, scc_tf.save_packed(model, path)
    if wrong := differences(model, scc_tf.load_packed(path)):
        raise ValueError(f"Expected a file of the same weights. Received: {path} with {wrong} others")
    card = path.with_suffix(".json")
    content = json.loads(card.read_text())
    sizes = {key: value for key, value in dataclasses.asdict(report).items() if key in content or key == "stored_bytes"}
    content.pop("table_bytes", None)
    card.write_text(json.dumps(content | sizes, indent=1))
    data = path.read_bytes()
    return {
        "bytes_before": before,
        "bytes": len(data),
        "gzip_bytes": len(gzip.compress(data, 9, mtime=0)),
        "xz_bytes": len(lzma.compress(data, preset=9)),
        "probe_error": report.probe_error,
    }


def main(argv):
    """Write all files, print the table, and write the record."""
    del argv
    values = flags.FLAGS
    rows = {}
    print(f"{'':<24}{'before':>10}{'now':>10}{'gzip':>10}{'xz':>10}")
    for path in sorted(Path(values.model_dir).glob("*.scc")):
        rows[path.stem] = row = repacked(path, keras.models.load_model(Path(values.keras_dir) / f"{path.stem}.keras"))
        cells = [row[key] for key in ("bytes_before", "bytes", "gzip_bytes", "xz_bytes")]
        print(f"{path.stem:<24}" + "".join(f"{cell:>10,}" for cell in cells))
    record = {"command": "python benchmarks/repack.py --keras_dir=FOLDER", "rows": rows}
    with atomic_path(values.out) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")
    print(f"Record: {values.out}")


if __name__ == "__main__":
    app.run(main)
