import logging
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import scc_tf
from scc_tf.safety import Contract
from scc_tf.safety.contract import verdict

CLASSES = 4
SCORES = np.random.default_rng(0).normal(size=(50, CLASSES)).astype("float32")
EXAMPLES = SimpleNamespace(images=SCORES, labels=SCORES.argmax(1))


def classifier(right=1.0):
    """A network that is right on a share of the examples."""
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Dense(CLASSES, kernel_initializer="identity")])
    if right < 1:
        model.layers[0].kernel.assign(-np.eye(CLASSES))
    return model


@pytest.mark.parametrize(("accuracy", "kept"), [(1.0, True), (0.93, True), (0.9299, False), (0.0, False)])
def test_a_drop_of_the_threshold_is_allowed_and_no_more(accuracy, kept):
    contract = Contract(EXAMPLES, 0.98, 0.05)
    assert contract.allows(accuracy) == kept
    assert contract.drop(accuracy) == pytest.approx(0.98 - accuracy)


def test_models_and_answers_are_scored_alike():
    contract = Contract(EXAMPLES, 1.0, 0.05)
    assert contract.accuracy_of(classifier()) == contract.accuracy_of_answers(classifier(), SCORES) == 1.0
    assert contract.accuracy_of(classifier(0)) == contract.accuracy_of_answers(classifier(), -SCORES) == 0.0


@pytest.mark.parametrize(("accuracy", "said"), [(0.99, ""), (0.5, "mine.scc has a safety accuracy of 50.00 %")])
def test_a_broken_contract_is_warned_of(caplog, accuracy, said):
    with caplog.at_level(logging.WARNING):
        found = Contract(EXAMPLES, 1.0, 0.05).check(accuracy, "mine.scc")
    assert found == {"safe": not said, "safety_accuracy": accuracy, "safety_drop": pytest.approx(1 - accuracy)}
    assert said in caplog.text and bool(caplog.text) == bool(said)
    assert ("BROKEN" in verdict(SimpleNamespace(**found))) == bool(said)


def test_without_a_contract_nothing_is_said():
    assert verdict(SimpleNamespace(safe=None)) == ""


def test_a_contract_follows_the_answers_of_a_model_into_what_is_made_of_it():
    model = scc_tf.self_compress(classifier(), 8)
    model.contract = Contract(EXAMPLES, 1.0, 0.05)
    made = [scc_tf.to_plain(model), scc_tf.add_masks(model), scc_tf.share_weights(model), scc_tf.finish(model, SCORES)]
    made.append(scc_tf.remove_dead_channels(made[2])[0])  # a plain functional model with layers of ours
    assert all(one.contract is model.contract for one in made)
    assert made[1].reference is model.reference
