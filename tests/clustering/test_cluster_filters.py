import json

import keras
import numpy as np
import pytest
from lab import models
from small_nets import image_batch, plain, residual, two_readers

import scc_tf
from scc_tf import ClusterBudget, cluster_filters
from scc_tf.clustering import find_chains, keep_filters
from scc_tf.clustering.activations import channel_responses
from scc_tf.clustering.budget import spread

NETS = [residual, plain, two_readers]
SPACES = ["responses", "effective", "raw"]


def outputs(model, images=None):
    return keras.ops.convert_to_numpy(model(image_batch() if images is None else images, training=False))


def value(variable):
    return keras.ops.convert_to_numpy(variable).copy()


def doubled(model, factors=1.0):
    """Give the second half of every chain's channels the filters of the first, times ``factors``.

    Kernel, bias and normalization are copied; what reads the channels is not. A factor is put into gamma and beta, or
    where there is no normalization into kernel and bias.
    """
    for chain in find_chains(model):
        half = chain.channels // 2
        norm = chain.norm
        vectors = [chain.layer.bias] + (
            [] if norm is None else [norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance]
        )
        scaled = [chain.layer.kernel, chain.layer.bias] if norm is None else [norm.gamma, norm.beta]
        for variable in [chain.layer.kernel, *vectors]:
            if variable is not None:
                values = value(variable)
                factor = factors if any(variable is v for v in scaled) else 1.0
                values[..., half : 2 * half] = factor * values[..., :half]
                variable.assign(values)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("merge", ["sum", "scaled", "fitted"])
def test_duplicates_merge_without_a_trace(build, space, merge):
    model = doubled(build())
    half = {c.name: c.channels - c.channels // 2 for c in find_chains(model)}
    wanted, before = outputs(model), model.get_weights()
    if space == "responses" or merge == "fitted":
        smaller, report = exactly(model, half, space=space, merge=merge)
    else:
        smaller, report = cluster_filters(model, half, space=space, merge=merge)
    left = {name: after for name, (_, after) in report.channels.items()}
    assert left == half or (space == "responses" and all(left[n] <= half[n] for n in half))  # silent units are alike
    np.testing.assert_allclose(outputs(smaller), wanted, rtol=1e-4, atol=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def exactly(model, clusters, **options):
    """With images, but with the statistics that the model had."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("clustered", "fitting"):
            patch.setattr(f"scc_tf.clustering.{name}.reestimate_batch_statistics", lambda *arguments: None)
        return cluster_filters(model, clusters, image_batch(), **options)


@pytest.mark.slow
def test_the_mean_of_what_reads_duplicates_is_not_what_they_said():
    model = doubled(residual())
    mean, _ = cluster_filters(model, [3, 4], space="raw", merge="mean")
    assert np.abs(outputs(mean) - outputs(model)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("space", ["responses", "effective"])
def test_multiples_merge_without_a_trace_where_activations_let_factors_pass(space):
    model = doubled(residual(), factors=2.5)
    wanted = outputs(model)
    if space == "responses":
        smaller, _ = exactly(model, [3, 4], merge="scaled")
    else:
        smaller, _ = cluster_filters(model, [3, 4], space=space, merge="scaled")
    np.testing.assert_allclose(outputs(smaller), wanted, rtol=1e-4, atol=1e-4)
    summed, _ = cluster_filters(model, [3, 4], space="effective", merge="sum")
    assert np.abs(outputs(summed) - wanted).max() > 0.05


@pytest.mark.slow
def test_a_reader_is_told_apart_by_what_is_left_of_it():
    """Filters of ``d`` that differ in how they read equal channels only say the same."""
    k, inputs = keras.layers, keras.Input((4, 4, 2))
    x = k.Conv2D(2, 3, activation="relu", use_bias=False, name="c")(inputs)
    x = k.Conv2D(3, 1, activation="relu", use_bias=False, name="d")(x)
    model = keras.Model(inputs, k.Dense(2, name="head")(k.Flatten()(x)))
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 1))
    model.get_layer("c").kernel.assign(np.repeat(kernel, 2, axis=-1))
    model.get_layer("d").kernel.assign(np.array([[3, 0, 0.5], [0, 3, 0.5]])[None, None])
    images = image_batch(side=4, channels=2)
    smaller, report = cluster_filters(model, {"c": 1, "d": 2}, space="effective", merge="sum")
    assert report.clusters["d"] == (0, 0, 1)
    np.testing.assert_allclose(outputs(smaller, images), outputs(model, images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_bare_weights_say_nothing_of_scales_where_a_normalization_follows():
    """It takes factors out: readers of a filter and of its triple want the same."""
    model = residual()
    for chain in find_chains(model):
        kernel = value(chain.layer.kernel)
        kernel[..., 1] = 3 * kernel[..., 0]
        chain.layer.kernel.assign(kernel)
    scaled, summed = (cluster_filters(model, [5, 7], space="raw", merge=merge)[0] for merge in ("scaled", "sum"))
    for one, other in zip(scaled.get_weights(), summed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_filters_that_bare_weights_tell_apart_but_normalization_does_not():
    model = residual()
    layer, norm = model.get_layer("one_conv1"), model.get_layer("one_norm1")
    kernel, gamma, beta = (value(v) for v in (layer.kernel, norm.gamma, norm.beta))
    mean, deviation = value(norm.moving_mean), np.sqrt(value(norm.moving_variance) + norm.epsilon)
    kernel[..., 5] = 3 * kernel[..., 0] * gamma[0] / deviation[0]  # alike once it is normalized
    gamma[5], mean[5] = deviation[5] / 3, 0.7
    beta[5] = beta[0] - gamma[0] * mean[0] / deviation[0] + gamma[5] * mean[5] / deviation[5]
    for variable, values in ((layer.kernel, kernel), (norm.gamma, gamma), (norm.beta, beta), (norm.moving_mean, mean)):
        variable.assign(values)
    smaller, report = cluster_filters(model, {"one_conv1": 5}, merge="sum")
    assert report.clusters["one_conv1"] == (0, 1, 2, 3, 4, 0)
    np.testing.assert_allclose(outputs(smaller), outputs(model), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_channel_whose_normalization_is_zero_stays_a_constant():
    model = residual()
    norm = model.get_layer("one_norm1")
    norm.gamma.assign(np.zeros(6))
    wanted = outputs(model)
    smaller, _ = cluster_filters(model, {"one_conv1": 6})
    np.testing.assert_allclose(outputs(smaller), wanted, rtol=1e-5, atol=1e-5)
    norm.beta.assign(np.repeat([0.5, 1.5], 3))
    smaller, report = cluster_filters(model, {"one_conv1": 2}, merge="sum")
    assert report.clusters["one_conv1"] == (0, 0, 0, 1, 1, 1)
    np.testing.assert_allclose(outputs(smaller), outputs(model), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_as_many_clusters_as_filters_change_nothing():
    model = residual()
    same, report = cluster_filters(model, 100)
    np.testing.assert_array_equal(outputs(same), outputs(model))
    assert report.parameters[0] == report.parameters[1]
    assert same is not model
    assert [layer.name for layer in same.layers[1:]] == [layer.name for layer in model.layers[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("space", ["responses", "raw"])
def test_statistics_are_those_of_the_images(space):
    model, images = residual(), image_batch(32)
    smaller, _ = cluster_filters(model, 3, images, space=space)
    pre = keras.Model(smaller.input, smaller.get_layer("one_norm1").output)
    normalized = outputs(pre, images)
    norm = smaller.get_layer("one_norm1")
    np.testing.assert_allclose(normalized.mean(axis=(0, 1, 2)), value(norm.beta), atol=1e-3)
    np.testing.assert_allclose(normalized.std(axis=(0, 1, 2)), np.abs(value(norm.gamma)), rtol=1e-2)


@pytest.mark.slow
def test_the_merged_channel_varies_as_much_as_its_members():
    model = residual()
    norm = model.get_layer("one_norm1")
    norm.gamma.assign([0.5, 0.7, -0.9, 1.1, 1.3, 1.5])
    smaller, _ = cluster_filters(model, {"one_conv1": 1}, merge="sum", weighted=False)
    np.testing.assert_allclose(value(smaller.get_layer("one_norm1").gamma), [1.0], rtol=1e-5)


@pytest.mark.slow
def test_the_founding_form_is_the_mean_of_everything():
    model = residual()
    smaller, _ = cluster_filters(model, {"one_conv1": 1}, space="raw", merge="mean", weighted=False)
    for name in ("kernel",):
        old, new = (value(getattr(m.get_layer("one_conv1"), name)) for m in (model, smaller))
        np.testing.assert_allclose(new, old.mean(axis=-1, keepdims=True), rtol=1e-5)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        old, new = (value(getattr(m.get_layer("one_norm1"), name)) for m in (model, smaller))
        np.testing.assert_allclose(new, [old.mean()], rtol=1e-4)
    old, new = (value(m.get_layer("one_conv2").kernel) for m in (model, smaller))
    np.testing.assert_allclose(new, old.mean(axis=2, keepdims=True), rtol=1e-5)


@pytest.mark.slow
def test_distances_of_responses_are_those_of_what_is_read():
    model, images = residual(), image_batch(40)
    chains = find_chains(model)
    (first, _) = channel_responses(model, chains, images)
    read = outputs(keras.Model(model.input, model.get_layer("one_relu1").output), images).reshape(-1, 6).T
    wanted = np.square(read[:, None] - read).mean(axis=2)
    got = np.square(first[:, None] - first).sum(axis=2)
    np.testing.assert_allclose(got, wanted, rtol=0.35, atol=0.02)  # 8 of 64 positions


@pytest.mark.slow
@pytest.mark.parametrize("build", NETS)
def test_dropped_filters_are_those_whose_readers_get_nothing(build):
    model = build()
    kept = {chain.name: np.arange(chain.channels) % 2 == 0 for chain in find_chains(model)}
    smaller = keep_filters(model, kept)
    for chain in find_chains(model):
        for reader in chain.readers:
            slices = reader.slices()
            slices[~kept[chain.name]] = 0
            reader.assign(slices)
    np.testing.assert_allclose(outputs(smaller), outputs(model), rtol=1e-4, atol=1e-4)
    assert {c.name: c.channels for c in find_chains(smaller)} == {name: mask.sum() for name, mask in kept.items()}


# budgets -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("what", ["parameters", "multiply_accumulates"])
def test_a_budget_is_kept_and_spent_where_it_matters(what):
    model = residual()
    model.get_layer("one_norm2").gamma.assign(np.full(4, 1e-3))  # what the first block says hardly counts
    whole = scc_tf.clustering.ChainCosts(model, find_chains(model))
    limit = int(0.7 * getattr(whole, what)([6, 8]))
    smaller, report = cluster_filters(model, ClusterBudget(**{what: limit}), image_batch(64))
    assert getattr(whole, what)([after for _, after in report.channels.values()]) <= limit
    assert report.channels["one_conv1"][1] == 1 and report.channels["two_conv1"][1] > 4
    assert report.errors["two_conv1"][8] == 0 < report.errors["two_conv1"][1]
    assert json.loads(report.to_json())["parameters"] == list(report.parameters)
    assert smaller.get_layer("one_conv1").filters == 1


def test_a_leap_over_a_bad_option_is_taken():
    assert spread([[4, 3, 1], [4, 2]], [[0, 1.0, 1.1], [0, 1.0]], sum, 5) == [1, 4]


def test_what_a_leap_saves_too_much_is_spent_again():
    options, errors = [[100, 20], [10, 4]], [[0, 1.0], [0, 0.03]]
    assert spread(options, errors, sum, 60) == [20, 10]  # 4 is the better step at first, and in vain after the leap


@pytest.mark.parametrize("seed", range(20))
def test_no_step_back_fits_a_budget_that_was_spread(seed):
    rng = np.random.default_rng(seed)
    options = [sorted(rng.choice(np.arange(1, 65), 6, replace=False).tolist(), reverse=True) for _ in range(5)]
    errors = [[0, *np.cumsum(rng.random(5) ** 3)] for _ in options]

    def cost(counts):
        return sum(own * before for own, before in zip(counts[1:], counts, strict=False))

    full, least = (cost([numbers[end] for numbers in options]) for end in (0, -1))
    limit = round(least + rng.random() * (full - least))
    counts = spread(options, errors, cost, limit)
    assert cost(counts) <= limit
    for chain, numbers in enumerate(options):
        for larger in numbers[: numbers.index(counts[chain])]:
            assert cost([*counts[:chain], larger, *counts[chain + 1 :]]) > limit


def test_a_budget_that_cannot_be_kept():
    with pytest.raises(ValueError, match="at least 4"):
        spread([[4, 2], [4, 2]], [[0, 1.0], [0, 1.0]], sum, 3)


@pytest.mark.slow
def test_a_budget_that_cannot_be_kept_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr("scc_tf.clustering.clustered.chain_errors", lambda *arguments: pytest.fail("measured"))
    with pytest.raises(ValueError, match=r"budget of at least \d+, the smallest.*Received: 5"):
        cluster_filters(residual(), ClusterBudget(parameters=5), image_batch())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either parameters or multiply_accumulates"),
        ({"parameters": 5, "multiply_accumulates": 5}, "either parameters or multiply_accumulates"),
        ({"parameters": 0}, "parameters to be a whole number of at least 1. Received: parameters=0"),
        ({"parameters": 5, "fractions": (1,)}, "fractions to be a number in"),
    ],
)
def test_what_is_no_budget(values, message):
    with pytest.raises(ValueError, match=message):
        ClusterBudget(**values)


def test_options_are_distinct_and_begin_with_the_whole():
    assert ClusterBudget(parameters=1).options(16) == [16, 14, 12, 8, 4, 2]
    assert ClusterBudget(parameters=1).options(2) == [2, 1]


# refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": "magic"}, "space='magic'"),
        ({"merge": "magic"}, "merge='magic'"),
        ({"space": "responses"}, "Expected inputs"),
        ({"inputs": image_batch(0)}, "Expected inputs"),
        ({"clusters": ClusterBudget(parameters=5), "space": "raw"}, "Expected inputs"),
        ({"merge": "fitted"}, "Expected inputs"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        cluster_filters(residual(), **{"clusters": 2, **arguments})


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [2, ClusterBudget(parameters=5)])
def test_models_with_nothing_to_merge(clusters):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match="Expected a model with a convolution whose channels only other kernels read"):
        cluster_filters(model, clusters, image_batch())


@pytest.mark.slow
def test_masks_that_do_not_fit():
    for kept in ({"stem": np.ones(4, bool)}, {"one_conv1": np.ones(5, bool)}, {"one_conv1": np.zeros(6, bool)}):
        with pytest.raises(ValueError, match="Expected masks"):
            keep_filters(residual(), kept)


@pytest.mark.slow
def test_resnet20_with_half_its_inner_filters():
    model = models.resnet20(seed=0)
    smaller, report = cluster_filters(model, (8, 16, 32))
    assert report.parameters == (269_722, 135_754)
    assert smaller.count_params() == 135_754 + 2 * (16 + 3 * (8 + 16) + 3 * (16 + 32) + 3 * (32 + 64))
    assert str(report).splitlines()[-1].split()[-3:] == ["135,754", "of", "269,722"]
