import math

import pytest
from lab import figures
from made_up import without


def a_training(epochs=40):
    rows = [
        {
            "epoch": epoch,
            "learning_rate": 0.2 * (1 - epoch / epochs),
            "train_loss": 2.0 * 0.95**epoch,
            "train_accuracy": 1 - 0.6 * 0.95**epoch,
            "validation_loss": 2.1 * 0.95**epoch,
            "validation_accuracy": 1 - 0.7 * 0.95**epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    return {"test_accuracy": 0.91234, "epochs": rows}


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 40])
def test_a_training_is_drawn_whole(rendered, epochs):
    figure = rendered(figures.training_curves, a_training(epochs))
    assert figure.bbox.width > 800
    accuracy, loss, rate = figure.axes
    assert accuracy.get_title(loc="left") == f"91.23 % on test after {epochs} epoch{'s' if epochs > 1 else ''}"
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 1]
    assert all(len(line.get_xdata()) == epochs for axes in figure.axes for line in axes.lines)
    assert accuracy.lines[1].get_ydata()[-1] == pytest.approx(100 * (1 - 0.7 * 0.95**epochs))
    assert loss.lines[0].get_ydata()[0] == pytest.approx(1.9)
    assert rate.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": []}, "Received: none"),
        ({"epochs": [{"epoch": 1}]}, "none of learning_rate"),
        ({"test_accuracy": math.nan}, "Expected finite numbers"),
    ],
)
def test_a_malformed_record_is_named(refused, change, message):
    refused(figures.training_curves, {**a_training(), **change}, message)


@pytest.mark.parametrize("name", ["epochs", "test_accuracy"])
def test_a_missing_field_is_named(refused, name):
    refused(figures.training_curves, without(a_training(), name), name)
