import keras
import numpy as np
import pytest
from lab import models

BUILDERS = [
    models.mnist_cnn,
    models.lenet_300_100,
    models.lenet_5,
    models.cifar_cnn,
    models.moons_mlp,
    models.resnet20,
]
each_model = pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)


def trainable_count(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def some_inputs(model, n=3):
    return np.random.default_rng(0).normal(size=(n, *model.input_shape[1:])).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "count"),
    [
        (models.mnist_cnn, 81_696 + 5_760 + 10),
        (models.lenet_300_100, 266_610),
        (models.lenet_5, 431_080),
        (models.cifar_cnn, 62_006),
        (models.moons_mlp, 152),
        (models.resnet20, 269_722),
    ],
)
def test_parameters_are_the_published_number(build, count):
    assert trainable_count(build()) == count


@pytest.mark.slow
@each_model
def test_answers_are_logits_one_per_class(build):
    model = build(seed=0)
    answers = np.asarray(model(some_inputs(model)))
    assert answers.shape == (3, 2 if build is models.moons_mlp else 10)
    assert not np.allclose(answers.sum(axis=1), 1)
    assert model.layers[-1].name == "head"
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.slow
@each_model
def test_names_are_the_same_in_every_call(build):
    assert [layer.name for layer in build().layers[1:]] == [layer.name for layer in build().layers[1:]]


@pytest.mark.slow
@each_model
def test_a_seed_gives_the_same_weights_and_another_seed_others(build):
    first, again, other = build(seed=3), build(seed=3), build(seed=4)
    for a, b, c in zip(first.get_weights(), again.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or not np.allclose(a, c)


@pytest.mark.slow
def test_a_seeded_model_leaves_the_global_random_state_alone():
    keras.utils.set_random_seed(7)
    expected = keras.random.normal((4,))
    keras.utils.set_random_seed(7)
    models.resnet20(seed=1)
    np.testing.assert_array_equal(keras.random.normal((4,)), expected)


def test_without_a_seed_the_global_one_counts():
    keras.utils.set_random_seed(7)
    first = models.moons_mlp().get_weights()
    second = models.moons_mlp().get_weights()
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(models.moons_mlp().get_weights()[0], first[0])
    assert not np.allclose(first[0], second[0])


@pytest.mark.slow
def test_kernels_of_one_shape_differ():
    model = models.resnet20(seed=0)
    first = model.get_layer("stage1_block1_conv1").get_weights()[0]
    assert not np.allclose(first, model.get_layer("stage1_block1_conv2").get_weights()[0])


@pytest.mark.slow
@each_model
def test_survives_a_keras_file(build, tmp_path):
    model = build(seed=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = some_inputs(model)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}


def test_the_founding_network_is_the_founders():
    model = models.mnist_cnn()
    assert [tuple(model.get_layer(f"conv{i}").kernel.shape) for i in (1, 2, 3, 4)] == [
        (5, 5, 1, 32),
        (5, 5, 32, 32),
        (3, 3, 32, 64),
        (3, 3, 64, 64),
    ]
    assert not any(model.get_layer(f"conv{i}").use_bias for i in (1, 2, 3, 4))
    assert model.get_layer("flatten").output.shape == (None, 576)
    for name in ("norm1", "norm2"):
        norm = model.get_layer(name)
        assert (norm.center, norm.scale, norm.epsilon, norm.momentum) == (False, False, 1e-5, 0.9)
    assert [layer.name for layer in model.layers[1:5]] == ["conv1", "conv2", "norm1", "pool1"]


@pytest.mark.slow
def test_resnet_shortcut_takes_every_second_pixel_and_adds_zero_channels_on_both_sides():
    model = models.resnet20(seed=0)
    shortcut = keras.Model(model.get_layer("stage1_block3_relu2").output, model.get_layer("stage2_block1_widen").output)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 16)).astype("float32")
    expected = np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (8, 8)))
    np.testing.assert_array_equal(shortcut(x), expected)


@pytest.mark.slow
def test_resnet_strided_convolution_is_centred_on_the_pixel_of_its_shortcut():
    model = models.resnet20(seed=0)
    conv = model.get_layer("stage2_block1_conv1")
    kernel = np.zeros(conv.kernel.shape, "float32")
    kernel[1, 1] = np.eye(16, 32)
    conv.kernel.assign(kernel)
    branch = keras.Model(model.get_layer("stage1_block3_relu2").output, conv.output)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 16)).astype("float32")
    np.testing.assert_allclose(np.asarray(branch(x))[..., :16], x[:, ::2, ::2], rtol=1e-6)


DROPOUTS = [  # and the layers that each follows
    (models.lenet_300_100, {"dropout1": "dense1", "dropout2": "dense2"}),
    (models.lenet_5, {"dropout1": "dense1"}),
]


@pytest.mark.parametrize(("build", "places"), DROPOUTS)
def test_dropout_stands_behind_the_hidden_layers(build, places):
    plain, dropping = build(seed=3, dropout=0.0), build(seed=3, dropout=0.25)
    names = [layer.name for layer in plain.layers[1:]]
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in build().layers)
    assert [layer.name for layer in dropping.layers[1:] if layer.name not in places] == names
    for dropout, hidden in places.items():
        layer = dropping.get_layer(dropout)
        assert (type(layer), layer.rate) == (keras.layers.Dropout, 0.25)
        assert layer.input is dropping.get_layer(hidden).output
    for a, b in zip(plain.get_weights(), dropping.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    inputs = some_inputs(plain)
    np.testing.assert_array_equal(plain(inputs), dropping(inputs))
    dropped = dropping(inputs, training=True)
    assert not np.allclose(plain(inputs), dropped)
    np.testing.assert_array_equal(build(seed=3, dropout=0.25)(inputs, training=True), dropped)


NORMALIZATION = ([4.0, 4.1, 3.8], [-2.0, -1.9, -1.7])


@pytest.mark.slow
def test_resnet_normalizes_its_images_if_asked():
    plain, normal = models.resnet20(seed=0), models.resnet20(seed=0, normalization=NORMALIZATION)
    assert [layer.name for layer in normal.layers if layer.name != "normalize"] == [
        layer.name for layer in plain.layers
    ]
    assert normal.layers[1].name == "normalize"
    for one, same in zip(normal.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    scale, offset = np.float32(NORMALIZATION)
    np.testing.assert_allclose(normal(images), plain(images * scale + offset), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalization", [([1.0], [0.0]), ([1.0, 1.0, 1.0], [0.0]), (2.0, 0.0)])
def test_a_normalization_that_is_not_per_colour_is_refused(normalization):
    with pytest.raises(ValueError, match="normalization to be three scales and three offsets"):
        models.resnet20(normalization=normalization)
