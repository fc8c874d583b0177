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
from scc_tf.coding.shared import CODERS
from scc_tf.export import load_packed, packed_bytes, save_packed
from scc_tf.export.packed import _unpack
from scc_tf.export.packed.header import frame, unframe
from scc_tf.export.packed.sparse import masked_kernels, shared_kernels, sparse_variables
from scc_tf.export.packed.tensors import other_variables
from scc_tf.training import self_compressing_layers

each_coder = pytest.mark.parametrize("coder", CODERS)

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


def check_round_trip(model, folder, coder="range", gap_bits=None):
    report = save_packed(model, folder / "model.scc", coder, gap_bits)
    data = (folder / "model.scc").read_bytes()
    parts = {name: size for name, size in dataclasses.asdict(report).items() if name.endswith("_bytes")}
    assert len(data) == parts.pop("stored_bytes") == sum(parts.values())
    assert all(f" {size:,}" in str(report) for size in parts.values() if size)
    restored = load_packed(folder / "model.scc")
    check_restored(model, restored)
    assert packed_bytes(restored, coder, gap_bits) == data  # nothing is lost in a second round
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
@each_coder
def test_every_weight_sharing_layer_round_trips(coder, tmp_path):
    model = every_weight_sharing_layer()
    assert {type(layer) for layer, _ in shared_kernels(model)} == {entry.weight_sharing for entry in layers.entries()}
    report, restored = check_round_trip(model, tmp_path, coder)
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
    for kernel in masked_kernels(model):
        kernel.layer.prune(rng.random(kernel.mask.shape) < 0.3, kernel.name)
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
@each_coder
def test_a_mixed_model_round_trips(mixed, coder, tmp_path):
    report, restored = check_round_trip(mixed, tmp_path, coder)
    assert set(report.kernels) == {"shared", "twice", "masked", "both"}
    assert min(report.code_bytes, report.index_bytes, report.codebook_bytes, report.exponent_bytes) > 0
    assert (report.table_bytes > 0) == (coder == "huffman")
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
    assert report.codebook_bytes == report.table_bytes == report.exponent_bytes == 0
    restored.compile("sgd", "mse")
    restored.fit(np.ones((4, 49)), np.ones((4, 30)), verbose=0)
    assert np.count_nonzero(restored.get_layer("dense").kernel) == left  # the mask holds


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_masked_kernels_of_other_dtypes(dtype, tmp_path):
    check_round_trip(masked_model(dtype=dtype), tmp_path)


@each_coder
@pytest.mark.parametrize("kind", ["kept zeros", "not pruned", "all pruned", "nothing pruned", "negative zeros"])
def test_masks_that_the_kernel_does_not_tell(kind, coder, tmp_path):
    model = masked_model({"all pruned": 0.0, "nothing pruned": 1.0}.get(kind, 0.2))
    kernel, mask = model.get_layer("dense").kernel, model.get_layer("dense").masks["kernel"]
    values = np.asarray(kernel)
    if kind == "kept zeros":
        kernel.assign(np.where(np.arange(30) % 3, values, 0))
    elif kind == "not pruned":
        kernel.assign(values + np.float32(0.5))
    elif kind == "negative zeros":
        kernel.assign(np.where(np.asarray(mask) > 0, values, np.float32(-0.0)))
    check_round_trip(model, tmp_path, coder)


@pytest.mark.slow
def test_huffman_files_take_the_gaps_that_are_asked_for(tmp_path):
    model = scc_tf.share_weights(scc_tf.to_plain(masked_model()), clusters=4)
    sizes = [check_round_trip(model, tmp_path, "huffman", bits)[0].stored_bytes for bits in (None, 2, 5)]
    assert sizes[0] == min(sizes) < sizes[1]
    assert check_round_trip(model, tmp_path)[0].stored_bytes < sizes[0]


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
    for arguments, message in ((("zip",), "coder='zip'"), (("huffman", 40), "gap_bits=40")):
        with pytest.raises(ValueError, match=message):
            save_packed(masked_model(), tmp_path / "model.scc", *arguments)
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
@each_coder
def test_damage_is_found(mixed, coder):
    packed = packed_bytes(mixed, coder)
    for data in mutations(packed, 200, seed=0):
        with pytest.raises(ValueError, match="Received"):
            _unpack(data, 10_000)


@pytest.mark.slow
@each_coder
def test_damage_behind_a_valid_checksum(coder):
    """A model or a ValueError, and no other exception."""
    model = scc_tf.share_weights(keras.Sequential([keras.Input((16,)), keras.layers.Dense(8)]), clusters=4)
    model = keras.Sequential([*model.layers, MASKED[keras.layers.Dense](4)])
    architecture, tensors, version = unframe(packed_bytes(model, coder))
    for data in mutations(tensors, 40, seed=1):
        try:
            restored = _unpack(frame(architecture, data, version), 10_000)
        except ValueError as error:
            assert "Received" in str(error)
        else:
            assert all(np.isfinite(np.asarray(layer.kernel)).all() for layer in restored.layers[1:])


def golden_model(sharing):
    """What `GOLDEN_1` holds, and with a weight-sharing layer, `GOLDEN_2`."""
    inputs = keras.Input((6,), name="inputs")
    x = MASKED[layers.Dense](5, initial_bit_depth=4, name="both")(inputs)
    x = MASKED[keras.layers.Dense](4, name="masked")(x)
    if sharing:
        x = layers.WeightSharingDense(7, clusters=3, name="shared")(x)
    model = scc_tf.SelfCompressingModel(inputs, x, name="golden")
    for layer in model.layers[1:3]:
        layer.kernel.assign((np.arange(layer.kernel.shape[0] * layer.units) % 7 - 3.0).reshape(layer.kernel.shape))
        layer.prune(np.asarray(layer.kernel) != 2)
    model.layers[1].bit_depth.assign([4] * 5)
    model.layers[1].exponent.assign([0, 0, 1, 0, 0.5])
    if sharing:
        model.layers[3].share([-0.5, 0.25, 1.1], np.arange(28).reshape(4, 7) % 5 % 4)
    return model


def test_files_with_masks_of_version_1_stay_readable():
    """There, masks and masked kernels are variables like others."""
    data = bytes.fromhex(GOLDEN_1)
    assert data[3] == 1
    check_restored(golden_model(sharing=False), _unpack(data, 1000))


@each_coder
def test_files_of_version_2_stay_readable(coder):
    """Frozen: if this fails, files that were written before can no longer be read."""
    check_restored(golden_model(sharing=True), _unpack(bytes.fromhex(GOLDEN_2[coder]), 1000))


GOLDEN_1 = (
    "53434301315737063f8367caf4fc1cf0f40179079b98a16446dfc4e2ecd494e0d49c34e7fcdc82a2d4e262a0cd307727"
    "e503dd85d4a02426e62106c24cc805f390cc30017ab11600f2aaad50c5a6af16763e526d084d015de89a558134c9349a"
    "1f2d897b5e913c1097b5824d0b4a882eefe5a5bf"
)
GOLDEN_2 = {
    "range": (
        "5343430231a0d219598367caf4fc1cf0f40179079b98a16446dfc4e2ecd494e0d49c34e7fcdc82a2d4e262a0cd307727"
        "e503dd85d4a02426e62106c24cc805f390cc3041561b0ef6607046621192a540c716a1683107464f4e6931349f0283a8"
        "1600f2aaad50c5a6af16763e526d084d015de89a55813582e3284523b741705c54281ce1545cdca03d72d8e9c7240011"
        "199f1701a33f2cd91008d84526404be4d0e406bce7bc8fb9bbdba785c285"
    ),
    "huffman": (
        "53434302b1fe1449598367caf4fc1cf0f40179079b98a16446dfc4e2ecd494e0d49c34e7fcdc82a2d4e262a0cd307727"
        "e503dd85d4a02426e62106c24cc805f390cc3041561b0ef6607046621192a540c716a1683107464f4e6931349f0283a8"
        "1600f2aaad50c5a6af16763e526d084d015de89a558141977b8474de3e3266b3038a3487a0dc823f294669b662f59455"
        "cbd651cf053e09f6730bcfda1c010992687c097c065345a1c6d34c54dc1746ce3d4cc63a0240cdb2ff007f80"
    ),
}
