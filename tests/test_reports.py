"""What every report offers: text, HTML for notebooks, JSON."""

import dataclasses
import json

import numpy as np
import pytest

import scc_tf  # noqa: F401 (all reports are known then)
from scc_tf.reports import Report, Table


@dataclasses.dataclass(frozen=True, repr=False)
class Bits(Report):
    kernels: tuple
    curve: np.ndarray
    model: object = dataclasses.field(default=None, repr=False)

    totals = ("bits",)

    @property
    def bits(self):
        return np.int64(sum(bits for _, bits in self.kernels))

    def parts(self):
        return ["bits of two layers", Table("{:<6}{:>4}", self.kernels, head=("layer", "bits")), "a < b"]


REPORT = Bits((("one", 3), ("two", 12)), np.array([0.5, 1.0]), model=object())


def test_text_is_lines_and_tables():
    assert str(REPORT) == repr(REPORT) == "bits of two layers\nlayer bits\none      3\ntwo     12\na < b"


def test_notebooks_show_tables():
    shown = REPORT._repr_html_()
    assert "<tr><th>layer</th><th>bits</th></tr><tr><td>one</td><td>3</td></tr>" in shown
    assert "a &lt; b" in shown


def test_json_has_totals_and_fields_but_not_the_hidden_ones():
    assert json.loads(REPORT.to_json()) == {"bits": 15, "kernels": [["one", 3], ["two", 12]], "curve": [0.5, 1.0]}


@pytest.mark.parametrize("report", Report.__subclasses__(), ids=lambda report: report.__name__)
def test_every_report_shows_its_text(report):
    assert report.__repr__ is Report.__repr__
