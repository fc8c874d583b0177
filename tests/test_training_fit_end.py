import keras
import pytest
import toy_problem as toy


class Ending(keras.callbacks.Callback):
    """Notes which of the two hooks at the end was called."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def on_train_end(self, logs=None):
        self.calls.append(f"{self.name} train")

    def on_fit_end(self):
        assert self.model.in_fit
        self.calls.append(f"{self.name} fit")


IN_FIT = {
    "list": lambda callbacks, model: {"callbacks": callbacks},
    "tuple": lambda callbacks, model: {"callbacks": tuple(callbacks)},
    "nested": lambda callbacks, model: {"callbacks": [callbacks[:1], [callbacks[1:]]]},
    "CallbackList": lambda callbacks, model: {"callbacks": keras.callbacks.CallbackList(callbacks, True, model=model)},
}


@pytest.mark.slow
@pytest.mark.parametrize("how", IN_FIT)
def test_on_fit_end_comes_after_every_on_train_end_and_the_last_callback_is_first(how):
    calls, model = [], toy.compressed()
    callbacks = [Ending("first", calls), keras.callbacks.Callback(), Ending("second", calls)]
    model.fit(*toy.points(), verbose=0, **IN_FIT[how](callbacks, model))
    assert calls == ["first train", "second train", "second fit", "first fit"]
    assert not model.in_fit


@pytest.mark.slow
def test_a_single_callback_and_callbacks_by_position():
    calls, model = [], toy.compressed()
    history = model.fit(*toy.points(), 48, 2, 0, Ending("only", calls))
    assert calls == ["only train", "only fit"]
    assert len(history.history["loss"]) == 2


@pytest.mark.slow
def test_a_fit_that_raises_has_no_end():
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    calls, model = [], toy.compressed()
    with pytest.raises(Stop):
        model.fit(
            *toy.points(), verbose=0, callbacks=[Ending("a", calls), keras.callbacks.LambdaCallback(on_epoch_end=stop)]
        )
    assert calls == []
    assert not model.in_fit
