"""What a layer remembers goes with it, whether it is a variable or not."""

import keras
import numpy as np
import pytest
import stateful_nets
from keras import layers

import scc_tf
from scc_tf.graph import copy_model, probe_inputs

each_state = pytest.mark.parametrize("make", stateful_nets.STATES.values(), ids=stateful_nets.STATES)
CONVERSIONS = {
    "add_masks": lambda model: scc_tf.add_masks(model, exclude="quantized" if "quantized" in _names(model) else ()),
    "copy_model": copy_model,
    "share_weights": lambda model: scc_tf.share_weights(model, clusters=100, start="density"),
    "self_compress": lambda model: scc_tf.self_compress(model, 24),
}


def _names(model):
    return [layer.name for layer in model._flatten_layers()]


def _answers(model, inputs):
    return np.asarray(model(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs), training=False))


@pytest.mark.slow
@each_state
def test_a_converted_network_answers_as_before(make):
    model = make()
    inputs = probe_inputs(model)
    expected = _answers(model, inputs)
    for name in ("copy_model", "add_masks"):
        np.testing.assert_array_equal(_answers(CONVERSIONS[name](model), inputs), expected, name)
    for name in ("self_compress", "share_weights"):
        np.testing.assert_allclose(_answers(CONVERSIONS[name](model), inputs), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [stateful_nets.STATES["nested"], stateful_nets.STATES["words"]])
def test_a_cut_network_keeps_its_state(make):
    small = scc_tf.self_compress(make(), 6)
    small.compile("sgd", "mse", jit_compile=False)
    inputs = probe_inputs(small)
    np.testing.assert_array_equal(_answers(scc_tf.remove_dead_channels(small)[0], inputs), _answers(small, inputs))


def test_a_stateful_layer_goes_on_where_it_was():
    model = keras.Sequential([keras.Input((3, 2), batch_size=1), layers.LSTM(2, stateful=True)])
    model(np.ones((1, 3, 2)))
    other = copy_model(model)
    np.testing.assert_array_equal(model(np.ones((1, 3, 2))), other(np.ones((1, 3, 2))))


def test_random_layers_go_on_where_they_were():
    model = keras.Sequential([keras.Input((50,)), layers.Dropout(0.5), layers.Dense(2)])
    model(np.ones((1, 50)), training=True)
    other = copy_model(model)
    np.testing.assert_array_equal(model(np.ones((1, 50)), training=True), other(np.ones((1, 50)), training=True))


def test_what_cannot_be_made_again_is_named():
    class NoSettings(layers.Layer):
        def __init__(self):
            super().__init__()

        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"get_config makes again\. Received: 'no_settings'"):
        copy_model(keras.Sequential([keras.Input((2,)), NoSettings(), layers.Dense(2)]))


def test_a_layer_that_cannot_save_itself_is_named():
    broken = stateful_nets.Factor(name="broken")
    model = keras.Sequential([keras.Input((2,)), broken, layers.Dense(2)])
    broken.factor = "two"
    with pytest.raises(ValueError, match=r"layer 'broken' \(Factor\) to save and load its own state"):
        copy_model(model)


def test_rounding_leaves_what_was_learned_of_the_inputs():
    small = scc_tf.self_compress(stateful_nets.STATES["normalization"](), 6)
    before = _answers(small, stateful_nets.NUMBERS)
    scc_tf.finishing.rounding.round_vectors(small, 2)
    np.testing.assert_array_equal(_answers(small, stateful_nets.NUMBERS), before)
