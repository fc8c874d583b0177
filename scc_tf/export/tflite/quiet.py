"""Progress notes of other packages, held back."""

import contextlib
import logging

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet():
    """Within the block, no logger says anything below a warning; absl's and TensorFlow's are among them.

    Example:
        >>> with quiet():
        ...     logging.getLogger().isEnabledFor(logging.INFO)
        False
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)
