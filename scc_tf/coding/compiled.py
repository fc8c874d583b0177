"""Compiled functions, and the same functions where ``NUMBA_DISABLE_JIT=1`` says that nothing is compiled.

Compiled, all is int64: a sum of comparisons counts, an unsigned byte grows, a product wraps around. Scalars of NumPy do
none of this in Python, so there every array is handed over as Python's own integers: slow, but the same bits.
"""

import functools
import hashlib
from pathlib import Path

import numba
import numpy as np

__all__ = ["compiled", "wrapped"]


def _digest():
    """Of all that may be compiled. Numba notices a change of the file of a function, not of those that it calls."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_VERSION = _digest()


def compiled(signature, **options):
    """`numba.njit`, or without the compiler a decorator that hands over Python's integers.

    What is cached carries a digest of all these files in its name: stale code would read files wrongly.
    """
    if numba.config.DISABLE_JIT:
        return _plain

    def compile_function(function):
        function.__qualname__ += f"_{_VERSION}"
        return numba.njit(signature, **options)(function)

    return compile_function


class _Flat(list):
    """An array ``(n,)``; lists are read twenty times as fast."""

    @property
    def size(self):
        return len(self)


class _Integers(np.ndarray):
    """An array of more axes whose single elements are Python's integers."""

    def __getitem__(self, place):
        found = super().__getitem__(place)
        return found.item() if isinstance(found, np.generic) else found


def _plain(function):
    @functools.wraps(function)
    def call(*arguments):
        flat = [(a, _Flat(a.tolist())) for a in arguments if type(a) is np.ndarray and a.ndim == 1]
        if not flat and not any(type(a) is np.ndarray for a in arguments):
            return function(*arguments)
        lists = {id(array): own for array, own in flat}
        handed = [lists.get(id(a), a.view(_Integers) if type(a) is np.ndarray else a) for a in arguments]
        result = function(*handed)
        for array, own in flat:
            if array.flags.writeable:
                array[:] = own
        return result

    return call


def wrapped(number):
    """An integer as 64 bits hold it, which compiled ones are by themselves."""
    return (number + (1 << 63) & (1 << 64) - 1) - (1 << 63)
