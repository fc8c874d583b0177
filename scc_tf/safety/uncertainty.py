"""How sure a classifier is: the gap between its first and its second choice. NumPy only.

Shapes: ``N`` examples, ``K`` classes. Probabilities and margins are fractions in [0, 1].
"""

import numpy as np

__all__ = ["class_probabilities", "margin"]


def class_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Class probabilities from what a classifier returned, whether logits or probabilities.

    Outputs whose rows are not negative and sum to 1 are probabilities already; anything else is taken for
    logits and goes through a softmax.

    Args:
        outputs: float ``(N, K)``.

    Returns:
        float ``(N, K)``, float32 or wider, rows sum to 1.
    """
    outputs = np.asarray(outputs)
    outputs = outputs.astype(np.result_type(outputs, np.float32), copy=False)
    if _are_probabilities(outputs):
        return outputs
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """Gap between the two most probable classes: ``p_first - p_second``.

    0 is a tie, the least certain answer there is; 1 is full certainty. Not the same as least confidence,
    ``1 - p_first``: with many classes a first choice of 0.4 may stand far above all others.

    Args:
        probabilities: float ``(N, K)``, ``K >= 2``, rows sum to 1 (softmax outputs, not logits).

    Returns:
        float ``(N,)``, fractions in [0, 1].

    Raises:
        ValueError: if there are fewer than two classes, or a row is not a distribution.

    Source: Scheffer, Decomain and Wrobel 2001, "Active Hidden Markov Models for Information Extraction"
    (margin sampling).

    Example:
        >>> [round(float(gap), 2) for gap in margin([[0.5, 0.4, 0.1], [0.0, 0.1, 0.9]])]
        [0.1, 0.8]
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(
            f"Expected probabilities (N, K) of at least two classes. Received: shape={probabilities.shape}"
        )
    if not _are_probabilities(probabilities):
        raise ValueError("Expected softmax probabilities: every row must be >= 0 and sum to 1.")
    top_two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return top_two[:, 1] - top_two[:, 0]


def _are_probabilities(outputs):
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1.0, rtol=0, atol=1e-3))
