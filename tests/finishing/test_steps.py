import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_problem as toy

import scc_tf
from scc_tf.finishing.steps import Fidelity, finer_steps, refine_steps
from scc_tf.layers import self_compressing_layers

X, _ = toy.points(40)


def small(bits=3, **settings):
    return scc_tf.self_compress(toy.dense_net(), bits, **settings)


def weights_of(model):
    return [np.asarray(w).copy() for w in model.weights]


@pytest.mark.parametrize("by", [0.4, 1.0, 2.3])
@pytest.mark.parametrize("per", ["kernel", "channel"])
def test_finer_steps_bring_the_kernels_nearer_and_clip_no_more(by, per):
    model = small(exponent_per=per)
    hidden = model.get_layer("hidden")
    hidden.bit_depth.assign([0, *[3] * 11])
    kernel = np.asarray(hidden.kernel)
    before = np.abs(np.asarray(hidden.quantized()) - kernel)[:, 1:]
    refine_steps(model, by, exponent_places=3)
    after = np.abs(np.asarray(hidden.quantized()) - kernel)[:, 1:]
    assert np.square(after).sum() < 0.9 * np.square(before).sum()
    exponents = np.asarray(hidden.exponent)[1:]
    np.testing.assert_array_equal(exponents * 8, np.round(exponents * 8))
    assert not np.asarray(hidden.codes())[:, 0].any()  # dead channels stay dead


def test_coarser_steps_leave_one_bit_at_least():
    model = small()
    refine_steps(model, -4.0)
    assert {float(b) for layer in self_compressing_layers(model) for b in np.asarray(layer.bit_depth)} == {1.0}


def test_frozen_layers_keep_their_steps():
    model = small()
    model.get_layer("head").trainable = False
    before = np.asarray(model.get_layer("head").exponent).copy()
    refine_steps(model, 1.0)
    np.testing.assert_array_equal(model.get_layer("head").exponent, before)


def test_after_the_block_the_model_is_as_it_was():
    model = small(bias_exponent=-4)
    before = weights_of(model)
    with pytest.raises(KeyError), finer_steps(model, 2.0, 3):
        assert model.get_layer("hidden").bias_exponent == -6
        raise KeyError
    toy.assert_same(weights_of(model), before)
    assert {layer.bias_exponent for layer in self_compressing_layers(model)} == {-4}


def test_the_distance_of_answers_is_none_for_the_same_and_grows_as_bits_are_lost():
    net = toy.dense_net()
    fidelity = Fidelity(net, X)
    distances = [fidelity.distance(scc_tf.self_compress(net, bits)) for bits in (12, 6, 4, 2)]
    assert distances == sorted(distances) and distances[0] < 1e-3 and 0.05 < distances[-1] < 1
    assert fidelity.distance(net) < 1e-6
    negative = keras.Model(net.inputs, -net.outputs[0])
    assert fidelity.distance(negative) == 1.0


def test_examples_may_come_in_batches():
    net, model = toy.dense_net(), small()
    batches = tf.data.Dataset.from_tensor_slices((X, np.zeros(len(X)))).batch(7)
    assert Fidelity(net, batches).distance(model) == pytest.approx(Fidelity(net, X).distance(model))
