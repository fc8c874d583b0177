import pytest
from lab import figures
from made_up import texts, without


def a_study():
    points = [
        {
            "gamma": gamma,
            "row": row,
            "seed": seed,
            "drop_points": 70.0 * gamma * (row == "unsafe") + seed,
            "stored_bytes": 900.0 / gamma + 100 * seed,
            "reverted_to_step": 200 if row == "safe" and gamma == 1 else None,
        }
        for gamma in (0.01, 0.1, 1)
        for row in ("unsafe", "safe")
        for seed in (0, 1)
    ]
    return {"threshold_points": 5.0, "points": points}


def some_runs(rows=("float", "unsafe", "safe")):
    kinds = {
        "float": {"test_accuracy": 0.9926, "size": {"float32_bytes": 350_632}},
        "unsafe": {"test_accuracy": 0.9896, "size": {"stored_bytes": 7_700}},
        "safe": {"test_accuracy": 0.9899, "size": {"stored_bytes": 8_500}},
    }
    return [{"rows": {name: kinds[name] for name in rows}} for _ in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "record"),
    [
        (figures.collapse_study, a_study()),
        (figures.compare_rows, some_runs()),
    ],
)
def test_one_small_png_is_written_and_nothing_else_changes(rendered, function, record):
    rendered(function, record)


def test_hollow_dots_are_explained_where_there_are_any(drawn):
    study = a_study()
    assert "went back to a safe step" in texts(drawn(figures.collapse_study, study))
    study["points"] = [point for point in study["points"] if point["row"] == "unsafe"]
    found = texts(drawn(figures.collapse_study, study))
    assert "unsafe" in found
    assert not {"safe", "went back to a safe step"} & set(found)


def test_only_the_rows_that_are_there_are_compared(drawn):
    found = texts(drawn(figures.compare_rows, some_runs()))
    assert {"float: 99.26 % in 351 kB", "safe: 98.99 % in 8.5 kB, 41.3 times less"} <= set(found)
    assert "safe: 98.99 % in 8.5 kB" in texts(drawn(figures.compare_rows, some_runs(["safe"])))


@pytest.mark.parametrize(
    ("function", "record", "message"),
    [
        (figures.collapse_study, without(a_study(), "threshold_points"), "none of threshold_points"),
        (figures.collapse_study, {**a_study(), "points": []}, "Received: none"),
        (figures.collapse_study, {**a_study(), "points": [{**a_study()["points"][0], "gamma": 0}]}, "gamma > 0"),
        (figures.collapse_study, {**a_study(), "points": [{**a_study()["points"][0], "row": "float"}]}, "'float'"),
        (figures.compare_rows, [], "0 records"),
        (figures.compare_rows, [{"rows": {}}], "1 records"),
        (figures.compare_rows, without(some_runs(), 0, "rows", "safe", "size", "stored_bytes"), "none of stored_bytes"),
    ],
)
def test_a_malformed_record_leaves_nothing_behind(refused, function, record, message):
    refused(function, record, message)
