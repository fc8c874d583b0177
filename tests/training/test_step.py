import itertools
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_problem as toy

import scc_tf
from scc_tf.training import default_format_optimizer, self_compressing_layers

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def one_step(model, x, y, **kwargs):
    return model.train_on_batch(x, y, return_dict=True, **kwargs)


def steps(model, count, batch_size=16):
    """Deterministic training: batch i depends on i alone."""
    x, y = toy.points()
    for i in range(count):
        chosen = np.arange(i * batch_size, (i + 1) * batch_size) % len(y)
        model.train_on_batch(x[chosen], y[chosen])


def nominal_bits(model):
    return scc_tf.size_report(model).nominal_bits


# The loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_more_gamma_gives_fewer_bits():
    bits = []
    for gamma in (0.0, 0.001, 0.01, 0.1):
        model = toy.compressed(gamma=gamma)
        steps(model, 6)
        bits.append(nominal_bits(model))
    assert all(more > 1.001 * fewer for more, fewer in itertools.pairwise(bits)), bits


def test_gamma_zero_leaves_the_formats_to_the_task():
    model = toy.compressed(net=toy.dense_net(), gamma=0.0, format_optimizer=SGD(1.0))
    x, y = toy.points()
    formats = [v for layer in self_compressing_layers(model) for v in (layer.bit_depth, layer.exponent)]
    with tf.GradientTape() as tape:
        loss = toy.cross_entropy()(y, model(x, training=True))
    gradients = tape.gradient(loss, [f.value for f in formats])
    expected = [np.maximum(f - g, -np.inf) for f, g in zip(toy.values(formats), gradients, strict=True)]
    one_step(model, x, y)
    toy.assert_same(toy.values(formats), expected, atol=1e-6)
    assert any(np.abs(g).max() > 1e-3 for g in gradients)


def one_unit_net():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, activation="sigmoid")])


LABELS = {
    "sparse": (toy.dense_net, toy.cross_entropy, lambda y: y),
    "sparse column": (toy.dense_net, toy.cross_entropy, lambda y: y[:, None]),
    "one-hot": (
        toy.dense_net,
        lambda: keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        lambda y: np.eye(toy.CLASSES, dtype="float32")[y],
    ),
    "sparse, string": (
        lambda: keras.Sequential([toy.dense_net(), keras.layers.Softmax()]),
        lambda: "sparse_categorical_crossentropy",
        lambda y: y,
    ),
    "one unit, string": (one_unit_net, lambda: "binary_crossentropy", lambda y: (y % 2)[:, None].astype("float32")),
    "one unit": (one_unit_net, lambda: keras.losses.BinaryCrossentropy(), lambda y: (y % 2)[:, None].astype("float32")),
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size_form"), [("sparse", "sum"), *((kind, "coupled") for kind in LABELS)])
def test_the_loss_is_task_plus_gamma_q_plus_lambda_safety(kind, size_form):
    net, loss, as_labels = LABELS[kind]
    x, labels = toy.points()
    example = SimpleNamespace(images=x[1:2] + 2.0, labels=np.array([1]))  # one example: every draw is the same
    model = toy.compressed(
        net(),
        loss=loss(),
        gamma=0.3,
        lambda_safety=0.7,
        safety_set=example,
        safety_batch_size=5,
        size_form=size_form,
    )
    loss_of = keras.losses.get(loss())
    task = np.mean(loss_of(as_labels(labels), model(x)))
    safety = np.mean(loss_of(as_labels(example.labels), model(example.images)))
    q = float(scc_tf.SizeTerm(model, size_form)())
    logs = one_step(model, x, as_labels(labels))
    assert logs["safety_loss"] == pytest.approx(safety, rel=1e-5)
    assert logs["loss"] == pytest.approx(task + 0.3 * q + 0.7 * safety, rel=1e-5)
    assert all(isinstance(value, float) for value in logs.values())


@pytest.mark.slow
def test_integer_inputs_do_not_round_the_safety_images():
    x, y = (255 * np.abs(toy.points()[0])).astype("uint8"), toy.points()[1]
    example = SimpleNamespace(images=np.full((1, 8), 0.4), labels=[0])
    logs = []
    for dtype in ("uint8", "float32"):
        model = toy.compressed(lambda_safety=1.0, safety_set=example)
        logs.append(one_step(model, x.astype(dtype), y))
    assert logs[0]["safety_loss"] == pytest.approx(logs[1]["safety_loss"], rel=1e-5)


@pytest.mark.slow
def test_the_safety_batch_changes_from_step_to_step_and_covers_the_set():
    x, y = toy.points()
    seen = []

    class Recording(keras.losses.Loss):
        def call(self, y_true, y_pred):
            seen.append(np.asarray(y_true))
            return keras.ops.mean(y_pred, axis=-1)

    labels = np.arange(10)
    model = toy.compressed(
        keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)]),
        loss=Recording(),
        lambda_safety=1.0,
        safety_batch_size=4,
        safety_set=SimpleNamespace(images=np.zeros((10, 8)), labels=labels),
    )
    for _ in range(10):
        one_step(model, x, y)
    draws = [draw for draw in seen if len(draw) == 4]
    assert len(draws) == 10
    assert len({tuple(draw) for draw in draws}) > 8
    assert set(np.concatenate(draws)) == set(labels)


@pytest.mark.slow
def test_the_safety_batch_changes_also_when_all_formats_are_frozen():
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(6, name="frozen"), keras.layers.Dense(3, name="plain")]
    )
    model = scc_tf.self_compress(net, exclude=["plain"])
    model.get_layer("frozen").trainable = False
    x, y = toy.points()
    # nothing moves, so the loss differs only where the draw does
    model.compile(SGD(0.0), toy.cross_entropy(), lambda_safety=1.0, safety_set=toy.safety_set(), run_eagerly=True)
    losses = {one_step(model, x, y)["safety_loss"] for _ in range(3)}
    assert len(losses) == 3


@pytest.mark.slow
def test_a_step_logs_the_nominal_bits_per_weight():
    model = toy.compressed(gamma=0.01)
    logs = one_step(model, *toy.points())
    assert logs["bits_per_weight"] == pytest.approx(nominal_bits(model) / (8 * 12 + 12 * 3), rel=1e-5)


@pytest.mark.slow
def test_sample_weights_weigh_the_task_alone():
    x, y = toy.points()
    model = toy.compressed(gamma=0.5)
    q = float(scc_tf.SizeTerm(model)())
    assert one_step(model, x, y, sample_weight=np.zeros(len(y)))["loss"] == pytest.approx(0.5 * q, rel=1e-5)


@pytest.mark.slow
def test_several_inputs_and_outputs_of_which_one_has_no_loss():
    keras.utils.set_random_seed(0)
    first, second = keras.Input((8,), name="first"), keras.Input((4,), name="second")
    joined = keras.layers.Concatenate()([keras.layers.Dense(6)(first), keras.layers.Dense(5)(second)])
    outputs = {"classes": keras.layers.Dense(3, name="classes")(joined), "idle": keras.layers.Dense(2)(joined)}
    model = scc_tf.self_compress(keras.Model({"first": first, "second": second}, outputs))
    x, y = toy.points()
    model.compile("adam", {"classes": toy.cross_entropy()}, gamma=0.01, run_eagerly=True)
    with pytest.warns(UserWarning, match="Gradients do not exist"):  # for the idle output, as in any Keras model
        history = model.fit({"first": x, "second": x[:, :4]}, {"classes": y}, batch_size=48, verbose=0)
    assert np.isfinite(history.history["loss"][0])


@pytest.mark.slow
def test_the_logged_loss_of_an_epoch_is_the_mean_over_its_examples():
    x, y = toy.points(count=40)
    model = toy.compressed(optimizer=SGD(0.0), format_optimizer=SGD(0.0), gamma=0.0)
    history = model.fit(x, y, batch_size=32, shuffle=False, verbose=0).history
    assert history["loss"][0] == pytest.approx(float(toy.cross_entropy()(y, model(x))), rel=1e-5)


# The two optimizers --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weight_decay_of_the_users_optimizer_leaves_the_formats_alone():
    x, y = toy.points()
    ends = []
    for decay in (0.0, 0.5):
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=decay)
        model = toy.compressed(optimizer=optimizer, format_optimizer=SGD(0.0))
        before = toy.formats(model)
        one_step(model, x, y)
        for path, value in toy.formats(model).items():
            np.testing.assert_array_equal(value, before[path])
        ends.append(np.asarray(model.get_layer("hidden").kernel))
    assert np.abs(ends[0] - ends[1]).max() > 1e-3  # it did decay the kernel


@pytest.mark.slow
def test_bit_depths_never_turn_negative():
    model = toy.compressed(gamma=100.0, format_optimizer=SGD(10.0, momentum=0.9))
    for _ in range(4):
        logs = one_step(model, *toy.points())
        assert np.isfinite(logs["loss"])
        assert min(f.min() for path, f in toy.formats(model).items() if "bit_depth" in path) >= 0
    assert logs["bits_per_weight"] == 0
    np.testing.assert_array_equal(model.predict(toy.points()[0], verbose=0)[:, 0], model.get_layer("head").bias[0])


@pytest.mark.slow
def test_the_formats_have_their_own_learning_rate_and_epsilon():
    optimizer = default_format_optimizer()
    assert (float(optimizer.learning_rate), optimizer.epsilon) == (0.5, 1e-3)
    model = toy.compressed(optimizer=Adam(1e-5), gamma=0.01)
    bit_depths = [layer.bit_depth for layer in self_compressing_layers(model)]
    with tf.GradientTape() as tape:
        loss = toy.cross_entropy()(toy.points()[1], model(toy.points()[0])) + 0.01 * scc_tf.SizeTerm(model)()
    gradients = tape.gradient(loss, [b.value for b in bit_depths])
    root = math.sqrt(1 - 0.999)  # the first step of Adam with lr 0.5 and epsilon 1e-3, bias correction included
    expected = [
        b - 0.5 * root * g / (root * np.abs(g) + 1e-3)
        for b, g in zip(toy.values(bit_depths), map(np.asarray, gradients), strict=True)
    ]
    one_step(model, *toy.points())
    toy.assert_same(toy.values(bit_depths), expected, atol=1e-5)


def test_another_format_optimizer_may_be_given_by_name():
    model = toy.compressed(format_optimizer="sgd")
    assert isinstance(model.format_optimizer, SGD)


@pytest.mark.slow
def test_frozen_layers_keep_weights_and_formats():
    model = scc_tf.self_compress(toy.dense_net())
    model.get_layer("hidden").trainable = False
    model.compile(Adam(0.01), toy.cross_entropy(), gamma=0.1, run_eagerly=True)
    before = {layer.name: toy.values(layer.weights) for layer in model.layers}
    one_step(model, *toy.points())
    toy.assert_same(toy.values(model.get_layer("hidden").weights), before["hidden"])
    for old, new in zip(before["head"], model.get_layer("head").weights, strict=True):
        assert np.abs(old - new).max() > 0
    assert {id(v) for v in model.optimizer._trainable_variables} == {
        id(v) for v in (model.get_layer("head").kernel, model.get_layer("head").bias)
    }


# Compiled, eager, mixed precision ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_and_eager_steps_agree():
    x, y = toy.points()
    results = []
    for how in ({"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}):
        model = toy.compressed(
            optimizer=SGD(0.1),  # Adam would turn the last digit of a gradient near zero into a whole step
            gamma=0.01,
            lambda_safety=0.5,
            safety_set=toy.safety_set(),
            safety_batch_size=8,
            format_optimizer=SGD(0.1),
            **{"run_eagerly": False, **how},
        )
        for layer in self_compressing_layers(model):  # the largest weight of a channel starts on the clipping bound,
            layer.exponent.assign(layer.exponent + 0.01)  # where rounding errors decide whether it has a gradient
        logs = one_step(model, x, y)
        results.append(([logs[name] for name in sorted(logs)], toy.values(model.weights)))
    for logs, weights in results[1:]:
        np.testing.assert_allclose(logs, results[0][0], rtol=1e-5)
        toy.assert_same(weights, results[0][1], atol=1e-5)


def test_jit_compile_auto_is_resolved():
    assert toy.compressed(run_eagerly=False, jit_compile="auto").jit_compile in (True, False)


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_mixed_precision_is_compiled_with_a_loss_scale(mixed_float16):
    model = toy.compressed(gamma=0.0)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(model.format_optimizer, keras.optimizers.LossScaleOptimizer)
    assert np.isfinite(one_step(model, *toy.points())["loss"])
    assert {v.dtype for layer in self_compressing_layers(model) for v in (layer.bit_depth, layer.exponent)} == {
        "float32"
    }


@pytest.mark.slow
@pytest.mark.parametrize("growth_steps", [1, 2000])  # with 1 the scale doubles within the first step
def test_formats_get_unscaled_gradients_in_mixed_precision(growth_steps):
    moved = []
    for dtype, optimizer in (
        ("float32", SGD(0.1)),
        ("mixed_float16", keras.optimizers.LossScaleOptimizer(SGD(0.1), dynamic_growth_steps=growth_steps)),
    ):
        model = toy.compressed(toy.dense_net(dtype=dtype), optimizer, gamma=0.25, format_optimizer=SGD(1.0))
        before = toy.formats(model)
        one_step(model, *toy.points())
        moved.append([value - before[path] for path, value in toy.formats(model).items()])
    toy.assert_same(moved[1], moved[0], atol=0.002)
    assert max(np.abs(m).max() for m in moved[0]) > 0.02


@pytest.mark.slow
def test_an_overflow_spoils_neither_weights_nor_formats():
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=2.0**40)
    model = toy.compressed(toy.dense_net(dtype="mixed_float16"), optimizer, gamma=0.01, format_optimizer=SGD(1.0))
    kernel = np.asarray(model.get_layer("hidden").kernel)
    one_step(model, *toy.points())
    assert float(optimizer.dynamic_scale) == 2.0**39  # it did overflow
    np.testing.assert_array_equal(model.get_layer("hidden").kernel, kernel)
    assert all(np.isfinite(w).all() for w in model.get_weights())


# Evaluation ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluation_does_not_depend_on_the_batch_size():
    x, y = toy.images(20)
    model = toy.compressed(toy.conv_net())
    one_step(model, x, y)  # so that the running statistics are neither those of the batch nor 0 and 1
    model.compile(model.optimizer, toy.cross_entropy(), jit_compile=False)
    answers = [model.predict(x, batch_size=size, verbose=0) for size in (1, 8, 20)]
    toy.assert_same(answers[1:], [answers[0]] * 2, atol=1e-5)
    losses = [model.evaluate(x, y, batch_size=size, verbose=0) for size in (1, 8, 20)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)
