import json

import pytest
from absl import flags
from script_flags import script_fixture

script = script_fixture("knapsack_neuron")


def test_the_two_examples_of_the_founding_document(script):
    text = (script.ROOT / "data" / "weights.csv").read_text()
    assert [row["edges"] for row in script.reduced_neurons(text)] == [{"5": 2}, {"2": 5}]


def test_a_file_is_reduced_and_nothing_is_trained(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script.knapsack_pruning, "run", lambda *arguments: pytest.fail("trained"))
    path = tmp_path / "neurons.csv"
    path.write_text("3x1,7x1\n0x3\n.5x1,1x.1\n")
    flags.FLAGS(["it"])
    script.main(["it", str(path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "neuron 1: 2 edges, net 10 -> input 7 with weight 1, input 3 with weight 1"
    assert lines[1] == "neuron 2: 1 edges, net 0 -> no edge"
    assert "Expected a net value that inputs times whole numbers reach" in lines[2]


@pytest.mark.parametrize("text", ["2x", "axb", "1x2,3"])
def test_a_malformed_file_is_one_clear_error(script, tmp_path, text):
    (tmp_path / "bad.csv").write_text(text)
    flags.FLAGS(["it"])
    with pytest.raises(SystemExit, match=r"bad\.csv: Expected cells such as 5x2"):
        script.main(["it", str(tmp_path / "bad.csv")])


def test_a_missing_file_is_one_clear_error(script, tmp_path):
    flags.FLAGS(["it"])
    with pytest.raises(SystemExit, match="No such file"):
        script.main(["it", str(tmp_path / "none.csv")])


def test_the_record_holds_neurons_summary_and_every_seed(script, tmp_path, monkeypatch, capsys):
    def run(config, budgets, work_dir, verbose):
        assert work_dir == tmp_path / "work"
        rows = [
            {
                "budget_bytes": b,
                "method": m,
                "stored_bytes": b - 2,
                "edges": 7,
                "gap": gap,
                "test_error": 2 - config.seed,
            }
            for b in budgets
            for m, gap in (("knapsack", 1e-4 * config.seed), ("magnitude", None))
        ]
        return {"float": {"test_error": 1.0}, "rows": rows}

    monkeypatch.setattr(script.knapsack_pruning, "run", run)
    folders = ["--out_dir", str(tmp_path), "--work_dir", str(tmp_path / "work")]
    flags.FLAGS(["it", "--budgets=100,200", "--runs=2", *folders])
    script.main(["it"])
    record = json.loads((tmp_path / "knapsack_neuron.json").read_text())
    expected = {"budget_bytes": 200, "stored_bytes": 198, "edges": 7, "test_error": 1.5}
    deviation = pytest.approx(0.7071, rel=1e-3)
    assert record["summary"][2] == {"method": "knapsack", **expected, "deviation": deviation, "largest_gap": 1e-4}
    assert record["summary"][3] == {"method": "magnitude", **expected, "deviation": deviation, "largest_gap": None}
    assert len(record["records"]) == 2
    assert record["neurons"][0]["edges"] == {"5": 2}
    assert record["command"] == "python experiments/knapsack_neuron.py --budgets=100,200 --runs=2"
    assert (tmp_path / "knapsack_neuron.png").stat().st_size > 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == (
        [
            "200",
            "B:",
            "knapsack",
            "1.50",
            "±",
            "0.71",
            "%",
            "198",
            "B,",
            "7",
            "edges",
            "at",
            "most",
            "1e-04",
            "below",
            "the",
            "fractional",
            "bound",
        ]
    )
    assert lines[-1].split() == ["200", "B:", "magnitude", "1.50", "±", "0.71", "%", "198", "B,", "7", "edges"]


@pytest.mark.parametrize("budgets", ["--budgets=", "--budgets=0", "--budgets=1.5", "--budgets=a"])
def test_bad_budgets_are_refused(script, budgets):
    with pytest.raises(flags.Error):
        flags.FLAGS(["it", budgets])
