import json
import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import entropy
from size_nets import plain_net, set_bits

import scc_tf
from scc_tf import layers
from scc_tf.size_report import size_report


def stock_net():
    k = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            k.Conv2D(4, 3, name="conv"),
            k.BatchNormalization(),
            k.DepthwiseConv2D(2, depth_multiplier=2, name="depthwise"),
            k.Conv2D(4, 2, groups=2, name="grouped"),
            k.SeparableConv2D(3, 2, name="separable"),
            k.Conv2DTranspose(2, 2, name="transposed"),
            k.Reshape((16, 2)),
            k.Conv1D(3, 2, name="conv1d"),
            k.EinsumDense("abc,cde->abde", (15, 2, 3), name="einsum"),
            k.Flatten(),
            k.Dense(4, name="dense", use_bias=False),
        ]
    )


def learn(model):
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for fmt in getattr(layer, "formats", ()):
            fmt.bit_depth.assign(rng.uniform(1.1, 7, fmt.channels))
            fmt.exponent.assign_add(rng.uniform(2, 5, fmt.channels))
    return model


def slow_width(codes):
    """The shortest two's complement code, found by trying."""
    width = 1
    while not -(2 ** (width - 1)) <= min(codes) <= max(codes) <= 2 ** (width - 1) - 1:
        width += 1
    return width


def channel_rows(codes, axes):
    """``(C, fan_in)``."""
    return np.moveaxis(codes, axes, range(len(axes))).reshape(math.prod(codes.shape[a] for a in axes), -1)


CHANNEL_AXES = {"depthwise": (2, 3), "separable/depthwise_kernel": (2, 3), "transposed": (2,), "einsum": (1, 2)}


def slow_sizes(codes, axes):
    """``(integer bytes, entropy bytes, live channels)`` where every input is alive."""
    rows = [row for row in channel_rows(codes, axes).tolist() if any(row)]
    counts = np.unique(np.ravel(rows), return_counts=True)[1]
    return (
        sum(slow_width(row) * len(row) for row in rows) / 8,
        entropy(counts, base=2) * counts.sum() / 8 if rows else 0,
        len(rows),
    )


@pytest.mark.slow
def test_widths_and_entropies_by_brute_force():
    model = learn(scc_tf.self_compress(stock_net()))
    report = size_report(model)
    assert len(report.kernels) == 9
    for kernel in report.kernels:
        layer = model.get_layer(kernel.layer)
        codes = np.array(layer.codes(kernel.kernel))
        key = kernel.layer if kernel.kernel == "kernel" else f"{kernel.layer}/{kernel.kernel}"
        integer, coded, live = slow_sizes(codes, CHANNEL_AXES.get(key, (codes.ndim - 1,)))
        assert live == kernel.live_channels == kernel.channels  # else dead inputs would have to be left out
        assert kernel.live_weights == kernel.weights == codes.size
        assert kernel.integer_bytes == pytest.approx(integer), key
        assert kernel.entropy_bytes == pytest.approx(coded), key
        assert kernel.side_bytes == 5 * live
        bits = ops.convert_to_numpy(layer.format_of(kernel.kernel).bit_depth)
        assert kernel.nominal_bits == pytest.approx(float(bits.sum()) * codes.size / len(bits))


def test_a_code_is_never_narrower_than_twos_complement_needs():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(6, initial_bit_depth=8, name="d", use_bias=False)])
    layer = model.get_layer("d")
    layer.exponent.assign(np.zeros(6))
    #            3 bits  1 bit  4 bits  8 bits  7 bits  dead
    columns = [[0, 3, -4], [0, -1, 0], [5, 0, 0], [127, 0, -128], [-63, 63, 0], [0, 0, 0]]
    layer.kernel.assign(np.transpose(columns))
    report = size_report(model)
    assert report.integer_bytes == (3 + 1 + 4 + 8 + 7) * 3 / 8 + 5 * 5
    assert report.dead_channels == 1


@pytest.mark.slow
def test_float32_bytes_are_those_of_the_stock_model():
    stock = stock_net()
    report = size_report(scc_tf.self_compress(stock, exclude=["conv1d"]))
    assert report.float32_bytes == 4 * stock.count_params()
    kernels = {f"{k.layer}/{k.kernel}": k.float32_bytes for k in report.kernels}
    assert kernels["separable/depthwise_kernel"] == 4 * 2 * 2 * 4
    assert report.other_bytes == 4 * stock.count_params() - sum(kernels.values())
    assert report.side_bytes == report.other_bytes + 5 * sum(k.live_channels for k in report.kernels)
    assert report.integer_bytes == pytest.approx(report.side_bytes + sum(k.integer_bytes for k in report.kernels))
    assert report.entropy_bytes == pytest.approx(report.side_bytes + sum(k.entropy_bytes for k in report.kernels))


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_inputs_from_dead_channels_are_left_out_where_that_is_exact(padding):
    model = learn(plain_net(padding))
    set_bits(model, a=[4, 0, 4])
    a, b, c = size_report(model).kernels
    codes = np.array(model.get_layer("b").codes())
    if padding == "valid":
        codes = np.delete(codes, 1, axis=2)
    integer, coded, live = slow_sizes(codes, (3,))
    assert (a.live_channels, a.weights, a.live_weights) == (2, 54, 36)
    assert (b.live_channels, b.weights, b.live_weights) == (live, 72, codes.size)
    assert b.integer_bytes == pytest.approx(integer)
    assert b.entropy_bytes == pytest.approx(coded)
    assert c.live_weights == c.weights  # b's channels are all alive


def test_codes_that_nobody_reads_do_not_widen_a_channel():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, name="a"), layers.Dense(2, initial_bit_depth=8, name="b", use_bias=False)]
    )
    set_bits(model, a=[8, 0, 8])
    model.get_layer("b").exponent.assign([0, 0])
    model.get_layer("b").kernel.assign([[1, -1], [100, 0], [-2, 0]])
    kernel = size_report(model).kernels[-1]
    assert (kernel.live_weights, kernel.integer_bytes) == (4, (2 * 2 + 2 * 1) / 8)


def test_flattened_inputs_from_dead_channels_are_left_out():
    model = learn(plain_net())
    set_bits(model, b=[4, 4, 0, 4])
    codes = np.array(model.get_layer("c").codes())
    codes = codes.reshape(9, 4, 2)[:, [0, 1, 3]]  # nine positions, four channels
    integer, coded, _ = slow_sizes(codes, (2,))
    kernel = size_report(model).kernels[-1]
    assert kernel.live_weights == codes.size
    assert (kernel.integer_bytes, kernel.entropy_bytes) == (pytest.approx(integer), pytest.approx(coded))


@pytest.mark.slow
def test_dead_inputs_of_grouped_and_depthwise_kernels():
    model = learn(
        keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(4, 1, name="a"),
                layers.DepthwiseConv2D(2, name="d"),
                layers.Conv2D(4, 2, groups=2, name="g"),
            ]
        )
    )
    set_bits(model, a=[4, 4, 0, 4], d=[4, 0, 4, 4])
    _, d, g = size_report(model).kernels
    assert d.live_weights == 4 * 2  # channel 1 has no bits, channel 2 no input
    codes = np.array(model.get_layer("g").codes())
    live = [codes[:, :, :1, :2], codes[:, :, :, 2:]]  # the first group reads d's channels 0 and 1
    assert g.live_weights == sum(part.size for part in live)
    assert g.integer_bytes == pytest.approx(sum(slow_sizes(part, (3,))[0] for part in live))
    counts = np.unique(np.concatenate([part.ravel() for part in live]), return_counts=True)[1]
    assert g.entropy_bytes == pytest.approx(entropy(counts, base=2) * counts.sum() / 8)


@pytest.mark.slow
def test_a_channel_with_bits_but_no_code_other_than_zero_is_dead():
    model = plain_net()
    model.get_layer("a").exponent.assign([0, 20, 0])  # steps of a million
    model.get_layer("a").kernel.assign(np.ones((3, 3, 2, 3)))
    a, b, _ = size_report(model).kernels
    assert a.live_channels == 2
    assert b.live_weights == 6 * 2 * 4


def test_a_model_with_every_kernel_dead():
    model = plain_net()
    set_bits(model, a=[0] * 3, b=[0] * 4, c=[0] * 2)
    report = size_report(model)
    assert report.nominal_bits == 0
    assert report.integer_bytes == report.entropy_bytes == report.side_bytes == report.other_bytes
    assert report.other_bytes == 4 * (3 + 4 + 2 + 4 * 3)
    assert report.dead_channels == 9
    assert "0/9" in str(report)
    assert json.loads(report.to_json())["integer_bytes"] == report.integer_bytes


@pytest.mark.slow
def test_as_a_table():
    report = size_report(learn(scc_tf.self_compress(stock_net())))
    *lines, file = str(report).splitlines()
    assert f"{report.stored_bytes:,}" in file
    assert [line.split()[0] for line in lines[1:-2]] == [f"{k.layer}/{k.kernel}"[:27] for k in report.kernels]
    totals = (report.nominal_bits / 8, report.integer_bytes, report.entropy_bytes, report.float32_bytes)
    assert lines[-1].split()[0] == "total"
    assert lines[-1].split()[-4:] == [f"{total:,.0f}" for total in totals]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.slow
def test_as_json():
    report = size_report(learn(plain_net()))
    values = json.loads(report.to_json())
    assert set(values) > {"nominal_bits", "integer_bytes", "entropy_bytes", "dead_channels", "kernels"}
    for name in set(values) - {"kernels"}:
        assert values[name] == getattr(report, name)
    assert [row["layer"] for row in values["kernels"]] == ["a", "b", "c"]
    assert values["kernels"][1]["live_weights"] == report.kernels[1].live_weights


@pytest.mark.slow
def test_stored_bytes_are_the_length_of_the_file(tmp_path):
    model = learn(plain_net())
    scc_tf.save_packed(model, tmp_path / "model.scc")
    assert size_report(model).stored_bytes == (tmp_path / "model.scc").stat().st_size
    assert size_report(model, stored=False).stored_bytes is None
    assert "file" not in str(size_report(model, stored=False))
