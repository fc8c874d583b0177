"""Logits and labels that no two of which are alike, and strategies for them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st


def random_answers(count=400, classes=5, seed=0, scale=2.0):
    """Logits ``(N, K)``, and labels that follow the logits more often than not."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(count, classes))
    guesses = rng.integers(0, classes, count)
    return logits, np.where(rng.random(count) < 0.6, logits.argmax(axis=1), guesses)


@st.composite
def answers(draw):
    """Logits of any scale, some of them equal, and labels."""
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, 300.0])) * rng.normal(size=(count, classes))
    logits = np.round(logits) if draw(st.booleans()) else logits
    return logits, rng.integers(0, classes, count)


def for_all(*strategies):
    """A few examples of each property: scikit-learn takes milliseconds for any of them."""
    return lambda test: settings(max_examples=15)(given(*strategies)(test))
