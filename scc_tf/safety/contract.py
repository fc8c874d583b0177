"""What a compressed network owes to the safety set, from the first check of ``fit`` to the file."""

import dataclasses
import typing

from absl import logging

from scc_tf.safety.evaluation import right_answers, safety_accuracy

__all__ = ["Contract", "contract_of", "verdict"]


@dataclasses.dataclass(frozen=True, eq=False)
class Contract:
    """The safety accuracy of a network is at most ``threshold`` below that of the network that was handed in.

    ``reference - accuracy <= threshold``, all three fractions. `scc_tf.callbacks.KernelRestoration` puts the contract
    of its ``fit`` on the model, as ``model.contract``. From there it goes with the model through
    `scc_tf.remove_dead_channels`, `scc_tf.finish` and `scc_tf.finish_to_bytes` to the writers of files, which measure
    it on what they have written. It is not stored in any file; to give a model one by hand, assign it.

    Attributes:
        safety_set: `scc_tf.SafetySet`, or anything with ``images`` and ``labels``.
        reference_accuracy: safety accuracy of the network that was handed in, and what training has gained since; a
            fraction, see `scc_tf.callbacks.SafetyMonitor`.
        threshold: tolerated drop, a fraction; 0.05 is five percentage points.
        batch_size: examples per forward pass; None: as many as memory allows.
        trained_accuracy: safety accuracy of the network that was handed in, a fraction; None where it is not known.

    Example:
        >>> contract = Contract(safety_set=None, reference_accuracy=0.98, threshold=0.05)
        >>> contract.allows(0.93), contract.allows(0.92)
        (True, False)
    """

    safety_set: typing.Any
    reference_accuracy: float
    threshold: float
    batch_size: int | None = None
    trained_accuracy: float | None = None

    def drop(self, accuracy):
        """How far an accuracy is below the reference, a fraction; negative above it."""
        return self.reference_accuracy - accuracy

    def allows(self, accuracy):
        """Whether a safety accuracy is high enough."""
        return self.drop(accuracy) <= self.threshold + 1e-9  # a difference of rounded fractions

    def accuracy_of(self, model):
        """Safety accuracy of a Keras model, a fraction."""
        return safety_accuracy(model, self.safety_set, self.batch_size)

    def accuracy_of_answers(self, model, answers):
        """The same of what something else answers to ``safety_set.images``, such as `scc_tf.export.run_tflite`."""
        return right_answers(answers, self.safety_set.labels, model)

    def check(self, accuracy, what):
        """Judge an accuracy of ``what`` and warn where the contract is broken; returns the fields that reports have."""
        safe = self.allows(accuracy)
        if not safe:
            logging.warning("The safety contract is broken: %s has a safety accuracy of %s.", what, self.told(accuracy))
        return {"safe": safe, "safety_accuracy": accuracy, "safety_drop": self.drop(accuracy)}

    def told(self, accuracy):
        """An accuracy beside what the contract allows, in words."""
        known = self.trained_accuracy is not None and self.trained_accuracy != self.reference_accuracy
        handed_in = f" ({100 * self.trained_accuracy:.2f} % for the network that was handed in)" if known else ""
        return (
            f"{100 * accuracy:.2f} %, {100 * self.drop(accuracy):.2f} points below its reference of "
            f"{100 * self.reference_accuracy:.2f} %{handed_in}; the contract allows {100 * self.threshold:.2f}"
        )

    def __str__(self):
        """One line."""
        return (
            f"safety accuracy at most {100 * self.threshold:.2f} points below {100 * self.reference_accuracy:.2f} % "
            f"on {len(self.safety_set.labels)} examples"
        )


def contract_of(model):
    """The `Contract` of a model, or None."""
    return getattr(model, "contract", None)


def verdict(report):
    """What a report with ``safe``, ``safety_accuracy`` and ``safety_drop`` says of safety; empty without a contract."""
    if report.safe is None:
        return ""
    outcome = "the safety contract is kept" if report.safe else "the safety contract is BROKEN"
    return (
        f"{outcome}: safety accuracy {100 * report.safety_accuracy:.2f} %, drop {100 * report.safety_drop:.2f} points"
    )
