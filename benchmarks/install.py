"""How much does an installation bring along?

python benchmarks/install.py
python benchmarks/install.py --source=../before --extras=core --name=before

Builds the wheel, installs it in a fresh environment outside the repository, once for each set of extras, imports the
package there, and counts. Packages are counted without pip and setuptools; megabytes are those of all files.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).resolve().parents[1]

flags.DEFINE_string("source", str(ROOT), "checkout to install")
flags.DEFINE_list("extras", ["core", "all", "test"], "sets of extras; core: none")
flags.DEFINE_string("name", "now", "key of the measurements in the record")
flags.DEFINE_string("out", str(ROOT / "experiments" / "results" / "install.json"), "file of the record")


def measure(wheel, extra, folder):
    """What an installation with one set of extras holds, and how long it takes."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    started = time.monotonic()
    wanted = f"{wheel}[{extra}]" if extra != "core" else str(wheel)
    subprocess.run([python, "-m", "pip", "install", "--quiet", wanted], check=True)
    seconds = time.monotonic() - started
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True)
    names = {package["name"] for package in json.loads(listed.stdout)} - {"pip", "setuptools"}
    site = next((folder / "lib").glob("python*/site-packages"))
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file() and not path.is_symlink()}
    subprocess.run([python, "-c", "import scc_tf"], check=True, capture_output=True, cwd=folder)
    tensorflow = sum(size for path, size in sizes.items() if path.relative_to(site).parts[0] == "tensorflow")
    return {
        "packages": len(names),
        "megabytes": round(sum(sizes.values()) / 1e6),
        "of_which_tensorflow": round(tensorflow / 1e6),
        "seconds": round(seconds),
    }


def main(_):
    """Measure, print and record."""
    out = Path(flags.FLAGS.out)
    record = json.loads(out.read_text()) if out.exists() else {"python": platform.python_version()}
    with tempfile.TemporaryDirectory() as scratch:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch]
        subprocess.run([*build, flags.FLAGS.source], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        for extra in flags.FLAGS.extras:
            found = measure(wheel, extra, Path(scratch) / extra)
            record.setdefault(flags.FLAGS.name, {})[extra] = found
            print(flags.FLAGS.name, extra, found, flush=True)
            out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
