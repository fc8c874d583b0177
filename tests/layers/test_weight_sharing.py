import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_cases import CASES, ONE_OF_EACH

import scc_tf
from scc_tf import layers
from scc_tf.layers import WeightSharing, WeightSharingConv2D, WeightSharingDense, weight_sharing_layers

ONE_OF_EACH = [case.weight_sharing() for case in ONE_OF_EACH]
OTHERS = [case.weight_sharing() for case in CASES if case.weight_sharing() not in ONE_OF_EACH]
each_case = pytest.mark.parametrize(
    "case", ONE_OF_EACH + [pytest.param(case, marks=pytest.mark.slow) for case in OTHERS], ids=str
)
one_of_each = pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.twin.__name__)


def test_every_stock_layer_has_one():
    for entry in layers.entries():
        stock, twin = entry.stock, entry.weight_sharing
        assert issubclass(twin, WeightSharing)
        assert issubclass(twin, stock)
        assert twin.__name__ == f"WeightSharing{stock.__name__}"
        assert keras.saving.get_registered_name(twin) == f"scc_tf>{twin.__name__}"


@pytest.mark.slow
@each_case
def test_battery(case):
    layer_checks.battery(case)


@one_of_each
def test_other_ways_to_compress_are_refused(case):
    layer_checks.check_other_ways_to_compress_are_refused(case, "call scc_tf.to_plain(model) first")


@one_of_each
def test_saving(case, tmp_path):
    layer_checks.check_a_saved_model_is_the_same_bit_for_bit(case, tmp_path)


@one_of_each
def test_mixed_precision(case):
    layer_checks.check_mixed_precision_has_the_same_kernel(case, "mixed_float16")


def test_figure_3_of_the_paper():
    """4 x 4 weights, their gradients summed by cluster, and one step of SGD with learning rate 1."""
    weights = [[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]]
    gradients = [
        [-0.03, -0.01, 0.03, 0.02],
        [-0.01, 0.01, -0.02, 0.12],
        [-0.01, 0.02, 0.04, 0.01],
        [-0.07, -0.02, 0.01, -0.02],
    ]
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, use_bias=False)])
    plain.layers[0].kernel.assign(weights)
    shared = scc_tf.share_weights(plain, clusters=4, zeros="values").layers[1]
    np.testing.assert_allclose(shared.kernel.centroids, [-1, 0, 1.5, 2], atol=1e-6)
    np.testing.assert_array_equal(
        np.asarray(shared.kernel.indices) - 1, [[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]]
    )
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(shared(np.eye(4, dtype="float32")) * gradients)
    gradient = tape.gradient(loss, shared.kernel.centroids.value)
    np.testing.assert_allclose(gradient, [-0.03, 0.04, 0.02, 0.04], atol=1e-6)
    keras.optimizers.SGD(1.0).apply([gradient], [shared.kernel.centroids])
    np.testing.assert_allclose(shared.kernel.centroids, [-0.97, -0.04, 1.48, 1.96], atol=1e-6)


def small_net(**settings):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            WeightSharingConv2D(4, 3, clusters=3, name="conv", **settings),
            keras.layers.Flatten(),
            WeightSharingDense(2, clusters=5, name="head", **settings),
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [{"jit_compile": False}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)], ids=str
)
def test_pruned_weights_stay_zero_and_the_others_share_few_values(how):
    model = small_net()
    for layer in weight_sharing_layers(model):
        kept = np.random.default_rng(0).integers(0, 2, layer.kernel.shape)
        layer.share(layer.kernel.centroids, np.asarray(layer.kernel.indices) * kept)
    before = model.get_weights()
    model.compile(keras.optimizers.Adam(0.1), "mse", **how)
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    model.fit(x, np.ones((8, 2)), epochs=3, batch_size=4, verbose=0)
    for old, variable in zip(before, model.weights, strict=True):
        assert np.any(old != ops.convert_to_numpy(variable)) == variable.trainable, variable.path
    for layer in weight_sharing_layers(model):
        weights, pruned = np.asarray(layer.kernel), np.asarray(layer.kernel.indices) == 0
        assert pruned.any()
        assert not weights[pruned].any()
        assert np.unique(weights[~pruned]).size <= layer.clusters[0]


def test_a_kernel_is_taken_for_its_array():
    layer = small_net().get_layer("head")
    weights = np.asarray(layer.kernel)
    assert layer.kernel is layer.shared_kernel()
    assert layer.kernel.dtype == weights.dtype == "float32"
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel), weights)
    np.testing.assert_array_equal(ops.multiply(layer.kernel, 2.0), 2 * weights)
    np.testing.assert_array_equal(np.asarray(layer.kernel, "float64"), weights.astype("float64"))
    with tf.GradientTape() as tape:
        total = ops.sum(ops.convert_to_tensor(layer.kernel))
    counts = np.bincount(np.ravel(layer.kernel.indices), minlength=6)[1:]
    np.testing.assert_array_equal(tape.gradient(total, layer.kernel.centroids.value), counts)


def test_kernels_of_one_layer_may_have_different_numbers_of_clusters():
    layer = layers.WeightSharingSeparableConv2D(4, 2, clusters=[2, 5])
    layer.build((None, 4, 4, 3))
    assert [(shared.name, *shared.centroids.shape) for shared in layer.shared_kernels] == [
        ("depthwise_kernel", 2),
        ("pointwise_kernel", 5),
    ]
    assert [w.name for w in layer.weights if "i" in w.name and not w.trainable] == [
        "depthwise_indices",
        "pointwise_indices",
    ]
    again = layers.WeightSharingSeparableConv2D.from_config(layer.get_config())
    assert again.clusters == (2, 5)
    assert layer.shared_kernel("depthwise_kernel").channel_axes == (2, 3)
    with pytest.raises(ValueError, match="Received: kernel_name='kernel'"):
        layer.shared_kernel()


@pytest.mark.parametrize("initializer", ["zeros", "ones"])
@pytest.mark.parametrize("clusters", [1, 3])
def test_a_kernel_that_starts_with_one_value_has_it(initializer, clusters):
    layer = WeightSharingDense(2, clusters=clusters, kernel_initializer=initializer)
    layer.build((None, 3))
    np.testing.assert_array_equal(np.asarray(layer.kernel), np.full((3, 2), initializer == "ones"))


def test_a_layer_that_is_built_inside_another_draws_once():
    class Wrapper(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            seeds = keras.random.SeedGenerator(0)  # its next draw is another one
            start = keras.initializers.RandomUniform(seed=seeds)
            self.inner = WeightSharingDense(3, clusters=2, kernel_initializer=start)

        def call(self, x):
            return self.inner(x)

    wrapper = Wrapper()
    model = keras.Sequential([keras.Input((4,)), wrapper])
    assert np.isfinite(model(np.ones((1, 4), "float32"))).all()
    assert set(np.unique(wrapper.inner.kernel.indices)) == {1, 2}


@pytest.mark.parametrize("clusters", [0, -1, 2.0, [3], (3, 0), "many"])
def test_clusters_out_of_range_are_refused(clusters):
    with pytest.raises(ValueError, match="Expected clusters to be an int from 1"):
        layers.WeightSharingSeparableConv2D(3, 2, clusters=clusters)


@pytest.mark.parametrize("name", ["kernel_constraint", "depthwise_constraint"])
def test_constraints_on_kernels_are_refused(name):
    cls = WeightSharingConv2D if name == "kernel_constraint" else layers.WeightSharingDepthwiseConv2D
    arguments = (4, 3) if name == "kernel_constraint" else (3,)
    with pytest.raises(ValueError, match=f"Received: {name}"):
        cls(*arguments, **{name: "non_neg"})


@pytest.mark.parametrize(
    ("centroids", "indices", "message"),
    [
        ([1.0], np.zeros((2, 2), int), "Expected 2 finite centroids"),
        ([1.0, np.nan], np.zeros((2, 2), int), "Expected 2 finite centroids"),
        ([1.0, 2.0], np.zeros((2, 3), int), r"shape=\(2, 3\)"),
        ([1.0, 2.0], np.zeros((2, 2)), "dtype=float64"),
        ([1.0, 2.0], [[0, 1], [2, 3]], "from 0 to 3"),
        ([1.0, 2.0], [[0, 1], [2, -1]], "from -1 to 2"),
    ],
)
def test_codebooks_that_do_not_fit_are_refused(centroids, indices, message):
    layer = WeightSharingDense(2, clusters=2)
    with pytest.raises(ValueError, match="Expected a built layer"):
        layer.share([0.0, 1.0], np.zeros((2, 2), int))
    layer.build((None, 2))
    with pytest.raises(ValueError, match=message):
        layer.share(centroids, indices)
