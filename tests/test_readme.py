"""The README's promises that a machine can check."""

import re
from pathlib import Path

import pytest
from lab import datasets, models

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def few(data):
    """MNIST, but less of it: what is tested is that the lines run, and they do so in a third of the time."""
    splits = {name: datasets.Split(*(v[:320] for v in getattr(data, name))) for name in ("train", "validation", "test")}
    return data._replace(**splits)


@pytest.mark.slow
def test_the_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = few(datasets.load("mnist"))
    monkeypatch.setattr(datasets, "load", lambda name: data)
    first, *others = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in first.splitlines() if line]) == 11
    names = {}
    for example in (first, *others):
        exec(compile(example, "README.md", "exec"), names)
    assert "head/kernel" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        *("mnist.scc", "mnist.tflite", "deep.scc", "tiny.scc", "page.png", "work")
    }


@pytest.mark.slow
def test_the_lines_for_ones_own_model_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```py\n(.*?)```", README, re.S)
    assert lines.count("size=1000") == 1 and lines.count("epochs, batch_size = 4, 64") == 1
    lines = lines.replace("size=1000", "size=60").replace("epochs, batch_size = 4, 64", "epochs, batch_size = 1, 64")
    models.mnist_cnn().save("mine.keras")
    images, labels = few(datasets.load("mnist")).train
    names = {"x_train": images, "y_train": labels}
    exec(compile(lines, "README.md", "exec"), names)
    assert names["logits"].shape == (8, 10)
    assert "stored" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"mine.keras", "mine.scc", "mine.tflite"}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_file_that_it_names_is_there(link):
    assert (Path(__file__).resolve().parents[1] / link).exists()
