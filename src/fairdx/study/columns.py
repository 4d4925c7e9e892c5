"""What tables and figures of a study show for reading, in the units of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

from fairdx.report.numbers import Style
from fairdx.study.summary import Line, Mean


@dataclass(frozen=True)
class Column:
    """A metric as it is read.

    Attributes:
        metric: Its name in the table of runs.
        title: Above the column.
        scale: Factor from the stored value to what is shown.
        unit: Of what is shown, as text.
        latex: The same for LaTeX.
        paper: Column of the paper's tables, if it is in them.
        higher: Whether higher is better; otherwise, whatever is nearer to 0.
        digits: Digits after the point.
    """

    metric: str
    title: str
    scale: float
    unit: str
    latex: str
    paper: str | None = None
    higher: bool = False
    digits: int = 2

    @property
    def signed(self) -> bool:
        """Whether it can be negative."""
        return self.metric.endswith("effect")

    def text(self, value: float) -> str:
        """A value in the column's unit."""
        return Style(self.scale, self.digits)(value)

    def possible(self, mean: Mean) -> Mean:
        """A mean whose interval is cut at what the metric can be: Student's knows of no ends."""
        low = mean.low if self.signed else max(mean.low, 0.0)
        return replace(mean, low=low, high=min(mean.high, 1.0) if self.higher else mean.high)

    def interval(self, mean: Mean) -> str:
        """An interval in the column's unit; empty if there is none."""
        if not (isfinite(mean.low) and isfinite(mean.high)):
            return ""
        return f"{self.text(mean.low)} to {self.text(mean.high)}"

    def loss(self, value: float) -> float:
        """How far from best, as it is shown: what rounds to the same is the same."""
        rounded = round(value * self.scale, self.digits)
        return -rounded if self.higher else abs(rounded)


def _points(metric: str, title: str, paper: str | None = None) -> Column:
    return Column(metric, title, 100, "10⁻²", r"$10^{-2}$", paper)


COLUMNS = (
    Column("auroc", "AUC", 100, "%", r"\%", "auc_percent", higher=True),
    Column("accuracy", "ACC", 100, "%", r"\%", "acc_percent", higher=True),
    _points("equal_opportunity_difference", "EO", "eo_e-2"),
    _points("demographic_parity_difference", "DP", "dp_e-2"),
    Column("approximate_diagnosis_fairness", "ADF", 1000, "10⁻³", r"$10^{-3}$", "adf_e-3"),
    _points("direct_effect", "DE"),
    _points("true_direct_effect", "true DE"),
)
"""The columns of a study's tables, in order."""


def present(lines: Sequence[Line]) -> list[Column]:
    """The columns that any of the lines has a value for."""
    return [c for c in COLUMNS if any(_has(line, c) for line in lines)]


def _has(line: Line, column: Column) -> bool:
    return column.metric in line.estimates and isfinite(line.estimates[column.metric].value)


def is_whole(line: Line, column: Column) -> bool:
    """Whether a line has a figure, and it is of all its runs: a mean of fewer compares with no other."""
    return _has(line, column) and line.complete and line.estimates[column.metric].n >= len(line.table)


def best(lines: Sequence[Line], column: Column) -> set[int]:
    """The lines with the best figure of a column; several where they are shown as the same.

    Lines with missing runs do not compete: a seed that diverged would only make the mean better. Nor do
    methods that use the group at test time. Of effects, which have a sign, the mean size over runs competes:
    effects of both signs cancel in a mean, and each of them is unfair to someone.

    Returns:
        Places in `lines`; none if fewer than two compete.
    """
    losses = {
        i: column.loss(_competing(line, column))
        for i, line in enumerate(lines)
        if is_whole(line, column) and not line.needs_group
    }
    if len(losses) < 2:
        return set()
    return {i for i, loss in losses.items() if loss == min(losses.values())}


def _competing(line: Line, column: Column) -> float:
    if column.signed:
        return float(line.table[column.metric].abs().mean())
    return line.estimates[column.metric].value
