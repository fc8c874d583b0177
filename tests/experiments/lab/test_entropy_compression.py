import dataclasses
import json

import keras
import numpy as np
import pytest
from lab import datasets, entropy_compression, models, teacher
from lab.entropy_compression import PRESETS, PUBLISHED, Config, run
from lab.stage import Stage
from patterns import small_data

import scc_tf

CONFIG = Config(gamma=0.05, epochs=3, batch_size=20, cut_share=0.01)


def small_net(seed=None):
    k, he = keras.layers, keras.initializers.HeNormal(seed)
    image = keras.Input((6, 6, 1), name="image")
    x = k.Conv2D(4, 3, name="conv", kernel_initializer=he, use_bias=False)(image)
    x = k.Flatten(name="flatten")(k.BatchNormalization(name="norm", epsilon=1e-5)(x))
    return keras.Model(image, k.Dense(10, name="head", kernel_initializer=he)(x), name="small_net")


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", small_data)
        patch.setattr(models, "lenet_300_100", small_net)
        patch.setattr(entropy_compression, "_DENSE", ())  # XLA's compiler would take most of the time
        yield


@pytest.fixture(scope="module")
def done(work_dir):
    return run(CONFIG, work_dir, verbose=0)


@pytest.mark.slow
def test_the_record_is_json_and_of_the_file(done, tmp_path):
    record, model = done
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record["config"]) == {field.name for field in dataclasses.fields(Config)} - {"data_dir"}
    report = scc_tf.save_packed(model, tmp_path / "network.scc")
    assert record["stored_bytes"] == report.stored_bytes == (tmp_path / "network.scc").stat().st_size
    assert record["parts"].items() <= dataclasses.asdict(report).items()
    assert {"stored_bytes", "code_bytes", "other_bytes"} <= set(record["parts"])


@pytest.mark.slow
def test_all_that_a_file_holds_was_rounded(done):
    _, model = done
    for layer in scc_tf.layers.self_compressing_layers(model):
        places = np.asarray(layer.exponent) * 2**CONFIG.exponent_places
        np.testing.assert_array_equal(places, np.rint(places))
        assert len(np.unique(places)) == 1
        if layer.has_quantized_bias:
            np.testing.assert_array_equal(layer.bias, layer.quantized_bias())
    for variable in model.get_layer("norm").weights:
        mantissas = np.frexp(np.asarray(variable))[0] * 2 ** (CONFIG.statistics_bits + 1)
        np.testing.assert_array_equal(mantissas, np.rint(mantissas))


@pytest.mark.slow
def test_finishing_changes_no_code_of_the_layers_that_stay_whole(done, work_dir, monkeypatch):
    before = {}
    finish = entropy_compression.finish

    def watched(model, *arguments):
        before.update({layer.name: np.asarray(layer.codes()) for layer in model.layers if hasattr(layer, "codes")})
        return finish(model, *arguments)

    monkeypatch.setattr(entropy_compression, "finish", watched)
    _, model = run(dataclasses.replace(CONFIG, gamma=0.0, epochs=1), work_dir, verbose=0)
    for name, codes in before.items():
        np.testing.assert_array_equal(model.get_layer(name).codes(), codes)


@pytest.mark.slow
def test_a_second_run_loads_the_first(done, work_dir, monkeypatch):
    record, model = done
    monkeypatch.setattr(keras.Model, "fit", lambda *arguments, **options: pytest.fail("trained again"))
    again, same = run(CONFIG, work_dir, verbose=0)
    assert again == record
    for one, other in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_larger_gamma_makes_a_smaller_file(done, work_dir):
    harder, _ = run(dataclasses.replace(CONFIG, gamma=20.0), work_dir, verbose=0)
    assert harder["stored_bytes"] < done[0]["stored_bytes"]


@pytest.mark.slow
def test_a_teacher_is_listened_to(done, work_dir, monkeypatch):
    monkeypatch.setattr(models, "mnist_cnn", small_net)
    monkeypatch.setattr(teacher, "BATCH_SIZE", 20)
    taught = dataclasses.replace(CONFIG, distillation=0.5)
    record, model = run(taught, work_dir, verbose=0)
    assert record["config"]["distillation"] == 0.5
    assert 0 <= record["validation_error"] < 90
    assert any((np.asarray(a) != b).any() for a, b in zip(model.get_weights(), done[1].get_weights(), strict=False))
    assert run(taught, work_dir, verbose=0)[0] == record


@pytest.mark.slow
@pytest.mark.parametrize(
    ("initial", "ramp"), [(0.0, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]), (1.2, [1.2, 1.1, 1.0, 0.9, 0.8, 0.7])]
)
def test_gamma_moves_over_the_first_share_of_the_steps(initial, ramp, work_dir, monkeypatch):
    gammas, fit = [], Stage.fit

    def watched(self, model, batches, epochs, callbacks=(), verbose=1):
        look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: gammas.append(logs["gamma"]))
        return fit(self, model, batches, epochs, [*callbacks, look], verbose)

    monkeypatch.setattr(Stage, "fit", watched)
    run(dataclasses.replace(CONFIG, gamma=0.6, initial_gamma=initial, epochs=2, ramp=0.5), work_dir, verbose=0)
    np.testing.assert_allclose(gammas, [*ramp, *[0.6] * 6], rtol=1e-6)


@pytest.mark.parametrize("model", PRESETS)
def test_settings_come_from_the_model_unless_they_are_given(model):
    config = Config(model=model, epochs=7)
    assert config.epochs == 7
    assert config.gamma == PRESETS[model]["gamma"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "lenet"},
        {"gamma": -1.0},
        {"hold": 1.0},
        {"bit_depth": 0.0},
        {"bias_exponent": 9},
        {"statistics_bits": 11},
        {"epochs": 0},
        {"distillation": 1.5},
        {"temperature": 0.0},
        {"ramp": 1.0},
        {"initial_gamma": -0.1},
    ],
)
def test_settings_that_nothing_could_run_with_are_refused(changes):
    with pytest.raises(ValueError, match=f"Expected {next(iter(changes))}.*Received"):
        Config(**changes)


def test_published_points_are_of_the_networks_of_the_presets():
    assert set(PUBLISHED) == set(PRESETS)
    for rows in PUBLISHED.values():
        for name, size, error in rows:
            assert name
            assert size > 0
            assert 0 < error < 100
