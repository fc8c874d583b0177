"""Files that are either whole or not there."""

import contextlib
import os
from pathlib import Path

__all__ = ["atomic_path"]


@contextlib.contextmanager
def atomic_path(path):
    """Yields a temporary path beside ``path`` to write to; it takes the place of ``path`` when the block has succeeded.

    The folder is made if need be. The temporary name ends as ``path`` does: many writers look at suffixes.

    Example:
        >>> with atomic_path("/tmp/scc_tf_note.txt") as partial:
        ...     _ = partial.write_text("whole")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-partial-{path.name}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())  # before its name is that of a whole file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
