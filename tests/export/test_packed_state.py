"""A packed file holds constants and state that is no variable, and answers as the model that was written."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import stateful_nets
from keras import layers

import scc_tf
from scc_tf.coding import Stream
from scc_tf.export.packed import _read_text
from scc_tf.export.packed.state import read_state, restore_state, state_arrays
from scc_tf.graph import probe_inputs

NETS = stateful_nets.STATES | {f"constant {name}": make for name, make in stateful_nets.CONSTANTS.items()}
WITHOUT_ARRAYS = {"normalization", "inverted", "of all axes", "nested", "bins", "constant of a variable"}


@pytest.fixture(scope="module")
def words():
    return scc_tf.self_compress(stateful_nets.STATES["words"](), 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_a_file_answers_as_its_model(name, tmp_path):
    small = scc_tf.self_compress(NETS[name](), 6)
    assert not small.conversion_report.not_storable
    report = scc_tf.save_packed(small, tmp_path / "model.scc")
    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, probe_inputs(small, seed=1))
    np.testing.assert_array_equal(scc_tf.load_packed(tmp_path / "model.scc")(inputs), small(inputs))
    assert report.probe_error == 0
    assert report.extra_bytes == 0 or name not in WITHOUT_ARRAYS
    parts = [f.name for f in dataclasses.fields(report)[1:] if f.name.endswith("_bytes")]
    assert sum(getattr(report, part) for part in parts) == report.stored_bytes


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"constants": [["t", "float32", [1 << 40]]]}, "at most 1000 elements"),
        ({"constants": [["t", "float32", [-1]]]}, "Expected an array of"),
        ({"constants": [["t", "O", [1]]]}, "Expected an array of"),
        ({"state": {"0": [{}, {"../evil": ["text"]}]}}, "below a folder"),
        ({"state": {"0": [{}, {"/etc/evil": ["text"]}]}}, "below a folder"),
        ({"state": {"0": [{}, {"large.bin": [1 << 40, 1]}]}}, "at most 1000 elements"),
        ({"state": {"0": [{}, {"large.bin": [1, 1 << 40]}]}}, "at most 1000 elements"),
        ({"state": {"99": [{}, {"vocabulary.txt": ["red"]}]}}, "states of layers from 0"),
    ],
)
def test_state_of_anyone_is_bounded(words, listed, message, tmp_path):
    data = scc_tf.export.packed.packed_bytes(words)
    stream = Stream(data[8:])
    compact = json.loads(_read_text(stream))
    states = read_state(stream, {"state": compact["state"]}, 10_000)[1]
    with pytest.raises(ValueError, match=message):
        restore_state(words, states | read_state(Stream(bytes(99)), listed, 1000)[1])


def test_a_model_without_state_lists_none():
    assert state_arrays(scc_tf.self_compress(keras.Sequential([keras.Input((2,)), layers.Dense(2)])), []) == ({}, [])


@keras.saving.register_keras_serializable(package="test_packed_extras")
class Forgetful(layers.Layer):
    """Multiplies by a number that it tells nobody."""

    factor = 1.0

    def call(self, inputs):
        return self.factor * inputs


@keras.saving.register_keras_serializable(package="test_packed_extras")
class Random(layers.Layer):
    """Answers at random, always."""

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs))


def _with(layer):
    return scc_tf.layers.Dense(2)(layer)


def test_a_file_that_answers_otherwise_is_not_written(tmp_path):
    layer = Forgetful()
    inputs = keras.Input((2,))
    model = scc_tf.SelfCompressingModel(inputs, _with(layer(inputs)))
    layer.factor = 2.0
    with pytest.raises(ValueError, match="file answers as it does") as caught:
        scc_tf.save_packed(model, tmp_path / "model.scc")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_answers_that_cannot_be_compared_are_told(tmp_path):
    inputs = keras.Input((2,))
    model = scc_tf.SelfCompressingModel(inputs, _with(Random()(inputs)))
    assert scc_tf.save_packed(model, tmp_path / "model.scc").probe_error is None


def test_a_stateful_network_is_left_as_it_was(tmp_path):
    model = keras.Sequential([keras.Input((3, 2), batch_size=2), layers.LSTM(2, stateful=True), layers.Dense(2)])
    small = scc_tf.self_compress(model)
    small(np.ones((2, 3, 2)))
    before = [np.asarray(variable) for variable in small.variables]
    assert scc_tf.save_packed(small, tmp_path / "model.scc").probe_error == 0
    for variable, value in zip(small.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_folder_in_place_of_a_file_is_told_before_the_work(words, tmp_path):
    with pytest.raises(ValueError, match=r"path to be the path of a file\. Received"):
        scc_tf.save_packed(words, tmp_path)


def test_the_words_of_a_file_go_along(tmp_path):
    (tmp_path / "words.txt").write_text("red\nblue")
    lookup = layers.StringLookup(vocabulary=str(tmp_path / "words.txt"), output_mode="multi_hot", name="words")
    small = scc_tf.self_compress(keras.Sequential([keras.Input((2,), dtype="string"), lookup, layers.Dense(2)]))
    scc_tf.save_packed(small, tmp_path / "model.scc")
    (tmp_path / "words.txt").unlink()
    assert scc_tf.load_packed(tmp_path / "model.scc").get_layer("words").get_vocabulary() == ["[UNK]", "red", "blue"]


@pytest.mark.slow
def test_long_vocabularies(tmp_path):
    words = np.array([f"word {number}" for number in range(9000)])
    lookup = stateful_nets.adapted(layers.StringLookup(name="words"), words)
    plain = keras.Sequential([keras.Input((1,), dtype="string"), lookup, layers.Embedding(9001, 1), layers.Dense(2)])
    report = scc_tf.save_packed(scc_tf.self_compress(plain), tmp_path / "model.scc")
    assert scc_tf.load_packed(tmp_path / "model.scc").get_layer("words").get_vocabulary() == lookup.get_vocabulary()
    assert 1000 < report.extra_bytes < 50_000
