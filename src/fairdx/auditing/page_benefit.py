"""The decision curves of the groups: net benefit at each threshold (Vickers and Elkin 2006)."""

import numpy as np

from fairdx.auditing.page_figures import shown_groups
from fairdx.auditing.result import AuditResult
from fairdx.auditing.result_curves import Explorer
from fairdx.metrics.benefit import benefit_of_everybody
from fairdx.metrics.inputs import Floats
from fairdx.report.figures import Figure, Table
from fairdx.report.numbers import UNDEFINED
from fairdx.report.svg import Axis, Panel

_READ_AT = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Thresholds at which the curves are read into the table."""

_HIGHEST = 0.9
"""Above it a false positive weighs so much that the curves say nothing."""


def _curve(explorer: Explorer, group: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Thresholds between 0 and `_HIGHEST`, the net benefit at each and the ends of its band."""
    thresholds, series = np.array(explorer.thresholds), explorer.benefit[group]
    keep = (thresholds > 0) & (thresholds <= _HIGHEST)
    value, low, high = (np.array(part, dtype=float)[keep] for part in (series.value, series.low, series.high))
    return thresholds[keep], value, low, high


def benefit_figure(result: AuditResult, name: str) -> Figure | None:
    """The decision curves of an attribute's groups; None if no threshold is explored.

    Args:
        result: A binary audit.
        name: The attribute.
    """
    groups, explorer = shown_groups(result, name), result.explorer[name]
    curves = {g: _curve(explorer, g) for g in groups}
    if min(len(at) for at, *_ in curves.values()) < 2:
        return None
    heights = [float(v) for _, values, *_ in curves.values() for v in values]
    floor = max(min(heights), -0.25 * max(*heights, 0.1))
    panel = Panel(
        Axis(0, 1, "threshold", "{:g}".format, (0, 0.25, 0.5, 0.75, 1)),
        Axis.around([floor, *(v for v in heights if v >= floor)], "net benefit"),
        label=f"Net benefit by {name}: {', '.join(groups)}. The table below reads it at five thresholds.",
        title="Net benefit",
        height=330,
    )
    for series, (at, values, low, high) in enumerate(curves.values()):
        shown = values >= floor
        panel.band(at[shown].tolist(), low[shown].tolist(), high[shown].tolist(), series)
        panel.line(at[shown].tolist(), values[shown].tolist(), series)
    everybody = {g: result.by_group[name][g]["prevalence"].value for g in groups}
    rows = [[g, *_read(*curves[g], everybody[g])] for g in groups]
    return Figure(
        "benefit",
        f"Net benefit by {name}",
        "True positives per image, less false positives with the weight t / (1 - t) that the threshold t "
        f"gives them; shaded: {result.settings.level:.0%} intervals at each threshold. 0 is to treat nobody. "
        "In the table, behind each value, what treating everybody would give: where it is higher, the model "
        "does not help this group at this threshold.",
        [panel.svg],
        groups,
        Table(("group", *(f"at {t:g}" for t in _READ_AT)), rows),
    )


def _read(at: Floats, values: Floats, low: Floats, high: Floats, prevalence: float) -> list[str]:
    """The curve at some thresholds, and what it would be if everybody were positive."""
    found = []
    for t in _READ_AT:
        everybody = float(benefit_of_everybody(prevalence, t))
        place = int(np.searchsorted(at, t, side="right")) - 1
        own = f"{values[place]:.3f}" if place >= 0 else UNDEFINED
        if place >= 0 and np.isfinite(low[place]):
            own += f", {low[place]:.3f} to {high[place]:.3f}"
        found.append(f"{own} (everybody {everybody:.3f})")
    return found
