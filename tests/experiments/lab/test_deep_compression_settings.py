import dataclasses
import math

import pytest
from lab.deep_compression import PRESETS, Config


@pytest.mark.parametrize("model", PRESETS)
def test_presets_fill_in_what_is_not_said(model):
    config = Config(model=model)
    assert {name: getattr(config, name) for name in PRESETS[model]} == PRESETS[model]
    assert None not in dataclasses.asdict(config).values()


def test_what_is_said_wins():
    config = Config(model="lenet_5", density=0.5, dropout=0.0, rounds=1)
    assert (config.density, config.dropout, config.rounds) == (0.5, 0.0, 1)
    assert config.float_epochs == PRESETS["lenet_5"]["float_epochs"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "vgg16"),
        ("start", "random"),
        ("density", 0.0),
        ("density", 1.5),
        ("density", math.nan),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("retrain_factor", -0.1),
        ("tune_factor", 2.0),
        ("weight_decay", -1.0),
        ("weight_decay", math.inf),
        ("dropout", 1.0),
        ("dropout", math.nan),
        ("float_epochs", 0),
        ("rounds", 0),
        ("round_epochs", 0),
        ("last_epochs", 0),
        ("batch_size", 0),
        ("clusters", 0),
        ("clusters", 65_536),
        ("tune_steps", 0),
        ("last_tune_steps", 0),
        ("shift", -1),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Expected {name} .*Received: {name}="):
        Config(**{name: value})


def test_dropout_is_refused_where_the_network_has_none():
    assert Config(model="lenet_5", dropout=0.5).dropout == 0.5
    with pytest.raises(ValueError, match=r"Expected dropout .*Received: dropout=0\.5, model='resnet20'"):
        Config(model="resnet20", dropout=0.5)


def test_every_setting_has_a_help_text():
    assert all(field.metadata["help"] for field in dataclasses.fields(Config))
