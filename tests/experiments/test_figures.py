"""The figures of records are drawn from the records that the repository holds."""

import inspect
import json
from pathlib import Path

import pytest
from lab import figures
from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parents[2] / "experiments" / "results"


def first(record):
    return record["records"][0]


FIGURES = {  # figure -> records, and what of them is drawn
    "bars of a network": ("storage_breakdown", ["deep_lenet_5", "deep_resnet20"], first),
    "stages": ("compression_tradeoff", ["deep_lenet_300_100", "deep_mnist_cnn"], first),
    "budgets": ("byte_budgets", ["knapsack_neuron"], dict),
    "front": ("size_accuracy_front", ["front"], dict),
    "targets": ("target_sizes", ["target_bytes"], dict),
    "collapse": ("collapse_study", ["collapse_study"], dict),
    "rows": ("compare_rows", ["mnist_compare", "cifar10_compare", "mnist_safe"], lambda record: record["records"]),
    "training": ("training_curves", ["resnet20_train"], dict),
    "clusters": ("cluster_tradeoff", ["resnet20_clusters"], dict),
    "lottery": ("lottery_curves", ["lottery_moons", "lottery_moons_unstructured", "lottery_cifar10"], dict),
    "calibration": ("lottery_calibration", ["lottery_moons", "lottery_cifar10"], dict),
    "out of distribution": ("lottery_ood", ["lottery_cifar10"], dict),
}
CASES = [(figure, name, part) for figure, names, part in FIGURES.values() for name in names]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, without rendering them."""
    found = []

    def keep(figure, pixels, **_):
        found.append(figure)
        width, height = figure.canvas.get_width_height()
        pixels.write(bytes(4 * width * height))

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def record(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


@pytest.mark.parametrize(("figure", "name", "part"), CASES, ids=[f"{figure}-{name}" for figure, name, _ in CASES])
def test_a_record_is_drawn(drawn, tmp_path, figure, name, part):
    path = tmp_path / "figure.png"
    getattr(figures, figure)(part(record(name)), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert any(axes.has_data() for axes in drawn[0].axes)


@pytest.mark.parametrize("name", ["mnist_compare", "cifar10_compare"])
def test_the_course_of_a_compression_is_drawn(drawn, tmp_path, name):
    figures.compression_course(first(record(name))["rows"]["safe"], tmp_path / name)
    parts = ("bits", "codes", "network", "restorations", "size_accuracy")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}_{part}.png" for part in parts]


@pytest.mark.parametrize(("figure", "part"), sorted({(figure, part) for figure, _, part in CASES}, key=str))
def test_a_record_without_its_fields_is_refused(tmp_path, figure, part):
    parameter = next(iter(inspect.signature(getattr(figures, figure)).parameters))
    malformed = [] if parameter == "records" else {"records": []}
    with pytest.raises(ValueError, match="Expected"):
        getattr(figures, figure)(malformed, tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())
