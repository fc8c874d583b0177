import pytest
from eager import run_eagerly

__all__ = ["run_eagerly"]


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """Where the stages of one test file are cached."""
    return tmp_path_factory.mktemp("work")
