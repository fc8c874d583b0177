"""What all reports have in common: text for people, HTML for notebooks, JSON for programs."""

import dataclasses
import html
import json

import numpy as np

__all__ = ["Report", "Table", "plain"]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells, a part of a report.

    Attributes:
        line: format of a line of text, such as ``"{:<28}{:>11}"``.
        rows: tuples of cells.
        head: headings, one for each cell; () for a table without.

    Example:
        >>> print(Table("{:<8}{:>5}", [("dense", 3)], head=("layer", "bits")))
        layer    bits
        dense       3
    """

    line: str
    rows: list
    head: tuple = ()

    def __str__(self):
        """A line for each row."""
        rows = [self.head, *self.rows] if self.head else self.rows
        return "\n".join(self.line.format(*row).rstrip() for row in rows)

    def _repr_html_(self):
        lines = [_html_row("th", self.head)] if self.head else []
        return f"<table>{''.join(lines + [_html_row('td', row) for row in self.rows])}</table>"


class Report:
    """Base of the reports, which are dataclasses with ``repr=False``: its ``repr`` is its text.

    A report says in `parts` what it consists of: lines of text and tables. Fields with ``repr=False`` are left out of
    the JSON; the properties that are named in ``totals`` are in it.
    """

    totals = ()

    def parts(self):
        """Lines and `Table` objects, from top to bottom."""
        raise NotImplementedError

    def __str__(self):
        """The report as text."""
        return "\n".join(str(part) for part in self.parts())

    def __repr__(self):
        """The same as ``str``: what an interactive session shows."""
        return str(self)

    def _repr_html_(self):
        return "".join(
            part._repr_html_() if isinstance(part, Table) else f"<div>{html.escape(part)}</div>"
            for part in self.parts()
        )

    def to_json(self):
        """All numbers as one JSON string."""
        return json.dumps({name: plain(getattr(self, name)) for name in self.totals} | plain(self))


def _html_row(tag, cells):
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell).strip())}</{tag}>' for cell in cells)}</tr>"


def plain(value):
    """What JSON can hold: dataclasses and named tuples as dictionaries, arrays as lists, NumPy's numbers as numbers."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else value
