"""What a written file answers, against what it was made of."""

import dataclasses

import keras
import numpy as np
from absl import logging

from scc_tf.export.tflite.conversion import input_names, output_names
from scc_tf.export.tflite.interpreter import Runner, as_type
from scc_tf.export.tflite.samples import spread_over
from scc_tf.graph import probe_inputs
from scc_tf.inference import arranged, check_inputs, outputs

__all__ = ["LOSSY", "Likeness", "answers_of_file", "check_answers", "likeness", "safety_answers"]

PROBES, SAMPLES = 16, 256  # inputs to compare on: made up, or of the caller
EXACT = 1e-3  # largest error of what computes in float
LOSSY = 0.1  # largest error of integer arithmetic that passes without a warning
AGREEMENT = 0.95  # smallest share of equal classes that does, on inputs of the caller
_TIE = 1e-3  # of the spread of the answers: classes as near as this are equally good


@dataclasses.dataclass(frozen=True)
class Likeness:
    """How alike two sets of answers are, the worst of all outputs.

    Attributes:
        error: root mean square of the differences over the standard deviation of the answers; of integers the share
            that differs. NaN if there is nothing to compare.
        agreement: share of equal classes, in [0, 1]: the largest of the last axis, or the side of 0.5 that a single
            probability is on. None for other outputs, and for reconstructions of an input, as those of an autoencoder.
    """

    error: float
    agreement: float | None

    @property
    def passes(self):
        """Whether integer arithmetic may answer like this."""
        return not self.error > LOSSY and (self.agreement is None or self.agreement >= AGREEMENT)

    def __str__(self):
        """A part of a line."""
        shares = "" if self.agreement is None else f"{100 * self.agreement:.1f} % of the classes are equal, "
        return f"{shares}answers differ by {100 * self.error:.2g} % of their spread"


def likeness(answers, expected, inputs=()):
    """`Likeness` of answers and those of a reference: arrays ``(N, …)``, one per output; ``inputs`` were asked.

    Example:
        >>> print(likeness([np.array([[0.1, 0.9]])], [np.array([[0.0, 1.0]])]))
        100.0 % of the classes are equal, answers differ by 20 % of their spread
    """
    errors, shares = [], []
    for given, wanted in zip(map(np.asarray, answers), map(np.asarray, expected), strict=True):
        if given.shape != wanted.shape:
            errors.append(float("inf"))
            continue
        errors.append(_error(given, wanted))
        if wanted.dtype.kind == "f" and not any(_resembles(wanted, array) for array in inputs):
            shares.append(_agreement(given, wanted))
    shares = [share for share in shares if share is not None]
    known = [error for error in errors if not np.isnan(error)]
    return Likeness(max(known, default=float("nan")), min(shares, default=None))


def _error(given, wanted):
    if wanted.dtype.kind != "f":
        return float(np.mean(given != wanted))
    known = np.isfinite(wanted)
    if not known.any():
        return float("nan")
    wanted, given = wanted[known].astype(np.float64), given[known].astype(np.float64)
    if not np.isfinite(given).all():
        return float("inf")
    difference = np.sqrt(np.mean((given - wanted) ** 2))
    return float(difference / scale) if (scale := _spread(wanted)) else float(difference and np.inf)


def _resembles(wanted, asked):
    """Whether an output reconstructs an input."""
    asked = np.asarray(asked)
    if asked.dtype.kind != "f" or asked.shape != wanted.shape or not np.isfinite(wanted).all():
        return False
    return bool(np.std(asked) and np.std(wanted)) and np.corrcoef(asked.ravel(), wanted.ravel())[0, 1] > 0.5


def _spread(values):
    """Standard deviation; of constant answers a small part of their size."""
    return max(np.std(values), 1e-3 * np.sqrt(np.mean(values**2)))


def _agreement(given, wanted):
    if wanted.ndim < 2 or not np.isfinite(wanted).all():
        return None
    given, wanted = np.nan_to_num(given.astype(np.float64)), wanted.astype(np.float64)
    if wanted.shape[-1] > 1:
        chosen = np.take_along_axis(wanted, given.argmax(-1)[..., None], -1)[..., 0]
        return float(np.mean(chosen >= wanted.max(-1) - _TIE * _spread(wanted)))
    if wanted.min() >= 0 and wanted.max() <= 1:
        return float(np.mean(((given > 0.5) == (wanted > 0.5)) | (np.abs(wanted - 0.5) < _TIE)))
    return None


def answers_of_file(file, inputs):
    """Answers of a file, ``{name: array (N, …)}``, to inputs of that form; a ValueError if LiteRT cannot run it."""
    try:
        return Runner(file)(inputs)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"Expected a model whose TFLite file LiteRT can run. Received: {' '.join(str(error).split())[:300]}"
        ) from error


def check_answers(file, path, model, compute, samples):
    """Run the bytes of a file that was written to ``path``, and compare the answers with those of Keras.

    Up to 256 of the ``samples``, ``{name: array (N, …)}``, are asked; without any, 16 are made up. Returns the
    fields of `TFLiteReport` that say what was found.

    Raises:
        RuntimeError: if the file computes in float and answers otherwise.
    """
    made_up = samples is None
    arrays = arranged(model, probe_inputs(model, PROBES)) if made_up else [*spread_over(samples, SAMPLES).values()]
    expected = _of_keras(model, arrays)
    alike = likeness(_of_file(file, model, arrays), expected, arrays)
    if alike.error > EXACT and likeness(_of_keras(model, arrays), expected).error > EXACT:  # it draws numbers
        alike = Likeness(float("nan"), None)
    if compute == "float" and alike.error > EXACT:
        raise RuntimeError(f"The file does not answer as {model.name!r} does: {alike} on {PROBES} made-up inputs")
    what = f"{len(arrays[0])} {'made-up inputs' if made_up else 'of the representative data'}"
    if alike.error > LOSSY or not (made_up or alike.passes):  # classes of made-up inputs are often near ties
        logging.warning(
            "%s answers otherwise than %r: %s on %s; see its report, %s, or use %s.",
            *(path, model.name, alike, what),
            "give representative_data to measure it on yours" if made_up else "give more representative data",
            "compute='float'" if compute == "dynamic" else "compute='dynamic' or 'float'",
        )
    return {"agreement": alike.agreement, "error": alike.error, "compared_on": what}


def safety_answers(file, model, safety_set):
    """What a file answers to the inputs of a safety set, array ``(S, K)``."""
    return _of_file(file, model, check_inputs("safety_set.images", safety_set.images, model))[0]


def _of_keras(model, arrays):
    return keras.tree.flatten(outputs(model, arrays if len(arrays) > 1 else arrays[0]))


def _of_file(file, model, arrays):
    named = zip(input_names(model), arrays, model.inputs, strict=True)
    answers = answers_of_file(file, {name: as_type(name, array, tensor.dtype) for name, array, tensor in named})
    return [answers[name] for name in output_names(model)]
