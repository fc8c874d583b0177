import dataclasses
import re

import numpy as np
import pytest
from lab.settings import check_settings, setting, settings_key


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = setting(0, "seed")
    rate: float = setting(0.5, "learning rate")
    note: str = setting("", "of no consequence")


def test_a_setting_has_its_default_and_help():
    assert Config().rate == 0.5
    assert [field.metadata["help"] for field in dataclasses.fields(Config)] == [
        "seed",
        "learning rate",
        "of no consequence",
    ]


RULES = ((("rate",), lambda v: 0 < v <= 1, "in (0, 1]"),)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *((("rate"), v, "in (0, 1]") for v in (0, 1.5, "0.5", None, float("nan"), True, [0.5])),
        *((("seed"), v, "to be a whole number") for v in (1.5, 2.0, "1", None, False)),
        *((("note"), v, "to be a string") for v in (1, None, b"x")),
    ],
)
def test_settings_that_nothing_could_run_with_are_refused_in_one_line(name, value, wanted):
    config = dataclasses.replace(Config(), **{name: value})
    with pytest.raises(ValueError, match=re.escape(f"Expected {name} {wanted}. Received: {name}={value!r}")):
        check_settings(config, RULES)


def test_numbers_of_numpy_are_numbers_too():
    check_settings(Config(seed=np.int64(3), rate=np.float32(1)), RULES)


def test_the_key_tells_the_named_settings_apart_and_no_others():
    names = ("seed", "rate")
    key = settings_key(Config(), *names)
    assert re.fullmatch("[0-9a-f]{10}", key)
    assert settings_key(Config(note="other"), *names) == key
    others = {settings_key(c, *names) for c in (Config(seed=1), Config(rate=0.25), Config(seed=None))}
    assert len(others | {key}) == 4
    assert settings_key(Config(), "seed") != key


def test_the_key_is_the_same_on_every_machine():
    """Cached stages of earlier runs are found by it."""
    assert settings_key(Config(), "seed", "rate") == "da5b84d4ea"


def test_the_place_of_the_data_is_no_part_of_the_key():
    @dataclasses.dataclass(frozen=True)
    class Placed(Config):
        data_dir: str = setting("", "folder")

    assert settings_key(Placed()) == settings_key(Placed(data_dir="elsewhere")) == settings_key(Config())
    assert settings_key(Placed(seed=1)) != settings_key(Placed())


def test_an_unknown_setting_is_refused():
    with pytest.raises(AttributeError):
        settings_key(Config(), "epochs")
