"""A comparison as text."""

import dataclasses
import operator
from collections.abc import Callable

__all__ = ["table"]

COLUMNS = "{:<40}{:>%d}{:>%d}{:>18}  {}"  # filled with the widths of the models' columns, then with a line's words
NARROWEST = 14  # width of a model's column
SHIFT = 0.005  # points below which a change is none, at two decimals


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of both models.

    Attributes:
        label: what stands on the left.
        value: function ``ModelReport -> number or None``.
        style: ``"percent"``, ``"number"`` or ``"count"``.
        better: 1 if more is better, -1 if less is, 0 if neither.
    """

    label: str
    value: Callable
    style: str
    better: int = 0


def _ood_rows(kinds):
    confidences = [
        Row("mean confidence on test images", operator.attrgetter("ood.confidence_in"), "percent"),
        Row("mean confidence outside", operator.attrgetter("ood.confidence_out"), "percent", -1),
        Row("difference of the two", operator.attrgetter("ood.confidence_shift"), "percent", 1),
    ]
    measures = {
        "AUROC": ("auroc", 1),
        "AUPR": ("aupr_in", 1),
        "AUPR, outside positive,": ("aupr_out", 1),
        "FPR at 95 % TPR": ("fpr95", -1),
    }
    return confidences + [
        Row(f"{words} by {kind}", _score(kind, field), "percent", better)
        for words, (field, better) in measures.items()
        for kind in kinds
    ]


def _score(kind, field):
    def value(model):
        scores = model.ood.scores.get(kind)
        return None if scores is None else getattr(scores, field)

    return value


def _behaviour(label, field, style, better=0):
    return Row(label, operator.attrgetter(f"behaviour.{field}"), style, better)


def _footprint(label, field):
    return Row(label, operator.attrgetter(f"footprint.{field}"), "count", -1)


ANSWERS = (
    _behaviour("accuracy", "accuracy", "percent", 1),
    _behaviour("negative log-likelihood, nats", "negative_log_likelihood", "number", -1),
    _behaviour("Brier score", "brier_score", "number", -1),
    _behaviour("area under risk-coverage", "risk_coverage_area", "number", -1),
)
CALIBRATION = (
    _behaviour("ECE, equal width", "expected_calibration_error", "percent", -1),
    _behaviour("ECE, equal mass", "expected_calibration_error_mass", "percent", -1),
    _behaviour("MCE", "maximum_calibration_error", "percent", -1),
    _behaviour("UCE", "uncertainty_calibration_error", "percent", -1),
    _behaviour("temperature (validation)", "temperature", "number"),
    _behaviour("ECE after temperature scaling", "scaled_calibration_error", "percent", -1),
    _behaviour("NLL after temperature scaling", "scaled_negative_log_likelihood", "number", -1),
)
FOOTPRINT = (
    _footprint("float32 bytes", "float32_bytes"),
    _footprint("packed file, bytes", "stored_bytes"),
    _footprint("parameters", "parameters"),
    _footprint("  without dead channels", "live_parameters"),
    _footprint("  that are not 0", "nonzero_parameters"),
    _footprint("multiply-accumulates", "multiply_accumulates"),
    _footprint("  without dead channels", "live_multiply_accumulates"),
    _footprint("  with weights that are not 0", "nonzero_multiply_accumulates"),
)


def table(report):
    """The whole report as lines of text.

    Args:
        report: `CompressionReport`.

    Returns:
        str: sections of rows ``label, before, after, change, better or worse``, then summary and notes.
    """
    models = report.before, report.after
    counts = report.images
    columns = COLUMNS % tuple(max(NARROWEST, len(model.name) + 2) for model in models)
    sections = {
        f"Answers to {counts['test']:,} test images of {report.data_name}": ANSWERS,
        f"Calibration in {report.bins} bins": CALIBRATION,
    }
    if report.before.ood:
        kinds = dict.fromkeys([*report.before.ood.scores, *report.after.ood.scores])
        sections[f"{counts['out']:,} images out of distribution"] = _ood_rows(kinds)
    sections["Size and work"] = FOOTPRINT
    lines = [columns.format("", *(model.name for model in models), "change", "").rstrip()]
    for title, rows in sections.items():
        lines += ["", title, *(_line(columns, row, *map(row.value, models)) for row in rows)]
    return "\n".join([*lines, "", *_summary(report), *(f"note: {note}" for note in report.notes)])


def _line(columns, row, before, after):
    change, sign = ("", 0) if None in (before, after) else CHANGES[row.style](before, after)
    verdict = {1: "better", -1: "worse", 0: ""}[sign * row.better]
    cells = [_cell(value, row.style) for value in (before, after)]
    return columns.format(f"  {row.label}", *cells, change, verdict).rstrip()


def _cell(value, style):
    if value is None:
        return "-"
    return {"percent": f"{100 * value:.2f} %", "number": f"{value:.4f}", "count": f"{value:,}"}[style]


def _points(before, after):
    change = 100 * (after - before)
    return f"{change:+.2f} points", _sign(change, SHIFT)


def _difference(before, after):
    return f"{after - before:+.4f}", _sign(after - before, 0.00005)


def _factor(before, after):
    if before == after or not before or not after:
        return "", _sign(after - before, 0)
    less = after < before
    factor = before / after if less else after / before
    return f"{factor:.{1 if factor >= 1.95 else 2}f} times {'less' if less else 'more'}", -1 if less else 1


def _sign(change, least):
    return 0 if abs(change) <= least else (1 if change > 0 else -1)


CHANGES = {"percent": _points, "number": _difference, "count": _factor}


def _times(ratio, less, more):
    return f"{ratio:.2f} times {less}" if ratio >= 1 else f"{1 / ratio:.2f} times {more}"


def _summary(report):
    yield (
        f"Same answer to {100 * report.agreement:.2f} % of the test images; "
        f"{100 * report.newly_wrong:.2f} % newly wrong, {100 * report.newly_right:.2f} % newly right."
    )
    parts = []
    if report.compression_ratio:
        factor = _times(report.compression_ratio, "smaller", "larger")
        parts.append(f"a file {factor} than {report.before.name} as float32")
    elif report.float32_ratio:
        parts.append(f"float32 ratio {report.float32_ratio:.2f} to {report.before.name} (no packed file)")
    work = [(report.speedup, "without dead channels")]
    if report.nonzero_speedup != report.speedup:
        work.append((report.nonzero_speedup, "with weights that are not 0"))
    for ratio, which in work:
        if ratio and f"{ratio:.2f}" != "1.00":
            parts.append(f"{_times(ratio, 'fewer', 'more')} multiply-accumulates {which}")
    if parts:
        yield f"{report.after.name}: {', '.join(parts)}."
    if report.before.ood:
        yield (
            "Out of distribution, the test images are positive unless a row says otherwise; "
            "a false positive is an outsider that is accepted."
        )
