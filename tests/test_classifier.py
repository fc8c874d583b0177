import keras
import numpy as np
import pytest

from scc_tf.classifier import class_labels, classes_of, predicted_classes

L = keras.layers


def ending_in(*layers, inputs=3, loss=None):
    model = keras.Sequential([keras.Input((inputs,)), *layers])
    if loss is not None:
        model.compile("sgd", loss)
    return model


def bce(**settings):
    return keras.losses.BinaryCrossentropy(**settings)


@pytest.mark.parametrize(
    ("model", "classes"),
    [
        (lambda: ending_in(L.Dense(4)), 4),
        (lambda: ending_in(L.Dense(4, "softmax"), loss="mse"), 4),
        (lambda: ending_in(L.Dense(1, "sigmoid"), loss="mse"), 2),
        (lambda: ending_in(L.Dense(1), L.Activation("sigmoid")), 2),
        (lambda: ending_in(L.Dense(1, "sigmoid"), L.Activation("linear", dtype="float32")), 2),
        (lambda: ending_in(ending_in(L.Dense(1, "sigmoid"))), 2),
        (lambda: ending_in(L.Dense(1)), 2),
        (lambda: ending_in(L.Dense(1), loss=bce(from_logits=True)), 2),
        (lambda: ending_in(L.Dense(1), loss="hinge"), 2),
    ],
)
def test_classes(model, classes):
    assert classes_of(model()) == classes


def heads(count):
    inputs = keras.Input((3,))
    return keras.Model(inputs, [L.Dense(2)(inputs) for _ in range(count)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: "net", "Received: model='net'"),
        (lambda: keras.Sequential([L.Dense(3)]), "built"),
        (lambda: heads(2), "1 inputs, 2 outputs"),
        (lambda: ending_in(L.Reshape((3, 1)), L.Dense(4)), "one output"),
        (lambda: ending_in(L.Dense(1, "relu")), "activation=relu"),
        (lambda: ending_in(L.Dense(1), loss="mse"), "loss=mse"),
        (lambda: ending_in(L.Dense(1), loss=bce()), "loss=binary_crossentropy"),
    ],
)
def test_what_is_no_classifier_is_refused(model, message):
    with pytest.raises(ValueError, match=f"Expected model .*{message}") as caught:
        classes_of(model())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1],
        np.array([[2], [0], [1]], np.uint8),
        np.array([2.0, 0.0, 1.0]),
        np.eye(3)[[2, 0, 1]],
        np.eye(3, dtype=bool)[[2, 0, 1]],
    ],
)
def test_labels_in_every_form_are_class_numbers(labels):
    found = class_labels(labels, 3, 3)
    assert found.dtype == np.int64 and found.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "one label per example, 3"),
        ([0, 1, 3], "from 0 to 2. Received: y from 0 to 3"),
        ([0, -1, 1], "from -1 to 1"),
        ([0.5, 1.0, 2.0], "whole numbers"),
        ([np.nan, 1, 2], "finite"),
        (["a", "b", "c"], "array of numbers"),
        (np.ones((3, 3), int), "not one-hot"),
        (np.full((3, 3), 1 / 3), "not one-hot"),
        (np.eye(4)[:3], "one-hot rows of 3"),
        (np.zeros((3, 2, 2), int), "whole numbers"),
    ],
)
def test_what_is_no_label_is_refused_by_name(labels, message):
    with pytest.raises(ValueError, match=f"Expected y .*{message}") as caught:
        class_labels(labels, 3, 3, "y")
    assert "Received: y" in str(caught.value) and "\n" not in str(caught.value)


def test_answers_to_several_questions_are_no_one_hot_labels():
    with pytest.raises(ValueError, match="several answers"):
        class_labels(np.eye(3), ending_in(L.Dense(3, "sigmoid")))


def test_targets_of_a_regression_are_no_classes():
    with pytest.raises(ValueError, match="trained for numbers, with the loss mse"):
        class_labels([0.0, 1.0], ending_in(L.Dense(3), loss="mse"))


@pytest.mark.parametrize(
    ("layer", "answers", "classes"),
    [
        (L.Dense(1, "sigmoid"), [[0.4], [0.6]], [0, 1]),
        (L.Dense(1), [[-0.1], [0.4]], [0, 1]),
        (L.Dense(3), [[0.1, 0.3, 0.2], [-3, -2, -np.inf]], [1, 1]),
    ],
)
def test_the_chosen_class(layer, answers, classes):
    assert predicted_classes(np.array(answers, np.float16), ending_in(layer)).tolist() == classes


def test_nan_is_no_answer():
    with pytest.raises(ValueError, match="NaN for 1 of 2 examples"):
        predicted_classes([[0.0, np.nan], [1.0, 0.0]])
