"""What a compressed network owes to the safety set."""

import dataclasses

from scc_tf.safety import SafetySet, safety_accuracy

__all__ = ["Contract"]


@dataclasses.dataclass(frozen=True)
class Contract:
    """An accuracy on the safety set that is at most so many points below the reference.

    Attributes:
        safety_set: `scc_tf.SafetySet`.
        reference_accuracy: fraction.
        threshold_points: percentage points.
    """

    safety_set: SafetySet
    reference_accuracy: float
    threshold_points: float

    def drop(self, accuracy):
        """Points of safety accuracy below the reference."""
        return 100 * (self.reference_accuracy - accuracy)

    def allows(self, accuracy):
        """Whether a safety accuracy is high enough."""
        return self.drop(accuracy) <= self.threshold_points + 1e-7  # a difference of rounded fractions

    def is_kept_by(self, model):
        """Whether a model's safety accuracy is."""
        return self.allows(safety_accuracy(model, self.safety_set))
