"""Kernels are recognized by content, whatever the converter calls them."""

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.export.tflite.matching import Filter, Kernel, find_kernels, match_filters


def kernel(name, codes, steps=None):
    codes = np.array(codes)
    return Kernel(name, name, (codes,), (np.float32(np.ones(len(codes)) if steps is None else steps),))


def constant(weights, name="arith.constant", op="FULLY_CONNECTED"):
    return Filter(name, op, np.float32(weights))


def random_codes(shape, seed=0):
    return np.random.default_rng(seed).integers(-9, 10, shape)


def test_a_kernel_with_folded_factors_is_found_with_its_scales():
    codes, factors = random_codes((4, 9)), np.array([0.3, -2.5, 1e-4, 7.0])
    item = constant(factors[:, None] * codes)
    assert match_filters([item], [kernel("other", random_codes((4, 9), 1)), kernel("right", codes)]) != []
    assert item.kernel.layer == "right"
    np.testing.assert_array_equal(item.codes, codes)
    np.testing.assert_allclose(item.scale, factors, rtol=1e-6)
    assert item.input_scale is None


def test_learned_steps_come_back_exactly():
    codes, steps = random_codes((3, 5)), np.float32(2.0 ** np.array([-3.3, -4.7, 0.123]))
    item = constant(np.float32(codes) * steps[:, None])
    assert match_filters([item], [kernel("layer", codes, steps)]) == []
    np.testing.assert_array_equal(item.scale, steps)


def test_factors_on_both_sides_are_told_apart():
    codes = random_codes((5, 7))
    codes[2], codes[:, 3] = 0, 0
    out, inner = np.array([1.0, -0.5, 3.0, 0.1, 2.0]), np.linspace(-2, 3, 7)
    item = constant(out[:, None] * inner * codes)
    assert match_filters([item], [kernel("layer", codes)]) == []
    np.testing.assert_array_equal(item.codes, np.where(codes, codes, 0))
    np.testing.assert_allclose(item.scale[:, None] * item.input_scale * item.codes, item.weights, rtol=3e-6)


def test_factors_on_both_sides_in_parts_that_do_not_meet():
    codes = np.zeros((4, 6), int)
    codes[:2, :3], codes[2:, 3:] = random_codes((2, 3)) | 1, random_codes((2, 3), 1) | 1
    weights = np.array([2.0, 3, 5, 7])[:, None] * np.linspace(1, 2, 6) * codes
    item = constant(weights)
    assert match_filters([item], [kernel("layer", codes)]) == []
    np.testing.assert_allclose(item.scale[:, None] * item.input_scale * item.codes, item.weights, rtol=3e-6)


def test_convolutions_have_no_factors_on_the_input_side():
    codes = random_codes((5, 7))
    item = constant(np.linspace(1, 2, 7) * codes, op="CONV_2D")
    missing = match_filters([item], [kernel("layer", codes)])
    assert [k.layer for k in missing] == ["layer"]
    assert item.kernel is None


@pytest.mark.parametrize("change", [1e-3, 1e-5])
def test_what_is_off_by_more_than_rounding_is_not_taken(change):
    codes = random_codes((4, 9))
    weights = np.where(np.arange(36).reshape(4, 9) == 20, codes + change, codes)
    item = constant(weights, op="CONV_2D")
    assert len(match_filters([item], [kernel("layer", codes)])) == 1
    assert item.kernel is None


def test_equal_kernels_are_handed_out_in_order():
    codes = random_codes((3, 4))
    items = [constant(codes, "a"), constant(2.0 * codes, "b")]
    assert match_filters(items, [kernel("first", codes), kernel("second", codes)]) == []
    assert [item.kernel.layer for item in items] == ["first", "second"]


def test_a_name_decides_between_equal_kernels():
    codes = random_codes((3, 4))
    items = [constant(codes, "net/second/MatMul"), constant(codes, "net/first/MatMul")]
    assert match_filters(items, [kernel("first", codes), kernel("second", codes)]) == []
    assert [item.kernel.layer for item in items] == ["second", "first"]


def test_a_kernel_of_zeros_does_not_take_another_ones_place():
    codes = random_codes((3, 4))
    items = [constant(np.zeros((3, 4)), "zeros"), constant(codes, "codes")]
    dead = kernel("dead", np.zeros((3, 4), int))
    assert match_filters(items, [dead, kernel("live", codes)]) == []
    assert [item.kernel.layer for item in items] == ["dead", "live"]
    np.testing.assert_array_equal(items[0].scale, 0)


def test_one_kernel_may_be_in_several_filters():
    codes = random_codes((3, 4))
    items = [constant(codes, "a"), constant(-3.0 * codes, "b")]
    assert match_filters(items, [kernel("shared", codes)]) == []
    assert items[0].kernel is items[1].kernel


@pytest.mark.parametrize("convert", [scc_tf.self_compress, scc_tf.share_weights, scc_tf.add_masks])
def test_both_find_kernels_a_converted_separable_layer_are_known(convert):
    model = convert(keras.Sequential([keras.Input((4, 4, 2)), keras.layers.SeparableConv2D(3, 2)]))
    labels = [kernel.label for kernel in find_kernels(model)]
    assert [label.rpartition("/")[2] for label in labels] == ["depthwise_kernel", "pointwise_kernel"]
