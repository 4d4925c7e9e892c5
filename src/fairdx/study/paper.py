"""The paper's own tables beside ours, and whether both move the same way.

The paper's figures are on other data; only the direction of a trend can be compared, never a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from io import StringIO
from numbers import Real
from typing import Literal

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.study.columns import COLUMNS, Column, is_whole, present
from fairdx.study.summary import VANILLA, Line, Mean, Summary, paired, short, shown

MARK = "the paper's own figures, on other data (MIMIC-CXR, CheXpert, TCGA-LUAD)"
"""Said wherever the paper's figures are shown."""

FILES = {
    "table1_main": "table1_main",
    "table2_backbones": "table2_models",
    "table2_models": "table2_models",
    "table3_eta": "table3_eta",
    "table4_alpha": "table4_alpha",
    "table5_beta": "table5_beta",
}
"""Files of `paper_tables` by the name that a study gives."""

CLEAR = 0.5
"""Spearman's rank correlation from which a trend is called one."""

Direction = Literal["rises", "falls", "moves both ways"]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        number: Its number there.
        setting: What its second column varies: method, backbone, eta, alpha or beta.
        rows: `dataset`, `setting` and the metrics in the paper's units.
    """

    number: int
    setting: str
    rows: pd.DataFrame

    @property
    def columns(self) -> list[Column]:
        """Our columns that the paper has too."""
        return [c for c in COLUMNS if c.paper in self.rows]


@cache
def paper_table(mirrors: str) -> PaperTable:
    """Reads a table of the paper.

    Args:
        mirrors: Its name: a key of `FILES`.

    Raises:
        InputError: There is no such table.
    """
    if mirrors not in FILES:
        raise InputError(f"the paper has no table `{mirrors}` to mirror, only {', '.join(FILES)}")
    text = files("fairdx.study").joinpath("paper_tables", f"{FILES[mirrors]}.csv").read_text("utf-8")
    rows = pd.read_csv(StringIO(text))
    return PaperTable(int(mirrors[5]), str(rows.columns[1]), rows)


def direction(values: Sequence[float], means: Sequence[float]) -> Direction:
    """Whether means rise or fall with values: the sign of Spearman's correlation, if it is clear."""
    order = pd.DataFrame({"x": values, "y": means}).rank()
    correlation = order["x"].corr(order["y"])
    if not abs(correlation) >= CLEAR:
        return "moves both ways"
    return "rises" if correlation > 0 else "falls"


def trends(summary: Summary, mirrors: str | None = None) -> list[str]:
    """Sentences on how each metric moves over a varied number, ours beside the paper's.

    Args:
        summary: The study.
        mirrors: The table of the paper that it mirrors, if any.

    Returns:
        One sentence for each numeric setting, data set, method and metric; none where a setting has fewer
        than three values, or others vary beside it.
    """
    table = None if mirrors is None else paper_table(mirrors)
    found: list[str] = []
    if len(summary.varied) != 1:
        return found
    for lines in _series(summary):
        of = f"{lines[0].data}, {lines[0].method}, {short(summary.varied[0])}"
        compared = table if table is not None and _comparable(summary, lines[0].method, table) else None
        zero = _unmasked(summary, lines) if compared is not None and compared.setting == "eta" else []
        found += [
            f"{column.title} ({of}): {_sentence(column, [*zero, *lines], compared)}"
            for column in present(lines)
        ]
    return found


def _comparable(summary: Summary, method: str, table: PaperTable) -> bool:
    """Whether a curve is of the paper's setting and method: by its name, or as the only one."""
    own = [m for m in summary.methods if m.casefold() != VANILLA]
    named = "fair_diagnosis" in method.casefold().replace(" ", "_")
    return table.setting == short(summary.varied[0]) and (named or own == [method])


def _unmasked(summary: Summary, lines: Sequence[Line]) -> list[Line]:
    """Vanilla as eta = 0, as it is in the paper's table."""
    found = [line for line in summary.of(lines[0].data) if line.method.casefold() == VANILLA]
    if len(found) != 1 or any(line.values[0] == 0 for line in lines):
        return []
    return [replace(found[0], values=(0.0,))]


def _series(summary: Summary) -> list[list[Line]]:
    """The lines of each data set and method that have a number as their value, at least three."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in summary.lines:
        if isinstance(line.values[0], Real) and not isinstance(line.values[0], bool):
            found.setdefault((line.data, line.method), []).append(line)
    return [lines for lines in found.values() if len(lines) >= 3]


def _sentence(column: Column, lines: Sequence[Line], table: PaperTable | None) -> str:
    known = [line for line in lines if is_whole(line, column)]
    if len(known) < 3:
        return "fewer than three values of which no run is missing."
    lost = [shown(line.values[0]) for line in lines if not is_whole(line, column)]
    means = [line.estimates[column.metric].value for line in known]
    ours = direction([line.values[0] for line in known], means)
    change = paired(known[-1].table[column.metric], known[0].table[column.metric])
    ends = f"{column.text(means[0])} → {column.text(means[-1])} {column.unit}"
    without = f", without {', '.join(lost)}, of which runs are missing" if lost else ""
    text = f"ours {ours}, {ends}{_change(column, change)}{without}"
    if table is None or column.paper not in table.rows:
        return f"{text}."
    theirs = {
        str(name): (direction(rows[table.setting].tolist(), rows[column.paper].tolist()), rows[column.paper])
        for name, rows in table.rows.groupby("dataset", sort=False)
    }
    parts = [f"{way} on {name} ({y.iloc[0]:.2f} → {y.iloc[-1]:.2f})" for name, (way, y) in theirs.items()]
    same = sum(way == ours for way, _ in theirs.values())
    return f"{text}; the paper's {', '.join(parts)}: {_agreement(same, len(theirs), ours)}."


def _change(column: Column, change: Mean) -> str:
    ends = column.interval(change)
    return f" (change {column.text(change.value)}, {ends}, paired by seed)" if ends else ""


def _agreement(same: int, of: int, ours: Direction) -> str:
    if ours == "moves both ways":
        return "no clear trend of ours to compare"
    if same == of:
        return "same direction"
    return f"same direction on {same} of {of}" if same else "not the same direction"


def paper_rows(table: PaperTable) -> tuple[list[str], list[list[str]]]:
    """Head and cells of a table of the paper, in the order of our columns."""
    head = ["Data", table.setting.capitalize(), *(f"{c.title}, {c.unit}" for c in table.columns)]
    cells = [
        [str(row["dataset"]), shown(row[table.setting]), *(f"{row[str(c.paper)]:.2f}" for c in table.columns)]
        for _, row in table.rows.iterrows()
    ]
    return head, cells
