"""From a trained self-compressing model to the one that goes into a file."""

import dataclasses
import functools

import tensorflow as tf
from absl import logging

from scc_tf.arguments import check_count, received
from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.dead_zone import SizeFit, fit_to_bytes
from scc_tf.export.packed import packed_bytes
from scc_tf.finer_steps import Fidelity, bits_to_spare, finer_steps
from scc_tf.inference import check_inputs, check_weights
from scc_tf.safety.contract import contract_of, verdict
from scc_tf.side_information import round_exponents, round_vectors
from scc_tf.smallest_file import check_target
from scc_tf.surgery import remove_dead_channels
from scc_tf.training import SelfCompressingModel

__all__ = ["FinishReport", "finish", "finish_to_bytes", "finished_bytes"]

NEAR_ENOUGH = 0.003  # distance of answers below which finer steps are of no use
LIMIT = 10.0  # bits: with steps finer by as many, a model answers as its latent weights do
MOST_COARSE = 4.0  # bits by which steps may be coarser
_SMALLEST_CHANGE = 0.125  # bits
_LEAST_LIKENESS = 0.7  # distance of answers beyond which a network is no measure of what was made of it


@dataclasses.dataclass(frozen=True)
class FinishReport:
    """What `finish` did, as ``finish_report`` of the model that it returns.

    Attributes:
        exponent_places: binary places that exponents kept; None if they were not rounded.
        statistics_bits: bits that biases and statistics kept; None if they were not rounded.
        new_statistics: whether batch statistics were re-estimated.
        safe: whether the finished model keeps the contract; None without one.
        safety_accuracy: fraction; None without a contract.
        safety_drop: reference minus accuracy, fraction; None without a contract.
    """

    exponent_places: int | None
    statistics_bits: int | None
    new_statistics: bool = True
    safe: bool | None = None
    safety_accuracy: float | None = None
    safety_drop: float | None = None

    def __str__(self):
        """One line."""
        places, bits = self.exponent_places, self.statistics_bits
        parts = [
            "exponents as they were" if places is None else f"exponents with {places} binary places",
            "biases and statistics in float32" if bits is None else f"biases and statistics with {bits} bits",
            "" if self.new_statistics else "batch statistics of the training",
            verdict(self),
        ]
        return "; ".join(part for part in parts if part)


def finish(model, images, exponent_places=3, statistics_bits=10):
    """Make a trained model ready for its file.

    Removes the channels and inputs whose weights are all zero, rounds the exponents, re-estimates the batch statistics
    that go with them, and rounds biases and statistics. If the model has a contract (`scc_tf.safety.Contract`, from
    `scc_tf.callbacks.KernelRestoration`) that this breaks, it rounds less, in the end not at all; where that is no help
    either, it takes the safest and warns.

    Args:
        model: `scc_tf.SelfCompressingModel`, left untouched.
        images: training images to re-estimate batch statistics from, augmented as in training: an array, for several
            inputs the structure of arrays that the model takes, or a ``tf.data.Dataset`` of batches that ends.
        exponent_places: binary places that exponents keep, 0 to 16. With ``size_model="entropy"`` the weights move
            along, and the codes stay: weights gather at the edges of their rounding intervals there.
        statistics_bits: bits of the mantissa that biases and statistics keep, 0 to 10; 10 is float16.

    Returns:
        The smaller model; its ``finish_report`` is a `FinishReport`.

    Raises:
        ValueError: if an argument is out of range, the model takes no such images, or an image or a weight is NaN.
    """
    images = _checked(model, images, exponent_places, statistics_bits)
    return _Finishing(model, images, exponent_places, statistics_bits, _judge(model)).finished


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


def finish_to_bytes(model, images, target_bytes, exponent_places=3, statistics_bits=10, is_safe=None):
    """`finish` for a file of at most ``target_bytes``.

    Where the file is larger, the dead zone of its rounding is widened until it fits (`scc_tf.dead_zone.fit_to_bytes`),
    or where that is not enough, the steps are made coarser. One that fits is never made worse. What the target leaves
    is spent on finer steps, if that brings the answers nearer to those of the network that was handed to
    `scc_tf.self_compress`: several are tried, the answers to ``images`` are measured (`scc_tf.finer_steps.Fidelity`),
    and the nearest of those whose file fits is taken. Where the contract is known, no candidate with less safety
    accuracy is taken for it.

    Args:
        model: as for `finish`; its layers round to the nearest code.
        images: as for `finish`.
        target_bytes: upper bound of the length of the file.
        exponent_places: as for `finish`.
        statistics_bits: as for `finish`.
        is_safe: function ``model -> bool``. Nothing is taken whose model it refuses: the file then comes as close to
            its size as safety allows. Default: the contract of the model, if it has one.

    Returns:
        ``(smaller model, scc_tf.dead_zone.SizeFit)``; ``print`` the second one.

    Raises:
        ValueError: as `finish`; if the layers that are not compressed alone take more than the target.
    """
    images = _checked(model, images, exponent_places, statistics_bits)
    check_count("target_bytes", target_bytes)
    check_target(model, target_bytes, lambda empty: len(packed_bytes(empty)))
    if is_safe is not None and not callable(is_safe):
        raise ValueError(f"Expected is_safe to be a function model -> bool, or None. {received('is_safe', is_safe)}")
    judge = _judge(model) if is_safe is None else lambda candidate: (bool(is_safe(candidate)), 0.0)
    start = _Finishing(model, images, exponent_places, statistics_bits, judge)
    best, fit = (
        _spent(model, images, start, target_bytes) if start.bytes <= target_bytes else _saved(start, target_bytes)
    )
    best.finish_report = start.finished.finish_report
    if contract := contract_of(model):
        found = contract.check(contract.accuracy_of(best), "the model that finish_to_bytes returns")
        best.finish_report = dataclasses.replace(best.finish_report, **found)
        fit = dataclasses.replace(fit, **found)
    logging.log(logging.INFO if fit.reached else logging.WARNING, "%s", fit)
    return best, fit


def _checked(model, images, exponent_places, statistics_bits):
    """The images as they are used: a list of arrays in the order of the model's inputs, or a dataset."""
    if not isinstance(model, SelfCompressingModel):
        raise ValueError(
            "Expected model to be a scc_tf.SelfCompressingModel: convert it with scc_tf.self_compress and train it. "
            f"{received('model', model)}"
        )
    check_count("exponent_places", exponent_places, 0, 16)
    check_count("statistics_bits", statistics_bits, 0, 10)
    check_weights(model)
    if isinstance(images, tf.data.Dataset):
        return images  # every batch is checked when it is used
    return check_inputs("images", images, model)


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
        finished: the model for the file, with its ``finish_report``.
        judge: function ``model -> (whether it is safe, safety accuracy)``.
        verdict: what that says of ``finished``.
    """

    def __init__(self, model, images, exponent_places, statistics_bits, judge):
        self._model, self._images, self.judge = model, images, judge
        found = []
        asked = FinishReport(exponent_places, statistics_bits)
        finer = FinishReport(max(exponent_places, 8), 10)
        for report in dict.fromkeys([asked, finer, FinishReport(None, None), FinishReport(None, None, False)]):
            self._rounding = report
            finished = self.settled(self.unsettled())
            found.append((judge(finished), finished, report))
            if found[-1][0][0]:
                break
        self.verdict, self.finished, self._rounding = max(found, key=lambda candidate: candidate[0])
        if len(found) > 1:
            outcome = "are rounded less" if self.verdict[0] else "cannot help it"
            logging.warning("Rounding breaks the safety contract: exponents and statistics %s.", outcome)
        report = self._rounding
        if contract := contract_of(model):
            report = dataclasses.replace(report, **contract.check(self.verdict[1], "the finished model"))
        self.finished.finish_report = report

    @functools.cached_property
    def bytes(self):
        """Length of the file."""
        return len(packed_bytes(self.finished))

    def unsettled(self):
        """A copy of the model without dead channels, with rounded exponents."""
        return _smaller(self._model, self._rounding.exponent_places)

    def stepped(self, by):
        """The finished model with steps that are finer by so many bits."""
        places = self._rounding.exponent_places
        with finer_steps(self._model, by, 16 if places is None else places):
            model = self.unsettled()
        return self.settled(model)

    def coarsened(self, target_bytes):
        """``(bits, model)`` with the finest of coarser steps whose file fits; None for the model if there is none."""
        by, found = 0.0, None
        while found is None and by > -MOST_COARSE:
            by -= 1.0
            found = self._fitting(by, target_bytes)
        step = 0.5
        while found is not None and step >= _SMALLEST_CHANGE:
            if (finer := self._fitting(by + step, target_bytes)) is not None:
                by, found = by + step, finer
            step /= 2
        return by, found

    def _fitting(self, by, target_bytes):
        model = self.stepped(by)
        return model if len(packed_bytes(model)) <= target_bytes else None

    def settled(self, model):
        """The same model, with the batch statistics that go with its weights, rounded like its biases."""
        if self._rounding.new_statistics:
            reestimate_batch_statistics(model, self._images)
        if self._rounding.statistics_bits is not None:
            round_vectors(model, self._rounding.statistics_bits)
        return model


def _smaller(model, exponent_places):
    """A copy without dead channels, with rounded exponents."""
    smaller, report = remove_dead_channels(model)
    logging.debug("%s", report)
    if exponent_places is not None:
        round_exponents(smaller, exponent_places, rescale=model.size_model == "entropy")
    return smaller


def _saved(start, target_bytes):
    """The model with a wider dead zone, or else with coarser steps, whose file fits, and its `SizeFit`."""
    fitted = start.unsettled()
    fit = fit_to_bytes(
        fitted,
        target_bytes,
        lambda candidate: len(packed_bytes(candidate)),
        lambda candidate: start.judge(candidate)[0],
        prepare=lambda candidate: start.settled(remove_dead_channels(candidate)[0]),
    )
    if not fit.reached:
        by, coarser = start.coarsened(target_bytes)
        if coarser is not None and start.judge(coarser)[0]:
            size = len(packed_bytes(coarser))
            return coarser, SizeFit(target_bytes, size, start.bytes, 0.0, reached=True, finer=by)
    return start.settled(remove_dead_channels(fitted)[0]), fit


def _spent(model, images, start, target_bytes):
    """The best model whose file fits, ``start`` or one with finer steps, and its `SizeFit`."""
    fit, best = SizeFit(target_bytes, start.bytes, start.bytes, 0.0, reached=True), start.finished
    network = model.origin and model.origin.network
    if network is None:
        return best, fit
    fidelity = Fidelity(network, images)
    nearest = fidelity.distance(best)
    fit = dataclasses.replace(fit, start_distance=nearest, distance=nearest)
    most = bits_to_spare(model)
    leads_to = fidelity.distance(start.stepped(min(LIMIT, most)))
    if start.verdict[0] and leads_to >= min(nearest, _LEAST_LIKENESS):
        return best, fit
    verdict, by, step = start.verdict, 0.0, 1.0
    while step >= _SMALLEST_CHANGE and nearest > NEAR_ENOUGH and by + step <= most:
        finer = start.stepped(by + step)
        size = len(packed_bytes(finer))
        if size > target_bytes:
            step /= 2
            continue
        by += step
        distance, judged = fidelity.distance(finer), start.judge(finer)
        nearer = distance < nearest and judged >= start.verdict
        if judged[0] > verdict[0] or (nearer and judged[0] == verdict[0]):
            best, verdict, nearest = finer, judged, distance
            fit = dataclasses.replace(fit, stored_bytes=size, finer=by, distance=distance)
    return best, fit
