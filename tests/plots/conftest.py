import copy
import dataclasses

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.image import imread


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Calls a figure without rendering it; returns what was to be rendered."""
    figures = []

    def keep(figure, pixels, **_):
        figures.append(figure)
        width, height = figure.canvas.get_width_height()
        pixels.write(bytes(4 * width * height))

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(function, record, *arguments, **options):
        function(record, *arguments, path=tmp_path / "figure.png", **options)
        return figures[-1]

    return draw


def contents(record):
    """What can be compared of a model, a report or a history."""
    if hasattr(record, "get_weights"):
        return record.get_weights()
    return dataclasses.asdict(record) if dataclasses.is_dataclass(record) else record


@pytest.fixture
def rendered(monkeypatch, tmp_path):
    """Calls a figure, checks that one small, legible PNG is written and nothing else changes; returns the figure."""
    drawings, save = [], Figure.savefig

    def keep(figure, *arguments, **options):
        drawings.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)

    def render(function, record, *arguments, **options):
        figures, style, before = pyplot.get_fignums(), dict(pyplot.rcParams), copy.deepcopy(contents(record))
        path = tmp_path / f"new folder {len(drawings)}" / "figure.png"
        function(record, *arguments, path=path, **options)
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 200_000
        height, width = imread(path).shape[:2]
        assert 600 <= width <= 1400 and height <= 1200
        assert list(path.parent.iterdir()) == [path]
        np.testing.assert_equal(contents(record), before)
        assert pyplot.get_fignums() == figures
        assert dict(pyplot.rcParams) == style
        return drawings[-1]

    return render
