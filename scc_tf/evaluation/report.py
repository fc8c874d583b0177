"""The result of a comparison, for people and for machines."""

import dataclasses
import operator
from pathlib import Path

import numpy as np

from scc_tf.evaluation.behaviour import Behaviour, Curves
from scc_tf.evaluation.footprint import Footprint
from scc_tf.metrics import OODReport
from scc_tf.reports import Report, Table

__all__ = ["CompressionReport", "ModelReport"]

NARROWEST = 14  # width of a model's column
SHIFT = {"percent": 0.00005, "number": 0.00005, "count": 0}  # changes up to it are none, at the digits that are shown
ANSWERS = (  # what stands on the left, attribute of the `ModelReport`, how it is shown, what is better: more or less
    ("accuracy", "behaviour.accuracy", "percent", 1),
    ("negative log-likelihood, nats", "behaviour.negative_log_likelihood", "number", -1),
    ("Brier score", "behaviour.brier_score", "number", -1),
    ("area under risk-coverage", "behaviour.risk_coverage_area", "number", -1),
)
CALIBRATION = (
    ("ECE, equal width", "behaviour.expected_calibration_error", "percent", -1),
    ("ECE, equal mass", "behaviour.expected_calibration_error_mass", "percent", -1),
    ("MCE", "behaviour.maximum_calibration_error", "percent", -1),
    ("UCE", "behaviour.uncertainty_calibration_error", "percent", -1),
    ("temperature (validation)", "behaviour.temperature", "number", 0),
    ("ECE after temperature scaling", "behaviour.scaled_calibration_error", "percent", -1),
    ("NLL after temperature scaling", "behaviour.scaled_negative_log_likelihood", "number", -1),
)
CONFIDENCE = (
    ("mean confidence on test images", "ood.confidence_in", "percent", 0),
    ("mean confidence outside", "ood.confidence_out", "percent", -1),
    ("difference of the two", "ood.confidence_shift", "percent", 1),
)
SEPARATION = (
    ("AUROC", "auroc", 1),
    ("AUPR", "aupr_in", 1),
    ("AUPR, outside positive,", "aupr_out", 1),
    ("FPR at 95 % TPR", "fpr95", -1),
)
FOOTPRINT = (
    ("float32 bytes", "footprint.float32_bytes", "count", -1),
    ("packed file, bytes", "footprint.stored_bytes", "count", -1),
    ("parameters", "footprint.parameters", "count", -1),
    ("  without dead channels", "footprint.live_parameters", "count", -1),
    ("  that are not 0", "footprint.nonzero_parameters", "count", -1),
    ("multiply-accumulates", "footprint.multiply_accumulates", "count", -1),
    ("  without dead channels", "footprint.live_multiply_accumulates", "count", -1),
    ("  with weights that are not 0", "footprint.nonzero_multiply_accumulates", "count", -1),
)


@dataclasses.dataclass(frozen=True, eq=False)
class ModelReport:
    """All about one of the two models.

    Attributes:
        name: what the caller calls it.
        behaviour: `Behaviour`, numbers on the test split.
        footprint: `Footprint`, size and work.
        ood: `scc_tf.metrics.OODReport`; None without OOD inputs.
        curves: `Curves`, what the figure shows.
    """

    name: str
    behaviour: Behaviour
    footprint: Footprint
    ood: OODReport | None
    curves: Curves


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CompressionReport(Report):
    """Two models compared; see `scc_tf.evaluate_compression`.

    Attributes:
        before, after: `ModelReport` of each.
        data_name: of the data set.
        class_names: one for each class.
        images: ``{"validation": …, "test": …, "out": …}``, how many examples there were; "out" only with OOD inputs.
        bins: of the calibration errors.
        agreement: share of the test set to which both give the same answer.
        newly_wrong: share that only the first model gets right.
        newly_right: share that only the second model gets right.
        examples: ``(E, ...)``, the single OOD inputs of the figure; None without any. Not in the JSON.
        notes: str each, what is missing or special about the numbers.
    """

    before: ModelReport
    after: ModelReport
    data_name: str
    class_names: tuple
    images: dict
    bins: int
    agreement: float
    newly_wrong: float
    newly_right: float
    examples: np.ndarray | None = dataclasses.field(repr=False)
    notes: tuple = ()

    totals = ("compression_ratio", "float32_ratio", "speedup", "nonzero_speedup")

    @property
    def compression_ratio(self):
        """float32 bytes of the first model over the whole file of the second; None without a file."""
        return self._ratio("float32_bytes", "stored_bytes")

    @property
    def float32_ratio(self):
        """float32 bytes of the first model over those of the second; None if that one has no parameters.

        What surgery has cut: it leaves a plain network, without a packed file. Zeros and short codes do not count.
        """
        return self._ratio("float32_bytes", "float32_bytes")

    @property
    def speedup(self):
        """Multiply-accumulates of the first model over those of the second without its dead channels, or None.

        A theoretical one: what a machine gains depends on the machine.
        """
        return self._ratio("multiply_accumulates", "live_multiply_accumulates")

    @property
    def nonzero_speedup(self):
        """Multiply-accumulates of the first model over those of the second with weights that are not 0, or None.

        What a machine can gain that skips single weights; few do.
        """
        return self._ratio("multiply_accumulates", "nonzero_multiply_accumulates")

    def _ratio(self, before, after):
        before, after = getattr(self.before.footprint, before), getattr(self.after.footprint, after)
        return before / after if before and after else None

    def save_figure(self, path: str | Path) -> None:
        """Draw the report on one page.

        Reliability and confidence of both models, risk against coverage, and what both make of single OOD inputs.

        Args:
            path: the PNG file to write; its name ends in .png.
        """
        from scc_tf.plots import compression_page  # here, so that matplotlib is loaded only where it draws

        compression_page(self, path)

    def parts(self):
        """A table with one row per number, before, after, and what has changed; then a summary and notes."""
        names, counts = (self.before.name, self.after.name), self.images
        line = f"{{:<40}}{''.join(f'{{:>{max(NARROWEST, len(name) + 2)}}}' for name in names)}{{:>18}}  {{}}"
        rows = [*self._section(f"Answers to {counts['test']:,} test images of {self.data_name}", ANSWERS)]
        rows += self._section(f"Calibration in {self.bins} bins", CALIBRATION)
        if self.before.ood:
            rows += self._section(f"{counts['out']:,} images out of distribution", CONFIDENCE)
            kinds = dict.fromkeys([*self.before.ood.scores, *self.after.ood.scores])
            for words, field, better in SEPARATION:
                for kind in kinds:
                    scores = [model.ood.scores.get(kind) for model in (self.before, self.after)]
                    values = [None if score is None else getattr(score, field) for score in scores]
                    rows.append(_row(f"{words} by {kind}", values, "percent", better))
        rows += self._section("Size and work", FOOTPRINT)
        yield Table(line, rows, head=("", *names, "change", ""))
        yield ""
        yield from self._summary()
        yield from (f"note: {note}" for note in self.notes)

    def _section(self, title, rows):
        yield ("",) * 5
        yield (title, "", "", "", "")
        for label, name, style, better in rows:
            yield _row(label, [operator.attrgetter(name)(model) for model in (self.before, self.after)], style, better)

    def _summary(self):
        yield (
            f"Same answer to {100 * self.agreement:.2f} % of the test images; "
            f"{100 * self.newly_wrong:.2f} % newly wrong, {100 * self.newly_right:.2f} % newly right."
        )
        parts = []
        if self.compression_ratio:
            factor = _times(self.compression_ratio, "smaller", "larger")
            parts.append(f"a file {factor} than {self.before.name} as float32")
        elif self.float32_ratio:
            parts.append(f"float32 ratio {self.float32_ratio:.2f} to {self.before.name} (no packed file)")
        work = {"without dead channels": self.speedup}
        if self.nonzero_speedup != self.speedup:
            work["with weights that are not 0"] = self.nonzero_speedup
        for which, ratio in work.items():
            if ratio and f"{ratio:.2f}" != "1.00":
                parts.append(f"{_times(ratio, 'fewer', 'more')} multiply-accumulates {which}")
        if parts:
            yield f"{self.after.name}: {', '.join(parts)}."
        if self.before.ood:
            yield (
                "Out of distribution, the test images are positive unless a row says otherwise; "
                "a false positive is an outsider that is accepted."
            )


def _row(label, values, style, better):
    """Cells of one number: label, before, after, change, verdict."""
    change, verdict = "", ""
    if None not in values:
        before, after = values
        change = {"percent": f"{100 * (after - before):+.2f} points", "number": f"{after - before:+.4f}"}.get(style)
        if change is None:
            change = _times(before / after, "less", "more", ".1f") if before and after and before != after else ""
        if abs(after - before) > SHIFT[style] and better:
            verdict = "better" if (after > before) == (better > 0) else "worse"
    styles = {"percent": lambda v: f"{100 * v:.2f} %", "number": "{:.4f}".format, "count": "{:,}".format}
    return (f"  {label}", *("-" if value is None else styles[style](value) for value in values), change, verdict)


def _times(ratio, less, more, digits=".2f"):
    factor, word = (ratio, less) if ratio >= 1 else (1 / ratio, more)
    return f"{factor:{digits if factor >= 1.95 else '.2f'}} times {word}"
