import keras
import numpy as np
import pytest
from matplotlib.text import Text

import scc_tf
from scc_tf import plots


@pytest.fixture(scope="module")
def model():
    layers = [keras.Input((6,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(3, name="head")]
    model = scc_tf.self_compress(keras.Sequential(layers))
    bits = model.get_layer("hidden").formats[0].bit_depth
    bits.assign(np.array([0, 0, 0, 1, 2, 3, 4, 8], np.float32))
    return model


def words(figure):
    return {text.get_text() for text in figure.findobj(Text)}


@pytest.mark.slow
@pytest.mark.parametrize("function", [plots.bits_per_layer, plots.code_histograms])
def test_a_model_is_drawn(rendered, model, function):
    assert {"hidden", "head"} <= words(rendered(function, model))


def test_dead_channels_are_counted_beside_what_they_had(drawn, model):
    assert "3 of 8 dead" in words(drawn(plots.bits_per_layer, model))
    before = {"hidden/kernel": [8.0] * 8, "head/kernel": [8.0] * 3}
    assert {"3 of 8 dead", "0 of 3 dead", "before"} <= words(drawn(plots.bits_per_layer, model, before=before))


def test_zeros_are_counted(drawn):
    codes = {"block/depthwise_kernel": [0, 1, 1, 1], "block/kernel": [[1, -2]]}
    found = words(drawn(plots.code_histograms, codes))
    assert {"block/depthwise_kernel", "25.0 % zeros", "block", "0.0 % zeros"} <= found


@pytest.mark.slow
def test_the_deepest_network_still_makes_a_small_file(rendered):
    codes = np.repeat(np.arange(-60, 61), 1 + np.abs(np.arange(-60, 61)))
    rendered(plots.code_histograms, {f"stage1_block{i}_conv1/kernel": codes for i in range(20)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "none empty"),
        (({"head/kernel": []},), "none empty"),
        (({"head/kernel": [np.nan]},), "finite"),
        (({"head/kernel": [8, 8]}, {"head/kernel": [8]}), "1 before, 2 after"),
    ],
)
def test_what_cannot_be_drawn_leaves_no_file(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.bits_per_layer(arguments[0], tmp_path / "bits.png", *arguments[1:])
    assert not list(tmp_path.iterdir())
