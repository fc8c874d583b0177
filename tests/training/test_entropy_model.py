"""Training with ``size_model="entropy"``: Q is what the codes take in a file, and bit depths follow from them."""

import itertools

import keras
import numpy as np
import pytest
import toy_problem as toy

import scc_tf
from scc_tf.optimizer_state import optimizer_slots
from scc_tf.size import RateTerm
from scc_tf.training import model as training_model
from scc_tf.training import self_compressing_layers

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def entropy_net(net=None, bits=5, optimizer=None, **settings):
    """One exponent for each kernel, biases rounded; eager, since tracing takes longer than a few small steps."""
    plain = toy.dense_net() if net is None else net
    model = scc_tf.self_compress(plain, bits, exponent_per="kernel", bias_exponent=-5)
    settings = {"gamma": 0.05, "format_optimizer": Adam(0.05), "run_eagerly": True, **settings}
    model.compile(optimizer or Adam(0.01), toy.cross_entropy(), size_model="entropy", **settings)
    return model


def steps(model, count, batch_size=16):
    """Deterministic training: batch i depends on i alone."""
    x, y = toy.points()
    for i in range(count):
        chosen = np.arange(i * batch_size, (i + 1) * batch_size) % len(y)
        yield model.train_on_batch(x[chosen], y[chosen], return_dict=True)


def formats_of(model):
    return [(layer, fmt) for layer in self_compressing_layers(model) for fmt in layer.formats]


def assert_nothing_is_clipped(model):
    for layer, fmt in formats_of(model):
        bits = np.asarray(fmt.bit_depth)
        scaled = np.asarray(getattr(layer, fmt.name)) * np.exp2(-np.asarray(fmt.exponent)).reshape(fmt.broadcast_shape)
        np.testing.assert_array_equal(layer.codes(fmt.name), np.round(scaled))
        largest = np.abs(np.round(scaled)).max(axis=fmt.other_axes).ravel()
        assert (np.abs(scaled).max(axis=fmt.other_axes).ravel() < 2 ** (bits - 1) - 1).all()
        np.testing.assert_array_equal(bits, 1 + np.ceil(np.log2(largest + 2)))  # and not a bit more


# What a step does ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("net", [toy.dense_net, toy.conv_net])
def test_bit_depths_follow_and_clip_nothing_and_exponents_of_a_kernel_stay_equal(net):
    model = entropy_net(net())
    assert_nothing_is_clipped(model)
    before = toy.formats(model)
    x, y = (toy.images if net is toy.conv_net else toy.points)()
    for _ in range(3):
        model.train_on_batch(x, y)
        assert_nothing_is_clipped(model)
        for _, fmt in formats_of(model):
            assert np.ptp(fmt.exponent) == 0
            assert fmt.exponent[0] != before[fmt.exponent.path][0]


@pytest.mark.slow
def test_exponents_that_differ_move_together():
    model = scc_tf.self_compress(toy.dense_net(), 5)
    model.compile(Adam(0.01), toy.cross_entropy(), size_model="entropy", gamma=0.05, run_eagerly=True)
    before = toy.formats(model)
    list(steps(model, 2))
    for _, fmt in formats_of(model):
        moved = np.asarray(fmt.exponent) - before[fmt.exponent.path]
        assert abs(moved[0]) > 0.01
        np.testing.assert_allclose(moved, moved[0], rtol=1e-4)
    assert_nothing_is_clipped(model)


@pytest.mark.slow
def test_the_direction_of_an_exponent_is_the_sum_over_its_channels():
    model = entropy_net(format_optimizer=SGD(0.0, momentum=0.9), gamma=0.5)
    other = scc_tf.self_compress(toy.dense_net(), 5, exponent_per="kernel", bias_exponent=-5)
    other.set_weights(model.get_weights())
    other.compile(Adam(0.01), toy.cross_entropy(), gamma=0.0, format_optimizer=SGD(1.0), run_eagerly=True)
    model.compile(
        Adam(0.01), toy.cross_entropy(), size_model="entropy", gamma=0.0, format_optimizer=SGD(1.0), run_eagerly=True
    )
    before = toy.formats(model)
    for one in (model, other):
        list(steps(one, 1))
    tied, free = (
        [
            np.asarray(f.exponent) - before[g.exponent.path]
            for (_, f), (_, g) in zip(formats_of(m), formats_of(model), strict=True)
        ]
        for m in (model, other)
    )
    for one, each in zip(tied, free, strict=True):
        np.testing.assert_allclose(one, each.sum(), rtol=1e-3, atol=1e-6)


def test_only_exponents_are_learned_formats():
    model = entropy_net()
    known = {id(v) for v in (*model.optimizer._trainable_variables, *model.format_optimizer._trainable_variables)}
    assert known == {id(v) for v in model.trainable_variables} - {id(f.bit_depth) for _, f in formats_of(model)}
    assert {id(v) for v in model.format_optimizer._trainable_variables} == {
        id(f.exponent) for _, f in formats_of(model)
    }


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["bits", "bytes"])
def test_the_loss_is_task_plus_gamma_q_and_the_log_is_in_bits(unit):
    model = entropy_net(gamma=0.3, unit=unit)
    x, y = toy.points()
    task, q = float(toy.cross_entropy()(y, model(x))), float(RateTerm(model, unit)())
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(task + 0.3 * q, rel=1e-5)
    assert logs["bits_per_weight"] == pytest.approx(q * (8 if unit == "bytes" else 1), rel=1e-5)


@pytest.mark.slow
def test_more_gamma_gives_fewer_bits():
    bits = []
    for gamma in (0.0, 0.05, 0.5):
        model = entropy_net(gamma=gamma, optimizer=SGD(0.1))
        list(steps(model, 12))
        bits.append(float(RateTerm(model)()))
    assert all(more > 1.05 * fewer for more, fewer in itertools.pairwise(bits)), bits


@pytest.mark.slow
def test_the_counts_follow_the_codes_every_few_steps(monkeypatch):
    monkeypatch.setattr(training_model, "COUNT_EVERY", 3)
    model = entropy_net()
    seen = [toy.values(model.size_term.variables)]
    for _ in steps(model, 6):
        seen.append(toy.values(model.size_term.variables))
    changed = [any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(seen)]
    assert changed == [False, False, True, False, False, True]


@pytest.mark.slow
def test_channels_without_bits_stay_without():
    model = entropy_net()
    bits = model.get_layer("hidden").bit_depth
    bits.assign(np.where(np.arange(12) < 4, 0.0, bits))
    kernel = np.asarray(model.get_layer("hidden").kernel)
    list(steps(model, 2))
    assert ((np.asarray(bits) == 0) == (np.arange(12) < 4)).all()
    np.testing.assert_array_equal(np.asarray(model.get_layer("hidden").kernel)[:, :4], kernel[:, :4])


@pytest.mark.slow
def test_frozen_layers_keep_weights_and_formats():
    model = scc_tf.self_compress(toy.dense_net(), 3)
    model.get_layer("hidden").bit_depth.assign(np.full(12, 1.5))
    model.get_layer("hidden").trainable = False
    before = toy.values(model.get_layer("hidden").weights)
    model.compile(Adam(0.01), toy.cross_entropy(), size_model="entropy", run_eagerly=True)
    list(steps(model, 1))
    toy.assert_same(toy.values(model.get_layer("hidden").weights), before)
    assert (np.asarray(model.get_layer("head").bit_depth) >= 2).all()


def test_huge_codes_get_no_more_than_24_bits():
    model = entropy_net()
    model.get_layer("hidden").exponent.assign(np.full(12, -40.0))
    model.fit_bit_depths()
    assert (np.asarray(model.get_layer("hidden").bit_depth) == 24).all()


@pytest.mark.slow
def test_masked_weights_stay_zero():
    masked = scc_tf.add_masks(scc_tf.self_compress(toy.dense_net(), 5, exponent_per="kernel", bias_exponent=-5))
    masked.compile(Adam(0.01), toy.cross_entropy(), size_model="entropy", run_eagerly=True)
    hidden = masked.get_layer("hidden")
    keep = np.random.default_rng(0).random((8, 12)) < 0.5
    hidden.prune(keep)
    list(steps(masked, 3))
    assert not np.asarray(hidden.codes())[~keep].any()
    assert np.ptp(hidden.exponent) == 0
    assert_nothing_is_clipped(masked)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(dtype):
    model = entropy_net(toy.dense_net(dtype=dtype))
    for logs in steps(model, 2):
        assert np.isfinite(logs["loss"])
        assert_nothing_is_clipped(model)


@pytest.mark.slow
def test_compiled_and_eager_steps_agree(monkeypatch):
    monkeypatch.setattr(training_model, "COUNT_EVERY", 2)
    results = []
    for how in ({"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}):
        # Adam would turn the last digit of a gradient near zero into a whole step
        model = entropy_net(optimizer=SGD(0.1), format_optimizer=SGD(0.01), **{"run_eagerly": False, **how})
        for layer in self_compressing_layers(model):  # at 0 the cost has a kink, and its slope hangs on the last digit
            layer.bias.assign(layer.bias + 0.01)
        logs = list(steps(model, 3))  # a rounding error may decide about a code sooner or later
        results.append(([list(log.values()) for log in logs], toy.values([*model.weights, *model.size_term.variables])))
    for logs, weights in results[1:]:
        np.testing.assert_allclose(logs, results[0][0], rtol=1e-4)
        toy.assert_same(weights, results[0][1], atol=1e-4)


# Files, other compiles, cuts -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["keras", "weights"])
def test_training_goes_on_from_a_file_as_if_never_interrupted(tmp_path, how, monkeypatch):
    monkeypatch.setattr(training_model, "COUNT_EVERY", 2)
    model = entropy_net(unit="bytes", size_form="sum")
    list(steps(model, 3))
    if how == "keras":
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        loaded.run_eagerly = True
        assert loaded.get_compile_config()["size_form"] == "sum"
    else:
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = entropy_net(unit="bytes", size_form="sum")
        loaded.load_weights(tmp_path / "model.weights.h5")
    assert loaded.size_model == "entropy"
    assert loaded.size_term.unit == "bytes"
    toy.assert_same(toy.values(loaded.size_term.variables), toy.values(model.size_term.variables))
    assert float(loaded.size_term()) == float(model.size_term())
    for one in (model, loaded):
        list(steps(one, 3))
    toy.assert_same(loaded.get_weights(), model.get_weights(), atol=1e-6)


@pytest.mark.slow
def test_files_are_read_without_training_them_on(tmp_path):
    model = entropy_net()
    model.save(tmp_path / "entropy.keras")
    loaded = keras.saving.load_model(tmp_path / "entropy.keras", compile=False)
    assert not loaded.compiled
    toy.assert_same(loaded.get_weights(), model.get_weights())


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_as_if_it_never_was(tmp_path, monkeypatch):
    monkeypatch.setattr(training_model, "COUNT_EVERY", 2)
    x, y = toy.points()
    settings = {"batch_size": 16, "epochs": 3, "shuffle": False, "verbose": 0}
    whole = entropy_net()
    whole.fit(x, y, **settings)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        entropy_net().fit(x, y, callbacks=[backup, Interrupt()], **settings)
    model = entropy_net()
    model.fit(x, y, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)], **settings)
    assert model.optimizer.iterations == whole.optimizer.iterations == 9
    toy.assert_same(model.get_weights(), whole.get_weights(), atol=1e-6)


@pytest.mark.slow
def test_the_size_model_may_change():
    model = toy.compressed()
    for size_model in ("entropy", "bits"):
        model.compile(Adam(0.01), toy.cross_entropy(), size_model=size_model, run_eagerly=True)
        assert model.get_compile_config()["size_model"] == model.size_model == size_model
        before = toy.formats(model)
        list(steps(model, 1))
        assert all((value != before[path]).any() for path, value in toy.formats(model).items() if "exponent" in path)
    assert isinstance(model.size_term, scc_tf.SizeTerm)
    assert any((value != before[path]).any() for path, value in toy.formats(model).items() if "bit_depth" in path)


def empty(model, channels):
    """Let the weights of hidden units round to zero."""
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.where(np.isin(np.arange(kernel.shape[1]), channels), 1e-6, kernel))


@pytest.mark.slow
def test_a_channel_whose_codes_are_all_zero_is_removed_and_training_goes_on():
    model = entropy_net()
    list(steps(model, 2))
    empty(model, [1, 7])
    start, slots = model.starting_weights, optimizer_slots(model.format_optimizer, model.get_layer("hidden").exponent)
    slots = toy.values(slots)
    before = np.asarray(model(toy.points()[0]))
    report = model.remove_dead_channels()
    assert report.channels["hidden"] == (12, 10)
    assert model.size_model == "entropy"
    assert isinstance(model.size_term, RateTerm)
    assert model.starting_weights == model.size_term.starting_weights == start
    np.testing.assert_allclose(model(toy.points()[0]), before, atol=2.0**-6 + 1e-5)  # half a step of the head's bias
    for old, new in zip(
        slots, optimizer_slots(model.format_optimizer, model.get_layer("hidden").exponent), strict=True
    ):
        np.testing.assert_array_equal(new, old[:10])
    list(steps(model, 2))
    for _, fmt in formats_of(model):
        assert np.ptp(fmt.exponent) == 0
    assert_nothing_is_clipped(model)


class Cut(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 3:
            empty(self.model, [0, 3])
            self.model.remove_dead_channels()


@pytest.mark.slow
def test_a_cut_in_the_middle_of_fit(tmp_path):
    model = entropy_net(run_eagerly=False)
    x, y = toy.points()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Cut()])
    assert model.get_layer("hidden").units == 10
    assert model.optimizer.iterations == 12
    assert_nothing_is_clipped(model)
    model.save(tmp_path / "cut.keras")
    loaded = keras.saving.load_model(tmp_path / "cut.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert float(loaded.size_term()) == float(model.size_term())
