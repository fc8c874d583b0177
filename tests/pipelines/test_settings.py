import dataclasses
import re

import pytest

from scc_tf.pipelines.settings import setting, settings_key


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


def test_a_later_setting_counts_only_where_earlier_runs_were_otherwise():
    """They knew nothing of it; its default may have changed since."""

    @dataclasses.dataclass(frozen=True)
    class Later(Config):
        size: int = setting(3, "bytes", before=0)

    names = ("seed", "size", "rate")
    assert settings_key(Later(size=0), *names) == settings_key(Config(), "seed", "rate")
    assert len({settings_key(Later(size=size), *names) for size in (0, 1, 2)}) == 3


def test_an_unknown_setting_is_refused():
    with pytest.raises(AttributeError):
        settings_key(Config(), "epochs")
