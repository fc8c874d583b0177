import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from scc_tf import plots

PROTOCOLS = ("one_shot", "winning_ticket", "iterative", "random_reinit", "random_pruning")


def a_record(protocols=PROTOCOLS, deviation=0.01):
    ratios = [n / 10 for n in range(1, 10)]
    keys = [("dense", 0.0), *((name, ratio) for ratio in ratios for name in protocols)]
    rows = [
        {
            "protocol": name,
            "ratio": ratio,
            "test_accuracy": [0.97 - 0.1 * ratio**4, deviation],
            "epochs": [300 + 500 * ratio, 100 * deviation],
            "ece_10": [0.02 + 0.05 * ratio, deviation],
            "uce": [0.05 + 0.2 * ratio, deviation],
            "auroc_probability": [0.8 - 0.1 * ratio, deviation],
            "auroc_energy": [0.75 - 0.1 * ratio, deviation],
            "fpr95_probability": [0.6 + 0.2 * ratio, deviation],
            "confidence_ood": [0.7 - 0.1 * ratio, deviation],
        }
        for name, ratio in keys
    ]
    return {"summary": rows if deviation else [{**row, "epochs": [row["epochs"][0], None]} for row in rows]}


def drawn(monkeypatch, tmp_path, figure_of, record):
    """The figure that is written, and its path."""
    figures, save = [], Figure.savefig

    def kept(self, *arguments, **options):
        figures.append(self)
        return save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    figure_of(record, path := tmp_path / "it.png")
    (figure,) = figures
    return figure, path


@pytest.mark.slow
@pytest.mark.parametrize("figure_of", [plots.lottery_curves, plots.lottery_ood])
def test_a_legible_figure_of_four_panels(figure_of, tmp_path, monkeypatch):
    figure, path = drawn(monkeypatch, tmp_path, figure_of, a_record())
    assert path.stat().st_size < 200_000
    height, width = imread(path).shape[:2]
    assert 800 <= width <= 1400 and height <= 1200
    assert len(figure.axes) == 4
    words = [text.get_text() for text in figure.findobj(Text)]
    assert all(word in words for word in ("dense", "one-shot, fine-tuned", "iterative, rewound"))
    for axes in figure.axes:
        curves = [container.lines[0] for container in axes.containers]
        assert len(curves) == len(PROTOCOLS)
        for curve in curves:
            assert len(curve.get_xdata()) == 10
            assert curve.get_xdata()[0] == 0  # all begin with the dense network
            assert list(curve.get_xdata()) == sorted(curve.get_xdata())


@pytest.mark.slow
def test_the_bars_are_the_deviations_and_only_what_is_there_is_drawn(tmp_path, monkeypatch):
    figure, _ = drawn(monkeypatch, tmp_path, plots.lottery_curves, a_record(["iterative"], 0.02))
    (container,) = figure.axes[0].containers
    (bars,) = container.lines[2]
    assert [high - low for (_, low), (_, high) in bars.get_segments()] == pytest.approx([4.0] * 10)
    figure_words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert figure_words == ["iterative, rewound", "dense"]


@pytest.mark.slow
def test_a_single_seed_has_no_deviation(tmp_path):
    plots.lottery_curves(a_record(deviation=0), tmp_path / "it.png")
    assert (tmp_path / "it.png").stat().st_size > 0


def test_malformed_records_are_refused_and_write_nothing(tmp_path):
    record = a_record()
    cases = [
        ({"summary": record["summary"][1:]}, "Expected the dense network"),
        ({"summary": [*record["summary"], {**record["summary"][1], "protocol": "magic"}]}, "Received: magic"),
        ({"summary": [{"protocol": "dense", "ratio": 0.0}]}, "test_accuracy"),
        ({}, "summary"),
    ]
    for malformed, message in cases:
        with pytest.raises(ValueError, match=message):
            plots.lottery_curves(malformed, tmp_path / "it.png")
    assert list(tmp_path.iterdir()) == []
