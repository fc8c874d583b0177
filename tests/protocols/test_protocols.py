import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.conversion import add_masks
from scc_tf.export.packed import packed_bytes
from scc_tf.protocols import PROTOCOLS, deep_compression, knapsack_pruning, lottery
from scc_tf.protocols.deep_compression import prune_smallest
from scc_tf.protocols.knapsack import worth_their_bits


def examples(count=400):
    """Three classes of points with two useful coordinates of six."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    points = rng.normal(size=(count, 6))
    points[:, :2] += 3 * np.array([[0, 1], [1, -1], [-1, -1]])[labels]
    return points.astype(np.float32), labels


def build(seed=0):
    """Layers without names: Keras numbers them anew in every network."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(24, "relu"), keras.layers.Dense(12, "relu"), keras.layers.Dense(3)]
    )


@pytest.fixture(scope="module")
def trained():
    model, (points, labels) = build(), examples()
    model.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(points, labels, epochs=10, batch_size=100, verbose=0)
    return model


def accuracy(model):
    points, labels = examples()
    return np.mean(model.predict(points, verbose=0).argmax(axis=1) == labels)


@pytest.mark.slow
def test_deep_compression_prunes_and_shares(trained):
    before = trained.get_weights()
    small = deep_compression(trained, examples(), 0.2, 4, rounds=2, epochs=2, learning_rate=0.03, batch_size=90)
    for ours, theirs in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    kernels = [layer.kernel for layer in scc_tf.to_plain(small).layers if isinstance(layer, keras.layers.Dense)]
    assert all(len(np.unique(kernel)) <= 5 for kernel in kernels)  # four weights and 0
    left = sum(np.count_nonzero(kernel) for kernel in kernels)
    assert left <= 0.2 * (6 * 24 + 24 * 12 + 12 * 3) + 1
    assert accuracy(small) > 0.9
    assert len(packed_bytes(small)) < len(
        packed_bytes(deep_compression(trained, examples(), 1.0, 4, rounds=1, epochs=1, batch_size=360))
    )


def test_layers_of_two_kernels_are_pruned_and_frozen_ones_are_not():
    layers = keras.layers
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.SeparableConv2D(8, 3), layers.Flatten(), layers.Dense(3)])
    model.layers[-1].trainable = False
    small, _ = prune_smallest(add_masks(model), 10)
    separable = small.layers[1]
    assert np.count_nonzero(separable.depthwise_kernel) + np.count_nonzero(separable.pointwise_kernel) <= 10
    assert np.count_nonzero(small.layers[-1].kernel) == small.layers[-1].kernel.numpy().size


@pytest.mark.slow
def test_knapsack_pruning_fits_the_file(trained):
    small = knapsack_pruning(trained, examples(), 260, 4, rounds=2, epochs=2, learning_rate=0.02, batch_size=90)
    assert 220 < len(packed_bytes(small)) <= 260
    assert accuracy(small) > 0.85


def test_the_knapsack_is_worth_as_much_as_its_bound_and_no_fewer_edges(trained):
    rng = np.random.default_rng(0)
    values = [rng.random(layer.kernel.shape) ** 3 for layer in trained.layers]
    masks, gap = worth_their_bits(trained, values, 100, 8)
    assert 0 <= gap < 0.01
    assert sum(mask.sum() for mask in masks) > 80
    worth = sum(value[mask].sum() for value, mask in zip(values, masks, strict=True))
    assert worth >= np.sort(np.concatenate([value.ravel() for value in values]))[-80:].sum()


@pytest.mark.parametrize(
    ("layers", "target", "message"),
    [
        ([keras.Input((6,)), keras.layers.Dense(3)], 20, "Expected a budget that a network fits into"),
        ([keras.Input((4, 3)), keras.layers.Conv1D(3, 2)], 1000, "Expected a model with Dense layers"),
    ],
)
def test_what_no_file_can_hold_is_refused(layers, target, message):
    with pytest.raises(ValueError, match=message):
        knapsack_pruning(keras.Sequential(layers), examples(), target)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("structure", "protocols"), [("structured", PROTOCOLS), ("unstructured", ("iterative", "random_pruning"))]
)
def test_every_protocol_draws_a_ticket(structure, protocols):
    options = {
        "structure": structure,
        "rounds": 2,
        "epochs": 3,
        "patience": 2,
        "learning_rate": 0.05,
        "batch_size": 120,
    }
    report = lottery(build, examples(), (0.5,), protocols, rewind_epochs=1, **options)
    dense, *tickets = report.tickets
    assert (dense.protocol, dense.ratio, dense.parameters) == ("dense", 0.0, build().count_params())
    assert [ticket.protocol for ticket in tickets] == list(protocols)
    for ticket in tickets:
        widths = [layer.kernel.shape[-1] for layer in ticket.model.layers if isinstance(layer, keras.layers.Dense)]
        assert widths == ([12, 6, 3] if structure == "structured" else [24, 12, 3])
        assert ticket.parameters < 0.6 * dense.parameters
        assert 1 <= ticket.epochs <= 3
        assert 0 <= ticket.calibration_error <= 1
    assert dense.accuracy > 0.9 and tickets[0].accuracy > 0.8
    lines = str(report).splitlines()
    assert len(lines) == 2 + len(protocols) and lines[2].split()[:2] == [protocols[0], "50%"]
    assert f'"protocol": "{protocols[-1]}"' in report.to_json()


def test_a_ticket_starts_from_the_weights_that_its_protocol_names():
    report = lottery(
        build, examples(), (0.5,), ("winning_ticket", "one_shot"), epochs=1, learning_rate=1e-9, batch_size=360
    )
    dense, winning, fine_tuned = (ticket.model for ticket in report.tickets)
    first = dense.layers[-3].kernel.numpy()
    for ticket in (winning, fine_tuned):
        columns = ticket.layers[-3].kernel.numpy()
        assert all(np.abs(first - column[:, None]).max(axis=0).min() < 1e-5 for column in columns.T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocols": ("magic",)}, "protocols"),
        ({"ratios": (1.0,)}, "ratios"),
        ({"structure": "blocks"}, "structure"),
        ({"rounds": 0}, "rounds"),
        ({"patience": 0}, "patience"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        lottery(build, examples(), **options)
