import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from lab import models
from layer_cases import CASES, learn_formats

import scc_tf
from scc_tf.export import load_packed, packed_bytes, save_packed
from scc_tf.export.packed import _unpack
from scc_tf.export.packed.weights import _other_variables as other_variables
from scc_tf.training import self_compressing_layers


def arrays(values):
    return [ops.convert_to_numpy(v) for v in values]


def assert_same_bits(ours, theirs):
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert ours.tobytes() == theirs.tobytes()


def check_formats(ours, theirs):
    for fmt, restored in zip(ours.formats, theirs.formats, strict=True):
        axes = fmt.other_axes
        codes = ops.convert_to_numpy(ours.codes(fmt.name))
        live = np.any(codes, axis=axes).ravel()
        low, high = (np.minimum(codes.min(axes), 0).ravel(), np.maximum(codes.max(axes), 0).ravel())
        bit_depth = ops.convert_to_numpy(restored.bit_depth)
        np.testing.assert_array_equal(ops.convert_to_numpy(theirs.codes(fmt.name)), codes)
        np.testing.assert_array_equal(restored.exponent, np.where(live, fmt.exponent, 0))
        assert ((bit_depth == 0) == ~live).all()
        assert (bit_depth == np.round(bit_depth)).all()
        half = 2.0 ** (bit_depth - 1)
        assert ((-half <= low) & (high <= half - 1))[live].all()
        assert ((-half / 2 > low) | (high > half / 2 - 1))[live].all()  # one bit less would not do


def check_restored(model, restored):
    """The restored model is the same bit for bit, save for what the file does not hold."""
    assert type(restored) is scc_tf.SelfCompressingModel
    assert not restored.compiled
    assert restored.name == model.name
    assert [w.name for w in restored.weights] == [w.name for w in model.weights]
    for ours, theirs in zip(other_variables(model), other_variables(restored), strict=True):
        assert_same_bits(*arrays([ours, theirs]))
    for ours, theirs in zip(self_compressing_layers(model), self_compressing_layers(restored), strict=True):
        assert type(ours) is type(theirs)
        check_formats(ours, theirs)
        for name in ours.kernel_names:
            assert_same_bits(*arrays([ours.quantized(name), theirs.quantized(name)]))
            kernel, quantized = arrays([getattr(theirs, name), ours.quantized(name)])
            np.testing.assert_allclose(
                kernel.astype(np.float64), quantized, rtol=2e-6 if kernel.dtype.itemsize > 2 else 2e-2
            )


def check_round_trip(model, folder):
    report = save_packed(model, folder / "model.scc")
    data = (folder / "model.scc").read_bytes()
    assert data == packed_bytes(model)
    parts = (
        report.header_bytes,
        report.architecture_bytes,
        report.code_bytes,
        report.exponent_bytes,
        report.other_bytes,
    )
    assert len(data) == report.stored_bytes == sum(parts)
    assert [p.name for p in folder.iterdir()] == ["model.scc"]
    restored = load_packed(folder / "model.scc")
    check_restored(model, restored)
    assert packed_bytes(restored) == data  # nothing is lost in a second round
    return restored


def configured(layers):
    """Configurations without what a file leaves out: initializers."""
    return [{k: v for k, v in layer.get_config().items() if not k.endswith("_initializer")} for layer in layers]


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer_round_trips(case, rounding, tmp_path):
    layer = case.layer(initial_bit_depth=5, rounding=rounding)
    learn_formats(layer)
    model = scc_tf.SelfCompressingModel(*(lambda i: (i, layer(i)))(keras.Input(case.input_shape)), name="one")
    layer.formats[0].bit_depth.assign(
        np.where(np.arange(layer.formats[0].channels) == 1, 0, layer.formats[0].bit_depth)
    )
    restored = check_round_trip(model, tmp_path)
    assert configured(restored.layers) == configured(model.layers)
    np.testing.assert_array_equal(model(case.inputs()), restored(case.inputs()))


def trained_like(model, seed=0):
    """Weights, statistics and formats such as training leaves; a third of the channels is dead."""
    rng = np.random.default_rng(seed)
    for variable in other_variables(model):
        variable.assign(rng.normal(1, 0.2, variable.shape))
    for layer in self_compressing_layers(model):
        learn_formats(layer)
        for fmt in layer.formats:
            fmt.bit_depth.assign(np.where(rng.random(fmt.channels) < 0.3, 0, fmt.bit_depth))
    return model


def built_in(name, bits=4.0):
    return trained_like(scc_tf.self_compress(getattr(models, name)(seed=1), bits))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["moons_mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cifar_cnn", "mnist_cnn", "resnet20"))]
)
def test_built_in_networks(name, tmp_path):
    model = built_in(name)
    restored = check_round_trip(model, tmp_path)
    assert configured(restored.layers) == configured(model.layers)
    images = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_array_equal(model(images), restored(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moons_mlp", "cifar_cnn", "mnist_cnn"])
def test_known_networks_take_few_bytes_for_the_architecture(name, tmp_path):
    assert save_packed(built_in(name), tmp_path / "model.scc").architecture_bytes < 25


@pytest.mark.slow
def test_it_is_smaller_than_the_entropy_of_each_kernel(tmp_path):
    model = built_in("cifar_cnn")
    stored = save_packed(model, tmp_path / "model.scc").stored_bytes
    codes = [ops.convert_to_numpy(layer.codes()) for layer in self_compressing_layers(model)]
    counts = [np.unique(c, return_counts=True)[1] for c in codes]
    entropy = sum(np.sum(n * np.log2(n.sum() / n)) for n in counts) / 8
    assert stored < entropy


SHAPE = (3, 4)


@pytest.mark.slow
@settings(max_examples=10)
@given(
    codes=hnp.arrays(np.int64, SHAPE, elements=st.integers(-(2**22), 2**22) | st.integers(-4, 3) | st.just(0)),
    exponents=hnp.arrays(np.float32, 4, elements=st.floats(-40, 20, width=32)),
    rounding=st.sampled_from(["nearest", "floor"]),
)
def test_any_codes_and_exponents(codes, exponents, rounding):
    model = scc_tf.SelfCompressingModel(
        *(lambda i: (i, scc_tf.layers.Dense(4, rounding=rounding, initial_bit_depth=24)(i)))(keras.Input((3,)))
    )
    layer = model.layers[-1]
    layer.bit_depth.assign([24.0] * 4)
    layer.exponent.assign(exponents)
    layer.kernel.assign((codes + 0.25) * 2.0 ** exponents.astype(np.float64))
    check_restored(model, _unpack(packed_bytes(model), 1000))


@pytest.mark.slow
def test_the_exponents_of_dead_channels_are_forgotten_and_short_exponents_cost_less(tmp_path):
    sizes = {}
    for name, rounded in (("exact", lambda e: e), ("sixteenths", lambda e: np.round(e * 16) / 16)):
        model = built_in("moons_mlp")
        for layer in self_compressing_layers(model):
            layer.exponent.assign(rounded(ops.convert_to_numpy(layer.exponent)))
        sizes[name] = save_packed(model, tmp_path / "model.scc").exponent_bytes
    assert sizes["sixteenths"] < 0.4 * sizes["exact"]


@pytest.mark.slow
def test_short_floats_cost_less(tmp_path):
    model = built_in("moons_mlp")
    exact = save_packed(model, tmp_path / "model.scc").other_bytes
    for variable in other_variables(model):
        variable.assign(ops.convert_to_numpy(variable).astype(np.float16).astype(np.float32))
    assert save_packed(model, tmp_path / "model.scc").other_bytes < 0.6 * exact
    check_restored(model, load_packed(tmp_path / "model.scc"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"])
def test_other_dtypes(dtype, tmp_path):
    inputs = keras.Input((3,))
    x = scc_tf.layers.Dense(4, dtype=dtype)(inputs)
    x = keras.layers.BatchNormalization(dtype=dtype)(keras.layers.Dense(5, dtype=dtype)(x))
    model = scc_tf.SelfCompressingModel(inputs, x, name=dtype)
    restored = check_round_trip(model, tmp_path)
    assert [layer.dtype_policy for layer in restored.layers] == [layer.dtype_policy for layer in model.layers]


@pytest.mark.slow
def test_it_goes_on_training(tmp_path):
    model = built_in("moons_mlp")
    save_packed(model, tmp_path / "model.scc")
    restored = load_packed(tmp_path / "model.scc")
    restored.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    rng = np.random.default_rng(0)
    restored.fit(rng.normal(size=(32, 2)), rng.integers(0, 2, 32), verbose=0)


@pytest.mark.slow
def test_what_was_compiled_keeps_its_starting_weights(tmp_path):
    model = built_in("moons_mlp")
    model.compile()
    save_packed(model, tmp_path / "model.scc")
    assert load_packed(tmp_path / "model.scc").starting_weights == model.starting_weights == 120


FRESH = """
import sys
import numpy as np, keras
from scc_tf.export import load_packed
model = load_packed(sys.argv[1])
inputs = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
np.savez(sys.argv[2], outputs=model(inputs), **{f"w{i}": w for i, w in enumerate(model.weights)})
"""


@pytest.mark.slow
def test_a_fresh_process(tmp_path):
    model = built_in("mnist_cnn")
    save_packed(model, tmp_path / "model.scc")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "model.scc"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(tmp_path / "out.npz") as out:
        inputs = np.random.default_rng(0).normal(size=(4, 28, 28, 1)).astype(np.float32)
        np.testing.assert_array_equal(out["outputs"], model(inputs))
        here = load_packed(tmp_path / "model.scc")
        for index, weight in enumerate(here.weights):
            np.testing.assert_array_equal(out[f"w{index}"], weight)


SAVED = sorted((Path(__file__).parents[2] / "saved_models").glob("*.scc"))


@pytest.mark.slow
@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_the_saved_networks_are_read_and_written_as_they_were(path):
    assert packed_bytes(load_packed(path)) == path.read_bytes()
