import keras
import pytest

from scc_tf.export import export_tflite, measure_latency
from scc_tf.export.tflite import latency


@pytest.mark.slow
def test_files_take_turns_and_the_first_is_the_measure(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    export_tflite(model, tmp_path / "it.tflite", storage="float32")
    asked = []
    monkeypatch.setattr(
        latency._Runner,
        "microseconds",
        lambda self, calls: asked.append((self, calls)) or len({r for r, _ in asked[-2:]}),
    )
    paths = {"one": tmp_path / "it.tflite", "two": tmp_path / "it.tflite"}
    rows = measure_latency(paths, rounds=3, calls=2, warm_up=5)
    first, second = asked[0][0], asked[1][0]
    assert asked == [(first, 5), (second, 5), *[(first, 2), (second, 2)] * 3]
    assert list(rows) == ["one", "two"] and rows["one"]["ratio"] == 1.0


@pytest.mark.slow
def test_the_time_of_a_call_is_measured(tmp_path):
    small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    large = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1500), keras.layers.Dense(1500)])
    paths = {}
    for name, model in (("small", small), ("large", large)):
        export_tflite(model, paths.setdefault(name, tmp_path / f"{name}.tflite"), storage="float32")
    rows = measure_latency(paths, rounds=9, calls=3, warm_up=2)
    assert rows["large"]["ratio"] > 3 and rows["large"]["median_us"] > rows["small"]["median_us"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"paths": {}}, "Expected paths to be a dict of files"),
        ({"paths": "a.tflite"}, "Expected paths to be a dict of files"),
        ({"paths": {"a": "a.tflite"}, "rounds": 0}, "Expected rounds"),
        ({"paths": {"a": "a.tflite"}, "threads": 1.5}, "Expected threads"),
    ],
)
def test_nothing_to_measure(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure_latency(**arguments)


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="paths"):
        measure_latency({"a": "nowhere.tflite"})
