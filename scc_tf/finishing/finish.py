"""`finish`: the model that goes into a file, with as much rounding as its answers bear."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from scc_tf.arguments import check_count, received
from scc_tf.batch_statistics import reestimate_batch_statistics, trainable_norms
from scc_tf.export.packed import is_compressed, packed_bytes
from scc_tf.finishing.fit_to_size import fit_to_bytes
from scc_tf.finishing.floor import check_target
from scc_tf.finishing.rounding import round_exponents, round_vectors
from scc_tf.finishing.steps import Fidelity, bits_to_spare, finer_steps
from scc_tf.inference import check_inputs, check_weights
from scc_tf.reports import Report
from scc_tf.safety.contract import contract_of, verdict
from scc_tf.surgery import remove_dead_channels
from scc_tf.training import SelfCompressingModel

__all__ = ["FinishReport", "finish", "finish_to_bytes", "finished_bytes"]

NEAR_ENOUGH = 0.003  # distance of answers below which finer steps are of no use
LIMIT = 10.0  # bits: with steps finer by as many, a model answers as its latent weights do
MOST_COARSE = 4.0  # bits by which steps may be coarser
_SMALLEST_CHANGE = 0.125  # bits
_SLACK = 0.02  # of a distance: bytes that are there are spent where the answers stay as near as they were
_LEAST_LIKENESS = 0.7  # distance of answers beyond which a network is no measure of what was made of it


@dataclasses.dataclass(frozen=True, repr=False)
class FinishReport(Report):
    """What `finish` did, as ``finish_report`` of the model that it returns.

    Attributes:
        exponent_places: binary places that exponents kept; None if they were not rounded.
        statistics_bits: bits that biases and statistics kept; None if they were not rounded.
        new_statistics: whether batch statistics were re-estimated.
        target_bytes: what was asked for, an upper bound; None where no size was.
        stored_bytes: length of the file, where a size was asked for.
        start_bytes: what it would have been without the next two.
        widening: of the dead zone around 0, in steps; 0 leaves every code as it was.
        finer: by how many bits the steps were made finer; negative: coarser.
        refused: whether the target was missed because what comes closer breaks the contract.
        start_distance: how far the answers were from those of the network that was handed in, before the steps were
            changed; in [0, 1], see `scc_tf.finishing.steps.Fidelity`; None where that was not measured.
        distance: of the answers now.
        safe: whether the finished model keeps the contract; None without one.
        safety_accuracy: fraction; None without a contract.
        safety_drop: reference minus accuracy, fraction; None without a contract.
    """

    exponent_places: int | None
    statistics_bits: int | None
    new_statistics: bool = True
    target_bytes: int | None = None
    stored_bytes: int | None = None
    start_bytes: int | None = None
    widening: float = 0.0
    finer: float = 0.0
    refused: bool = False
    start_distance: float | None = None
    distance: float | None = None
    safe: bool | None = None
    safety_accuracy: float | None = None
    safety_drop: float | None = None

    @property
    def reached(self):
        """Whether the file is at most as large as the target; True without one."""
        return self.target_bytes is None or self.stored_bytes <= self.target_bytes

    def parts(self):
        """One line."""
        places, bits = self.exponent_places, self.statistics_bits
        parts = [
            *self._size(),
            "exponents as they were" if places is None else f"exponents with {places} binary places",
            "biases and statistics in float32" if bits is None else f"biases and statistics with {bits} bits",
            "" if self.new_statistics else "batch statistics of the training",
            verdict(self),
        ]
        return ["; ".join(part for part in parts if part)]

    def _size(self):
        if self.target_bytes is None:
            return
        error = 100 * (self.stored_bytes / self.target_bytes - 1)
        yield f"{self.stored_bytes:,} B, {error:+.1f} % off the target of {self.target_bytes:,} B at most"
        if not self.reached:
            why = "breaks the contract" if self.refused else "is not within reach"
            yield f"the target is MISSED: what comes closer {why}"
        yield f"{self.start_bytes:,} B before"
        if self.widening:
            yield f"dead zone wider by {self.widening:+.3f} steps"
        if self.finer:
            yield f"steps {'finer' if self.finer > 0 else 'coarser'} by {abs(self.finer):.3f} bits"
        if self.distance is not None:
            yield f"answers off by {100 * self.distance:.1f} % ({100 * self.start_distance:.1f} % before)"


def finish(
    model: keras.Model,
    images: Any,
    exponent_places: int | None = 3,
    statistics_bits: int | None = 10,
    *,
    target_bytes: int | None = None,
) -> keras.Model:
    """Make a trained model ready for its file.

    Removes the channels and inputs whose weights are all zero, rounds the exponents, re-estimates the batch statistics
    that go with them, and rounds biases and statistics. A model that was not trained keeps its statistics where it
    answers more like the original with them. If that breaks the contract of the model
    (`scc_tf.safety.Contract`, from `scc_tf.callbacks.KernelRestoration`), it rounds less, in the end not at all. Where
    that is no help either, it takes the safest and warns.

    With ``target_bytes``, a file that is larger is made to fit: more weights are rounded to 0, and where that is not
    enough the steps are made coarser. A file that fits is never made worse: what the target leaves is spent on finer
    steps, as far as they bring the answers nearer to those of the network that was handed to `scc_tf.self_compress`. No
    candidate is taken that breaks the contract; where there is one, none with less safety accuracy.

    Args:
        model: compressed model, left untouched: self-compressing, weight-sharing or with masks.
        images: training inputs to re-estimate batch statistics from, augmented as in training: an array, for several
            inputs the structure of arrays that the model takes, or a ``tf.data.Dataset`` of batches that ends.
        exponent_places: binary places that exponents keep, 0 to 16. With ``size_model="entropy"`` the weights move
            along, and the codes stay: weights gather at the edges of their rounding intervals there.
        statistics_bits: bits of the mantissa that biases and statistics keep, 0 to 10; 10 is float16.
        target_bytes: upper bound of the length of the file, for a self-compressing model.

    Returns:
        The smaller model; its ``finish_report`` is a `FinishReport`.

    Raises:
        ValueError: if an argument is out of range, the model takes no such inputs, or an input or a weight is NaN; if
            the layers that are not compressed alone take more than the target.

    Example:
        >>> finished = scc_tf.finish(small, x_train[:4096])             # doctest: +SKIP
        >>> print(finished.finish_report)                               # doctest: +SKIP
    """
    images = _checked(model, images, exponent_places, statistics_bits)
    return _finish(model, images, target_bytes, exponent_places, statistics_bits, _judge(model))


def finish_to_bytes(
    model: keras.Model,
    images: Any,
    target_bytes: int,
    exponent_places: int | None = 3,
    statistics_bits: int | None = 10,
    is_safe: Callable | None = None,
) -> tuple:
    """`finish` with ``target_bytes``, as a pair.

    Args:
        model: as for `finish`.
        images: as for `finish`.
        target_bytes: as for `finish`.
        exponent_places: as for `finish`.
        statistics_bits: as for `finish`.
        is_safe: function ``model -> bool`` in place of the contract. Nothing is taken whose model it refuses.

    Returns:
        ``(smaller model, FinishReport)``.

    Raises:
        ValueError: as `finish`.
    """
    images = _checked(model, images, exponent_places, statistics_bits)
    check_count("target_bytes", target_bytes)
    if is_safe is not None and not callable(is_safe):
        raise ValueError(f"Expected is_safe to be a function model -> bool, or None. {received('is_safe', is_safe)}")
    judge = _judge(model) if is_safe is None else lambda candidate: (bool(is_safe(candidate)), 0.0)
    finished = _finish(model, images, target_bytes, exponent_places, statistics_bits, judge)
    return finished, finished.finish_report


def finished_bytes(model, exponent_places=3, statistics_bits=10):
    """Length of the file that a model in training would have after `finish`, but for its batch statistics.

    Args:
        model: as for `finish`.
        exponent_places: as for `finish`.
        statistics_bits: as for `finish`.
    """
    smaller = _smaller(model, exponent_places)
    round_vectors(smaller, statistics_bits)
    return len(packed_bytes(smaller))


def _checked(model, images, exponent_places, statistics_bits):
    """The inputs as they are used: a list of arrays in the order of the model's inputs, or a dataset."""
    if not getattr(model, "inputs", None) or not is_compressed(model):
        raise ValueError(
            "Expected model to be compressed: by scc_tf.self_compress, add_masks or share_weights, and then trained. "
            f"{received('model', model)}"
        )
    check_count("exponent_places", exponent_places, 0, 16)
    check_count("statistics_bits", statistics_bits, 0, 10)
    check_weights(model)
    if isinstance(images, tf.data.Dataset):
        return images  # every batch is checked when it is used
    return check_inputs("images", images, model)


def _finish(model, images, target_bytes, exponent_places, statistics_bits, judge):
    if target_bytes is not None:
        check_count("target_bytes", target_bytes)
        if not isinstance(model, SelfCompressingModel):
            raise ValueError(f"Expected a self-compressing model for target_bytes. {received('model', model)}")
        check_target(model, target_bytes)
    start = _Finishing(model, images, exponent_places, statistics_bits, judge)
    best, report = start.finished, start.report
    if target_bytes is not None:
        shape = _spent if start.bytes <= target_bytes else _saved
        best, found = shape(model, images, start, target_bytes)
        report = dataclasses.replace(report, target_bytes=target_bytes, start_bytes=start.bytes, **found)
    if contract := contract_of(model):
        accuracy = contract.accuracy_of(best)
        report = dataclasses.replace(report, **contract.check(accuracy, "the finished model"))
    best.finish_report = report
    logging.log(logging.INFO if report.reached else logging.WARNING, "%s", report)
    return best


def _judge(model):
    """A function of a finished model: whether it keeps the contract, and its safety accuracy."""
    contract = contract_of(model)
    if contract is None:
        return lambda candidate: (True, 0.0)

    def judge(candidate):
        accuracy = contract.accuracy_of(candidate)
        return contract.allows(accuracy), accuracy

    return judge


class _Finishing:
    """A model as it is finished: with as much rounding as was asked for, or as little as safety needs.

    Attributes:
        finished: the model for the file.
        report: its `FinishReport`, as far as rounding goes.
        judge: function ``model -> (whether it is safe, safety accuracy)``.
        verdict: what that says of ``finished``.
    """

    def __init__(self, model, images, exponent_places, statistics_bits, judge):
        self._model, self._images, self.judge = model, images, judge
        found = []
        new = not self._as_it_was_trained()
        asked = FinishReport(exponent_places, statistics_bits, new)
        finer = FinishReport(max(exponent_places, 8), 10, new)
        for report in dict.fromkeys([asked, finer, FinishReport(None, None), FinishReport(None, None, False)]):
            self.report = report
            finished = self.settled(self.unsettled())
            found.append((judge(finished), finished, report))
            if found[-1][0][0]:
                break
        self.verdict, self.finished, self.report = max(found, key=lambda candidate: candidate[0])
        if len(found) > 1:
            outcome = "are rounded less" if self.verdict[0] else "cannot help it"
            logging.warning("Rounding breaks the safety contract: exponents and statistics %s.", outcome)

    def _as_it_was_trained(self):
        """Whether a model that was not trained since it was converted answers better with the statistics it has."""
        fidelity = None if getattr(self._model, "optimizer", None) else _fidelity(self._model, self._images)
        if fidelity is None or not trainable_norms(self._model):
            return False
        self.report = FinishReport(None, None, False)
        before = fidelity.distance(self.settled(self.unsettled()))
        self.report = FinishReport(None, None)
        return before < fidelity.distance(self.settled(self.unsettled()))

    @functools.cached_property
    def bytes(self):
        """Length of the file."""
        return len(packed_bytes(self.finished))

    def unsettled(self):
        """A copy of the model without dead channels, with rounded exponents."""
        return _smaller(self._model, self.report.exponent_places)

    def stepped(self, by):
        """The finished model with steps that are finer by so many bits."""
        places = self.report.exponent_places
        with finer_steps(self._model, by, 16 if places is None else places):
            model = self.unsettled()
        return self.settled(model)

    def coarsened(self, target_bytes):
        """Bits, negative: the finest of coarser steps whose file fits; the coarsest where none does."""
        by = 0.0
        while by > -MOST_COARSE:
            by -= 1.0
            if self._fits(by, target_bytes):
                break
        else:
            return by
        step = 0.5
        while step >= _SMALLEST_CHANGE:
            by += step if self._fits(by + step, target_bytes) else 0.0
            step /= 2
        return by

    def _fits(self, by, target_bytes):
        return len(packed_bytes(self.stepped(by))) <= target_bytes

    def settled(self, model):
        """The same model, with the batch statistics that go with its weights, rounded like its biases."""
        if self.report.new_statistics:
            reestimate_batch_statistics(model, self._images)
        if self.report.statistics_bits is not None:
            round_vectors(model, self.report.statistics_bits)
        return model


def _smaller(model, exponent_places):
    """A copy without dead channels, with rounded exponents."""
    smaller, report = remove_dead_channels(model)
    logging.debug("%s", report)
    if exponent_places is not None:
        round_exponents(smaller, exponent_places, rescale=getattr(model, "size_model", None) == "entropy")
    return smaller


def _saved(model, images, start, target_bytes):
    """The model with a wider dead zone, or else with coarser steps, whose file fits, and what the report says of it."""
    fitted = start.unsettled()
    fit = fit_to_bytes(
        fitted,
        target_bytes,
        lambda candidate: len(packed_bytes(candidate)),
        lambda candidate: start.judge(candidate)[0],
        prepare=lambda candidate: start.settled(remove_dead_channels(candidate)[0]),
    )
    found = {"stored_bytes": fit.stored_bytes, "widening": fit.widening, "refused": fit.refused}
    best = start.settled(remove_dead_channels(fitted)[0])
    if fit.stored_bytes > target_bytes:
        by = start.coarsened(target_bytes)
        for share in (1.0, 0.75, 0.5, 0.25):  # what is not safe is too coarse
            coarser = start.stepped(share * by)
            size = len(packed_bytes(coarser))
            if size < found["stored_bytes"] and start.judge(coarser)[0]:
                best, found = coarser, {"stored_bytes": size, "finer": share * by, "refused": found["refused"]}
                break
            found["refused"] |= size < found["stored_bytes"]
        found["refused"] &= found["stored_bytes"] > target_bytes
    if fidelity := _fidelity(model, images):
        found |= {"start_distance": fidelity.distance(start.finished), "distance": fidelity.distance(best)}
    return best, found


def _spent(model, images, start, target_bytes):
    """The best model whose file fits, ``start`` or one with finer steps, and what the report says of it."""
    found, best = {"stored_bytes": start.bytes}, start.finished
    fidelity = _fidelity(model, images)
    if fidelity is None:
        return best, found
    nearest = fidelity.distance(best)
    found |= {"start_distance": nearest, "distance": nearest}
    most = bits_to_spare(model)
    leads_to = fidelity.distance(start.stepped(min(LIMIT, most)))
    enough = nearest * (1 + _SLACK)
    if start.verdict[0] and leads_to >= min(enough, _LEAST_LIKENESS):
        return best, found
    verdict, by, step = start.verdict, 0.0, 1.0
    contract = contract_of(model)
    least = (start.verdict[0], min(start.verdict[1], contract.reference_accuracy if contract else 1.0))
    while step >= _SMALLEST_CHANGE and nearest > NEAR_ENOUGH and by + step <= most:
        finer = start.stepped(by + step)
        size = len(packed_bytes(finer))
        if size > target_bytes:
            step /= 2
            continue
        by += step
        distance, judged = fidelity.distance(finer), start.judge(finer)
        nearer = distance < max(nearest, enough) and judged >= least
        if judged[0] > verdict[0] or (nearer and judged[0] == verdict[0]):
            best, verdict, nearest = finer, judged, min(nearest, distance)
            found |= {"stored_bytes": size, "finer": by, "distance": distance}
    return best, found


def _fidelity(model, images):
    """Measures how far answers are from those of the network that was handed in; None where that is not known."""
    reference = getattr(model, "reference", None)
    return None if reference is None or reference.network is None else Fidelity(reference.network, images)
