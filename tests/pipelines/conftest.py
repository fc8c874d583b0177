import functools

import keras
import pytest


@pytest.fixture(autouse=True, scope="module")
def _eager():
    """The trainings here have a few steps of a tiny network: tracing and compiling would take most of the time."""
    original = keras.Model.compile

    @functools.wraps(original)
    def compile_eagerly(*arguments, **settings):
        return original(*arguments, **{"run_eagerly": True, **settings})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras.src.trainers.trainer.model_supports_jit", lambda model: False)
        patch.setattr(keras.Model, "compile", compile_eagerly)
        yield


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """Where the stages of one test file are cached."""
    return tmp_path_factory.mktemp("work")
