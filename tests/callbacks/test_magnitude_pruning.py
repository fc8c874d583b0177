import keras
import numpy as np
import pytest
import toy_problem as toy

import scc_tf
from scc_tf.callbacks import MagnitudePruning
from scc_tf.callbacks.magnitude_pruning import masked_layers, sparsity_of
from scc_tf.tfmot import ConstantSparsity, PolynomialDecay, mask_of


def masked(model=None):
    model = scc_tf.add_masks(toy.dense_net() if model is None else model)
    model.compile(keras.optimizers.Adam(0.01), toy.cross_entropy(), run_eagerly=True)
    return model


def fit(model, *callbacks, epochs=2, of=toy.points):
    inputs, labels = of()
    return model.fit(inputs, labels, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks)


@pytest.mark.slow
def test_the_schedule_decides_when_and_how_much():
    pruning = MagnitudePruning(PolynomialDecay(0.25, 0.75, begin_step=2, end_step=10, power=1, frequency=4))
    history = fit(masked(), pruning).history
    assert [entry["step"] for entry in pruning.history] == [2, 6, 10]
    sparsities = [entry["sparsity"] for entry in pruning.history]
    np.testing.assert_allclose(sparsities, [0.25, 0.5, 0.75], atol=0.01)
    assert history["sparsity"] == pytest.approx([sparsities[1], sparsities[2]])


@pytest.mark.slow
def test_masks_are_those_of_tf_mot_and_hold_until_the_end():
    model = masked()
    before = np.asarray(model.get_layer("hidden").kernel)
    fit(model, MagnitudePruning(ConstantSparsity(0.5, begin_step=0, end_step=1, frequency=100)))
    expected = mask_of(before, 0.5)
    np.testing.assert_array_equal(model.get_layer("hidden").masks["kernel"], expected)
    assert not np.asarray(model.get_layer("hidden").kernel)[~expected].any()
    assert sparsity_of(model) == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
def test_one_threshold_for_all_layers():
    model = masked()
    model.get_layer("head").kernel.assign(10 * model.get_layer("head").kernel)
    fit(model, MagnitudePruning(ConstantSparsity(0.5, 0, 1, 100), "global"), epochs=1)
    hidden, head = (np.asarray(model.get_layer(name).masks["kernel"]).mean() for name in ("hidden", "head"))
    assert hidden < 0.5 < head
    assert sparsity_of(model) == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
def test_quality_times_the_standard_deviation():
    model = masked()
    before = np.asarray(model.get_layer("hidden").kernel)
    fit(model, MagnitudePruning(ConstantSparsity(0.5, 0, 1, 100), "quality", quality=0.8), epochs=1)
    np.testing.assert_array_equal(model.get_layer("hidden").masks["kernel"], np.abs(before) >= 0.8 * before.std())


@pytest.mark.slow
def test_blocks_and_n_of_m():
    model = masked()
    fit(model, MagnitudePruning(ConstantSparsity(0.5, 0, 1, 100), block=(2, 4)), epochs=1)
    mask = np.asarray(model.get_layer("hidden").masks["kernel"]).reshape(4, 2, 3, 4)
    assert np.ptp(mask, axis=(1, 3)).max() == 0
    model = masked()
    fit(model, MagnitudePruning(ConstantSparsity(0.5, 0, 1, 100), zeros_of=(2, 4)), epochs=1)
    assert (np.asarray(model.get_layer("hidden").masks["kernel"]).reshape(2, 4, 12).sum(axis=1) == 2).all()


@pytest.mark.slow
def test_a_schedule_for_each_layer():
    model = masked()
    fit(model, MagnitudePruning({"hidden": ConstantSparsity(0.75, 0, 1, 100)}), epochs=1)
    assert np.asarray(model.get_layer("hidden").masks["kernel"]).mean() == pytest.approx(0.25)
    assert np.asarray(model.get_layer("head").masks["kernel"]).all()


@pytest.mark.slow
def test_it_composes_with_self_compression():
    model = scc_tf.add_masks(scc_tf.self_compress(toy.conv_net()))
    model.compile("adam", toy.cross_entropy(), gamma=0.01, run_eagerly=True)
    fit(model, MagnitudePruning(ConstantSparsity(0.5, 0, 1, 100)), of=toy.images)
    for layer in masked_layers(model):
        assert not np.asarray(layer.codes())[np.asarray(layer.masks["kernel"]) == 0].any()
    assert len(masked_layers(model)) == 3
    assert scc_tf.size_report(model).stored_bytes > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scope": "all"}, "scope='all'"),
        ({"scope": "global", "block": (2, 2)}, "with scope='layer'"),
        ({"scope": "global", "zeros_of": (2, 4)}, "with scope='layer'"),
        ({"scope": "quality", "quality": -1.0}, "quality=-1.0"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        MagnitudePruning(ConstantSparsity(0.5, 0), **arguments)


def test_models_and_names_that_do_not_fit():
    plain = toy.dense_net()
    plain.compile("sgd", toy.cross_entropy(), run_eagerly=True)
    with pytest.raises(ValueError, match=r"add_masks\. Received"):
        fit(plain, MagnitudePruning(ConstantSparsity(0.5, 0)))
    with pytest.raises(ValueError, match=r"Received: \['tail'\]"):
        fit(masked(), MagnitudePruning({"tail": ConstantSparsity(0.5, 0)}))
