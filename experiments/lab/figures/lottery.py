"""Lottery tickets in pictures: what each protocol keeps as more and more is pruned."""

import os

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lab.figures.fields import fields, numbers
from scc_tf.plots.canvas import BLUE, DASHED, GREY, INK, ORANGE, drawing

__all__ = ["lottery_calibration", "lottery_curves", "lottery_ood"]

_PROTOCOLS = {  # protocol -> colour, marker, words
    "one_shot": (BLUE, "o", "one-shot, fine-tuned"),
    "winning_ticket": (ORANGE, "^", "winning ticket (rewound)"),
    "iterative": ("#009E73", "D", "iterative, rewound"),
    "random_reinit": ("#CC79A7", "s", "re-initialized at random"),
    "random_pruning": (GREY, "v", "random pruning, fine-tuned"),
}
_CURVES = (  # field, title, factor
    ("test_accuracy", "test accuracy (%)", 100),
    ("epochs", "epochs to the lowest validation loss", 1),
    ("ece_10", "ECE, 10 bins (%)", 100),
    ("uce", "UCE, 15 bins (%)", 100),
)
_CALIBRATION = (
    ("ece_15", "ECE, 15 bins (%)", 100),
    ("ece_15_scaled", "ECE after temperature scaling (%)", 100),
    ("nll", "negative log-likelihood (nats)", 1),
    ("nll_scaled", "the same after temperature scaling (nats)", 1),
)
_OOD = (
    ("auroc_probability", "AUROC by top probability (%)", 100),
    ("auroc_energy", "AUROC by energy (%)", 100),
    ("fpr95_probability", "FPR at 95 % TPR by top probability (%)", 100),
    ("confidence_ood", "mean confidence out of distribution (%)", 100),
)


def lottery_curves(record: dict, path: str | os.PathLike) -> None:
    """Draw accuracy, epochs of early stopping, ECE and UCE against the ratio, with sample deviations over seeds.

    The dense network is the point at 0, where all curves begin, and a dashed line.

    Args:
        record: under ``summary`` one dictionary per ``protocol`` and ``ratio``, the dense network's as protocol
            "dense"; each with ``[mean, sample deviation or None]`` of ``test_accuracy``, ``epochs``, ``ece_10`` and
            ``uce``. Of ``config``, if it is there, ``structure`` names what was pruned.
        path: the PNG file to write.

    Raises:
        ValueError: if a field is missing, a protocol is unknown, or there is no dense network.
    """
    _draw(record, path, _CURVES)


def lottery_calibration(record: dict, path: str | os.PathLike) -> None:
    """Draw how honest the networks are before and after their temperature is fitted on validation.

    Args:
        record: as for `lottery_curves`, with ``ece_15``, ``ece_15_scaled``, ``nll`` and ``nll_scaled``.
        path: the PNG file to write.

    Raises:
        ValueError: as for `lottery_curves`.
    """
    _draw(record, path, _CALIBRATION)


def lottery_ood(record: dict, path: str | os.PathLike) -> None:
    """Draw how well images from elsewhere are told apart, and how sure the networks are of them.

    Args:
        record: as for `lottery_curves`, with ``auroc_probability``, ``auroc_energy``, ``fpr95_probability`` and
            ``confidence_ood``.
        path: the PNG file to write.

    Raises:
        ValueError: as for `lottery_curves`.
    """
    _draw(record, path, _OOD)


def _draw(record, path, panels):
    (rows,) = fields(record, "summary")
    names = np.array([fields(row, "protocol")[0] for row in rows])
    if unknown := {str(name) for name in names} - {*_PROTOCOLS, "dense"}:
        raise ValueError(f"Expected the protocols {', '.join(_PROTOCOLS)}. Received: {', '.join(sorted(unknown))}")
    if "dense" not in names:
        raise ValueError("Expected the dense network among the rows. Received: none of protocol 'dense'")
    (ratios,) = numbers(rows, "ratio")
    drawn = [name for name in _PROTOCOLS if name in names]
    with drawing(path, 9.4, 7.0, dpi=115) as figure:
        for axes, (field, title, factor) in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
            pairs = [(mean, deviation or 0.0) for mean, deviation in (fields(row, field)[0] for row in rows)]
            means, deviations = factor * np.array(pairs, float).T
            axes.axhline(means[names == "dense"][0], color=INK, linewidth=1.2, linestyle=DASHED)
            for place, name in enumerate(drawn):
                color, marker, _ = _PROTOCOLS[name]
                own = np.flatnonzero((names == name) | (names == "dense"))
                own = own[np.argsort(ratios[own], kind="stable")]
                aside = 0.006 * (place - (len(drawn) - 1) / 2) * (ratios[own] > 0)  # bars side by side
                look = {"marker": marker, "ms": 5.5, "mec": "white", "mew": 0.6, "lw": 1.6, "elinewidth": 1.0}
                axes.errorbar(100 * (ratios[own] + aside), means[own], deviations[own], color=color, capsize=2, **look)
            low, high = axes.get_ylim()  # deviations may reach beyond what there can be
            axes.set_ylim(max(low, 0), min(high, 100) if factor == 100 else high)
            axes.set_title(title, fontsize=11.5)
            axes.xaxis.set_major_locator(MaxNLocator(10, steps=(1, 2, 5, 10)))
            axes.yaxis.set_major_locator(MaxNLocator(6))
        single = record.get("config", {}).get("structure") == "unstructured"
        figure.supxlabel(f"pruned (% of {'all weights' if single else 'the neurons of every layer'})", fontsize=11)
        looks = [_PROTOCOLS[name] for name in drawn]
        handles = [Line2D([], [], color=color, marker=marker, ms=6, label=words) for color, marker, words in looks]
        handles.append(Line2D([], [], color=INK, linewidth=1.2, linestyle=DASHED, label="dense"))
        figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.8)
