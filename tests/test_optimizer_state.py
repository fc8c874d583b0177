import types

import keras
import numpy as np
import pytest
import toy_problem as toy

from scc_tf.optimizer_state import carry_optimizer, optimizer_slots

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam

SLOTS = {
    "Adam": (lambda: Adam(amsgrad=True), 3),
    "AdamW": (lambda: keras.optimizers.AdamW(), 2),
    "SGD": (lambda: SGD(momentum=0.9), 1),
    "SGD without momentum": (lambda: SGD(), 0),
    "RMSprop": (lambda: keras.optimizers.RMSprop(momentum=0.9, centered=True), 3),
    "Lion": (lambda: keras.optimizers.Lion(), 1),
    "LossScaleOptimizer": (lambda: keras.optimizers.LossScaleOptimizer(Adam()), 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOTS)
def test_optimizer_slots_are_those_of_one_variable(name):
    make, count = SLOTS[name]
    model = toy.compressed(format_optimizer=make(), optimizer=make())
    model.train_on_batch(*toy.points())
    for optimizer, variable in (
        (model.format_optimizer, model.get_layer("hidden").bit_depth),
        (model.format_optimizer, model.get_layer("head").exponent),
        (model.optimizer, model.get_layer("head").kernel),
    ):
        slots = optimizer_slots(optimizer, variable)
        assert len(slots) == count
        stem = variable.path.replace("/", "_")
        assert all(slot.name.startswith(stem) for slot in slots)
        assert all(slot.shape == variable.shape for slot in slots)
    assert optimizer_slots(model.optimizer, model.get_layer("hidden").bit_depth) == []


# Taken along ---------------------------------------------------------------------------------------------------------


def built(make, *shapes):
    """An optimizer after two steps for fresh variables of these shapes: ``(optimizer, variables)``."""
    variables = [keras.Variable(np.full(shape, 0.5, "float32")) for shape in shapes]
    optimizer = make()
    for size in (1.0, 2.0):
        optimizer.apply([size * keras.ops.ones(shape) for shape in shapes], variables)
    return optimizer, variables


class FirstRows:
    """Keeps the first two rows of what it is given."""

    def __init__(self, old, new):
        self.old, self.new = old, new

    def __call__(self, values):
        return values[:2]


@pytest.mark.parametrize("name", SLOTS)
def test_slots_are_cut_and_scalars_copied(name):
    make, count = SLOTS[name]
    optimizer, (large, small) = built(make, (4, 3), (5,))
    optimizer.learning_rate = 0.125
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in optimizer.variables]
    new = [keras.Variable(np.zeros((2, 3), "float32")), keras.Variable(np.zeros((2,), "float32"))]
    cuts = [FirstRows(old, fresh) for old, fresh in zip((large, small), new, strict=True)]
    carried = carry_optimizer(optimizer, new[::-1], cuts)  # in whatever order
    assert type(carried) is type(optimizer)
    assert int(carried.iterations) == 2
    assert float(carried.learning_rate) == 0.125
    for cut in cuts:
        slots = optimizer_slots(carried, cut.new)
        assert len(slots) == count
        for one, other in zip(optimizer_slots(optimizer, cut.old), slots, strict=True):
            assert np.any(other)
            np.testing.assert_array_equal(other, keras.ops.convert_to_numpy(one)[:2])
    for variable, values in zip(optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), values)


def test_a_schedule_goes_on():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    optimizer, (old,) = built(lambda: SGD(schedule), (3,))
    new = keras.Variable(np.zeros(2, "float32"))
    carried = carry_optimizer(optimizer, [new], [FirstRows(old, new)])
    assert float(carried.learning_rate) == float(optimizer.learning_rate) == pytest.approx(0.05)


def test_what_has_no_past_starts_anew():
    optimizer, (old,) = built(Adam, (4, 3))
    kept, added, unknown = (keras.Variable(np.zeros((2, 3), "float32")) for _ in range(3))
    stranger = keras.Variable(np.zeros((4, 3), "float32"))
    cuts = [FirstRows(old, kept), FirstRows(None, added), FirstRows(stranger, types.SimpleNamespace())]
    carried = carry_optimizer(optimizer, [kept, added], cuts)
    assert all(np.any(slot) for slot in optimizer_slots(carried, kept))
    assert not any(np.any(slot) for slot in optimizer_slots(carried, added))
    assert optimizer_slots(carried, unknown) == []


def test_slots_of_another_shape_start_anew():
    optimizer, (old,) = built(keras.optimizers.Adafactor, (4, 3))
    new = keras.Variable(np.zeros((2, 3), "float32"))
    carried = carry_optimizer(optimizer, [new], [FirstRows(old, new)])
    assert int(carried.iterations) == 2
    carried.apply([keras.ops.ones((2, 3))], [new])
