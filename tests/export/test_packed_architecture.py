import json
import zlib

import keras
import numpy as np
import pytest
from fuzzing import with_text
from test_packed import check_restored, check_round_trip, configured

import scc_tf
from scc_tf.coding import Stream
from scc_tf.export import load_packed, packed_bytes, save_packed
from scc_tf.export.packed import _dictionary, _framed, _read_text, _write_text

L = keras.layers


def compressed(inputs, outputs, **settings):
    return scc_tf.self_compress(keras.Model(inputs, outputs, **settings), 4)


def two_inputs_and_outputs():
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    shared = L.Dense(5, activation="relu", name="shared")
    x = L.Concatenate(name="both")([shared(left), shared(right)])
    return compressed({"left": left, "right": right}, [L.Dense(2, name="one")(x), x * 2 + 1], name="two")


def nested_twice():
    inner = keras.Sequential([keras.Input((6,)), L.Dense(6, name="inner_dense"), L.ReLU()], name="inner")
    middle_in = keras.Input((6,))
    middle = keras.Model(middle_in, L.Add()([inner(middle_in), middle_in]), name="middle")
    inputs = keras.Input((6,))
    return compressed(inputs, L.Dense(3)(middle(middle(inputs))), name="outer")


def operations():
    inputs = keras.Input((4, 4, 2))
    x = L.Conv2D(3, 2, padding="same")(inputs)
    x = keras.ops.relu(x) - keras.ops.mean(x, axis=-1, keepdims=True)
    return compressed(inputs, keras.ops.reshape(x, (-1, 48)))


def wrappers():
    inputs = keras.Input((5, 6))
    x = L.TimeDistributed(L.Dense(4, kernel_regularizer="l2"))(inputs)
    x = L.Bidirectional(L.GRU(3, return_sequences=True))(x)
    x = L.MultiHeadAttention(2, 3)(x, x)
    return compressed(inputs, L.Dense(2)(L.Dropout(0.3)(L.LayerNormalization()(x))))


def other_settings():
    inputs = keras.Input((8, 8, 2), batch_size=None, dtype="float32")
    x = L.Conv2D(4, (3, 2), strides=(2, 1), padding="same", activation="gelu", bias_regularizer="l1")(inputs)
    x = L.BatchNormalization(momentum=0.5, epsilon=1e-4, scale=False, trainable=False)(x)
    x = L.DepthwiseConv2D(3, depth_multiplier=2, activity_regularizer="l2")(x)
    x = L.LeakyReLU(0.3)(L.UpSampling2D((2, 1), interpolation="bilinear")(x))
    x = L.Conv2DTranspose(2, 3, output_padding=None, kernel_constraint="non_neg")(x)
    return compressed(inputs, L.Rescaling(1 / 255, offset=[1.0, 2.0])(x))


def partly_excluded():
    inputs = keras.Input((8,))
    x = L.Dense(6, name="kept")(inputs)
    plain = keras.Model(inputs, L.Dense(3, name="own")(L.PReLU()(x)))
    return scc_tf.self_compress(plain, 4, rounding="floor", exclude="kept")


def sequential():
    return keras.Sequential([keras.Input((6,)), scc_tf.layers.Dense(4), L.ReLU(), scc_tf.layers.Dense(2)], name="row")


def frozen():
    model = sequential()
    model.trainable = False
    return model


@keras.saving.register_keras_serializable(package="packed_tests")
class Scaled(keras.layers.Layer):
    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), name="factor")

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "start": self.start}


@keras.saving.register_keras_serializable(package="packed_tests")
def doubled(x):
    return 2 * x


def registered():
    inputs = keras.Input((3,))
    return compressed(inputs, L.Dense(2, activation=doubled)(Scaled(2.0)(inputs)))


MODELS = [
    two_inputs_and_outputs,
    nested_twice,
    operations,
    wrappers,
    other_settings,
    partly_excluded,
    sequential,
    frozen,
    registered,
]


def inputs_of(model):
    rng = np.random.default_rng(0)
    structure = getattr(model, "_inputs_struct", model.inputs[0])
    return keras.tree.map_structure(lambda t: rng.normal(size=(2, *t.shape[1:])).astype(np.float32), structure)


def assert_same_outputs(model, restored):
    inputs = inputs_of(model)
    ours, theirs = model(inputs), restored(inputs)
    keras.tree.assert_same_structure(ours, theirs)
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_any_graph_round_trips(make, tmp_path):
    model = make()
    restored = check_round_trip(model, tmp_path)
    if not isinstance(model, keras.Sequential):
        assert configured(restored.layers) == configured(model.layers) or make in (nested_twice, wrappers)
    assert [v.name for v in restored.trainable_variables] == [v.name for v in model.trainable_variables]
    assert_same_outputs(model, restored)


@pytest.mark.slow
def test_settings_of_nested_models_survive(tmp_path):
    restored = check_round_trip(nested_twice(), tmp_path)
    inner = next(layer for layer in restored._flatten_layers() if layer.name == "inner_dense")
    assert inner.get_config()["initial_bit_depth"] == 4
    assert restored.get_layer("middle").name == "middle"


@pytest.mark.slow
def test_global_settings_neither_matter_nor_change(tmp_path):
    model = other_settings()
    save_packed(model, tmp_path / "model.scc")
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    try:
        restored = load_packed(tmp_path / "model.scc")
        assert packed_bytes(model) == (tmp_path / "model.scc").read_bytes()
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")
    check_restored(model, restored)
    assert_same_outputs(model, restored)


@pytest.mark.slow
def test_layers_keep_their_way_to_add_weights_after_loading(tmp_path):
    before = keras.layers.Layer.add_weight
    save_packed(sequential(), tmp_path / "model.scc")
    assert keras.layers.Layer.add_weight is before


def lambda_model():
    inputs = keras.Input((3,))
    return compressed(inputs, L.Lambda(lambda x: x + 1)(L.Dense(2)(inputs)))


class Unregistered(Scaled):
    pass


def unregistered():
    inputs = keras.Input((3,))
    return compressed(inputs, Unregistered()(L.Dense(2)(inputs)))


def no_twin():
    inputs = keras.Input((3,))
    return keras.Model(inputs, L.Dense(2)(inputs))


class Subclassed(keras.Model):
    pass


def not_finite():
    model = sequential()
    model.layers[0].exponent.assign([200.0] * 4)
    return model


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda_model, "Lambda"),
        (unregistered, "registered"),
        (no_twin, "self_compress"),
        (Subclassed, "Sequential or functional"),
        (lambda: keras.Sequential([scc_tf.layers.Dense(2)]), "Sequential or functional"),
        (lambda: "model", "Keras model"),
        (not_finite, "finite"),
    ],
    ids=["lambda", "unregistered", "no twin", "subclassed", "not built", "no model", "not finite"],
)
def test_what_cannot_be_restored_is_refused_and_nothing_is_written(make, message, tmp_path):
    (tmp_path / "model.scc").write_bytes(b"before")
    with pytest.raises(ValueError, match=message):
        save_packed(make(), tmp_path / "model.scc")
    assert [p.name for p in tmp_path.iterdir()] == ["model.scc"]
    assert (tmp_path / "model.scc").read_bytes() == b"before"


def crafted(text, folder):
    """A file with a valid checksum around any architecture."""
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    (folder / "crafted.scc").write_bytes(with_text(text))
    return folder / "crafted.scc"


def layers(*more):
    return {"name": "m", "layers": [["InputLayer", "i", {"batch_shape": [None, 3]}], *more]}


DENSE = ["scc_tf>Dense", "d", {"units": 2}]
NUMPY = {"class_name": "function", "module": "numpy", "config": "load", "registered_name": "load"}
CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        layers(["scc_tf>Dense", "d", {"units": 10**9}]),
        layers(["Dense", "e", {"units": 2**30}], DENSE),
        layers(DENSE, ["Embedding", "e", {"input_dim": 10**9, "output_dim": 10**9}]),
        layers(["Lambda", "l", {"function": CODE}], DENSE),
        layers(["keras.layers:Lambda", "l", {"function": CODE}], DENSE),
        layers(["scc_tf>Dense", "d", {"units": 2, "activation": CODE}]),
        layers(["scc_tf>Dense", "d", {"units": 2, "activation": NUMPY}]),
        layers(["scc_tf>Nothing", "d", {}], DENSE),
        layers(["os:system", "d", {}], DENSE),
        layers(["keras.src.utils.file_utils:get_file", "d", {}], DENSE),
        layers(["keras:Model", "d", {}], DENSE),
        layers(["TFSMLayer", "d", {"filepath": "/tmp"}], DENSE),
        layers(["Nothing", "d", {}], DENSE),
        layers(["__init__", "d", {}], DENSE),
        layers([None, "d", {}], DENSE),
        layers([DENSE[0], "d", {"units": 2}, [[[{"@": 9}]]]]),
        layers([DENSE[0], "d", {"units": 2}, [[[{"@": -1}]]]]),
        layers([DENSE[0], "d", {"units": 2}, [[[{"@": [1, 5, 5]}]]]]),
        layers([DENSE[0], "d", {"units": 2}, 7]),
        layers(DENSE, DENSE),
        {"name": "m", "layers": []},
        layers(["Dense", "d", {"units": 2}]),
        [],
        7,
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"name":"m","layers":' * 5000,
    ],
    ids=range(28),
)
def test_crafted_architectures_raise_without_harm(text, tmp_path):
    path = crafted(text, tmp_path)
    with pytest.raises(ValueError, match=r"(?s)crafted.scc: Expected .* Received: "):
        load_packed(path)


@pytest.mark.parametrize("change", [lambda text: text[:100], lambda text: text.replace(b"row", b"r\xc3\xb6w")])
def test_texts_that_are_long_or_not_ascii_are_deflated(change, monkeypatch):
    text, stream = b'{"name":"row","layers":[]}' * 9, Stream()
    monkeypatch.setattr("scc_tf.export.packed.LONGEST_TEXT", 100)
    _write_text(stream, change(text))
    assert _read_text(Stream(stream.getvalue())) == change(text)


@pytest.mark.slow
def test_a_text_that_grows_without_end_is_refused(tmp_path):
    stream, packed = Stream(), np.frombuffer(zlib.compress(b" " * (1 << 25)), np.uint8).astype(np.int64)
    stream.text(b"")
    with pytest.raises(ValueError, match="at most 2097152 characters"):
        _write_text(stream, b" " * (1 << 25))
    stream = Stream()
    stream.text(b"", _dictionary())
    stream.number(packed.size, "byte")
    stream.uniform(packed, 8)
    (tmp_path / "crafted.scc").write_bytes(_framed(stream.getvalue()))
    with pytest.raises(ValueError, match=r"at most 2097152 bytes\. Received: a part"):
        load_packed(tmp_path / "crafted.scc")


def test_many_layers_count_together(tmp_path):
    path = crafted(layers(DENSE, *[["Dense", f"d{i}", {"units": 330}] for i in range(12)]), tmp_path)
    with pytest.raises(ValueError, match="at most 1000000 weights"):
        load_packed(path, max_weights=10**6)


@pytest.mark.slow
def test_a_model_within_the_bound_loads_and_one_beyond_does_not(tmp_path):
    model = sequential()
    save_packed(model, tmp_path / "model.scc")
    weights = model.count_params()
    load_packed(tmp_path / "model.scc", max_weights=weights)
    with pytest.raises(ValueError, match=f"at most {weights - 1} weights"):
        load_packed(tmp_path / "model.scc", max_weights=weights - 1)


@pytest.mark.slow
def test_the_history_of_cuts_is_left_out(tmp_path):
    model = two_inputs_and_outputs()
    size = len(packed_bytes(model))
    model.cuts = [{"kept": list(range(1000))}]
    assert len(packed_bytes(model)) == size
