"""A fixture for tests whose trainings have a few steps of a tiny network."""

import functools

import pytest
from keras.src.trainers import trainer


@pytest.fixture(autouse=True, scope="module")
def run_eagerly():
    """Tracing and compiling would take most of the time."""
    compile_method = trainer.Trainer.compile

    @functools.wraps(compile_method)
    def compile_eagerly(*arguments, **settings):
        return compile_method(*arguments, **{"run_eagerly": True, **settings})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "model_supports_jit", lambda model: False)
        patch.setattr(trainer.Trainer, "compile", compile_eagerly)
        yield
