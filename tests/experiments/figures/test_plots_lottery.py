import pytest
from lab import figures
from made_up import texts

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
            "ece_15": [0.02 + 0.05 * ratio, deviation],
            "ece_15_scaled": [0.01 + 0.01 * ratio, deviation],
            "nll": [0.9 + 0.3 * ratio, deviation],
            "nll_scaled": [0.85 + 0.3 * ratio, deviation],
            "auroc_probability": [0.8 - 0.1 * ratio, deviation],
            "auroc_energy": [0.75 - 0.1 * ratio, deviation],
            "fpr95_probability": [0.6 + 0.2 * ratio, deviation],
            "confidence_ood": [0.7 - 0.1 * ratio, deviation],
        }
        for name, ratio in keys
    ]
    return {"summary": rows if deviation else [{**row, "epochs": [row["epochs"][0], None]} for row in rows]}


@pytest.mark.slow
@pytest.mark.parametrize("figure_of", [figures.lottery_curves, figures.lottery_calibration, figures.lottery_ood])
def test_a_legible_figure_of_four_panels(rendered, figure_of):
    figure = rendered(figure_of, a_record())
    assert figure.bbox.width >= 800
    assert len(figure.axes) == 4
    words = texts(figure)
    assert all(word in words for word in ("dense", "one-shot, fine-tuned", "iterative, rewound"))
    for axes in figure.axes:
        curves = [container.lines[0] for container in axes.containers]
        assert len(curves) == len(PROTOCOLS)
        for curve in curves:
            assert len(curve.get_xdata()) == 10
            assert curve.get_xdata()[0] == 0  # all begin with the dense network
            assert list(curve.get_xdata()) == sorted(curve.get_xdata())


@pytest.mark.slow
def test_the_bars_are_the_deviations_and_only_what_is_there_is_drawn(rendered):
    figure = rendered(figures.lottery_curves, a_record(["iterative"], 0.02))
    (container,) = figure.axes[0].containers
    (bars,) = container.lines[2]
    assert [high - low for (_, low), (_, high) in bars.get_segments()] == pytest.approx([4.0] * 10)
    figure_words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert figure_words == ["iterative, rewound", "dense"]


@pytest.mark.slow
def test_a_single_seed_has_no_deviation(rendered):
    rendered(figures.lottery_curves, a_record(deviation=0))


def test_malformed_records_are_refused_and_write_nothing(refused):
    record = a_record()
    cases = [
        ({"summary": record["summary"][1:]}, "Expected the dense network"),
        ({"summary": [*record["summary"], {**record["summary"][1], "protocol": "magic"}]}, "Received: magic"),
        ({"summary": [{"protocol": "dense", "ratio": 0.0}]}, "test_accuracy"),
        ({}, "summary"),
    ]
    for malformed, message in cases:
        refused(figures.lottery_curves, malformed, message)
