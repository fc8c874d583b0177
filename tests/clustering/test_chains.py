import keras
import numpy as np
import pytest
from keras import layers
from lab import models
from small_nets import plain, residual, two_readers

import scc_tf
from scc_tf.clustering import ChainCosts, chain_counts, find_chains, keep_filters, stages
from scc_tf.flops import count_operations


def described(model):
    return {
        chain.name: (chain.norm and chain.norm.name, [reader.layer.name for reader in chain.readers])
        for chain in find_chains(model)
    }


def test_chains_of_a_residual_network_are_the_inner_convolutions():
    assert described(residual()) == {
        "one_conv1": ("one_norm1", ["one_conv2"]),
        "two_conv1": ("two_norm1", ["two_conv2"]),
    }


@pytest.mark.slow
def test_a_plain_network_is_a_chain_of_chains():
    assert described(plain()) == {
        "a": (None, ["b"]),
        "b": ("b_norm", ["c"]),
        "c": ("c_norm", ["d"]),
        "d": (None, ["head"]),
    }
    assert [chain.homogeneous for chain in find_chains(plain())] == [True, False, True, True]
    c = find_chains(plain())[2]
    assert c.readers[0].inputs.tolist() == [[channel + 4 * position for position in range(4)] for channel in range(4)]


def test_a_chain_may_have_several_readers():
    assert described(two_readers())["a"][1] == ["left", "right"]


def stacked(*rest):
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for layer in rest:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "rest",
    [
        [layers.Conv2D(4, 3), layers.PReLU(), layers.Conv2D(2, 3)],  # slopes of its own
        [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.Conv2D(2, 3)],
        [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.BatchNormalization(), layers.Conv2D(2, 3)],
        [layers.Conv2D(4, 3), layers.Softmax(), layers.Conv2D(2, 3)],
        [layers.Conv2D(4, 3), layers.DepthwiseConv2D(3), layers.Conv2D(2, 3)],
        [layers.Conv2D(4, 3), layers.Conv2D(4, 3, groups=2)],
        [layers.Conv2D(4, 3), layers.LayerNormalization(), layers.Conv2D(2, 3)],
        [layers.Conv2D(4, 3), layers.ReLU()],
        [scc_tf.layers.Conv2D(4, 3), layers.ReLU(), layers.Conv2D(2, 3)],
    ],
)
def test_what_is_no_chain(rest):
    names = {chain.layer.name for chain in find_chains(stacked(*rest))}
    assert rest[0].name not in names


def test_what_an_addition_an_output_or_a_second_call_reads_is_no_chain():
    inputs = keras.Input((8, 8, 3))
    shared, seen = layers.Conv2D(3, 3, padding="same"), layers.Conv2D(3, 3, padding="same")
    x = shared(shared(inputs))
    y = seen(x)
    added = layers.Conv2D(2, 1)(layers.Add()([layers.Conv2D(3, 1)(x), y]))
    model = keras.Model(inputs, [added, y])
    assert find_chains(model) == []
    with pytest.raises(ValueError, match="Received: none"):
        chain_counts([], 2)


@pytest.mark.slow
@pytest.mark.parametrize("build", [plain, residual, two_readers])
def test_costs_are_those_of_the_model_that_is_cut(build):
    model = build()
    chains = find_chains(model)
    costs, rng = ChainCosts(model, chains), np.random.default_rng(0)
    for _ in range(2):
        counts = [int(rng.integers(1, chain.channels + 1)) for chain in chains]
        kept = {c.name: np.arange(c.channels) < k for c, k in zip(chains, counts, strict=True)}
        smaller = keep_filters(model, kept)
        assert costs.parameters(counts) == sum(np.prod(w.shape) for w in smaller.trainable_weights)
        assert costs.multiply_accumulates(counts) == count_operations(smaller).multiply_accumulates


@pytest.mark.slow
def test_the_parameters_of_the_founding_document():
    model = models.resnet20(seed=0)
    chains = find_chains(model)
    assert [c.name for c in chains] == [f"stage{s}_block{b}_conv1" for s in (1, 2, 3) for b in (1, 2, 3)]
    assert stages(chains) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    costs = ChainCosts(model, chains)
    wanted = {(16, 32, 64): 269_722, (2, 2, 2): 13_054, (8, 16, 32): 135_754, (15, 31, 63): 264_088}
    wanted |= {
        (2, 4, 8): 35_278,
        (4, 8, 16): 68_770,
        (6, 12, 24): 102_262,
        (10, 20, 40): 169_246,
        (12, 24, 48): 202_738,
    }
    for clusters, parameters in wanted.items():
        assert costs.parameters(chain_counts(chains, clusters)) == parameters
    one_less = [costs.parameters(chain_counts(chains, {c.name: c.channels - 1})) for c in chains]
    assert [269_722 - p for p in one_less] == [290, 290, 290, 434, 578, 578, 866, 1154, 1154]


def test_numbers_of_clusters_may_be_said_in_several_ways():
    chains = find_chains(residual())
    assert chain_counts(chains, 7) == [6, 7]
    assert chain_counts(chains, {"two_conv1": 3}) == [6, 3]
    assert chain_counts(chains, [2, 5]) == [2, 5]
    assert chain_counts(chains, np.array([2, 5]).tolist()) == [2, 5]


@pytest.mark.parametrize("clusters", [0, [2], [2, 9], {"stem": 2}, {"one_conv1": 0}, "22", 2.0, [2.0, 2.0]])
def test_numbers_that_do_not_fit(clusters):
    with pytest.raises(ValueError, match="Expected"):
        chain_counts(find_chains(residual()), clusters)
