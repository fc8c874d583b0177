import types

import keras
import numpy as np
import pytest
import toy_problem as toy

from scc_tf.optimizer_state import carry_optimizer, move_optimizer, optimizer_parts, optimizer_slots

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
    """Keeps the first two rows."""

    def __init__(self, old, new):
        self.old, self.new = old, new
        self.places = None if old is None else np.arange(np.prod(old.shape)).reshape(old.shape)[:2]


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


# Taken along in place: every optimizer of Keras -------------------------------------------------------------------------

WRAPPERS = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}
EVERY = {
    name: lambda make=make: make(0.01)
    for name, make in vars(keras.optimizers).items()
    if isinstance(make, type) and issubclass(make, keras.optimizers.Optimizer) and name not in WRAPPERS
}
EVERY["momentum"] = lambda: SGD(0.01, momentum=0.9, nesterov=True, clipnorm=0.5)
EVERY["centered"] = lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True)
EVERY["accumulation"] = lambda: Adam(0.01, amsgrad=True, gradient_accumulation_steps=3)
EVERY["schedule"] = lambda: Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), global_clipnorm=1.0)
EVERY["function"] = lambda: SGD(lambda: 0.01, momentum=0.9)
if not hasattr(
    keras.optimizers, "MultiOptimizer"
):  # Keras 3.12: none, and its Muon asks variables of TensorFlow for a path
    EVERY.pop("Muon", None)
else:
    EVERY["several"] = lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(Adam(0.01), {".*first": SGD(0.01, momentum=0.9)})
    )
SHAPES = {"first": (2, 2, 4, 3), "second": (4, 4), "third": (5,), "fourth": ()}
KEPT = {"first": (slice(None), slice(None), [0, 3], [1, 2]), "second": ([0, 2], [1, 2, 3]), "third": [4], "fourth": ()}


class Part:
    """Keeps the parts of variables that `KEPT` tells, or puts them back."""

    def __init__(self, old, new, grown=False):
        self.old, self.new = old, new
        large = new if grown else old
        places = np.arange(np.prod(large.shape, dtype=int)).reshape(large.shape)
        kept = self.kept = taken(large.name, places)
        self.places = kept
        if grown:
            self.places = np.full(np.prod(large.shape, dtype=int), -1)
            self.places[kept.ravel()] = np.arange(kept.size)
            self.places = self.places.reshape(large.shape)


def taken(name, values):
    """The part of an array that has the axes of a variable, or lacks one of the last two."""
    kept = KEPT[name]
    if not isinstance(kept, tuple):
        return values[kept]
    for axis, some in enumerate(kept):
        values = values[(slice(None),) * axis + (some,)]
    return values


def variables_of(shapes):
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=shape).astype("float32"), name=name) for name, shape in shapes.items()]


def scalars(optimizer):
    return [v.numpy() for part in optimizer_parts(optimizer) for v in part._variables if v.shape == ()]


def stepped(optimizer, variables, count=2):
    rng = np.random.default_rng(1)
    for _ in range(count):
        optimizer.apply(
            [keras.ops.convert_to_tensor(rng.normal(size=v.shape), "float32") for v in variables], variables
        )
    return optimizer


@pytest.mark.parametrize("scaled", [False, True], ids=["alone", "scaled"])
@pytest.mark.parametrize("name", EVERY)
def test_an_optimizer_goes_on_with_other_variables(name, scaled):
    optimizer = EVERY[name]()
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0, dynamic_growth_steps=3)
    large = variables_of(SHAPES)
    stepped(optimizer, large)
    slots = [[s.numpy() for s in optimizer_slots(optimizer, v)] for v in large]
    before, count, rate = scalars(optimizer), len(optimizer.variables), vars(optimizer)["_learning_rate"]
    small = variables_of({n: taken(n, np.empty(shape)).shape for n, shape in SHAPES.items()})

    move_optimizer(optimizer, small, [Part(old, new) for old, new in zip(large, small, strict=True)])
    assert scalars(optimizer) == before
    assert (len(optimizer.variables), vars(optimizer)["_learning_rate"]) == (count, rate)
    for old, new, values in zip(large, small, slots, strict=True):
        assert optimizer_slots(optimizer, old) == []
        toy.assert_same(optimizer_slots(optimizer, new), [taken(new.name, value) for value in values])
    stepped(optimizer, small, 1)

    back = variables_of(SHAPES)
    kept = [[s.numpy() for s in optimizer_slots(optimizer, v)] for v in small]
    move_optimizer(optimizer, back, [Part(old, new, grown=True) for old, new in zip(small, back, strict=True)])
    for new, values in zip(back, kept, strict=True):
        toy.assert_same([taken(new.name, s.numpy()) for s in optimizer_slots(optimizer, new)], values)
    stepped(optimizer, back, 1)
    assert all(np.isfinite(v).all() for v in back)


@pytest.mark.parametrize("scaled", [False, True], ids=["alone", "scaled"])
def test_means_over_an_axis_keep_the_channels_that_stay(scaled):
    adafactor = keras.optimizers.Adafactor(0.01)
    optimizer = keras.optimizers.LossScaleOptimizer(adafactor) if scaled else adafactor
    large = variables_of(SHAPES)
    stepped(optimizer, large)
    rows, columns = ([v.numpy() for v in getattr(adafactor, name)] for name in ("_r", "_c"))
    small = variables_of({n: taken(n, np.empty(shape)).shape for n, shape in SHAPES.items()})
    move_optimizer(optimizer, small, [Part(old, new) for old, new in zip(large, small, strict=True)])
    np.testing.assert_array_equal(adafactor._r[0], rows[0][:, :, [0, 3]])
    np.testing.assert_array_equal(adafactor._c[0], columns[0][..., [1, 2]])
    np.testing.assert_array_equal(adafactor._r[1], rows[1][[0, 2]])
    np.testing.assert_array_equal(adafactor._c[1], columns[1][[1, 2, 3]])
