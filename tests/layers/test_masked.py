import keras
import numpy as np
import pytest
import toy_problem as toy

import scc_tf
from scc_tf.layers import Masked, entries

k = keras.layers


def network(compressed=False):
    """One of every layer that can have masks."""
    keras.utils.set_random_seed(0)
    stack = {
        "conv2d": k.Conv2D(4, 3),
        "depthwise": k.DepthwiseConv2D(2),
        "separable": k.SeparableConv2D(4, 2),
        "transpose": k.Conv2DTranspose(3, 2),
        "reshape": k.Reshape((9, 3)),
        "conv1d": k.Conv1D(4, 3),
        "einsum": k.EinsumDense("abc,cd->abd", (7, 4)),
        "flatten": k.Flatten(),
        "head": k.Dense(2),
    }
    for name, layer in stack.items():
        layer.name = name
    model = keras.Sequential([keras.Input((6, 6, 3)), *stack.values()])
    return scc_tf.self_compress(model, 5) if compressed else model


def half(mask):
    return np.random.default_rng(0).random(tuple(mask.shape)) < 0.5


def prune(layer):
    """Prune half of every kernel; returns ``{kernel name: keep}``."""
    keep = {name: half(mask) for name, mask in layer.masks.items()}
    for name, mask in keep.items():
        layer.prune(mask, name)
    return keep


stock_or_twin = pytest.mark.parametrize("compressed", [False, True], ids=["stock", "twin"])


def data(model, count=16):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, *model.input_shape[1:])).astype("float32"), rng.integers(0, 2, count)


def masked_layers(model):
    return [layer for layer in model.layers if isinstance(layer, Masked)]


@pytest.mark.slow
@stock_or_twin
def test_new_masks_change_nothing_and_pruned_entries_are_zero(compressed):
    model = network(compressed)
    masked = scc_tf.add_masks(model)
    x, _ = data(model)
    np.testing.assert_allclose(masked(x), model(x), atol=1e-6)
    forms = [entry.masked_self_compressing if compressed else entry.masked for entry in entries()]
    assert {type(layer) for layer in masked_layers(masked)} == set(forms)
    for layer in masked_layers(masked):
        for kernel, keep in prune(layer).items():
            before = np.asarray(getattr(model.get_layer(layer.name), kernel))
            np.testing.assert_array_equal(getattr(layer, kernel), np.where(keep, before, 0))
            np.testing.assert_array_equal(np.asarray(layer.masks[kernel]) > 0, keep)
    plain = scc_tf.to_plain(masked)
    assert not masked_layers(plain)
    np.testing.assert_allclose(plain(x), masked(x), atol=1e-5)


@pytest.mark.slow
@stock_or_twin
def test_masks_survive_the_file_and_hold_in_training(compressed, tmp_path):
    masked = scc_tf.add_masks(network(compressed))
    keep = {layer.name: prune(layer) for layer in masked_layers(masked)}
    masked.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x, labels = data(masked)
    np.testing.assert_array_equal(loaded(x), masked(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loaded.compile(keras.optimizers.Adam(0.1), loss, run_eagerly=True)
    loaded.fit(x, labels, epochs=2, verbose=0)
    for layer in masked_layers(loaded):
        for kernel, mask in keep[layer.name].items():
            after, before = (np.asarray(getattr(m.get_layer(layer.name), kernel)) for m in (loaded, masked))
            assert not after[~mask].any()
            assert np.abs(after - before)[mask].max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1),
        lambda: keras.optimizers.Adam(0.1, clipnorm=1.0),
        lambda: keras.optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    ],
    ids=["momentum", "weight decay", "clipping", "centred"],
)
def test_pruned_entries_stay_zero_though_the_optimizer_remembers_them(optimizer):
    inputs, labels = toy.points()
    model = scc_tf.add_masks(toy.dense_net())
    model.compile(optimizer(), toy.cross_entropy(), run_eagerly=True)
    model.fit(inputs, labels, batch_size=16, verbose=0)  # momentum for every entry
    keep = prune(model.get_layer("hidden"))["kernel"]
    before = np.asarray(model.get_layer("hidden").kernel).copy()
    model.fit(inputs, labels, batch_size=16, epochs=2, verbose=0)
    after = np.asarray(model.get_layer("hidden").kernel)
    assert not after[~keep].any()
    assert (after[keep] != before[keep]).all()


def test_the_kernels_own_constraint_still_holds():
    layer = k.Dense(4, kernel_constraint="non_neg", name="it")
    model = scc_tf.add_masks(keras.Sequential([keras.Input((5,)), layer]))
    prune(model.get_layer("it"))
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    model.fit(np.ones((4, 5)), -np.ones((4, 4)), verbose=0)
    assert np.asarray(model.get_layer("it").kernel).min() == 0
    assert model.get_layer("it").get_config()["kernel_constraint"]["class_name"] == "NonNeg"


def test_masks_compose_in_any_order():
    masks_first = scc_tf.add_masks(network())
    keep = prune(masks_first.get_layer("conv2d"))["kernel"]
    both = scc_tf.self_compress(masks_first, 5)
    layer = both.get_layer("conv2d")
    assert type(layer) is type(scc_tf.add_masks(network(compressed=True)).get_layer("conv2d"))
    assert not np.asarray(layer.codes())[~keep].any()
    np.testing.assert_array_equal(layer.masks["kernel"], keep)


@stock_or_twin
def test_channels_of_masked_kernels_are_removed(compressed):
    model = scc_tf.add_masks(network(compressed))
    layer = model.get_layer("conv2d")
    keep = half(layer.masks["kernel"])
    keep[..., 1] = False
    layer.prune(keep)
    layer.bias.assign([0, 1, 2, 3])
    x, _ = data(model)
    smaller, report = scc_tf.remove_dead_channels(model)
    assert report.channels["conv2d"] == (4, 3)
    np.testing.assert_array_equal(smaller.get_layer("conv2d").masks["kernel"], keep[..., [0, 2, 3]])
    np.testing.assert_allclose(smaller(x), model(x), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: layer.prune(np.ones((2, 2), bool)), r"shape \(2, 2\)"),
        (lambda layer: layer.prune(np.ones((3, 3, 3, 4), bool), "other"), "kernel_name='other'"),
    ],
)
def test_masks_that_do_not_fit(change, message):
    model = scc_tf.add_masks(network())
    with pytest.raises(ValueError, match=message):
        change(model.get_layer("conv2d"))


def test_what_cannot_have_masks():
    with pytest.raises(ValueError, match="at least one layer that can have masks"):
        scc_tf.add_masks(keras.Sequential([keras.Input((3,)), k.ReLU()]))
    with pytest.raises(ValueError, match="name layers of the model"):
        scc_tf.add_masks(network(), exclude="nothing")
    kept = scc_tf.add_masks(network(), exclude="conv2d")
    assert not isinstance(kept.get_layer("conv2d"), Masked)
    assert isinstance(kept.get_layer("head"), Masked)
