import json

import pytest
from safe_records import record, strict
from script_flags import script_fixture

safe_report = script_fixture("safe_report")


def test_the_summary_is_mean_and_sample_deviation(safe_report):
    table = safe_report.summary([record(test_accuracy=a) for a in (0.98, 0.99, 0.97)])
    assert table["safe"]["test acc. %"] == pytest.approx([98.0, 1.0])
    assert table["safe"]["dead ch."] == [5.0, 0.0]
    assert table["safe"]["restored"] == [3.0, 0.0]
    assert table["safe"]["nominal B"] == [10_000.0, 0.0]
    assert table["float"]["integer B"] == [350_632.0, 0.0]
    assert table["float"]["entropy B"] == [None, None]
    assert strict(json.dumps(table)) == table


def test_one_seed_has_no_deviation(safe_report):
    assert safe_report.summary([record()])["safe"]["test acc. %"] == [pytest.approx(99.0), None]


def test_the_table_is_aligned_and_says_what_it_counts(safe_report):
    for records in ([record()], [record(seed) for seed in (4, 5)]):
        text = safe_report.format_table(safe_report.summary(records), [r["config"]["seed"] for r in records])
        head, *rows, note = text.splitlines()
        assert [line.split()[0] for line in rows] == ["float", "safe"]
        assert {len(line) for line in (head, *rows)} == {len(head)}
        assert "12,345" in rows[1] and "12,345" not in rows[0]
        assert "9,876" in rows[1]
        assert "-" in rows[0].split()
        assert ("±" in text) == (len(records) > 1)
        assert "nan" not in text.lower()
        assert "exponents" in note and str([r["config"]["seed"] for r in records]) in note


def test_a_row_whose_training_was_another_run_has_no_seconds(safe_report):
    loaded = record()
    del loaded["rows"]["float"]["seconds"]
    table = safe_report.summary([loaded])
    assert table["float"]["seconds"] == [None, None]
    assert "nan" not in safe_report.format_table(table, [0]).lower()
