"""Run a notebook's cells in this process, and keep what they print.

python docs/run_notebook.py docs/tutorial.ipynb
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path


def run(notebook):
    """Run all code cells in order, in a scratch folder; each then holds what it has printed.

    Args:
        notebook: the notebook as its JSON says; changed in place.
    """
    names, number = {"__name__": "__main__"}, 0
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    number += 1
                    printed = io.StringIO()
                    with contextlib.redirect_stdout(printed):
                        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
                    lines = printed.getvalue().splitlines(keepends=True)
                    output = {"name": "stdout", "output_type": "stream", "text": lines}
                    cell.update(execution_count=number, outputs=[output] if lines else [])
        finally:
            os.chdir(before)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    content = json.loads(path.read_text())
    run(content)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
