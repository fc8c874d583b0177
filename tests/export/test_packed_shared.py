import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from layer_cases import CASES, learn_formats
from test_packed import assert_same_bits
from test_packed_damage import mutations

import scc_tf
from scc_tf import layers
from scc_tf.export import load_packed, packed_bytes, save_packed
from scc_tf.export.packed import _framed, _unpack
from scc_tf.export.packed.weights import _other_variables as other_variables
from scc_tf.export.packed.weights import _shared_kernels as shared_kernels
from scc_tf.export.packed.weights import sparse_variables
from scc_tf.training import self_compressing_layers

MASKED = {entry.stock: entry.masked for entry in layers.entries()}
MASKED |= {entry.self_compressing: entry.masked_self_compressing for entry in layers.entries()}


def check_restored(model, restored):
    """The same model bit for bit, but for what a mask prunes: that is +0."""
    assert not restored.compiled
    assert restored.name == model.name
    assert isinstance(restored, scc_tf.SelfCompressingModel) == bool(self_compressing_layers(model))
    assert [layer.name for layer in restored._flatten_layers()] == [layer.name for layer in model._flatten_layers()]
    pairs = list(zip(other_variables(model), other_variables(restored), strict=True))
    pairs += zip(sparse_variables(model), sparse_variables(restored), strict=True)
    for ours, theirs in zip(self_compressing_layers(model), self_compressing_layers(restored), strict=True):
        pairs += [(ours.quantized(name), theirs.quantized(name)) for name in ours.kernel_names]
    for ours, theirs in pairs:
        ours = ops.convert_to_numpy(ours)
        assert_same_bits(ours + np.zeros((), ours.dtype), ops.convert_to_numpy(theirs))  # -0 + 0 is +0


def check_round_trip(model, folder):
    report = save_packed(model, folder / "model.scc")
    data = (folder / "model.scc").read_bytes()
    parts = {name: size for name, size in dataclasses.asdict(report).items() if name.endswith("_bytes")}
    assert len(data) == parts.pop("stored_bytes") == sum(parts.values())
    assert all(f" {size:,}" in str(report) for size in parts.values() if size)
    restored = load_packed(folder / "model.scc")
    check_restored(model, restored)
    assert packed_bytes(restored) == data  # nothing is lost in a second round
    return report, restored


def every_weight_sharing_layer():
    """One model with one layer of each kind, on inputs of their own."""
    cases = list({case.stock: case for case in reversed(CASES)}.values())
    inputs, outputs = [], []
    for place, case in enumerate(cases):
        inputs.append(keras.Input(case.input_shape, name=f"in{place}"))
        outputs.append(case.weight_sharing().trained_layer(name=f"layer{place}")(inputs[-1]))
    return keras.Model(inputs, outputs, name="all")


@pytest.mark.slow
def test_every_weight_sharing_layer_round_trips(tmp_path):
    model = every_weight_sharing_layer()
    assert {type(layer) for layer, _ in shared_kernels(model)} == {entry.weight_sharing for entry in layers.entries()}
    report, restored = check_round_trip(model, tmp_path)
    assert set(report.kernels) == {layer.name for layer, _ in shared_kernels(model)}
    inputs = [np.random.default_rng(0).normal(size=(2, *i.shape[1:])).astype(np.float32) for i in model.inputs]
    for ours, theirs in zip(model(inputs), restored(inputs), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def mixed_model():
    """Weight-sharing, masked and self-compressing layers, BatchNormalization, a nested model, a shared layer."""
    rng = np.random.default_rng(0)
    inner = keras.Sequential([keras.Input((8,)), layers.WeightSharingDense(6, clusters=4, name="shared")], name="inner")
    image = keras.Input((9, 9, 2), name="image")
    twice = layers.WeightSharingConv2D(2, 3, padding="same", clusters=5, name="twice")
    x = keras.layers.BatchNormalization(name="norm")(twice(twice(image)))
    x = MASKED[keras.layers.SeparableConv2D](3, 3, name="masked")(x)
    x = MASKED[layers.Dense](8, initial_bit_depth=4, name="both")(keras.layers.Flatten()(x))
    x = layers.Dense(4, initial_bit_depth=4, name="self")(inner(x))
    model = scc_tf.SelfCompressingModel(image, keras.layers.Dense(3, name="plain")(x), name="mixed")
    for layer in model.layers:
        for name, mask in getattr(layer, "masks", {}).items():
            layer.prune(rng.random(mask.shape) < 0.3, name)
    for layer, shared in shared_kernels(model):
        layer.share(rng.normal(size=shared.centroids.shape), shared.indices * rng.integers(0, 2, shared.shape))
    for layer in self_compressing_layers(model):
        learn_formats(layer)
    for variable in other_variables(model):
        variable.assign(rng.normal(1, 0.2, variable.shape))
    return model


@pytest.fixture(scope="module")
def mixed():
    return mixed_model()


@pytest.mark.slow
def test_a_mixed_model_round_trips(mixed, tmp_path):
    report, restored = check_round_trip(mixed, tmp_path)
    assert set(report.kernels) == {"shared", "twice", "masked", "both"}
    assert min(report.code_bytes, report.index_bytes, report.codebook_bytes, report.exponent_bytes) > 0
    assert report.kernels["masked"]["codebook"] == report.kernels["both"]["codebook"] == 0
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 2)).astype(np.float32)
    np.testing.assert_array_equal(mixed(images), restored(images))


def masked_model(keep=0.1, dtype="float32"):
    rng = np.random.default_rng(0)
    plain = keras.Sequential([keras.Input((49,)), keras.layers.Dense(30, dtype=dtype, name="dense")], name="pruned")
    model = scc_tf.add_masks(plain)
    model.get_layer("dense").prune(rng.random((49, 30)) < keep)
    return model


@pytest.mark.slow
def test_a_pruned_model_is_positions_and_float_values(tmp_path):
    model = masked_model()
    left = int(np.count_nonzero(model.get_layer("dense").kernel))
    report, restored = check_round_trip(model, tmp_path)
    assert report.code_bytes < 4 * left
    assert report.index_bytes < 1.3 * 49 * 30 * 0.47 / 8  # 0.47 bits: the entropy at a density of 0.1
    assert report.codebook_bytes == report.exponent_bytes == 0
    restored.compile("sgd", "mse")
    restored.fit(np.ones((4, 49)), np.ones((4, 30)), verbose=0)
    assert np.count_nonzero(restored.get_layer("dense").kernel) == left  # the mask holds


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_masked_kernels_of_other_dtypes(dtype, tmp_path):
    check_round_trip(masked_model(dtype=dtype), tmp_path)


@pytest.mark.parametrize("kind", ["kept zeros", "not pruned", "all pruned", "nothing pruned", "negative zeros"])
def test_masks_that_the_kernel_does_not_tell(kind, tmp_path):
    model = masked_model({"all pruned": 0.0, "nothing pruned": 1.0}.get(kind, 0.2))
    kernel, mask = model.get_layer("dense").kernel, model.get_layer("dense").masks["kernel"]
    values = np.asarray(kernel)
    if kind == "kept zeros":
        kernel.assign(np.where(np.arange(30) % 3, values, 0))
    elif kind == "not pruned":
        kernel.assign(values + np.float32(0.5))
    elif kind == "negative zeros":
        kernel.assign(np.where(np.asarray(mask) > 0, values, np.float32(-0.0)))
    check_round_trip(model, tmp_path)


@pytest.mark.slow
def test_centroids_that_float16_holds_cost_less(tmp_path):
    model = scc_tf.share_weights(keras.Sequential([keras.Input((30,)), keras.layers.Dense(20)]), clusters=32)
    ((layer, shared),) = shared_kernels(model)
    exact = check_round_trip(model, tmp_path)[0].codebook_bytes
    layer.share(np.asarray(shared.centroids).astype(np.float16), shared.indices)
    assert check_round_trip(model, tmp_path)[0].codebook_bytes < 0.6 * exact


def test_refused(tmp_path):
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="stock")
    with pytest.raises(ValueError, match=r"weight-sharing or masked layers.*Received: 'stock' with none"):
        save_packed(plain, tmp_path / "model.scc")
    model = masked_model()
    model.get_layer("dense").kernel.assign(np.full((49, 30), np.inf))
    with pytest.raises(ValueError, match="Expected finite weights"):
        save_packed(model, tmp_path / "model.scc")
    model = masked_model()
    model.get_layer("dense").masks["kernel"].assign(np.full((49, 30), 0.5))
    with pytest.raises(ValueError, match="that its configuration restores"):
        save_packed(model, tmp_path / "model.scc")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_damage_is_found(mixed):
    packed = packed_bytes(mixed)
    for data in mutations(packed, 200, seed=0):
        with pytest.raises(ValueError, match="Received"):
            _unpack(data, 10_000)


@pytest.mark.slow
def test_damage_behind_a_valid_checksum():
    """A model or a ValueError, and no other exception."""
    model = scc_tf.share_weights(keras.Sequential([keras.Input((16,)), keras.layers.Dense(8)]), clusters=4)
    model = keras.Sequential([*model.layers, MASKED[keras.layers.Dense](4)])
    for data in mutations(packed_bytes(model)[8:], 40, seed=1):
        try:
            restored = _unpack(_framed(data), 10_000)
        except ValueError as error:
            assert "Received" in str(error)
        else:
            assert all(np.isfinite(np.asarray(layer.kernel)).all() for layer in restored.layers[1:])
