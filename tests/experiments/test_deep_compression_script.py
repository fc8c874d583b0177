import json

import keras
import numpy as np
import pytest
from absl import flags
from lab.deep_compression import Config
from script_flags import imported, script_fixture

import scc_tf

script = script_fixture("deep_compression")


def a_record(seed=0, compare=True, **config):
    """What the pipeline records, as far as it is printed and drawn."""
    row = {
        "weights": 500,
        "clusters": 16,
        "kept": 65.96,
        "weight_bits": 5,
        "weight_bits_huffman": 4.04,
        "index_bits": 3,
        "index_bits_huffman": 1.96,
        "rate": 19.345,
        "rate_huffman": 17.121,
    }
    parts = ("code", "index", "codebook", "table", "other", "architecture", "header")
    points = [{"stages": name, "stored_bytes": 20_000, "test_error": 0.9} for name in ("pruning", "sharing", "both")]
    return {
        "config": {"seed": seed, **config},
        "seconds": 90.0 + 10 * seed,
        "float": {"float32_bytes": 1_724_320, "test_error": 0.71},
        "final": {
            "test_error": 0.8 + 0.04 * seed,
            "stored_bytes": 9_100 + seed,
            "huffman_bytes": 10_400,
            "ratio": 189.5,
            "huffman_ratio": 165.8,
        },
        "rates": {
            "conv1": row,
            "novel": {**row, "weights": 400_000},
            "total": {"weights": 430_500, "kept": 2.0, "rate": 0.61, "rate_huffman": 0.55},
        },
        "parts": {coder: {f"{part}_bytes": 1_300 for part in parts} for coder in ("range", "huffman")},
        "points": points if compare else [],
    }


def test_one_line_per_layer_with_the_papers_numbers_in_brackets(script):
    paper = script.deep_compression.PAPER["lenet_5"]
    head, conv1, novel, total = script.format_rates(a_record()["rates"], paper).splitlines()
    assert len({len(line) for line in (head, conv1, novel, total)}) == 1
    assert head.split() == ["weights", "kept", "%", "weight", "+Huffman", "index", "+Huffman", "rate", "%", "+Huffman"]
    ours, theirs = (
        ["66.0", "5", "4.0", "3", "2.0", "19.34", "17.12"],
        ["(66)", "(8)", "(7.2)", "(5)", "(1.5)", "(78.5)", "(67.45)"],
    )
    assert conv1.split() == ["conv1", "500", *(cell for pair in zip(ours, theirs, strict=True) for cell in pair)]
    assert novel.split() == ["novel", "400,000", *ours]
    assert total.split() == ["total", "430,500", "2.0", "(8)", "0.61", "(3.05)", "0.55", "(2.55)"]


def test_a_network_that_the_paper_does_not_have_stands_alone(script):
    text = script.format_rates(a_record()["rates"], {})
    assert "(" not in text
    assert "(" not in script.format_summary(script.summary([a_record()]), {}, [0])


def test_the_summary_is_mean_and_sample_deviation(script):
    table = script.summary([a_record(seed) for seed in (0, 1, 2)])
    assert table["error"] == pytest.approx([0.84, 0.04])
    assert table["stored_bytes"] == pytest.approx([9_101, 1])
    assert table["ratio"] == [189.5, 0.0]
    assert script.summary([a_record()])["error"] == [pytest.approx(0.8), None]
    paper = script.deep_compression.PAPER["lenet_5"]
    lines = script.format_summary(table, paper, [0, 1, 2]).splitlines()
    assert lines[1] == "compressed, test error  0.84 % ± 0.04 % (paper: 0.74)"
    assert ".scc, Huffman           10,400 B ± 0 B (paper: 44,000)" in lines
    assert "  times smaller         166x ± 0x (paper: 39)" in lines
    assert "seeds [0, 1, 2]" in lines[-1]
    assert "±" not in script.format_summary(script.summary([a_record()]), paper, [0])


def test_every_setting_is_a_flag(script):
    flags.FLAGS(["it"])
    assert script.config_from_flags(Config) == Config()
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["it", "--model=lenet_5", "--density=0.05", "--dropout=0.5"])
    assert script.config_from_flags(Config, seed=3) == Config(model="lenet_5", density=0.05, dropout=0.5, seed=3)


@pytest.mark.slow
def test_records_figures_and_the_network_are_written(script, tmp_path, monkeypatch, capsys):
    plain = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, name="head")])
    networks = {seed: scc_tf.share_weights(plain, 2 + seed) for seed in (0, 1)}
    runs = []

    def run(config, work_dir, compare, verbose):
        runs.append((config.model, config.seed, compare, work_dir, verbose))
        return a_record(config.seed, compare, model=config.model), networks[config.seed]

    monkeypatch.setattr(script.deep_compression, "run", run)
    out, work, saved = (tmp_path / name for name in ("out", "work", "saved"))
    flags.FLAGS(["it", "--model=lenet_5", "--runs=2", f"--out_dir={out}", f"--work_dir={work}", f"--model_dir={saved}"])
    script.main()
    assert runs == [("lenet_5", 0, True, work, 0), ("lenet_5", 1, False, work, 0)]
    names = ["deep_lenet_5.json", "deep_lenet_5_storage.png", "deep_lenet_5_tradeoff.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    written = json.loads((out / names[0]).read_text())
    command = "python experiments/deep_compression.py --model=lenet_5 --runs=2"
    assert written["command"] == command
    assert [record["config"]["seed"] for record in written["records"]] == [0, 1]
    assert written["summary"]["stored_bytes"] == pytest.approx([9_100.5, 0.5**0.5])
    printed = capsys.readouterr().out
    assert "(67.45)" in printed
    assert "9,100 B ± 1 B" in printed
    card = json.loads((saved / "deep_lenet_5.json").read_text())
    assert (card["command"], card["test_error"]) == (command, 0.8)
    assert card["stored_bytes"] == (saved / "deep_lenet_5.scc").stat().st_size
    loaded = scc_tf.load_packed(saved / "deep_lenet_5.scc")  # that of the first seed
    np.testing.assert_array_equal(loaded.get_layer("head").kernel, networks[0].get_layer("head").kernel)


def test_without_comparison_there_is_no_tradeoff(script, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        script.deep_compression, "run", lambda config, work_dir, compare, verbose: (a_record(0, compare), 1)
    )
    monkeypatch.setattr(script, "save_with_card", lambda *arguments, **measured: None)
    monkeypatch.setattr(script.figures, "compression_tradeoff", lambda *arguments: pytest.fail("no points"))
    monkeypatch.setattr(script.figures, "storage_breakdown", lambda record, path: drawn.append(path.name))
    flags.FLAGS(["it", "--nocompare", f"--out_dir={tmp_path}"])
    script.main()
    assert drawn == ["deep_lenet_300_100_storage.png"]
    command = json.loads((tmp_path / "deep_lenet_300_100.json").read_text())["command"]
    assert command == "python experiments/deep_compression.py --nocompare"


@pytest.mark.parametrize("arguments", [["--runs=0"], ["--clusters=many"], ["--densty=0.1"], ["--density=a"]])
def test_bad_flags_are_refused(script, arguments):
    with pytest.raises(flags.Error):
        flags.FLAGS(["it", *arguments])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--density=0", r"Expected density in \(0, 1\]"),
        ("--model=vgg16", "Expected model to be one of"),
        ("--start=random", "Expected start to be one of"),
    ],
)
def test_a_bad_value_is_one_clear_error_before_anything_is_trained(script, monkeypatch, argument, message):
    monkeypatch.setattr(script.deep_compression, "run", lambda *arguments: pytest.fail("trained"))
    flags.FLAGS(["it", argument])
    with pytest.raises(SystemExit, match=message):
        script.main()


def test_a_model_is_part_of_the_command_only_where_it_is_a_setting(monkeypatch):
    with imported("mnist_export", monkeypatch) as other:  # whose own --model is a path of this machine
        flags.FLAGS(["it", "--model=/tmp/some.scc"])
        assert other.command_line(other.__name__) == "python experiments/mnist_export.py"


def test_whoever_asks_for_one_dnn_gets_it_in_the_command(script, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    flags.FLAGS(["it", "--density=0.5"])
    asked = "TF_ENABLE_ONEDNN_OPTS=1 python experiments/deep_compression.py --density=0.5"
    assert script.command_line(script.__name__) == asked
