import keras
import numpy as np
import pytest
import tensorflow as tf
from size_nets import plain_net, set_bits

from scc_tf import layers
from scc_tf.size import SIZE_FORMS, SizeTerm
from scc_tf.size_report import size_report

each_form = pytest.mark.parametrize("form", SIZE_FORMS)


# Equations 3 to 5, one channel at a time. The producers of an input are a list of their bits; [] never dies.


def slow_sum(weights_and_bits, starting_weights):
    return sum(fan_in * b for fan_in, bits in weights_and_bits for b in bits) / starting_weights


def slow_z(area, bits, inputs):
    """Equation 5 for one layer, or for one group of one."""
    live_inputs = sum(1 for producers in inputs if not producers or any(b > 0 for b in producers))
    live_channels = sum(1 for b in bits if b > 0)
    z = 0.0
    for b in bits:
        z += area * live_inputs * b
    for producers in inputs:
        z += area * live_channels * (sum(producers) / len(producers) if producers else 0)
    return z


A, B, C = [2.5, 0.0, 4.0], [1.0, 3.5, 0.0, 6.0], [2.0, 0.75]


def slow_plain_net():
    positions, weights = 3 * 3, 9 * 2 * 3 + 6 * 3 * 4 + 36 * 2
    return (
        slow_z(9, A, [[], []]) + slow_z(6, B, [[b] for b in A]) + slow_z(1, C, [[b] for b in B] * positions)
    ) / weights


def test_the_sum_of_a_plain_net():
    model = plain_net()
    set_bits(model, a=A, b=B, c=C)
    assert float(SizeTerm(model, "sum")()) == pytest.approx(slow_sum([(18, A), (18, B), (36, C)], 198))


def test_the_coupled_size_of_a_plain_net():
    model = plain_net()
    set_bits(model, a=A, b=B, c=C)
    assert float(SizeTerm(model, "coupled")()) == pytest.approx(slow_plain_net())


def residual_net():
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(3, 3, padding="same", name="a")(inputs)
    y = layers.Conv2D(3, 3, padding="same", name="b")(x)
    z = layers.Conv2D(2, 1, name="c")(keras.layers.Add()([x, y]))
    return keras.Model(inputs, z)


def test_the_coupled_size_of_a_residual_net():
    """An input lives while one of its two producers does; the producers share its cost."""
    model = residual_net()
    other = [0.0, 0.0, 1.5]
    set_bits(model, a=A, b=other, c=C)
    z = (
        slow_z(9, A, [[], []])
        + slow_z(9, other, [[b] for b in A])
        + slow_z(1, C, [list(p) for p in zip(A, other, strict=True)])
    )
    assert float(SizeTerm(model)()) == pytest.approx(z / (54 + 81 + 6))


def test_the_coupled_size_of_depthwise_and_grouped_convolutions():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 1, name="a"),
            layers.DepthwiseConv2D(2, depth_multiplier=2, name="d"),
            layers.Conv2D(4, 3, groups=2, name="g"),
        ]
    )
    d = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]
    set_bits(model, a=A, d=d, g=B)
    z = slow_z(1, A, [[], []])
    for i in range(3):  # a depthwise kernel: one group for each input
        z += slow_z(4, d[2 * i : 2 * i + 2], [[A[i]]])
    for i in range(2):
        z += slow_z(9, B[2 * i : 2 * i + 2], [[b] for b in d[3 * i : 3 * i + 3]])
    assert float(SizeTerm(model)()) == pytest.approx(z / (6 + 24 + 4 * 27))
    fan_ins = slow_sum([(2, A), (4, d), (27, B)], 6 + 24 + 4 * 27)
    assert float(SizeTerm(model, "sum")()) == pytest.approx(fan_ins)


def test_the_last_layer_of_a_dead_net_costs_nothing():
    model = plain_net()
    set_bits(model, a=[0, 0, 0], b=[0, 0, 0, 0], c=[0, 0])
    for form in SIZE_FORMS:
        assert float(SizeTerm(model, form)()) == 0


def test_a_dead_input_is_free():
    model = plain_net()
    set_bits(model, a=[1, 1, 1], b=B, c=C)
    before = float(SizeTerm(model)())
    set_bits(model, a=[1, 0, 1])
    # the channel's own bit, its weights in b, and what b's live channels were charged for it
    saved = 18 * 1 + 6 * sum(B) + 6 * 3 * 1
    assert before - float(SizeTerm(model)()) == pytest.approx(saved / 198)


@each_form
def test_gradients(form):
    model = plain_net()
    set_bits(model, a=A, b=B, c=C)
    bits = [model.get_layer(name).bit_depth.value for name in "abc"]
    with tf.GradientTape() as tape:
        q = SizeTerm(model, form)()
    a, b, c = (g.numpy() * 198 for g in tape.gradient(q, bits))
    live = 1 if form == "coupled" else 0
    np.testing.assert_allclose(a, [18 + live * 6 * 3, 0, 18 + live * 6 * 3], rtol=1e-5)
    inputs_of_b, inputs_of_c = (12, 27) if form == "coupled" else (18, 36)
    own = inputs_of_b + live * 9 * 2
    np.testing.assert_allclose(b, [own, own, 0, own], rtol=1e-5)
    np.testing.assert_allclose(c, [inputs_of_c] * 2, rtol=1e-5)


@pytest.mark.slow
@each_form
def test_compiled_by_xla_it_is_the_same(form):
    model = plain_net()
    set_bits(model, a=A, b=B, c=C)
    term = SizeTerm(model, form)
    assert float(tf.function(term, jit_compile=True)()) == pytest.approx(float(term()))


@each_form
def test_bytes_are_an_eighth_of_bits(form):
    model = plain_net()
    assert float(SizeTerm(model, form, "bytes")()) == pytest.approx(float(SizeTerm(model, form, "bits")()) / 8)


@each_form
def test_the_size_is_divided_by_the_starting_weights(form):
    model = plain_net()
    set_bits(model, a=A, b=B, c=C)
    term = SizeTerm(model, form)
    assert term.starting_weights == 198  # dead channels count: it is the starting network
    smaller = SizeTerm(model, form, starting_weights=1980)
    assert smaller.starting_weights == 1980
    assert float(smaller()) == pytest.approx(float(term()) / 10)


def test_a_shared_kernel_counts_once():
    inputs = keras.Input((3,))
    shared = layers.Dense(3, initial_bit_depth=5)
    model = keras.Model(inputs, shared(shared(inputs)))
    assert float(SizeTerm(model, "sum")()) == pytest.approx(5)
    assert size_report(model).float32_bytes == 4 * 12


@pytest.mark.parametrize(("arguments", "received"), [({"form": "max"}, "form='max'"), ({"unit": "kB"}, "unit='kB'")])
def test_unknown_forms_and_units_are_refused(arguments, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        SizeTerm(plain_net(), **arguments)


@pytest.mark.parametrize("measure", [SizeTerm, size_report])
def test_a_model_that_does_not_compress_is_refused(measure):
    with pytest.raises(ValueError, match=r"self-compressing layers.*Received: 'stock' with none"):
        measure(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="stock"))
    with pytest.raises(ValueError, match="Expected a built Sequential or functional"):
        measure(keras.Sequential([layers.Dense(2)]))
