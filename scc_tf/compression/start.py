"""Where a compression starts from: the fewest bits with which the network still answers."""

import keras

from scc_tf.batch_statistics import reestimate_batch_statistics, trainable_norms
from scc_tf.conversion import self_compress
from scc_tf.finishing.steps import Fidelity, refine_steps

__all__ = ["start_of"]

MOST_BITS, FEWEST_BITS = 8, 3
NEAR, FAR = 0.1, 0.5  # distance of answers that rounding may add: untrained, and where there is time to learn
TIME = 1000  # steps
EXAMPLES = 1024


def start_of(model, inputs, steps, by_size):
    """A self-compressing twin of a model, with the fewest bits whose answers are near enough.

    Args:
        model: Keras model.
        inputs: examples.
        steps: of the training.
        by_size: whether what a coder writes is minimized.
    """
    small = self_compress(model, float(MOST_BITS), exponent_per="kernel" if by_size else "channel")
    inputs = keras.tree.map_structure(lambda array: array[:EXAMPLES], inputs)
    fidelity = Fidelity(model, inputs)

    def distance():
        """With the statistics of the original or with new ones, whichever suit better."""
        as_it_was = fidelity.distance(small)
        kept = [norm.get_weights() for norm in trainable_norms(small)]
        reestimate_batch_statistics(small, inputs)
        found = min(as_it_was, fidelity.distance(small))
        for norm, weights in zip(trainable_norms(small), kept, strict=True):
            norm.set_weights(weights)
        return found

    far = distance() + NEAR + (FAR - NEAR) * min(1.0, steps / TIME)
    for _ in range(FEWEST_BITS, MOST_BITS):
        refine_steps(small, -1.0)
        if distance() > far:
            refine_steps(small, 1.0)
            break
    return small
