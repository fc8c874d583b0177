"""Frozen: if this fails, files that were written before can no longer be read."""

import zlib

import keras
import numpy as np
import pytest
from golden_models import FOLDER, MODELS

from scc_tf.export import packed_bytes
from scc_tf.export.packed import _dictionary, _stored, _unpack


def test_the_dictionary_is_what_it_was():
    assert (len(_dictionary()), zlib.crc32(_dictionary())) == (43373, 512200936)


@pytest.mark.parametrize("name", MODELS)
def test_files_of_this_version_are_read_and_written_as_they_were(name):
    data, model = (FOLDER / f"{name}.scc").read_bytes(), MODELS[name]()
    assert packed_bytes(model) == data
    for ours, theirs in zip(_stored(model), _stored(_unpack(data, 10_000)), strict=True):
        ours, theirs = keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    with np.load(FOLDER / "arrays.npz") as arrays:  # what the numbers are, whatever writes them
        stored = [keras.ops.convert_to_numpy(array).astype("float64") for array in _stored(_unpack(data, 10_000))]
        for place, array in enumerate(stored):
            np.testing.assert_array_equal(arrays[f"{name}_{place}"], array)
