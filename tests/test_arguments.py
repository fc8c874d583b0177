import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from scc_tf.arguments import check_array, check_choice, check_count, check_number, check_path

BAD_NUMBERS = ["1", None, [1], np.nan, np.inf, -1, 2, True, np.ones(3), {}, 1j]


def refused(name, check, *args, **kwargs):
    """The check refuses in one line that names the argument and says what was received."""
    with pytest.raises(ValueError, match=rf"^Expected {name} .*Received: {name}=") as caught:
        check(name, *args, **kwargs)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
def test_what_is_no_number_in_range_is_refused(value):
    refused("share", check_number, value, 0, 1)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), np.int64(1), tf.constant(0.25), tf.Variable(0.25)])
def test_numbers_of_all_kinds_are_numbers(value):
    assert check_number("share", value, 0, 1) == float(value)


def test_open_ends():
    assert check_number("bits", 24, above=0, high=24) == 24.0
    refused("bits", check_number, 0, above=0, high=24)
    refused("momentum", check_number, 1, 0, below=1)


@pytest.mark.parametrize("value", [1.0, "3", None, True, 0, -2, np.float64(2), [2]], ids=repr)
def test_what_is_no_count_is_refused(value):
    refused("every", check_count, value)


def test_counts():
    assert [check_count("every", value) for value in (1, np.int32(7))] == [1, 7]
    refused("bits", check_count, 11, 0, 10)


@pytest.mark.parametrize("value", ["c", None, 3, ["a"]], ids=repr)
def test_choices(value):
    assert check_choice("mode", "a", ("a", "b")) == "a"
    refused("mode", check_choice, value, ("a", "b"))


@pytest.mark.parametrize(
    "values",
    [
        None,
        "x",
        np.array(["a"]),
        [[1], [1, 2]],
        np.zeros((0, 3)),
        np.array([np.nan]),
        np.array([1.0, -np.inf]),
        3.0,
        {},
    ],
    ids=lambda values: re.sub(r"\s+", " ", repr(values)),
)
def test_what_is_no_array_of_numbers_is_refused(values):
    refused("images", check_array, values)


def test_shapes():
    array = np.zeros((4, 2))
    assert check_array("images", array, shape=(None, 2)) is array
    refused("images", check_array, array, shape=(None, 3))
    refused("images", check_array, array, shape=(None, 2, 1))


def test_a_folder_is_no_file(tmp_path):
    refused("path", check_path, tmp_path)
    refused("path", check_path, None)
    assert check_path("path", str(tmp_path / "new" / "file")) == Path(tmp_path / "new" / "file")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    refused("path", check_path, tmp_path / "file" / "below")


def test_a_file_that_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there"):
        check_path("path", tmp_path / "there", exists=True)
