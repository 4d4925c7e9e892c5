"""The threshold explorer: tables whose every figure follows the operating point, and charts over it.

Every figure that moves is a series over the thresholds. The page holds the series as JSON, and its script
(`templates/explorer.js`) writes the entry at the slider's place into the cells that name the series. Without
a script the tables show the audit's own threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

from fairdx.auditing.page_figures import shown_groups
from fairdx.auditing.page_tables import described
from fairdx.auditing.result import AuditResult
from fairdx.auditing.result_curves import Explorer, Series
from fairdx.metrics.definitions import METRICS
from fairdx.report.figures import Figure
from fairdx.report.numbers import Style, shortened, style_of, unit_of
from fairdx.report.page import json_for_script
from fairdx.report.svg import SERIES, Axis, Panel

MOST_GROUPS = 30
"""Groups of an attribute with series of their own; the largest, if there are more."""

_CHART_POINTS = 60


@dataclass(frozen=True)
class Moving:
    """A figure that follows the threshold: its series, and its text at the audit's threshold."""

    series: int
    value: str
    ends: str


@dataclass(frozen=True)
class MovingRow:
    """A line of a table of moving figures."""

    name: str
    below: str
    cells: Sequence[Moving]


@dataclass(frozen=True)
class MovingTable:
    """A table of moving figures."""

    caption: str
    head: Sequence[str]
    rows: Sequence[MovingRow]


@dataclass(frozen=True)
class Part:
    """What the explorer shows of one attribute."""

    name: str
    tables: Sequence[MovingTable]
    figure: Figure
    left_out: int
    intersection: bool


@dataclass(frozen=True)
class ExplorerView:
    """The explorer of a binary audit, ready for the template.

    Attributes:
        identifier: Unique in the page.
        last: Index of the last threshold.
        start: Index of the audit's threshold.
        threshold: The audit's threshold as text.
        parts: By attribute.
        data: The series as JSON.
        n_replicates: Behind the intervals.
    """

    identifier: str
    last: int
    start: int
    threshold: str
    parts: Sequence[Part]
    data: Markup
    n_replicates: int


@dataclass
class _Collector:
    """Numbers the series and keeps what the script needs of them."""

    start: int
    series: list[dict[str, Any]] = field(default_factory=list)

    def take(self, metric: str, series: Series) -> Moving:
        style = style_of(metric)
        ends = [_rounded(series.low), _rounded(series.high)]
        self.series.append({"v": _rounded(series.value), "l": ends[0], "h": ends[1], "f": _format(style)})
        at = self.start
        shown = style(series.value[at]), style.interval(series.low[at], series.high[at])
        return Moving(len(self.series) - 1, *shown)


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [shortened(v) if isfinite(v) else None for v in values]


def _format(style: Style) -> list[Any]:
    return [style.scale, style.digits, int(style.signed)]


def explorer_view(result: AuditResult, identifier: str, names: Sequence[str]) -> ExplorerView:
    """Prepare the explorer.

    Args:
        result: A binary audit.
        identifier: Unique in the page.
        names: Attributes to explore; at least one.

    Returns:
        Tables, charts and data.
    """
    first = result.explorer[names[0]]
    threshold = result.settings.threshold or 0.0
    start = min(range(len(first.thresholds)), key=lambda i: abs(first.thresholds[i] - threshold))
    collector = _Collector(start)
    parts = [_part(result, name, collector) for name in names]
    data = {
        "thresholds": [shortened(t) for t in first.thresholds],
        "start": start,
        "series": collector.series,
    }
    return ExplorerView(
        identifier,
        len(first.thresholds) - 1,
        start,
        f"{first.thresholds[start]:.4g}",
        parts,
        json_for_script(data),
        first.n_replicates,
    )


def _part(result: AuditResult, name: str, collector: _Collector) -> Part:
    explorer, about = result.explorer[name], result.attributes[name]
    largest = sorted(explorer.rates, key=lambda g: -about.groups[g])[:MOST_GROUPS]
    groups = [g for g in explorer.rates if g in largest]
    rates = list(explorer.rates[groups[0]])
    tables = [
        MovingTable(
            f"Rates within groups of {name}",
            ["Group", *(f"{METRICS[m].title}, {unit_of(m)}" for m in rates)],
            [MovingRow(g, "", [collector.take(m, explorer.rates[g][m]) for m in rates]) for g in groups],
        )
    ]
    if explorer.gaps:
        rows = [MovingRow(*described(m), [collector.take(m, s)]) for m, s in explorer.gaps.items()]
        tables.append(MovingTable(f"Between groups of {name}", ["Difference", "Value"], rows))
    compared = [g for g in groups if g in explorer.effects]
    if compared:
        names = list(explorer.effects[compared[0]])
        rows = [
            MovingRow(g, "", [collector.take(m, explorer.effects[g][m]) for m in names]) for g in compared
        ]
        head = ["Group", *(f"{METRICS[m].title}, points" for m in names)]
        tables.append(MovingTable(f"Effects against {about.reference}", head, rows))
    return Part(name, tables, _figure(result, name), len(explorer.rates) - len(groups), about.intersection)


def _figure(result: AuditResult, name: str) -> Figure:
    explorer, groups = result.explorer[name], shown_groups(result, name)
    panels = [
        _panel(explorer, METRICS[m].title, m, {i: explorer.rates[g][m] for i, g in enumerate(groups)})
        for m in ("tpr", "fpr")
    ]
    if explorer.gaps:
        metric = "equalized_odds_difference"
        panels.append(_panel(explorer, METRICS[metric].title, metric, {6: explorer.gaps[metric]}))
    effects = {i: explorer.effects[g]["direct_effect"] for i, g in enumerate(groups) if g in explorer.effects}
    if effects:
        reference = result.attributes[name].reference
        panels.append(_panel(explorer, f"Direct effect against {reference}", "direct_effect", effects))
    return Figure(
        "explorer",
        f"Over the threshold: {name}",
        "How the rates and differences move with the threshold; shaded: intervals at each threshold. "
        "The dashed line "
        "is the threshold chosen above.",
        panels,
        groups,
    )


def _panel(explorer: Explorer, title: str, metric: str, lines: Mapping[int, Series]) -> Element:
    style = style_of(metric)
    step = max(1, len(explorer.thresholds) // _CHART_POINTS)
    keep = sorted({*range(0, len(explorer.thresholds), step), len(explorer.thresholds) - 1})
    xs = [explorer.thresholds[i] for i in keep]
    scaled = {
        s: [[getattr(one, end)[i] * style.scale for i in keep] for end in ("value", "low", "high")]
        for s, one in lines.items()
    }
    values = [v for ends in scaled.values() for part in ends for v in part]
    panel = Panel(
        Axis(0, 1, "threshold", "{:g}".format, (0, 0.25, 0.5, 0.75, 1)),
        Axis.around(values, unit_of(metric)),
        label=f"{title} over the threshold; the tables above give its figures at the chosen one",
        title=title,
    )
    for series, (value, low_end, high_end) in scaled.items():
        panel.band(xs, low_end, high_end, series % SERIES)
        panel.line(xs, value, series % SERIES)
    rule = panel.rule(0.0)
    rule.set("data-span", f"{panel.right - panel.left:.1f}")
    return panel.svg
