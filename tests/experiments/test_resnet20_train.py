import keras
import numpy as np
import pytest
from absl import flags
from lab.image_training import Config
from safe_records import strict
from script_flags import parse, script_fixture

script = script_fixture("resnet20_train")


def a_record():
    rows = {"precision": 0.9, "recall": 0.8, "f1-score": 0.847, "support": 4.0}
    names = ("learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return {
        "parameters": 15,
        "seconds": 12.0,
        "epochs": [{"epoch": n, **dict.fromkeys(names, 0.5)} for n in (1, 2)],
        "chosen": "last",
        "validation_accuracy": 0.91,
        "test_accuracy": 0.905,
        "classes": {"cat": rows, "dog": rows},
    }


def test_every_setting_is_a_flag(script):
    parse("resnet20_train.py", "--nomirror", "--epochs=3", "--jitter=0", "--data_dir=here")
    assert script.config_from_flags(Config) == Config(mirror=False, epochs=3, jitter=0.0, data_dir="here")
    command = "python experiments/resnet20_train.py --epochs=3 --nomirror --jitter=0.0"
    assert script.command_line("resnet20_train") == command
    with pytest.raises(flags.Error):
        parse("resnet20_train.py", "--mirror=often")


def test_the_classes_are_a_table(script):
    head, *rows = script.format_classes(a_record()).splitlines()
    assert head.split() == ["precision", "recall", "f1-score"]
    assert [row.split() for row in rows] == [["cat", "90.0", "80.0", "84.7"], ["dog", "90.0", "80.0", "84.7"]]


@pytest.mark.slow
def test_main_writes_record_figure_network_and_card(script, tmp_path, monkeypatch, capsys):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")], name="network")
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    monkeypatch.setattr(script.image_training, "run", lambda config, work_dir, verbose: (a_record(), model))
    parse("it", "--epochs=2", "--name=trial", f"--out_dir={tmp_path}", f"--model_dir={tmp_path / 'models'}")
    script.main()
    written = strict((tmp_path / "trial_train.json").read_text())
    assert written["command"] == "python experiments/resnet20_train.py --epochs=2 --name=trial"
    assert written["test_accuracy"] == 0.905 and (tmp_path / "trial_train.png").exists()
    loaded = keras.models.load_model(path := tmp_path / "models" / "trial.keras")
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])
    card = strict((tmp_path / "models" / "trial.json").read_text())
    assert card["stored_bytes"] == path.stat().st_size
    assert (card["parameters"], card["test_accuracy"]) == (15, 0.905)
    assert card["load"] == 'keras.models.load_model("saved_models/trial.keras")'
    assert "90.50% on test" in capsys.readouterr().out
