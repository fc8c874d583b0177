"""``scc-tf compress | inspect | unpack``: the library without a line of Python."""

import sys
from pathlib import Path

import numpy as np
from absl import flags

import scc_tf
from scc_tf.arguments import check_path, received
from scc_tf.inspection import inspect_file, load_file

__all__ = ["main"]

USAGE = """scc-tf compress MODEL --data=FILE.npz --target_bytes=50000 --out=FILE.scc
scc-tf inspect FILE [--figure=FILE.png]
scc-tf unpack FILE.scc --to=FILE.keras|FILE.tflite

compress  makes a .keras or .h5 file small. The .npz has the arrays x and, if there are labels, y
          (or x_train and y_train; or one array for each input, by name, and y).
inspect   shows what is in a .scc, .keras, .h5 or .tflite file.
unpack    writes the network of a .scc file with stock Keras layers, or as TFLite.
"""


def main(argv=None):
    """Run a command.

    Args:
        argv: its words, the name of the program first; those of the process by default.

    Returns:
        0, or 2 after an error, which is one line on stderr.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("data", None, "arrays to train and measure on, .npz", flag_values=values)
    flags.DEFINE_list("out", [], "files to write: .scc, .keras, .tflite", flag_values=values)
    flags.DEFINE_integer("target_bytes", None, "largest .scc file", lower_bound=1, flag_values=values)
    flags.DEFINE_float("gamma", None, "price of a bit, in place of target_bytes", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("epochs", None, "passes over the data; 0 trains nothing", lower_bound=0, flag_values=values)
    flags.DEFINE_string("work_dir", None, "folder to go on from after an interruption", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of all draws", lower_bound=0, flag_values=values)
    flags.DEFINE_string("figure", None, "PNG file to draw the bits of each channel to", flag_values=values)
    flags.DEFINE_string("to", None, "file to write: .keras or .tflite", flag_values=values)
    try:
        words = values(sys.argv if argv is None else argv)[1:]
        if len(words) != 2 or words[0] not in COMMANDS:
            sys.stderr.write(f"{USAGE}\nFlags:\n{_help(values)}")
            return 2
        COMMANDS[words[0]](words[1], values)
    except (ValueError, OSError, ModuleNotFoundError, flags.Error) as error:
        sys.stderr.write(f"scc-tf: {error}\n")
        return 2
    return 0


def _help(values):
    return "".join(f"  --{name}: {values[name].help}\n" for name in values)


def _compress(path, values):
    if not values.data or not values.out:
        raise ValueError("Expected --data=FILE.npz and --out=FILE.scc. Received: one of them missing")
    for out in values.out:
        check_path("out", out)
        if Path(out).suffix not in (".scc", ".keras", ".tflite"):
            raise ValueError(f"Expected out to end in .scc, .keras or .tflite. {received('out', out)}")
    model = load_file(path, compile=True)
    settings = {name: values[name].value for name in ("target_bytes", "gamma", "epochs", "work_dir", "seed")}
    small = scc_tf.compress(model, _data(values.data, model), **settings)
    for out in values.out:
        written = small.export_tflite(out) if Path(out).suffix == ".tflite" else small.save(out)
        sys.stdout.write(f"{out}: {written or f'{Path(out).stat().st_size:,} bytes'}\n")
    sys.stdout.write(f"{small}\n")


def _data(path, model):
    """``(inputs, targets)`` or inputs of an ``.npz`` file."""
    with np.load(check_path("data", path, exists=True), allow_pickle=False) as file:
        arrays = dict(file)
    inputs = {tensor.name: arrays.get(tensor.name) for tensor in model.inputs}
    found = [inputs] if all(part is not None for part in inputs.values()) else []
    found += [arrays[name] for name in ("x", "x_train") if name in arrays]
    if not found:
        raise ValueError(
            f"Expected data to hold the array x, or {', '.join(sorted(inputs))}. Received: {path} with {sorted(arrays)}"
        )
    targets = [arrays[name] for name in ("y", "y_train") if name in arrays]
    return (found[0], targets[0]) if targets else found[0]


def _inspect(path, values):
    sys.stdout.write(f"{inspect_file(path)}\n")
    if values.figure:
        from scc_tf.plots import bits_per_layer

        bits_per_layer(load_file(path), values.figure)
        sys.stdout.write(f"{values.figure}: the bits of each channel\n")


def _unpack(path, values):
    suffix = Path(values.to or "").suffix
    if suffix not in (".keras", ".tflite"):
        raise ValueError(f"Expected to, a file that ends in .keras or .tflite. {received('to', values.to)}")
    model = load_file(path)
    if suffix == ".tflite":
        sys.stdout.write(f"{scc_tf.export_tflite(model, values.to)}\n")
    else:
        scc_tf.to_plain(model).save(values.to)
        sys.stdout.write(f"{values.to}: {Path(values.to).stat().st_size:,} bytes\n")


COMMANDS = {"compress": _compress, "inspect": _inspect, "unpack": _unpack}

if __name__ == "__main__":
    sys.exit(main())
