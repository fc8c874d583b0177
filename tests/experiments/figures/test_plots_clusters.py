import numpy as np
import pytest
from lab import figures
from made_up import texts

COLUMNS = ["stage 1", "stage 2", "stage 3", "accuracy", "parameters"]


def a_record():
    rng = np.random.default_rng(0)
    curve = [f"{2 * t}/{4 * t}/{8 * t}" for t in range(1, 7)]
    drops = {"clusters": 0.1, "founding": 0.35, "l1": 0.2, "random": 0.4}
    rows = [row(name, label, 0, t / 6, drop) for name, drop in drops.items() for t, label in enumerate(curve, start=1)]
    rows += [row("clusters", f"4/{n}/9", 0, rng.uniform(0.3, 0.9), 0.2) for n in range(9)]
    rows += [row("budget", "135754 parameters", 0, 0.5, 0.07), row("clusters", "8/16/32", 10, 0.5, 0.03)]
    latency = {label: {"ratio": 0.2 + 0.12 * t} for t, label in enumerate(["original", *curve])}
    baseline = {"test_accuracy": 0.915, "parameters": 269_722, "multiply_accumulates": 40_550_000}
    return {"baseline": baseline, "rows": rows, "curve": curve, "latency": latency}


def row(method, label, epochs, share, drop):
    return {
        "method": method, "label": label, "epochs": epochs, "test_accuracy": 0.915 - drop * (1.1 - share) ** 2 * 2,
        "parameters": int(share * 269_722), "multiply_accumulates": int(share * 40_550_000),
    }  # fmt: skip


def a_report(shift):
    return {
        f"class {n}": {"precision": 0.9 - shift, "recall": 0.8 + 0.01 * n, "f1-score": 0.85 - shift / 2}
        for n in range(10)
    }


def correlations():
    table = (np.random.default_rng(0).random((5, 5)) + np.eye(5)).clip(0, 1).tolist()
    return {"columns": COLUMNS, "pearson": table, "spearman": [[None] * 5, *table[1:]]}


@pytest.mark.slow
def test_the_tradeoff_has_a_panel_for_the_latency_where_there_is_one(rendered):
    record = a_record()
    figure = rendered(figures.cluster_tradeoff, record)
    assert len(figure.axes) == 3
    assert {"clusters (ours)", "L1 filter pruning", "fine-tuned", "original"} <= set(texts(figure))
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*" and len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in stars] == [[int(0.5 * 269_722) / 1e3]]
    ours = [line for line in figure.axes[2].lines if line.get_marker() == "o" and len(line.get_xdata()) == 6]
    np.testing.assert_allclose(ours[0].get_xdata(), [0.2 + 0.12 * t for t in range(1, 7)])
    assert len(rendered(figures.cluster_tradeoff, {**record, "latency": {}}).axes) == 2


@pytest.mark.slow
def test_correlations_are_written_out(rendered):
    record = correlations()
    figure = rendered(figures.cluster_correlations, record)
    words = texts(figure)
    assert f"{record['pearson'][0][3]:.3f}" in words and words.count("-") == 5


@pytest.mark.slow
def test_class_reports_have_a_dot_per_class_and_network(rendered):
    figure = rendered(figures.class_reports, {"original": a_report(0), "8/16/32": a_report(0.2)})
    assert len(figure.axes) == 3
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [10, 10]
    assert {"class 9", "8/16/32"} <= set(texts(figure))


def test_malformed_records_are_refused_and_write_nothing(refused):
    record, good = a_record(), a_report(0)
    cases = [
        (figures.cluster_tradeoff, {**record, "rows": [{**record["rows"][0], "method": "magic"}]}, "Received: magic"),
        (figures.cluster_tradeoff, {**record, "rows": []}, "Received: none"),
        (figures.cluster_tradeoff, {"rows": []}, "Expected a record"),
        (figures.cluster_correlations, {**correlations(), "pearson": [[1.0]]}, "tables of 5 columns"),
        (figures.class_reports, {}, "one to four networks"),
        (figures.class_reports, {"a": good, "b": {"class 0": good["class 0"]}}, "the same classes"),
        (figures.class_reports, {"a": {"class 0": {"f1-score": 0.5}}}, "precision"),
    ]
    for figure_of, malformed, message in cases:
        refused(figure_of, malformed, message)
