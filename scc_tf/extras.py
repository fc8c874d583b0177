"""Packages that only some functions need: each comes with an extra, and is imported when it is first used."""

import importlib

__all__ = ["load"]


def load(module, extra):
    """Import a module of a package that may not be installed.

    Args:
        module: its full name.
        extra: the extra of `scc_tf` that installs it.

    Returns:
        The module.

    Raises:
        ModuleNotFoundError: if the package is missing; the error names the extra.

    Example:
        >>> load("missing_package", "plots")
        Traceback (most recent call last):
        ModuleNotFoundError: Expected the package missing_package. Install it with: pip install "scc_tf[plots]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name.partition(".")[0]
        raise ModuleNotFoundError(
            f'Expected the package {missing}. Install it with: pip install "scc_tf[{extra}]"', name=missing
        ) from error
