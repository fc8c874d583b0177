import logging
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import toy_problem as toy

import scc_tf

Adam = keras.optimizers.Adam


def steps(model, count, batch_size=16):
    """Deterministic training: batch i depends on i alone."""
    x, y = toy.points()
    for i in range(count):
        chosen = np.arange(i * batch_size, (i + 1) * batch_size) % len(y)
        model.train_on_batch(x[chosen], y[chosen])


# Saving --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["keras", "weights"])
def test_training_goes_on_from_a_file_as_if_never_interrupted(tmp_path, how):
    def fresh():
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
        format_optimizer = Adam(0.2, epsilon=1e-4)
        settings = {"gamma": 0.02, "size_form": "sum", "unit": "bytes", "format_optimizer": format_optimizer}
        return toy.compressed(optimizer=optimizer, **settings)

    model = fresh()
    steps(model, 3)
    if how == "keras":
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert isinstance(loaded, scc_tf.SelfCompressingModel)
        assert float(loaded.gamma) == pytest.approx(0.02)
        assert (loaded.size_term.form, loaded.size_term.unit) == ("sum", "bytes")
    else:
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = fresh()
        loaded.load_weights(tmp_path / "model.weights.h5")
    loaded.run_eagerly = True
    for kind in ("optimizer", "format_optimizer"):
        saved, restored = getattr(model, kind), getattr(loaded, kind)
        assert type(saved) is type(restored)
        names = {"name": None}  # Keras numbers them
        assert saved.get_config() | names == restored.get_config() | names
        assert int(restored.iterations) == 3
        toy.assert_same(toy.values(restored.variables), toy.values(saved.variables))
    toy.assert_same(loaded.get_weights(), model.get_weights())
    steps(model, 3)
    steps(loaded, 3)
    toy.assert_same(loaded.get_weights(), model.get_weights(), atol=1e-6)


@pytest.mark.slow
def test_the_starting_weights_survive_saving(tmp_path):
    model = scc_tf.self_compress(toy.dense_net())
    model.starting_weights = 1320  # ten times as many: say that nine tenths of the network were removed since
    model.compile("adam", toy.cross_entropy())
    q = float(model.size_term())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.starting_weights == 1320
    assert float(loaded.size_term()) == q == pytest.approx(float(scc_tf.SizeTerm(model)()) / 10)


def test_an_uncompiled_model_can_be_saved(tmp_path):
    model = scc_tf.self_compress(toy.dense_net())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    toy.assert_same(loaded.get_weights(), model.get_weights())


@pytest.mark.slow
def test_compiling_again_with_the_same_optimizers_keeps_their_state():
    model = toy.compressed()
    steps(model, 2)
    model.compile(
        model.optimizer,
        toy.cross_entropy(),
        format_optimizer=model.format_optimizer,
        lambda_safety=1.0,
        safety_set=toy.safety_set(),
        run_eagerly=True,
    )
    assert int(model.optimizer.iterations) == int(model.format_optimizer.iterations) == 2
    steps(model, 1)


def test_the_number_of_starting_weights_is_that_of_the_first_compile():
    model = toy.compressed()
    assert model.starting_weights == 8 * 12 + 12 * 3
    model.starting_weights = 1320
    model.compile("adam", toy.cross_entropy())
    assert model.starting_weights == 1320


@pytest.mark.slow
def test_loading_a_model_that_had_a_safety_loss_warns_that_it_is_off(tmp_path, caplog):
    model = toy.compressed(lambda_safety=0.25, safety_set=toy.safety_set())
    model.save(tmp_path / "safe.keras")
    loaded = keras.saving.load_model(tmp_path / "safe.keras")
    assert loaded.lambda_safety == 0
    assert "lambda_safety=0.25" in caplog.text and "off until compile" in caplog.text
    loaded.train_on_batch(*toy.points())


def test_loading_a_model_without_a_safety_loss_is_silent(tmp_path, caplog):
    toy.compressed().save(tmp_path / "plain.keras")
    with caplog.at_level(logging.WARNING):
        keras.saving.load_model(tmp_path / "plain.keras")
    assert caplog.text == ""


@pytest.mark.parametrize("of", ["model", "finished"])
def test_loading_a_model_that_had_a_contract_says_how_to_hold_it_to_it(tmp_path, caplog, of):
    model, chosen = toy.compressed(), toy.safety_set()
    model.contract = scc_tf.safety.Contract(chosen, 0.98, 0.05)
    model = scc_tf.finish(model, chosen.images) if of == "finished" else model
    caplog.clear()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    (said,) = [record.getMessage() for record in caplog.records]
    assert "at most 5.00 points below 98.00 % on 12 examples. Its safety set was not stored" in said
    assert "scc_tf.safety.Contract(safety_set, reference_accuracy=0.98, threshold=0.05)" in said
    assert loaded.contract is None


def test_a_summary_shows_bits_and_bytes_after_what_keras_shows(capsys):
    model, lines = toy.compressed(), []
    model.get_layer("hidden").bit_depth.assign([0.0] * 3 + [4.0] * 9)
    model.summary()
    model.summary(print_fn=lines.append)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["hidden/kernel", "9/12", "3.00", "36", "384"] in rows
    assert ["head/kernel", "3/3", "8.00", "36", "144"] in rows
    assert ["all", "12/15", "4.36", "72", "528"] in rows
    assert any(row[:2] == ["Total", "params:"] for row in rows)
    assert "hidden/kernel" in lines[-1]


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gamma", "lambda_safety"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf])
def test_negative_and_non_finite_weights_of_the_terms_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Received: {name}="):
        toy.compressed(**{name: value}, **({"safety_set": toy.safety_set()} if name == "lambda_safety" else {}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "safety_set=None"),
        ({"safety_set": SimpleNamespace(images=np.zeros((0, 8)), labels=[])}, "at least one example"),
        ({"safety_set": SimpleNamespace(images=np.zeros((2, 8)), labels=[0])}, "one label for each"),
        ({"safety_set": SimpleNamespace(images=np.zeros((2, 8)), labels=np.ones((2, 3)))}, "not one-hot"),
        ({"safety_set": toy.safety_set(), "safety_batch_size": 0}, "safety_batch_size=0"),
        ({"safety_set": toy.safety_set(), "loss": [toy.cross_entropy()]}, "one loss"),
    ],
)
def test_a_safety_loss_without_a_proper_safety_set_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        toy.compressed(lambda_safety=0.1, **settings)


def test_a_safety_loss_needs_a_task_loss():
    model = scc_tf.self_compress(toy.dense_net())
    with pytest.raises(ValueError, match="loss=None"):
        model.compile("adam", lambda_safety=0.1, safety_set=toy.safety_set())


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (1, 2)])
def test_a_safety_loss_for_several_outputs_or_missing_inputs_is_refused(inputs, outputs):
    ends = [keras.Input((8,)) for _ in range(inputs)]
    middle = keras.layers.Concatenate()(ends) if inputs > 1 else ends[0]
    net = keras.Model(ends, [keras.layers.Dense(3)(middle) for _ in range(outputs)])
    message = "1 inputs, 2 outputs" if outputs > 1 else "one array for each of the 2 inputs"
    with pytest.raises(ValueError, match=message):
        toy.compressed(net, lambda_safety=0.1, safety_set=toy.safety_set())


@pytest.mark.parametrize("settings", [{"size_form": "cubic"}, {"unit": "nibbles"}])
def test_unknown_forms_and_units_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings.values()))):
        toy.compressed(**settings)


def wrapped_in_loss_scale(optimizer):
    return keras.optimizers.LossScaleOptimizer(optimizer)


@pytest.mark.parametrize("name", ["optimizer", "format_optimizer"])
@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, wrapped_in_loss_scale])
def test_averages_of_the_weights_are_refused(name, wrap):
    with pytest.raises(ValueError, match=f"{name}=.*use_ema=True"):
        toy.compressed(**{name: wrap(Adam(use_ema=True))})


def unlike(**changes):
    return SimpleNamespace(**{**vars(toy.safety_set()), **changes})


IMAGES = toy.safety_set().images
EXAMPLES = {
    "other shape": (unlike(images=IMAGES[:, :7]), r"shape \(None, 8\).*shape=\(12, 7\)"),
    "other rank": (unlike(images=IMAGES[..., None, None]), r"shape \(None, 8\).*shape=\(12, 8, 1, 1\)"),
    "words": (unlike(images=np.full((12, 8), "a")), "array of numbers"),
    "beyond float32": (unlike(images=IMAGES.astype(float) * 1e40), "finite as float32.*up to"),
    "NaN": (unlike(images=np.where(np.arange(8) == 3, np.nan, IMAGES)), "finite.*12 that are not"),
    "infinite": (unlike(images=np.where(np.arange(8) == 3, -np.inf, IMAGES)), "finite.*12 that are not"),
    "label too large": (unlike(labels=np.full(12, 3)), "from 0 to 2.*from 3 to 3"),
    "negative label": (unlike(labels=np.arange(12) % 3 - 1), "from 0 to 2.*from -1 to 1"),
    "fractional label": (unlike(labels=np.full(12, 0.5)), "whole numbers.*float64"),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_safety_examples_unlike_the_models_inputs_are_refused(kind):
    examples, message = EXAMPLES[kind]
    with pytest.raises(ValueError, match=message):
        toy.compressed(lambda_safety=0.1, safety_set=examples)


def safety_loss(model, x, y):
    return model.train_on_batch(x, y, return_dict=True)["safety_loss"]


@pytest.mark.parametrize(
    "examples",
    [
        unlike(images=IMAGES.astype(float)),
        unlike(images=IMAGES.tolist()),
        unlike(labels=np.arange(12) % 3 * 1.0),
        unlike(labels=np.arange(12)[:, None] % 3),
        unlike(labels=np.eye(3)[np.arange(12) % 3]),
    ],
)
def test_safety_examples_of_other_forms_are_the_same_examples(examples):
    """One example a step, drawn by its number: the same loss."""
    losses = [
        safety_loss(toy.compressed(lambda_safety=0.1, safety_set=own, safety_batch_size=1), *toy.points())
        for own in (examples, toy.safety_set())
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_whole_numbers_are_safety_images_as_they_are_images(dtype, caplog):
    images = (40 * np.abs(IMAGES)).astype(dtype)
    settings = {"lambda_safety": 0.1, "safety_batch_size": 1}
    models = [toy.compressed(**settings, safety_set=unlike(images=own)) for own in (images, images.astype("float32"))]
    losses = [safety_loss(model, *toy.points()) for model in models]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert ("both in the range" in caplog.text) == (dtype == "uint8")


@pytest.mark.parametrize("column", [False, True])
def test_one_unit_has_a_safety_loss_of_its_own_examples(column):
    net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, "sigmoid")])
    x, y = toy.points()
    y = (y > 0).astype("int64")
    model = toy.compressed(
        net,
        keras.optimizers.SGD(0.0),
        "binary_crossentropy",
        lambda_safety=1.0,
        safety_set=SimpleNamespace(images=x[:1], labels=y[:1]),
    )
    expected = float(keras.losses.binary_crossentropy(y[:1, None], model(x[:1]))[0])
    assert safety_loss(model, x, y[:, None] if column else y) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_safety_loss_of_several_inputs(kind):
    ends = {name: keras.Input((4,), name=name) for name in "ba"}
    head = keras.layers.Dense(3)(keras.layers.Concatenate()([ends["a"], ends["b"]]))
    x, y = toy.points()
    inputs = {"b": x[:, 4:], "a": x[:, :4]}
    if kind == "list":
        ends, inputs = list(ends.values()), list(inputs.values())
    examples = SimpleNamespace(images=keras.tree.map_structure(lambda array: array[:1], inputs), labels=y[:1])
    model = toy.compressed(keras.Model(ends, head), keras.optimizers.SGD(0.0), lambda_safety=1.0, safety_set=examples)
    expected = float(toy.cross_entropy()(y[:1], model(examples.images)))
    assert safety_loss(model, inputs, y) == pytest.approx(expected, rel=1e-5)


def test_sides_that_the_model_leaves_open_fit_every_image():
    pooled = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(3, 3), keras.layers.GlobalAveragePooling2D()]
    )
    assert toy.compressed(pooled, lambda_safety=0.1, safety_set=toy.safety_set(of=toy.images)).compiled


REFUSED = {
    "unit": {"unit": "kb"},
    "size_model": {"size_model": "guess"},
    "size_form, entropy": {"size_form": "cubic", "size_model": "entropy"},
    "safety set, entropy": {"lambda_safety": 1.0, "size_model": "entropy"},
    "size_form": {"size_form": "cubic"},
    "safety set": {"lambda_safety": 1.0},
    "format optimizer": {"format_optimizer": "no such"},
    "average": {"format_optimizer": Adam(use_ema=True)},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_compile_leaves_the_model_as_it_was(kind):
    model = scc_tf.self_compress(toy.dense_net())
    with pytest.raises(ValueError):
        model.compile("adam", toy.cross_entropy(), **REFUSED[kind])
    assert not model.compiled and model.starting_weights is None
    model.compile(Adam(0.01), toy.cross_entropy(), run_eagerly=True)
    before, weights = vars(model).copy(), toy.values(model.weights)
    with pytest.raises(ValueError):
        model.compile("sgd", toy.cross_entropy(), **REFUSED[kind])
    assert {k: id(v) for k, v in vars(model).items()} == {k: id(v) for k, v in before.items()}
    toy.assert_same(toy.values(model.weights), weights)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("gamma", "0.1"),
        ("gamma", float("nan")),
        ("lambda_safety", None),
        ("safety_set", [1, 2]),
        ("safety_batch_size", 1.5),
        ("size_model", 3),
        ("optimizer", 3),
        ("format_optimizer", "no such"),
    ],
)
def test_an_argument_that_cannot_be_is_named(argument, value):
    model = scc_tf.self_compress(toy.dense_net())
    with pytest.raises(ValueError, match=rf"^Expected {argument} .*Received: {argument}="):
        model.compile(**{"loss": toy.cross_entropy(), argument: value})
    assert not model.compiled


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="since Keras 3.13")
def test_a_multi_optimizer_is_refused():
    optimizer = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD()))
    test_an_argument_that_cannot_be_is_named("optimizer", optimizer)
