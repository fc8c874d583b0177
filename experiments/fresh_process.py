"""Score a model as a stranger would: write its file, and let another process decode it."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import scc_tf

SCRIPT = Path(__file__).resolve().parent / "score_packed.py"


def scored(model, data_dir=""):
    """``{"stored_bytes": …, "test_error": …}`` of a model's packed file, the error in per cent."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.scc"
        scc_tf.save_packed(model, path)
        command = [sys.executable, str(SCRIPT), str(path), f"--data_dir={data_dir}"]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return json.loads(lines[-1])
