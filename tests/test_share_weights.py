import keras
import numpy as np
import pytest

import scc_tf
from scc_tf import coding
from scc_tf.layers import WeightSharing, entry_of, weight_sharing_layers

k = keras.layers


def images(count=4):
    return np.random.default_rng(1).normal(size=(count, 8, 8, 2)).astype("float32")


def new_chain():
    """One of every layer whose weights can be shared, with pruned weights and a dead unit."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            k.Conv2D(4, 3, activation="relu", name="conv"),
            k.BatchNormalization(name="norm"),
            k.DepthwiseConv2D(3, padding="same", name="depthwise"),
            k.SeparableConv2D(4, 3, name="separable"),
            k.Conv2DTranspose(2, 2, strides=2, name="transpose"),
            k.Reshape((64, 2)),
            k.Conv1D(3, 4, padding="causal", strides=8, name="conv1d"),
            k.EinsumDense("abc,cde->abde", (8, 2, 2), bias_axes="de", name="einsum"),
            k.Flatten(),
            k.Dense(6, activation="relu", name="hidden"),
            k.Dense(3, name="head"),
        ],
        name="chain",
    )
    rng = np.random.default_rng(2)
    for weight in model.weights:
        pruned = 1 if len(weight.shape) == 1 else rng.random(weight.shape) < 0.7
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) * pruned)
    hidden = model.get_layer("hidden")
    hidden.kernel.assign(np.asarray(hidden.kernel) * [1, 1, 0, 1, 1, 1])
    hidden.bias.assign([0.1, -0.2, 0.3, 0.4, 0.5, 0.6])
    return model


@pytest.fixture(scope="module")
def chain():
    return new_chain()


@pytest.fixture(scope="module")
def shared(chain):
    return scc_tf.share_weights(chain, 5)


@pytest.mark.slow
def test_every_kernel_is_shared_as_the_coding_says(chain, shared):
    assert type(shared) is type(keras.Model(chain.inputs, chain.outputs))
    assert [type(la) for la in shared.layers[1:]] == [
        (entry_of(la) and entry_of(la).weight_sharing) or type(la) for la in chain.layers
    ]
    assert shared.conversion_report.skipped == {}
    assert str(shared.conversion_report).startswith("8 layers share weights: conv, depthwise, ")
    for layer in weight_sharing_layers(shared):
        for one in layer.shared_kernels:
            before = np.asarray(getattr(chain.get_layer(layer.name), one.name))
            centroids, members = coding.share_weights(before[before != 0], 5)
            np.testing.assert_array_equal(one.centroids, centroids)
            np.testing.assert_array_equal(np.asarray(one)[before != 0], centroids[members])
            np.testing.assert_array_equal(np.asarray(one.indices) == 0, before == 0)
        if layer.bias is not None:
            np.testing.assert_array_equal(layer.bias, chain.get_layer(layer.name).bias)


def test_to_plain_gives_stock_layers_with_the_same_outputs(chain, shared):
    plain = scc_tf.to_plain(shared)
    assert [type(layer) for layer in plain.layers[1:]] == [type(layer) for layer in chain.layers]
    for ours, theirs in zip(plain.layers[1:], chain.layers, strict=True):
        assert ours.get_config() == theirs.get_config()
    np.testing.assert_array_equal(plain(images()), shared(images()))


@pytest.mark.slow
def test_many_clusters_change_nothing_and_the_original_is_untouched(chain):
    before = chain.get_weights()
    exact = scc_tf.share_weights(chain, 1000, start="density")
    np.testing.assert_allclose(exact(images()), chain(images()), rtol=1e-4, atol=1e-3)
    for now, then in zip(chain.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_clusters_by_layer_and_exclusion(chain):
    model = scc_tf.share_weights(chain, {"conv": 3, "separable": 2, "head": 7}, exclude="head", start="forgy", seed=3)
    assert [(la.name, la.clusters) for la in weight_sharing_layers(model)] == [("conv", (3,)), ("separable", (2, 2))]
    assert model.conversion_report.skipped["head"] == "excluded by the caller"
    assert model.conversion_report.skipped["hidden"] == "not named in clusters"


@pytest.mark.slow
def test_masked_and_self_compressing_layers_are_taken_with_the_kernel_they_multiply_by():
    inputs = keras.Input((5,))
    plain = keras.Model(inputs, k.Dense(3, name="b")(k.Dense(6, name="a", kernel_regularizer="l2")(inputs)))
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    for source in (
        scc_tf.self_compress(plain, 3),
        scc_tf.add_masks(plain),
        scc_tf.add_masks(scc_tf.self_compress(plain, 3)),
    ):
        if hasattr(source.get_layer("a"), "prune"):
            source.get_layer("a").prune(np.arange(30).reshape(5, 6) % 2 > 0)
        model = scc_tf.share_weights(source, 100)
        assert [type(layer).__name__ for layer in model.layers[1:]] == ["WeightSharingDense"] * 2
        np.testing.assert_allclose(model(x), source(x), atol=1e-6)
        np.testing.assert_allclose(sum(model.losses), sum(scc_tf.to_plain(source).losses), rtol=1e-5)
    assert (np.asarray(model.get_layer("a").kernel.indices).ravel()[::2] == 0).all()


def test_zeros_are_pruned_or_values():
    plain = keras.Sequential([keras.Input((2,)), k.Dense(2, kernel_initializer="zeros", name="zero")])
    pruned = scc_tf.share_weights(plain).get_layer("zero")
    assert (pruned.clusters, np.asarray(pruned.kernel.indices).max()) == ((1,), 0)
    value = scc_tf.share_weights(plain, zeros="values").get_layer("zero")
    assert (value.clusters, np.asarray(value.kernel.indices).min()) == ((1,), 1)
    for layer in (pruned, value):
        assert not np.asarray(layer.kernel).any()


def test_what_is_skipped(caplog):
    inputs = keras.Input((4,))
    x = k.Dense(4, kernel_constraint="non_neg", name="constrained")(inputs)
    x = k.PReLU(name="prelu")(k.Reshape((2, 2))(x))
    plain = keras.Model(inputs, k.Dense(2, name="head")(k.Flatten()(x)))
    model = scc_tf.share_weights(plain)
    assert model.conversion_report.skipped == {
        "constrained": "has a kernel_constraint, which shared weights cannot obey",
        "prelu": "no weight-sharing form of PReLU",
    }
    assert "share_weights: skipped layer prelu" in caplog.text
    assert scc_tf.share_weights(model).conversion_report.skipped["head"] == "already weight-sharing"
    compressed = scc_tf.self_compress(model)  # the constrained one still can
    assert compressed.conversion_report.skipped["head"] == "already weight-sharing"
    masked = scc_tf.add_masks(model)
    assert isinstance(masked.get_layer("head"), WeightSharing)
    np.testing.assert_array_equal(masked.get_layer("head").kernel, model.get_layer("head").kernel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clusters": 0}, "clusters=0"),
        ({"clusters": {"conv": 0}}, "Expected clusters to be a whole number from 1"),
        ({"clusters": {"convv": 3}}, r"name layers of the model. Received: clusters=\['convv'\]"),
        ({"clusters": 10**6}, "from 1 to 65536. Received: clusters=1000000"),
        ({"clusters": {}}, "at least one layer that can share weights"),
        ({"start": "best"}, "start='best'"),
        ({"zeros": "kept"}, "zeros='kept'"),
        ({"exclude": "convv"}, r"Received: exclude=\['convv'\]"),
        ({"exclude": lambda layer: True}, "at least one layer that can share weights"),
    ],
)
def test_arguments_out_of_range_are_refused(chain, arguments, message):
    with pytest.raises(ValueError, match=message):
        scc_tf.share_weights(chain, **arguments)


@pytest.mark.slow
def test_nested_and_shared_layers(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), k.Dense(4, name="deep"), k.BatchNormalization()], name="inner")
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, k.Dense(2, name="head")(k.Add()([inner(inputs), inner(inputs * 2.0)])))
    model = scc_tf.share_weights(plain, 6)
    assert sorted(layer.name for layer in weight_sharing_layers(model)) == ["deep", "head"]
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(scc_tf.to_plain(model)(x), model(x))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))


@pytest.mark.slow
def test_dead_channels_are_removed(shared):
    smaller, report = scc_tf.remove_dead_channels(shared)
    assert report.channels["hidden"] == (6, 5)
    hidden = smaller.get_layer("hidden")
    assert isinstance(hidden, WeightSharing)
    np.testing.assert_array_equal(hidden.kernel.centroids, shared.get_layer("hidden").kernel.centroids)
    keep = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(hidden.kernel.indices, np.asarray(shared.get_layer("hidden").kernel.indices)[:, keep])
    np.testing.assert_allclose(smaller(images()), shared(images()), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_removed_channels_are_cut_out_or_set_to_zero(shared):
    keep = {"conv1d": np.array([True, False, True]), "head": np.array([True, False, True])}
    smaller, report = scc_tf.remove_channels(shared, keep)
    conv, head = smaller.get_layer("conv1d").kernel, smaller.get_layer("head").kernel
    assert conv.shape == (4, 2, 2)
    np.testing.assert_array_equal(conv.indices, np.asarray(shared.get_layer("conv1d").kernel.indices)[..., [0, 2]])
    assert report.kept_dead["head"][0] == 1  # an output of the model stays, with zeros
    assert not np.asarray(head.indices)[:, 1].any()
    assert np.asarray(head.indices)[:, 0].any()


@pytest.mark.slow
def test_the_optimizer_goes_on_with_the_centroids():
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, k.Dense(2, name="head")(k.Dense(5, name="hidden")(inputs)))
    plain.get_layer("hidden").kernel.assign(np.asarray(plain.get_layer("hidden").kernel) * [1, 0, 1, 1, 1])
    model = scc_tf.share_weights(plain, 3)
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    model.train_on_batch(np.ones((2, 4)), np.ones((2, 2)))
    smaller, _ = scc_tf.remove_dead_channels(model)
    assert [v.shape for v in smaller.optimizer.variables[2:4]] == [(3,), (3,)]
    assert np.asarray(smaller.optimizer.variables[2]).any()
    smaller.train_on_batch(np.ones((2, 4)), np.ones((2, 2)))


@pytest.mark.slow
def test_tflite_takes_the_model_with_float_weights(tmp_path):
    shared = scc_tf.share_weights(new_chain(), 5)
    report = scc_tf.export_tflite(shared, tmp_path / "model.tflite", storage="float32")
    assert len(report.kernels) == 9
    from scc_tf.export import run_tflite

    outputs = np.concatenate([run_tflite(tmp_path / "model.tflite", x[None]) for x in images()])
    np.testing.assert_allclose(outputs, shared(images()), rtol=1e-3, atol=1e-3)
    assert (
        scc_tf.export_tflite(shared, tmp_path / "model.tflite").bytes == report.bytes
    )  # there are no integers to store
