import keras
import numpy as np
import pytest
import tensorflow as tf

from scc_tf.safety.attention import (
    CamBatch,
    cam_batches,
    last_convolution,
    resize_maps,
)

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(7, 9, 8, 2)).astype(np.float32)


class OwnConv2D(L.Conv2D):
    pass


def plain(last=None):
    """Convolution, batch normalisation with moving statistics of its own, dropout; logits."""
    model = keras.Sequential(
        [
            L.Input((9, 8, 2)),
            L.Conv2D(3, 3, activation="relu"),
            last or L.Conv2D(4, 2, name="last"),
            L.BatchNormalization(),
            L.ReLU(),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dropout(0.5),
            L.Dense(5),
        ]
    )
    return perturbed(model)


def residual():
    """The features are not all that the head reads: a shortcut goes around the last convolution."""
    inputs = L.Input((9, 8, 2))
    stem = L.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    branch = L.Conv2D(4, 3, padding="same", name="last")(stem)
    merged = keras.ops.relu(L.Add()([branch, stem]))
    return perturbed(keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(merged))))


def perturbed(model):
    rng = np.random.default_rng(1)
    model.set_weights([np.abs(w + 0.3 * rng.normal(size=w.shape)) if w.ndim == 1 else w for w in model.get_weights()])
    return model


def with_softmax(model, kind):
    """The same network with probabilities for its output."""
    *_, dense = model.layers
    if kind == "dense":
        answers = L.Dense(5, activation="softmax", name="head")(dense.input)
    else:
        layer = L.Softmax() if kind == "layer" else L.Activation("softmax")
        answers = layer(L.Dense(5, name="head")(dense.input))
    twin = keras.Model(model.inputs[0], answers)
    twin.get_layer("head").set_weights(dense.get_weights())
    return twin


def cam(model, images, **settings):
    """What all batches tell, in one piece."""
    parts = zip(*cam_batches(model, images, **settings), strict=True)
    return CamBatch(*map(np.concatenate, parts))


def maps_of(model, images, **settings):
    return cam(model, images, **settings).maps


def slow_gradcam(model, images, layer):
    """The definition, one image at a time: equations 1 and 2 of the paper, the tape over the whole network."""
    both = keras.Model(model.inputs[0], [layer.output, model.outputs[0]])
    maps = []
    for image in images:
        with tf.GradientTape() as tape:
            features, outputs = both(image[None], training=False)
            score = outputs[0, int(np.argmax(outputs[0]))]
        gradient, features = tape.gradient(score, features)[0].numpy(), features[0].numpy()
        heat = np.maximum(sum(gradient[..., d].mean() * features[..., d] for d in range(features.shape[-1])), 0)
        maps.append((heat - heat.min()) / (np.ptp(heat) or 1))
    return np.stack(maps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        plain,
        residual,
        lambda: plain(L.DepthwiseConv2D(2, depth_multiplier=2, name="last")),
        lambda: plain(L.SeparableConv2D(4, 2, name="last")),
        lambda: plain(OwnConv2D(4, 2, name="last", activation="relu")),
    ],
)
def test_matches_the_definition(build):
    model = build()
    maps = maps_of(model, IMAGES, batch_size=3)
    assert last_convolution(model).name == "last"
    assert np.ptp(maps) == 1.0
    np.testing.assert_allclose(maps, slow_gradcam(model, IMAGES, model.get_layer("last")), atol=2e-5)


@pytest.mark.slow
def test_features_and_probabilities_are_those_of_the_model():
    model = plain()
    seen = cam(model, IMAGES, batch_size=3)
    features = keras.Model(model.inputs[0], model.get_layer("last").output)
    np.testing.assert_allclose(seen.features, features(IMAGES, training=False), atol=1e-5)
    answers = keras.ops.softmax(model(IMAGES, training=False))
    np.testing.assert_allclose(seen.probabilities, answers, atol=1e-5)


@pytest.mark.slow
def test_layers_that_were_added_one_by_one_and_a_file(tmp_path):
    """Keras builds such a model anew for every layer: what the first calls returned is not what it reads."""
    model, grown = plain(), keras.Sequential([L.Input((9, 8, 2))])
    for layer in plain().layers:
        grown.add(layer)
    grown.set_weights(model.get_weights())
    model.save(tmp_path / "model.keras")
    for other in (grown, keras.models.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(maps_of(other, IMAGES), maps_of(model, IMAGES), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "layer", "activation"])
def test_a_softmax_model_is_explained_by_its_logits_and_left_untouched(kind):
    model = plain()
    model.layers[-1].kernel.assign(40 * model.layers[-1].kernel)  # saturated: the probabilities have no gradient
    twin = with_softmax(model, kind)
    weights, answers = twin.get_weights(), twin.predict_on_batch(IMAGES)
    maps = maps_of(twin, IMAGES)
    np.testing.assert_allclose(maps, maps_of(model, IMAGES), atol=2e-5)
    np.testing.assert_array_equal(twin(IMAGES), answers)
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-5)
    for before, after in zip(weights, twin.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_probabilities_that_no_softmax_layer_made_are_explained_as_they_are():
    model = plain()
    powers = keras.ops.exp(model.outputs[0])
    twin = keras.Model(model.inputs[0], powers / keras.ops.sum(powers, axis=1, keepdims=True))
    maps = maps_of(twin, IMAGES)
    np.testing.assert_allclose(maps, slow_gradcam(twin, IMAGES, twin.get_layer("last")), atol=1e-4)


@pytest.mark.slow
def test_faint_gradients_still_fill_the_range():
    model = plain()
    faint = maps_of(model, IMAGES)
    model.layers[-1].kernel.assign(1e-12 * model.layers[-1].kernel)
    model.layers[-1].bias.assign(0 * model.layers[-1].bias)
    assert maps_of(model, IMAGES).max() == faint.max() == 1


@pytest.mark.slow
def test_dropout_and_batch_statistics_play_no_part():
    model = plain()
    assert np.abs(model(IMAGES, training=True) - model(IMAGES, training=False)).max() > 0.01
    alone = [maps_of(model, IMAGES[:1]), maps_of(model, IMAGES[1:])]
    np.testing.assert_allclose(np.concatenate(alone), maps_of(model, IMAGES), atol=1e-5)


@pytest.mark.slow
def test_half_precision_layers():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = plain()
    finally:
        keras.config.set_dtype_policy(policy)
    maps = maps_of(model, IMAGES)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, slow_gradcam(model, IMAGES, model.get_layer("last")), atol=0.02)


@pytest.mark.slow
def test_resized_maps_fill_the_range():
    small = maps_of(plain(), IMAGES)
    large = resize_maps(small, (9, 8))
    assert (small.shape, large.shape) == ((7, 6, 5), (7, 9, 8))
    assert large.min() == 0
    np.testing.assert_allclose(large.max(axis=(1, 2)), 1)


def test_resizing_keeps_the_hot_corner_in_its_corner():
    maps = np.zeros((1, 2, 3))
    maps[0, 1, 0] = 1
    larger = resize_maps(maps, (8, 6))[0]
    assert np.unravel_index(larger.argmax(), larger.shape) in [(7, 0), (6, 0)]
    assert larger[0, 5] == 0


def test_the_map_finds_the_bright_spot_that_decides():
    model = keras.Sequential([L.Input((8, 8, 1)), L.Conv2D(1, 1), L.GlobalAveragePooling2D(), L.Dense(2)])
    model.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1), np.array([[0.0, 1.0]]), np.zeros(2)])
    images = np.zeros((2, 8, 8, 1), np.float32)
    images[0, 2, 5] = images[1, 6, 1] = 1
    np.testing.assert_array_equal(maps_of(model, images), images[..., 0])


def test_many_calls_are_one_function(caplog):
    """TensorFlow warns of a function that is traced time and again."""
    for layers in ([L.Flatten()], [L.Conv2D(2, 3), L.Flatten()]):
        model = keras.Sequential([L.Input((9, 8, 2)), *layers, L.Dense(5)])
        for count in range(1, 8):
            next(cam_batches(model, IMAGES[:count]))
    assert "retracing" not in caplog.text


def test_without_a_convolution_there_are_no_maps_but_what_the_head_reads():
    model = keras.Sequential([L.Input((9, 8, 2)), L.Flatten(), L.Dense(6, name="hidden"), L.Dense(5)])
    (seen,) = cam_batches(model, IMAGES)
    assert last_convolution(model) is None and seen.maps is None
    hidden = keras.Model(model.inputs[0], model.get_layer("hidden").output)
    np.testing.assert_allclose(seen.features, hidden(IMAGES), atol=1e-5)


def nested(pooled=False):
    ends = L.Input((9, 8, 2))
    maps = L.Conv2D(4, 3, activation="relu")(L.Conv2D(3, 3)(ends))
    inner = keras.Model(ends, L.GlobalAveragePooling2D()(maps) if pooled else maps, name="backbone")
    inputs = L.Input((9, 8, 2))
    middle = inner(inputs) if pooled else L.GlobalAveragePooling2D()(inner(inputs))
    return perturbed(keras.Model(inputs, L.Dense(5)(middle))), inner


@pytest.mark.parametrize("frozen", [False, True])
def test_the_maps_of_a_nested_backbone(frozen):
    """Those of its last convolution, as it returns them, also where nothing of it is trained."""
    model, inner = nested()
    inner.trainable = not frozen
    flat = keras.Model(inner.inputs[0], model.layers[-1](L.GlobalAveragePooling2D()(inner.outputs[0])))
    np.testing.assert_allclose(maps_of(model, IMAGES), slow_gradcam(flat, IMAGES, inner.layers[-1]), atol=2e-5)


def test_a_backbone_that_keeps_its_maps_to_itself_has_none():
    (seen,) = cam_batches(nested(pooled=True)[0], IMAGES)
    assert seen.maps is None and seen.features.shape == (7, 4)


def one_unit(kind):
    *_, dense = plain().layers
    logit = L.Dense(1, name="head")
    answers = logit(dense.input)
    if kind == "nested":
        ends = L.Input(answers.shape[1:])
        answers = keras.Model(ends, L.Activation("sigmoid")(ends))(answers)
    elif kind == "half":
        answers = L.Activation("linear", dtype="float32")(L.Activation("sigmoid")(answers))
    elif kind != "logit":
        answers = {"layer": L.Activation("sigmoid"), "function": keras.ops.sigmoid}[kind](answers)
    return keras.Model(keras.utils.get_source_inputs(answers)[0], answers), logit


@pytest.mark.parametrize("kind", ["logit", "layer", "function", "nested", "half"])
def test_one_unit_is_two_classes(kind):
    keras.utils.set_random_seed(3)
    model, head = one_unit(kind)
    head.bias.assign([-float(np.median(keras.Model(model.inputs[0], head.output)(IMAGES)))])
    seen = cam(model, IMAGES)
    probabilities = np.asarray(model(IMAGES))[:, 0]
    if kind == "logit":
        probabilities = 1 / (1 + np.exp(-probabilities))
    assert 0 < (probabilities > 0.5).sum() < len(IMAGES)
    np.testing.assert_allclose(seen.probabilities, np.stack([1 - probabilities, probabilities], 1), atol=1e-5)


@pytest.mark.slow
def test_answers_that_are_not_finite_are_refused():
    model = plain()
    model.layers[-1].bias.assign([0, 0, 0, 0, np.nan])
    with pytest.raises(ValueError, match="finite answers"):
        maps_of(model, IMAGES)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size=0"):
        cam(plain(), IMAGES, batch_size=0)


@pytest.mark.parametrize("model", [plain(), residual()])
def test_the_maps_are_those_of_tf_keras_vis(model):
    gradcam = pytest.importorskip("tf_keras_vis.gradcam").Gradcam(model, clone=False)
    from tf_keras_vis.utils.scores import CategoricalScore

    (batch,) = cam_batches(model, IMAGES)
    classes = batch.probabilities.argmax(1).tolist()
    theirs = gradcam(CategoricalScore(classes), IMAGES, penultimate_layer="last", expand_cam=False, normalize_cam=False)
    np.testing.assert_allclose(batch.maps, resize_maps(theirs, theirs.shape[1:]), atol=1e-5)
