"""What public functions accept: checks that name the argument and say what was received, in one line.

Every check raises ``ValueError``, or returns the value as the caller will use it: a float, an int, a path, an array.
"""

import math
import numbers
import operator
import os
from pathlib import Path

import numpy as np

__all__ = [
    "check_array",
    "check_choice",
    "check_count",
    "check_finite",
    "check_folder",
    "check_number",
    "check_path",
    "received",
]

_LONGEST = 120  # characters of a value in an error


def received(name, value):
    """``Received: name=value`` in one line: arrays by shape and type, long values cut."""
    if type(value).__module__.partition(".")[0] == "tf_keras":
        return f"Received: {name} of tf_keras (save it as old.h5, then take keras.models.load_model('old.h5'))"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        text = f"{type(value).__name__} with shape={tuple(value.shape)}, dtype={value.dtype}"
    else:
        text = " ".join(repr(value).split())
    return f"Received: {name}={text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}"


def check_number(name, value, low=-math.inf, high=math.inf, *, above=None, below=None):
    """A finite real number as a float: in ``[low, high]``, above ``above`` and below ``below`` where those are given.

    Strings, None, booleans and NaN are no numbers; a scalar of NumPy or TensorFlow is one.

    Example:
        >>> check_number("threshold", 1, 0, 1)
        1.0
    """
    number = _real(value)
    fits = number is not None and math.isfinite(number) and low <= number <= high
    if not fits or (above is not None and number <= above) or (below is not None and number >= below):
        left = f"({above:g}" if above is not None else f"[{low:g}" if low > -math.inf else "(-inf"
        right = f"{below:g})" if below is not None else f"{high:g}]" if high < math.inf else "inf)"
        raise ValueError(f"Expected {name} to be a number in {left}, {right}. {received(name, value)}")
    return number


def check_count(name, value, least=1, most=None):
    """A whole number from ``least`` to ``most`` as an int; a float is none, not even 2.0."""
    whole = _whole(value)
    if whole is None or whole < least or (most is not None and whole > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"Expected {name} to be a whole number {bounds}. {received(name, value)}")
    return whole


def check_choice(name, value, choices):
    """One of ``choices``, which are strings."""
    if not isinstance(value, str) or value not in tuple(choices):
        raise ValueError(f"Expected {name} to be one of {tuple(choices)}. {received(name, value)}")
    return value


def check_array(name, values, *, least=1, dtypes="fiub", shape=None):
    """A NumPy array of finite numbers, with at least ``least`` rows; ``values`` itself if it is one.

    Args:
        name: of the argument, for the error.
        values: array, tensor or nested list.
        least: fewest entries along the first axis.
        dtypes: kinds of type that are allowed, letters of ``numpy.dtype.kind``.
        shape: sizes that the array must have, the first one of the rows included; None leaves a size open.
    """
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
    except Exception as error:  # ragged lists and foreign objects raise unrelated types
        raise ValueError(f"Expected {name} to be an array of numbers. {received(name, values)}") from error
    if array.dtype.kind not in dtypes or array.ndim < 1:
        raise ValueError(f"Expected {name} to be an array of numbers. {received(name, values)}")
    if len(array) < least:
        count = "one example" if least == 1 else f"{least} examples"
        raise ValueError(f"Expected {name} of at least {count}. {received(name, array)}")
    if shape is not None and not (
        array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    ):
        raise ValueError(f"Expected {name} of shape {tuple(shape)}. {received(name, array)}")
    return check_finite(name, array)


def check_finite(name, array):
    """An array without NaN and infinities."""
    if array.dtype.kind in "fc" and not (finite := np.isfinite(array)).all():
        count = np.sum(~finite)
        raise ValueError(f"Expected {name} to be finite. {received(name, array)}, with {count} that are not")
    return array


def check_path(name, path, *, exists=False):
    """The path of a file, which may be made later unless it ``exists``: no folder, and in no file."""
    try:
        path = Path(path)
    except TypeError as error:
        raise ValueError(f"Expected {name} to be the path of a file. {received(name, path)}") from error
    if path.is_dir():
        raise ValueError(f"Expected {name} to be the path of a file. Received: {name}={str(path)!r}, a folder")
    if exists and not path.exists():
        raise FileNotFoundError(f"Expected {name} to be an existing file. Received: {name}={str(path)!r}")
    if blocking := _file_in(path.parents):
        raise ValueError(f"Expected {name} in a folder. Received: {name}={str(path)!r}; {blocking!r} is a file")
    return path


def check_folder(name, path):
    """The path of a folder, which may be made later: no file, and in no file."""
    if path == "" or not isinstance(path, str | os.PathLike):
        raise ValueError(f"Expected {name} to be the path of a folder. {received(name, path)}")
    path = Path(path)
    if blocking := _file_in((path, *path.parents)):
        raise ValueError(f"Expected {name} to be a folder. Received: {name}={str(path)!r}; {blocking!r} is a file")
    return path


def _file_in(paths):
    return next((str(path) for path in paths if path.exists() and not path.is_dir()), None)


def _real(value):
    """A float, or None for what is no real number."""
    if isinstance(value, bool | np.bool_ | str | bytes):
        return None
    if isinstance(value, numbers.Real):
        return float(value)
    if getattr(value, "shape", None) == () and hasattr(value, "dtype"):  # a scalar tensor or array
        array = np.asarray(value)
        return float(array) if array.dtype.kind in "fiu" or array.dtype.name == "bfloat16" else None
    return None


def _whole(value):
    """An int, or None for what is no whole number."""
    if isinstance(value, bool | np.bool_) or str(getattr(value, "dtype", "")) == "bool":
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
