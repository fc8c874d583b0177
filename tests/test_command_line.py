import subprocess
import sys

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.command_line import main

X = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,), name="rows"), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    model.save(folder / "mine.keras")
    np.savez(folder / "mine.npz", x=X, y=np.arange(120) % 3)
    np.savez(folder / "named.npz", rows=X)
    return folder


def run(*words):
    return main(["scc-tf", *map(str, words)])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["mine.npz", "named.npz"])
def test_a_file_becomes_small_and_large_again(folder, data, tmp_path, capsys):
    out = [tmp_path / f"small.{suffix}" for suffix in ("scc", "tflite", "keras")]
    assert not run(
        "compress", folder / "mine.keras", f"--data={folder / data}", "--epochs=0", f"--out={','.join(map(str, out))}"
    )
    assert "times smaller" in capsys.readouterr().out
    model = scc_tf.load_packed(out[0])
    for path in out:
        assert not run("inspect", path)
        said = capsys.readouterr().out
        assert f"{path.stat().st_size:,} bytes" in said
        assert "6x8" in said or "8x6" in said
    assert not run("unpack", out[0], f"--to={tmp_path / 'large.keras'}")
    assert not run("unpack", out[0], f"--to={tmp_path / 'large.tflite'}")
    expected = model.predict(X, verbose=0)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "large.keras").predict(X, verbose=0), expected)
    np.testing.assert_allclose(scc_tf.export.run_tflite(tmp_path / "large.tflite", X), expected, atol=1e-5)
    assert not run("inspect", out[0], f"--figure={tmp_path / 'bits.png'}")
    assert (tmp_path / "bits.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "scc-tf compress MODEL"),
        (["compress"], "scc-tf compress MODEL"),
        (["compress", "{}/mine.keras"], "--data=FILE.npz"),
        (["compress", "{}/mine.keras", "--data={}/mine.npz", "--out={}/a.zip", "--epochs=0"], "out to end in"),
        (["compress", "{}/mine.keras", "--data={}/mine.npz", "--out={}/a.scc"], "Expected target_bytes"),
        (["compress", "{}/none.keras", "--data={}/mine.npz", "--out={}/a.scc"], "none.keras"),
        (["inspect", "{}/mine.npz"], "path to end in"),
        (["unpack", "{}/mine.keras", "--to={}/a.zip"], "to, a file that ends in"),
        (["inspect", "{}/mine.keras", "--no_such=3"], "no_such"),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr(folder, words, said, capsys):
    assert run(*(word.format(folder) for word in words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert said.startswith("scc-tf") or error.count("\n") == 1
    assert not (folder / "a.scc").exists()


@pytest.mark.slow
def test_as_a_program(folder):
    done = subprocess.run(
        [sys.executable, "-m", "scc_tf.command_line", "inspect", folder / "mine.keras"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "dense/kernel" in done.stdout
