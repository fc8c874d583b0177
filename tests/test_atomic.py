import pytest

from scc_tf.atomic import atomic_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_has_succeeded(tmp_path):
    path = tmp_path / "new" / "folder" / "note.txt"
    with atomic_path(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["note.txt"]


def test_the_old_file_is_replaced_in_one_go(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with atomic_path(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_error_all_is_as_before(tmp_path, error):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as partial:
        partial.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_an_error_before_the_first_byte(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "note.txt"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "plain"])
def test_the_temporary_file_lies_beside_and_ends_the_same(tmp_path, name):
    with atomic_path(str(tmp_path / name)) as partial:
        assert partial.parent == tmp_path
        assert partial.name != name
        assert partial.name.startswith(".")
        assert partial.suffixes[-1:] == (tmp_path / name).suffixes[-1:] or "." not in name
        partial.touch()
    assert names(tmp_path) == [name]
