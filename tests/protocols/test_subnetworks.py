import keras
import numpy as np
import pytest
from lab import models

from scc_tf.protocols.subnetworks import Neurons, Weights, parameter_count


def convolutional(seed=0):
    """Two filters' worth of everything that pruning has to cut through, with biases that matter."""
    k = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            k.Conv2D(5, 3, activation="relu", name="conv"),
            k.MaxPooling2D(2),
            k.Flatten(),
            k.Dense(8, activation="relu", name="dense"),
            k.Dense(3, name="out"),
        ]
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def by_hand(model, kept, images):
    """The outputs of what is kept, in NumPy, from the definition."""
    conv, dense, out = (
        [np.asarray(w, np.float64) for w in model.get_layer(n).weights] for n in ("conv", "dense", "out")
    )
    filters, neurons = np.flatnonzero(kept["conv"]), np.flatnonzero(kept["dense"])
    answers = []
    for image in images:
        maps = np.zeros((4, 4, len(filters)))
        for place, number in enumerate(filters):
            for i, j in np.ndindex(4, 4):
                maps[i, j, place] = (image[i : i + 3, j : j + 3] * conv[0][..., number]).sum() + conv[1][number]
        pooled = np.maximum(maps, 0).reshape(2, 2, 2, 2, -1).max(axis=(1, 3))
        kernel = dense[0].reshape(2, 2, 5, 8)[:, :, filters][..., neurons].reshape(-1, len(neurons))
        hidden = np.maximum(pooled.ravel() @ kernel + dense[1][neurons], 0)
        answers.append(hidden @ out[0][neurons] + out[1])
    return np.array(answers)


def test_the_output_layer_is_never_pruned_wherever_it_stands():
    assert list(Neurons().everything(convolutional())) == ["conv", "dense"]
    assert list(Neurons().everything(models.moons_mlp(seed=0))) == ["dense1"]
    assert list(Neurons().everything(models.cifar_cnn(seed=0))) == ["conv1", "conv2", "dense1", "dense2"]


@pytest.mark.slow
def test_what_is_left_is_the_network_without_the_neurons_of_the_smallest_norm():
    model, images = convolutional(), np.random.default_rng(1).normal(size=(4, 6, 6, 2)).astype(np.float32)
    pruning = Neurons()
    kept = pruning.choose(model, pruning.everything(model), 0.5)
    for name, count in (("conv", 3), ("dense", 4)):
        norms = np.abs(np.asarray(model.get_layer(name).kernel)).reshape(-1, kept[name].size).sum(axis=0)
        assert kept[name].sum() == count
        assert norms[kept[name]].min() > norms[~kept[name]].max()
    expected = by_hand(model, kept, images)
    smaller = pruning.cut(model, kept)
    np.testing.assert_allclose(smaller(images), expected, rtol=1e-4, atol=1e-4)
    assert [smaller.get_layer(name).kernel.shape[-1] for name in ("conv", "dense", "out")] == [3, 4, 3]
    assert parameter_count(smaller) == smaller.count_params() == (18 + 1) * 3 + (12 + 1) * 4 + (4 + 1) * 3


@pytest.mark.slow
def test_a_second_choice_is_among_the_survivors_and_counts_from_the_whole():
    model, pruning = models.moons_mlp(seed=0), Neurons()
    first = pruning.choose(model, pruning.everything(model), 0.5)
    network = pruning.cut(models.moons_mlp(seed=0), first)
    network.get_layer("dense1").kernel.assign(np.arange(30).reshape(2, 15))  # the last ones are the largest now
    second = pruning.choose(network, first, 0.8)
    np.testing.assert_array_equal(np.flatnonzero(second["dense1"]), np.flatnonzero(first["dense1"])[-6:])


@pytest.mark.parametrize("pruning", [Neurons(), Weights()])
def test_the_control_keeps_as_many_but_others(pruning):
    model = models.moons_mlp(seed=0)
    everything = pruning.everything(model)
    chosen = pruning.choose(model, everything, 0.6)
    control = pruning.at_random(everything, 0.6, np.random.default_rng(0))
    assert sum(int(mask.sum()) for mask in chosen.values()) == sum(int(mask.sum()) for mask in control.values())
    assert any(not np.array_equal(chosen[name], control[name]) for name in chosen)
    for name, mask in everything.items():
        assert mask.all() and mask.shape == control[name].shape == chosen[name].shape


def test_masks_prune_the_smallest_weights_of_all_layers():
    model, pruning = models.moons_mlp(seed=0), Weights()
    kept = pruning.choose(model, pruning.everything(model), 0.75)
    masked = pruning.cut(model, kept)
    values = np.concatenate([np.asarray(masked.get_layer(name).kernel).ravel() for name in ("dense1", "head")])
    before = np.concatenate([np.asarray(model.get_layer(name).kernel).ravel() for name in ("dense1", "head")])
    assert (values != 0).sum() == 30
    assert np.abs(before[values != 0]).min() >= np.abs(before[values == 0]).max()
    assert parameter_count(masked) == 30 + 32
    further = pruning.choose(masked, kept, 0.9)
    assert all((kept[name] | ~further[name]).all() for name in kept)  # nothing comes back
    assert sum(int(mask.sum()) for mask in further.values()) == 12


def test_removed_biases_do_not_live_on_in_their_readers():
    model, pruning = models.moons_mlp(seed=0), Neurons()
    model.get_layer("dense1").bias.assign(np.full(30, 5.0))
    kept = {"dense1": np.arange(30) < 10}
    smaller = pruning.cut(model, kept)
    np.testing.assert_array_equal(smaller.get_layer("head").bias, 0)
