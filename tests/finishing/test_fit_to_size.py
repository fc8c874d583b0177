import zlib

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.export.packed import load_packed, packed_bytes, save_packed
from scc_tf.finishing.fit_to_size import fit_to_bytes, widen_dead_zone
from scc_tf.layers import self_compressing_layers


def net(bits=4.0, rounding="nearest", per="kernel"):
    keras.utils.set_random_seed(1)
    plain = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="head"),
        ]
    )
    model = scc_tf.self_compress(plain, bits, rounding, exponent_per=per)
    for layer in self_compressing_layers(model):  # most weights are small, as after training
        steps = np.random.default_rng(2).laplace(scale=0.5, size=layer.kernel.shape)
        layer.kernel.assign(steps * 2.0 ** np.asarray(layer.exponent))
    return model


def codes(model):
    return [np.asarray(layer.codes()) for layer in self_compressing_layers(model)]


def nonzero(model):
    return sum(np.count_nonzero(own) for own in codes(model))


def stored(model):
    """Bytes of a file that is quick to make."""
    return 50 + len(zlib.compress(b"".join(own.astype(np.int8).tobytes() for own in codes(model)), 9))


@pytest.mark.parametrize("bits", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("per", ["kernel", "channel"])
def test_without_a_widening_the_codes_stay_and_the_latent_kernels_are_on_the_grid(bits, per):
    model = net(bits, per=per)
    before, quantized = codes(model), [np.asarray(layer.quantized()) for layer in self_compressing_layers(model)]
    widen_dead_zone(model, 0.0)
    for one, other in zip(codes(model), before, strict=True):
        np.testing.assert_array_equal(one, other)
    for layer, values in zip(self_compressing_layers(model), quantized, strict=True):
        np.testing.assert_allclose(layer.kernel, values, rtol=1e-6)


@pytest.mark.parametrize("widening", [-0.4, -0.2, 0.1, 0.3, 0.8])
def test_twice_is_once(widening):
    model = net()
    widen_dead_zone(model, widening)
    once = codes(model)
    widen_dead_zone(model, min(widening, 0.0))
    for one, other in zip(codes(model), once, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_weights_in_the_zone_become_zero_and_none_changes_its_sign():
    model, wide = net(), net()
    steps = [np.asarray(layer.kernel) * 2.0 ** -np.asarray(layer.exponent) for layer in self_compressing_layers(model)]
    widen_dead_zone(wide, 0.3)
    for one, other, step in zip(codes(model), codes(wide), steps, strict=True):
        inside = (np.abs(step) > 0.5) & (np.abs(step) <= 0.8)
        assert inside.any()
        np.testing.assert_array_equal(other[inside], 0)
        np.testing.assert_array_equal(other[~inside], one[~inside])


def test_a_narrower_zone_gives_small_weights_a_step_of_their_sign():
    model, narrow = net(), net()
    kernels = [np.asarray(layer.kernel) for layer in self_compressing_layers(model)]
    widen_dead_zone(narrow, -0.3)
    for one, other, kernel in zip(codes(model), codes(narrow), kernels, strict=True):
        new = (one == 0) & (other != 0)
        assert new.any()
        np.testing.assert_array_equal(other[new], np.sign(kernel[new]))
        np.testing.assert_array_equal(other[~new], one[~new])


def test_codes_stay_within_their_bits_and_dead_channels_stay_dead():
    model = net()
    model.get_layer("conv").bit_depth.assign([0, 1, 1, 2, 2, 3, 4, 4])
    widen_dead_zone(model, -0.45)
    kernel = np.asarray(model.get_layer("conv").codes()).reshape(-1, 8)
    assert not kernel[:, 0].any()
    assert kernel[:, 1:3].max() == 0 and kernel[:, 1:3].min() == -1
    assert kernel[:, 3:5].max() == 1


@pytest.mark.slow
def test_the_size_falls_as_the_zone_widens():
    sizes = []
    for widening in (-0.3, -0.15, 0.0, 0.2, 0.4):
        model = net(3.0)
        widen_dead_zone(model, widening)
        sizes.append(stored(model))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.1 * sizes[-1]


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.85, 0.9, 0.95])
def test_a_size_is_met_from_below(factor):
    model = net(3.0)
    start = stored(model)
    target = round(factor * start)
    fit = fit_to_bytes(model, target, stored)
    assert 0.98 * target <= fit.stored_bytes == stored(model) <= target
    assert fit.start_bytes == start


@pytest.mark.slow
def test_a_file_of_that_size_is_read_back(tmp_path):
    model = net(3.0)
    start = len(packed_bytes(model))
    fit = fit_to_bytes(model, round(0.93 * start), lambda model: len(packed_bytes(model)))
    path = tmp_path / "model.scc"
    save_packed(model, path)
    assert path.stat().st_size == fit.stored_bytes
    for one, other in zip(codes(load_packed(path)), codes(model), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("factor", [1.0, 1.05, 3.0])
def test_what_fits_already_is_left_as_it_is(factor):
    model = net()
    before = model.get_weights()
    fit = fit_to_bytes(model, round(factor * stored(model)), stored)
    assert fit.widening == 0.0
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_out_of_reach_the_nearest_is_taken_and_said():
    model = net(3.0)
    calls = []

    def measure(model):
        calls.append(stored(model))
        return calls[-1]

    fit = fit_to_bytes(model, round(0.3 * stored(model)), measure)
    assert (fit.stored_bytes, fit.widening, fit.refused) == (stored(model), 0.4, False)
    assert len(calls) == 2  # as it was, and the end of the range


def test_the_last_dead_zone_on_the_way_that_is_accepted_is_taken():
    model = net(3.0)
    start = nonzero(model)
    limit = 0.93 * start

    def accept(model):
        return limit <= nonzero(model) <= start

    fit = fit_to_bytes(model, round(0.85 * start), nonzero, accept)
    assert fit.refused
    assert fit.stored_bytes == nonzero(model) == pytest.approx(limit, rel=0.01)
    assert accept(model)


def test_where_the_size_is_met_it_is_no_matter_what_was_refused_on_the_way():
    model = net(3.0)
    target = round(0.9 * nonzero(model))
    fit = fit_to_bytes(model, target, nonzero, lambda model: nonzero(model) >= 0.8 * target)
    assert fit.stored_bytes <= target and not fit.refused


def test_a_noisy_size_does_no_harm():
    model, noise = net(3.0), iter([0, 3, -4, 2, -5, 1, 4, -2, 3, 0, -3, 2, 5, 1])
    target = round(0.93 * stored(model))
    fit = fit_to_bytes(model, target, lambda model: stored(model) + next(noise))
    assert fit.stored_bytes == pytest.approx(target, rel=0.05)


@pytest.mark.slow
def test_errors():
    with pytest.raises(ValueError, match="rounding='floor'"):
        widen_dead_zone(net(rounding="floor"), 0.1)
    with pytest.raises(ValueError, match=r"widening=-0\.5"):
        widen_dead_zone(net(), -0.5)
    with pytest.raises(ValueError, match="target_bytes=0"):
        fit_to_bytes(net(), 0, stored)
    with pytest.raises(ValueError, match="tries=0"):
        fit_to_bytes(net(), 100, stored, tries=0)
    with pytest.raises(ValueError, match=r"reach=0\.5"):
        fit_to_bytes(net(), 100, stored, reach=0.5)
