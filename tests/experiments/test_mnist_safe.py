import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from absl import flags
from lab.self_compression import Config
from safe_records import record, strict
from script_flags import EXPERIMENTS, script_fixture

import scc_tf

script = script_fixture("mnist_safe")


def test_every_setting_is_a_flag_with_its_default_and_help(script):
    flags.FLAGS(["mnist_safe.py"])
    assert script.safe_report.config_from_flags(Config) == Config()
    assert "weight of the size term" in flags.FLAGS["gamma"].help
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["mnist_safe.py", "--gamma=0.25", "--mode=compare", "--epochs=7"])
    assert script.safe_report.config_from_flags(Config, seed=3) == Config(gamma=0.25, mode="compare", epochs=7, seed=3)


@pytest.mark.parametrize("arguments", [["--epochs=two"], ["--runs=0"], ["--gama=1"]])
def test_bad_flags_are_refused(script, arguments):
    with pytest.raises(flags.Error):
        flags.FLAGS(["mnist_safe.py", *arguments])


@pytest.mark.slow
def test_a_bad_gamma_gives_one_clear_error_and_writes_nothing(tmp_path):
    folders = [f"--{name}={tmp_path / name}" for name in ("out_dir", "work_dir", "model_dir")]
    command = [sys.executable, EXPERIMENTS / "mnist_safe.py", "--gamma=-0.5", *folders]
    environment = {"PYTHONPATH": str(EXPERIMENTS.parent), "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Expected gamma in [0, inf). Received: gamma=-0.5" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["safe", "compare"])
def test_main_writes_the_record_the_figures_and_the_model(script, tmp_path, monkeypatch, capsys, mode):
    plain = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3, name="head")])
    model = scc_tf.self_compress(plain)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    runs, drawn = [], []

    def run(config, work_dir, verbose):
        runs.append(config.seed)
        reverted_to_step = 40 if config.seed == 8 else None
        return (
            record(config.seed, reverted_to_step=reverted_to_step),
            SimpleNamespace(),
            dict.fromkeys(modes[mode], model),
        )

    modes = {"safe": ["safe"], "compare": ["unsafe", "safe"]}
    monkeypatch.setattr(script.self_compression, "run", run)
    monkeypatch.setattr(script.safe_report, "write_figures", lambda *arguments: drawn.append(arguments))
    folders = [f"--{name}={tmp_path / name}" for name in ("out_dir", "work_dir", "model_dir")]
    monkeypatch.setattr(sys, "argv", ["mnist_safe.py", "--runs=2", "--seed=7", f"--mode={mode}", *folders])
    flags.FLAGS(sys.argv)
    script.main()
    assert runs == [7, 8]
    assert len(drawn) == 1
    written = strict((tmp_path / "out_dir" / f"mnist_{mode}.json").read_text())
    assert [r["config"]["seed"] for r in written["records"]] == [7, 8]
    assert written["summary"]["safe"]["test acc. %"] == pytest.approx([99.0, 0.0])
    chosen = "" if mode == "safe" else f"--mode={mode} "
    assert written["command"] == f"python experiments/mnist_safe.py {chosen}--seed=7 --runs=2"
    printed = capsys.readouterr().out
    assert "seed 8: safety had dropped; went back to step 40" in printed
    file = tmp_path / "model_dir" / "mnist_safe.scc"
    card = strict((tmp_path / "model_dir" / "mnist_safe.json").read_text())
    assert card["stored_bytes"] == file.stat().st_size
    loaded = scc_tf.load_packed(file)
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
