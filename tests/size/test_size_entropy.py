import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_problem as toy

import scc_tf
from scc_tf import layers
from scc_tf.coding import Stream
from scc_tf.size.entropy import LARGEST, RateTerm, ValueCosts

# What a value costs --------------------------------------------------------------------------------------------------

COUNTS = {-3: 40, -1: 1500, 0: 6000, 1: 2000, 2: 450, 9: 10}
CODES = np.repeat(list(COUNTS), list(COUNTS.values())).astype("float32")


def value_costs(codes=CODES, **settings):
    costs = ValueCosts(**settings)
    costs.update([codes], fresh=True)
    return costs


def at(costs, *values):
    return np.asarray(costs(keras.ops.convert_to_tensor(np.float32(values))))


def test_a_value_costs_the_logarithm_of_its_share():
    for value, count in COUNTS.items():
        assert at(value_costs(), value) == pytest.approx(-np.log2(count / CODES.size), abs=0.1)


def test_zeros_that_are_not_counted_cost_nothing():
    costs = value_costs(zeros=False)
    assert at(costs, 0) == 0
    for value, count in COUNTS.items():
        if value:
            assert at(costs, value) == pytest.approx(-np.log2(count / (CODES.size - COUNTS[0])), abs=0.1)


def test_several_arrays_of_any_shape_are_counted_together():
    costs = ValueCosts()
    costs.update([CODES[:4000].reshape(40, 100), CODES[4000:]], fresh=True)
    np.testing.assert_array_equal(at(costs, *COUNTS), at(value_costs(), *COUNTS))


def test_costs_between_two_integers_are_interpolated_and_their_difference_is_the_gradient():
    costs = value_costs()
    below = np.float32([-40, -4, -1, 0, 1, 2, 8, 30, 31, 100])
    low, high = at(costs, *below), at(costs, *(below + 1))
    for part in (0.25, 0.5, 0.875):
        x = tf.constant(below + np.float32(part))
        with tf.GradientTape() as tape:
            tape.watch(x)
            bits = costs(x)
        np.testing.assert_allclose(bits, (1 - part) * low + part * high, rtol=1e-5)
        np.testing.assert_allclose(tape.gradient(bits, x), high - low, rtol=1e-3, atol=1e-4)


def test_codes_that_were_not_seen_cost_more_the_farther_away_they_are():
    costs = value_costs(CODES[np.abs(CODES) <= 3])
    for values in (np.arange(2, 60), -np.arange(3, 60)):
        bits = at(costs, *values)
        assert (np.diff(bits) > 0).all()
        assert bits[0] < 12 < bits[1]


@pytest.mark.parametrize("beyond", [np.arange(25, 128), np.full(100, LARGEST), np.full(10_000, -500)])
def test_beyond_the_largest_code_costs_never_fall(beyond):
    """Not even where most codes are larger than all that have a cost of their own."""
    costs = value_costs(np.concatenate([CODES, beyond]).astype("float32"))
    for sign in (1, -1):
        bits = at(costs, *(sign * np.array([LARGEST, LARGEST + 1, 200, 1e6])))
        assert (np.diff(bits) > 0).all()
        assert bits[0] > 0


def test_what_is_no_number_costs_no_number():
    assert np.isnan(at(value_costs(), np.nan)).all()


def test_nothing_seen_is_finite():
    for codes in (np.zeros(5), np.zeros(0)):
        for zeros in (True, False):
            assert np.isfinite(at(value_costs(codes.astype("float32"), zeros=zeros), -40, -1, 0, 0.5, 1, 40)).all()


def test_the_counts_run_with_their_momentum():
    costs = value_costs(np.ones(1000, "float32"), momentum=0.75)
    costs.update([np.full(1000, 2.0, "float32")], fresh=False)
    np.testing.assert_allclose(at(costs, 1, 2), -np.log2([0.75, 0.25]), atol=0.02)
    costs.update([np.full(1000, 2.0, "float32")], fresh=True)
    assert at(costs, 2) < 0.02
    assert at(costs, 1) > 9


# What a kernel costs -------------------------------------------------------------------------------------------------


def sparse_kernel(inputs=96, channels=80, seed=0):
    """Integer codes whose rows and channels have densities of their own, and the bits of whoever knows them."""
    rng = np.random.default_rng(seed)
    odds = np.exp(rng.normal(-3, 1.2, (inputs, 1)) + rng.normal(0, 1.2, channels))
    share = odds / (1 + odds)
    some = rng.random(share.shape) < share
    magnitudes, signs = rng.geometric(0.6, share.shape), rng.choice([-1, 1], share.shape)
    ideal = -np.where(some, np.log2(share * 0.5 * 0.6 * 0.4 ** (magnitudes - 1.0)), np.log2(1 - share)).sum()
    return some * magnitudes * signs, ideal


def dense_model(codes, exponent=-3.0, **settings):
    """One Dense layer with these codes."""
    settings = {"initial_bit_depth": 8, "use_bias": False, **settings}
    model = keras.Sequential([keras.Input((len(codes),)), layers.Dense(codes.shape[1], name="dense", **settings)])
    layer = model.get_layer("dense")
    layer.exponent.assign(np.full(codes.shape[1], exponent))
    layer.kernel.assign((codes + 0.5 * (layer.rounding == "floor")) * 2.0**exponent)
    np.testing.assert_array_equal(layer.codes(), codes)
    return model


def total_bits(model):
    return float(RateTerm(model, starting_weights=1)())


def entropy(values):
    counts = np.unique(values, return_counts=True)[1]
    return float(np.sum(counts * np.log2(values.size / counts)))


@pytest.mark.parametrize("seed", range(3))
def test_a_kernel_costs_about_what_a_coder_needs_that_knows_its_rows_and_channels(seed):
    codes, ideal = sparse_kernel(seed=seed)
    assert 0.8 < total_bits(dense_model(codes)) / ideal < 1.2
    assert total_bits(dense_model(codes)) < 0.95 * entropy(codes)


@pytest.mark.slow
def test_a_kernel_costs_about_what_it_takes_in_a_file():
    codes, _ = sparse_kernel()
    stream, kernel = Stream(), codes.reshape(1, 1, *codes.shape)
    stream.kernel(kernel, stream.channels(kernel))
    stored = 8 * len(stream.getvalue())
    assert 0.8 < total_bits(dense_model(codes)) / stored < 1.2


def gradient_of(term, *variables):
    with tf.GradientTape() as tape:
        q = term()
    return [None if g is None else np.asarray(g) for g in tape.gradient(q, [v.value for v in variables])]


def test_weights_that_are_not_used_are_pulled_to_zero_the_more_the_emptier_their_row_and_channel():
    codes, _ = sparse_kernel()
    codes[:8, :8] = 0
    model = dense_model(codes)
    layer = model.get_layer("dense")
    off = np.random.default_rng(1).choice([-1, 1], codes.shape) * np.random.default_rng(2).uniform(
        0.1, 0.4, codes.shape
    )
    layer.kernel.assign((codes + np.where(codes == 0, off, 0)) * 2.0**-3)
    (gradient,) = gradient_of(RateTerm(model), layer.kernel)
    zero = codes == 0
    pull = (gradient * np.sign(off))[zero]
    assert (pull > 0).mean() > 0.95  # in the densest rows a zero may be the exception
    density = (codes != 0).mean(axis=0) + (codes != 0).mean(axis=1, keepdims=True)
    assert np.corrcoef(density[zero], pull)[0, 1] < -0.5


def test_coarser_steps_cost_less():
    codes, _ = sparse_kernel()
    model = dense_model(codes)
    layer = model.get_layer("dense")
    term = RateTerm(model)
    (gradient,) = gradient_of(term, layer.exponent)
    assert (gradient[codes.any(axis=0)] < 0).all()
    before = float(term())
    layer.exponent.assign(layer.exponent + 0.1)
    assert float(term()) < before


def test_channels_without_bits_cost_nothing():
    codes, _ = sparse_kernel()
    model = dense_model(codes)
    layer = model.get_layer("dense")
    dead = np.arange(codes.shape[1]) % 3 == 0
    layer.bit_depth.assign(np.where(dead, 0.0, 8.0))
    term = RateTerm(model)
    before = float(term())
    kernel, exponent = gradient_of(term, layer.kernel, layer.exponent)
    assert not kernel[:, dead].any()
    assert not exponent[dead].any()
    layer.kernel.assign(np.where(dead, 100.0, layer.kernel))
    assert float(term()) == before
    layer.bit_depth.assign(np.zeros(dead.shape))
    assert float(term()) == 0


def test_no_gradient_reaches_bit_depths():
    model = dense_model(sparse_kernel()[0])
    assert gradient_of(RateTerm(model), model.get_layer("dense").bit_depth) == [None]


def test_the_codes_that_are_counted_are_the_nearest_integers_with_either_rounding():
    codes, _ = sparse_kernel()
    near, floor = (total_bits(dense_model(codes, rounding=rounding)) for rounding in ("nearest", "floor"))
    assert floor == pytest.approx(near, rel=1e-4)


@pytest.mark.slow
def test_rounded_biases_are_counted_and_others_are_not():
    codes, _ = sparse_kernel()
    bits = {}
    for exponent in (None, -2, -6):
        model = dense_model(codes, use_bias=True, bias_exponent=exponent)
        layer = model.get_layer("dense")
        layer.bias.assign(np.random.default_rng(0).normal(size=layer.bias.shape))
        bits[exponent] = total_bits(model)
        (gradient,) = gradient_of(RateTerm(model), layer.bias)
        assert (gradient is None) == (exponent is None)
    assert bits[None] == total_bits(dense_model(codes))
    assert bits[None] + 100 < bits[-2] < bits[-6]


# The term ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_layer_has_a_cost():
    model = scc_tf.self_compress(toy.conv_net(), initial_bit_depth=4, exponent_per="kernel")
    whole = total_bits(model)
    for name in ("conv1", "conv2", "head"):
        model.get_layer(name).bit_depth.assign(model.get_layer(name).bit_depth * 0)
        assert total_bits(model) < whole
        whole = total_bits(model)
    assert whole == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", initial_bit_depth=3, bias_exponent=-3),
        layers.DepthwiseConv2D(2, depth_multiplier=2, initial_bit_depth=3, bias_exponent=-3),
        layers.SeparableConv2D(4, 2, initial_bit_depth=3, bias_exponent=-3),
        layers.Conv2DTranspose(4, 2, initial_bit_depth=3, bias_exponent=-3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_kind_of_kernel_has_a_gradient(layer):
    model = keras.Sequential([keras.Input((4, 3) if "Einsum" in type(layer).__name__ else (4, 4, 3)), layer])
    term = RateTerm(model)
    assert 0 < float(term()) < 16
    for fmt in layer.formats:
        for gradient in gradient_of(term, getattr(layer, fmt.name), fmt.exponent):
            assert np.isfinite(gradient).all()
            assert gradient.any()


@pytest.mark.slow
def test_compiled_by_xla_it_is_the_same():
    term = RateTerm(scc_tf.self_compress(toy.dense_net(), bias_exponent=-4))
    assert float(tf.function(term, jit_compile=True)()) == pytest.approx(float(term()), rel=1e-5)


def test_a_shared_layer_in_a_nested_model_counts_once():
    codes = np.random.default_rng(0).integers(-1, 2, (12, 12))
    once = dense_model(codes, bias_exponent=-4, use_bias=True)
    inputs = keras.Input((12,))
    twice = keras.Model(inputs, once(once.get_layer("dense")(inputs)))
    assert total_bits(twice) == total_bits(once)


@pytest.mark.slow
def test_units_and_starting_weights():
    model = dense_model(sparse_kernel()[0])
    term = RateTerm(model)
    assert term.starting_weights == 96 * 80
    assert float(term()) == pytest.approx(total_bits(model) / (96 * 80), rel=1e-5)
    assert float(RateTerm(model, "bytes")()) == pytest.approx(float(term()) / 8, rel=1e-6)
    assert float(RateTerm(model, starting_weights=76800)()) == pytest.approx(float(term()) / 10, rel=1e-6)


@pytest.mark.slow
def test_the_term_follows_the_codes_when_it_is_told_to():
    first, second = (sparse_kernel(seed=seed)[0] for seed in (0, 1))
    model = dense_model(first)
    term = RateTerm(model)
    model.get_layer("dense").kernel.assign(second * 2.0**-3)
    bits = [float(term())]
    for _ in range(20):
        term.update()
        bits.append(float(term()))
    fresh = float(RateTerm(model)())
    assert all(more > fewer for more, fewer in itertools.pairwise(bits[:10]))
    assert bits[0] > 1.05 * fresh
    assert bits[-1] == pytest.approx(fresh, rel=0.03)
    term.update(fresh=True)
    assert float(term()) == pytest.approx(fresh, rel=1e-6)


def test_its_variables_are_all_that_it_knows():
    models = [dense_model(sparse_kernel(seed=seed)[0], use_bias=True, bias_exponent=-3) for seed in (0, 1)]
    models[0].get_layer("dense").bias.assign(np.linspace(-1, 1, 80))
    some, other = map(RateTerm, models)
    other_model = models[1]
    other_model.set_weights(models[0].get_weights())
    assert float(other()) != float(some())
    for ours, theirs in zip(some.variables, other.variables, strict=True):
        theirs.assign(ours)
    assert float(other()) == float(some())


def test_refusals():
    with pytest.raises(ValueError, match="Received: unit='kB'"):
        RateTerm(dense_model(sparse_kernel()[0]), "kB")
    for momentum in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"momentum={momentum}"):
            RateTerm(dense_model(sparse_kernel()[0]), momentum=momentum)
    with pytest.raises(
        ValueError, match=r"starting_weights to be a whole number of at least 1. Received: starting_weights=0"
    ):
        RateTerm(dense_model(sparse_kernel()[0]), starting_weights=0)
    with pytest.raises(ValueError, match="self-compressing layers"):
        RateTerm(toy.dense_net())
