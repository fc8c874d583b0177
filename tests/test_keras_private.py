"""Each private corner of Keras that is used, asked what it is used for: a change in Keras fails here first."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from scc_tf import keras_private

k = keras.layers


def network(units=3, **dropout):
    inputs = keras.Input((4,))
    hidden = k.Dense(units, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, k.Dense(2, name="head")(k.Dropout(0.5, **dropout)(hidden)), name="net")


def train(model, optimizer="adam"):
    model.compile(optimizer, "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    return model


def test_all_layers_are_at_any_depth_each_once():
    inner = keras.Sequential([keras.Input((4,)), k.Dense(4, name="inside")], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(inner(inputs)), name="outer")
    names = [layer.name for layer in keras_private.all_layers(model) if layer.weights]
    assert sorted(names) == ["inner", "inside", "outer"]
    assert model not in keras_private.all_layers(model, include_self=False)


def test_own_variables_leave_inner_layers_out():
    norm = k.BatchNormalization()
    norm.build((None, 3))
    assert [v.name for v in keras_private.own_variables(norm)] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [v.name for v in keras_private.own_trainable_variables(norm)] == ["gamma", "beta"]
    norm.trainable = False
    assert [v.name for v in keras_private.own_trainable_variables(norm)] == ["gamma", "beta"]
    wrapper = k.TimeDistributed(k.Dense(2))
    wrapper.build((None, 3, 4))
    assert wrapper.weights
    assert keras_private.own_variables(wrapper) == []


def test_variables_of_a_quantized_layer_come_in_one_order():
    def quantized(build_first):
        layer = k.Dense(3, dtype=None if build_first else "int8_from_float32")
        layer.build((None, 4))
        if build_first:
            layer.quantize("int8")
        return [variable.name for variable in keras_private.own_variables(layer)]

    assert quantized(True) == quantized(False)


def test_seed_states_change_when_a_layer_draws():
    layer = k.Dropout(0.5, seed=1)
    (state,) = keras_private.seed_states(layer)
    before = keras.ops.convert_to_numpy(state).copy()
    layer(np.ones((2, 3)), training=True)
    assert (keras.ops.convert_to_numpy(state) != before).any()


def test_the_call_that_made_a_tensor_is_found():
    model = network()
    head = model.get_layer("head")
    operation, inputs, outputs, place = keras_private.producing_call(model.outputs[0])
    assert place == 0
    assert operation is head
    assert inputs[0] is head.input
    assert outputs[0] is model.outputs[0]
    head(keras.Input((3,)))
    assert [len(inputs) for inputs, _ in keras_private.calls_of(head)] == [1, 1]


def test_a_copied_operation_was_called_nowhere():
    x = keras.Input((3,))
    by_configuration = (x + 1.0)._keras_history.operation
    with_arrays = keras.ops.take(x, np.array([0, 2]), axis=1)._keras_history.operation
    for operation in (by_configuration, with_arrays):
        copy = keras_private.copy_operation(operation)
        assert type(copy) is type(operation)
        assert copy is not operation
        assert keras_private.calls_of(copy) == []
        assert len(keras_private.calls_of(operation)) == 1
    copy = keras_private.copy_operation(with_arrays)
    np.testing.assert_array_equal(keras.Model(x, copy(x, np.array([0, 2])))(np.eye(3)), np.eye(3)[:, [0, 2]])


def test_a_copied_lambda_computes_the_same():
    layer = k.Lambda(lambda x, factor: factor * x, output_shape=(3,), arguments={"factor": 2}, name="twice")
    copy = keras_private.copy_lambda(layer)
    assert copy is not layer
    assert copy.name == "twice"
    np.testing.assert_array_equal(copy(np.ones((1, 3))), 2 * np.ones((1, 3)))
    assert copy.compute_output_shape((None, 3)) == (None, 3)


def test_what_is_held_is_neither_tracked_nor_saved(tmp_path):
    model = network()
    weights = len(model.weights)
    keras_private.hold(model, "other", [k.Dense(1), {"a": 1}])
    keras_private.hold(model, "other", [k.Dense(2)])
    assert type(model.other) is list
    assert len(model.weights) == weights
    model.save(tmp_path / "model.keras")
    assert len(keras.models.load_model(tmp_path / "model.keras").weights) == weights


@pytest.mark.parametrize("run", [False, True], ids=["fresh", "compiled"])
def test_a_model_takes_the_graph_of_another_and_goes_on(run, tmp_path):
    model, other = network(3), network(5)
    if run:
        train(model)
    wanted = other.predict(np.ones((2, 4)), verbose=0)
    keras_private.exchange_graph(model, other)
    assert model.layers == other.layers
    assert [id(v) for v in model.trainable_variables] == [id(v) for v in other.trainable_variables]
    model.make_predict_function(force=True)
    np.testing.assert_array_equal(model.predict(np.ones((2, 4)), verbose=0), wanted)
    model.get_layer("hidden").trainable = False
    assert len(model.trainable_variables) == 2
    model.save_weights(tmp_path / "model.weights.h5")
    network(5).load_weights(tmp_path / "model.weights.h5")


def test_variables_made_later_are_on_all_replicas():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = train(network())
    with keras_private.replica_scope(model):
        assert tf.distribute.get_strategy() is strategy
    with keras_private.replica_scope(train(network())):
        assert tf.distribute.get_strategy() is not strategy


def test_the_loss_tracker_is_what_fit_logs():
    model = network()
    model.compile("sgd", "mse")
    history = model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    assert float(keras_private.loss_tracker(model).result()) == history.history["loss"][0]


def test_an_optimizer_tells_what_it_trains_and_keeps():
    model = train(network())
    trained, kept = keras_private.trained_by(model.optimizer)
    assert [id(v) for v in trained] == [id(v) for v in model.trainable_variables]
    assert len(kept) == 2 + 2 * len(trained)  # iterations, learning rate, two momenta


def test_an_optimizer_that_forgets_is_built_again_for_others(tmp_path):
    model = train(network(3))
    optimizer, iterations = model.optimizer, int(model.optimizer.iterations)
    keras_private.forget_built(optimizer)
    assert not optimizer.built
    assert len(optimizer.variables) == 2
    other = network(5)
    optimizer.build(other.trainable_variables)
    assert int(optimizer.iterations) == iterations
    assert {tuple(v.shape) for v in optimizer.variables} >= {(4, 5), (5, 2)}
    assert not {tuple(v.shape) for v in optimizer.variables} & {(4, 3), (3, 2)}


def test_a_variable_is_listed_once():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    optimizer.build(network().trainable_variables)
    count, variable = len(optimizer.variables), optimizer.variables[0]
    keras_private.track_variable(optimizer, variable)
    assert len(optimizer.variables) == count


def test_nothing_private_of_keras_is_used_elsewhere():
    model = train(network())
    objects = [model, *model.layers, model.optimizer, model.outputs[0], model.weights[0]]
    private = {name for each in objects for name in dir(each) if name.startswith("_") and not name.startswith("__")}
    package = Path(keras_private.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        found += [f"{path.relative_to(package)}: {name}" for name in sorted(used & private - own)]
    assert not [line for line in found if not line.startswith("keras_private.py")]
