import json
import statistics

import pytest
from absl import flags
from lab import lottery
from script_flags import imported, parse

OOD = {
    kind: {"auroc": 0.7, "aupr_in": 0.6, "aupr_out": 0.5, "fpr95": 0.8} for kind in ("probability", "entropy", "energy")
}
MEASURES = (
    *("nll", "brier", "ece_10", "ece_15", "ece_mass_10", "ece_mass_15", "mce", "uce", "confidence"),
    *("aurc", "nll_scaled", "ece_15_scaled", "uce_scaled", "validation_accuracy", "sparsity"),
)


def rows(config, **more):
    keys = [("dense", 0.0), *((p, r) for r in config.pruned_ratios for p in config.protocols.split(","))]
    return [
        {
            **dict.fromkeys(MEASURES, 0.1),
            **{"seed": seed, "protocol": protocol, "ratio": ratio, "test_accuracy": 0.9 + 0.01 * seed - 0.1 * ratio},
            **{
                "epochs": 10 + seed,
                "epochs_run": 15,
                "capped": seed == 1,
                "epochs_in_all": 30,
                "parameters": 100,
                "operations": 90,
                "temperature": 1.2,
            },
            **{"channels": {"dense1": 30}, "seconds": 1.0, "validation_loss": 0.2, **more},
        }
        for seed in config.seeds
        for protocol, ratio in keys
    ]


@pytest.fixture(params=["lottery_moons", "lottery_cifar10"])
def script(request, monkeypatch):
    with imported(request.param, monkeypatch) as module:
        yield module


def ran(script, monkeypatch, tmp_path, *arguments, **more):
    """The record that the script writes without training, the settings it ran with, and its files."""
    configs = []

    def run(config, work_dir, verbose):
        configs.append(config)
        assert work_dir == tmp_path / "work"
        return {"config": {}, "versions": {}, "seconds": 90.0, "rows": rows(config, **more)}

    monkeypatch.setattr(lottery, "run", run)
    monkeypatch.setattr(lottery, "ticket", lambda config, *point: ("dense", point[:2], "data", "out"))
    monkeypatch.setattr(
        script.lottery_report, "compared", lambda *arguments: compared.append(arguments) or {"agreement": 0.9}
    )
    compared = []
    name = script.__name__
    parse(f"{name}.py", *arguments, f"--out_dir={tmp_path / 'out'}", f"--work_dir={tmp_path / 'work'}")
    script.main()
    (path,) = (tmp_path / "out").glob("*.json")
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    return json.loads(path.read_text()), configs[0], files, compared


@pytest.mark.slow
def test_the_record_holds_the_summary_over_the_seeds_and_every_row(script, monkeypatch, tmp_path, capsys):
    moons = script.__name__ == "lottery_moons"
    more = {} if moons else {"ood": OOD, "confidence_ood": 0.6}
    record, config, files, compared = ran(script, monkeypatch, tmp_path, **more)
    seeds = 10 if moons else 3
    assert (config.model, config.runs) == (("moons_mlp", 10) if moons else ("cifar_cnn", 3))
    assert len(config.pruned_ratios) == (9 if moons else 4)
    assert record["command"] == f"python experiments/{script.__name__}.py"
    assert len(record["rows"]) == seeds * len(record["summary"])
    dense = record["summary"][0]
    accuracies = [0.9 + 0.01 * seed for seed in range(seeds)]
    assert dense["test_accuracy"] == pytest.approx(
        [statistics.mean(accuracies), statistics.stdev(accuracies)], rel=1e-4
    )
    assert dense["lowest_test_accuracy"] == pytest.approx(0.9)
    assert dense["seeds"] == seeds
    ends = [".json", ".png", "_calibration.png", *([] if moons else ["_ood.png"])]
    assert files == [f"{script.__name__}{end}" for end in ends]
    point, name = (("iterative", 0.8), "iterative, 80%") if moons else (("winning_ticket", 0.6), "winning ticket, 60%")
    page = tmp_path / "out" / f"{script.__name__}_page.png"
    assert compared == [("dense", point, "data", "out", ("dense", name), page)]
    assert record["page"] == {"agreement": 0.9}
    assert dense["capped"] == 1
    assert ("auroc_energy" in dense) == (not moons)
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:4] == ["protocol", "ratio", "accuracy", "%"]
    mean, deviation = (f"{100 * value:.2f}" for value in dense["test_accuracy"])
    assert out[1].split()[:5] == ["dense", "0", mean, "±", deviation]


@pytest.mark.slow
def test_single_weights_have_a_record_of_their_own(script, monkeypatch, tmp_path):
    record, config, files, compared = ran(
        script, monkeypatch, tmp_path, "--structure=unstructured", "--runs=1", "--ratios=0.5"
    )
    assert config.structure == "unstructured"
    assert files[0] == f"{script.__name__}_unstructured.json"
    assert compared == [] and "page" not in record
    assert "--structure=unstructured" in record["command"]
    assert record["summary"][0]["test_accuracy"][1] is None


def test_a_bad_setting_is_one_clear_error(script):
    parse(f"{script.__name__}.py", "--ratios=1.5")
    with pytest.raises(SystemExit, match="Expected ratios in"):
        script.main()


@pytest.mark.parametrize("argument", ["--model=cifar_cnn", "--ood=cifar100", "--data_dir=x"])
def test_the_moons_have_no_flags_that_mean_nothing_there(argument, monkeypatch):
    with imported("lottery_moons", monkeypatch), pytest.raises(flags.Error):
        parse("lottery_moons.py", argument)
