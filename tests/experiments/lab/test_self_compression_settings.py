import dataclasses
import math
import zipfile

import pytest
from lab.self_compression import Config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "both"),
        ("size_form", "cubic"),
        ("gamma", -0.1),
        ("gamma", math.nan),
        ("gamma", math.inf),
        ("lambda_safety", -1.0),
        ("learning_rate", -1e-3),
        ("format_learning_rate", math.nan),
        ("threshold_points", -1.0),
        ("threshold_points", 101.0),
        ("restore_fraction", 1.5),
        ("restore_bits", 0.0),
        ("bit_depth", 0.0),
        ("bit_depth", 25.0),
        ("settle", 1.1),
        ("ramp", -0.1),
        ("float_epochs", 0),
        ("epochs", 0),
        ("batch_size", 0),
        ("safety_size", 0),
        ("safety_batch_size", 0),
        ("check_every", 0),
        ("shift", -1),
        ("seed", -1),
        ("size_model", "huffman"),
        ("target_bytes", -1),
        ("approach", 0.0),
        ("statistics_bits", 11),
        ("exponent_learning_rate", -1.0),
        ("model", "moons_mlp"),
        ("float_file", "no-such.keras"),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Expected {name} .*Received: {name}="):
        Config(**{name: value})


def test_a_target_and_a_ramp_of_gamma_exclude_each_other():
    with pytest.raises(ValueError, match=r"Expected ramp=0 .*target_bytes=4000"):
        Config(ramp=0.5, target_bytes=4000)


def test_the_place_of_the_data_is_no_part_of_a_stage(tmp_path):
    file = tmp_path / "float.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.weights.h5", "")
    for config in (Config(), Config(float_file=str(file))):
        moved = dataclasses.replace(config, data_dir="elsewhere")
        for key in (lambda c: c.float_key, lambda c: c.safety_key, lambda c: c.row_key("safe")):
            assert key(moved) == key(config)


def test_a_stage_depends_on_its_own_settings_alone():
    config = Config()
    assert config.float_key == Config(gamma=0.5, safety_size=9).float_key != Config(float_epochs=9).float_key
    assert config.safety_key == Config(gamma=0.5).safety_key != Config(safety_size=9).safety_key
    assert (
        config.row_key("unsafe") == Config(lambda_safety=1.0).row_key("unsafe") != Config(gamma=0.5).row_key("unsafe")
    )
    assert config.row_key("safe") != Config(lambda_safety=1.0).row_key("safe")
    for change in ({"model": "lenet_5"}, {"data_set": "fashion_mnist"}, {"mirror": True}):
        assert len({config.float_key, Config(**change).float_key}) == 2


def test_every_setting_has_a_help_text():
    assert all(field.metadata["help"] for field in dataclasses.fields(Config))
