"""Net benefit by group: what decisions at each threshold are worth (Vickers and Elkin 2006)."""

import numpy as np

from fairdx.auditing.page_figures import shown_groups
from fairdx.auditing.result import AuditResult, Explorer
from fairdx.metrics.inputs import Floats
from fairdx.report.figures import Figure, Table
from fairdx.report.svg import Axis, Panel

_READ_AT = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Thresholds at which the curves are read into the table."""

_HIGHEST = 0.9
"""Above it a false positive weighs so much that the curves say nothing."""


def net_benefit(explorer: Explorer, group: str) -> tuple[Floats, Floats]:
    """Net benefit of a group's decisions at each threshold.

    A threshold t says that a missed disease is (1 - t) / t times as bad as a false alarm, so the net benefit
    is TP / n - FP / n x t / (1 - t): true positives per image, less false positives with that weight.

    Args:
        explorer: Of the group's attribute.
        group: The group.

    Returns:
        Thresholds between 0 and `_HIGHEST`, and the net benefit at each of them.
    """
    thresholds = np.array(explorer.thresholds)
    keep = (thresholds > 0) & (thresholds <= _HIGHEST)
    n = explorer.negatives[group] + explorer.positives[group]
    found = np.array(explorer.selected_positives[group]) / n
    alarms = np.array(explorer.selected_negatives[group]) / n
    return thresholds[keep], (found - alarms * thresholds / (1 - np.minimum(thresholds, _HIGHEST)))[keep]


def benefit_figure(result: AuditResult, name: str) -> Figure | None:
    """The decision curves of an attribute's groups; None if no threshold is explored.

    Args:
        result: A binary audit.
        name: The attribute.
    """
    groups, explorer = shown_groups(result, name), result.explorer[name]
    curves = {g: net_benefit(explorer, g) for g in groups}
    if min(len(at) for at, _ in curves.values()) < 2:
        return None
    heights = [float(v) for _, values in curves.values() for v in values]
    floor = max(min(heights), -0.25 * max(*heights, 0.1))
    panel = Panel(
        Axis(0, 1, "threshold", "{:g}".format, (0, 0.25, 0.5, 0.75, 1)),
        Axis.around([floor, *(v for v in heights if v >= floor)], "net benefit"),
        label=f"Net benefit by {name}: {', '.join(groups)}. The table below reads it at five thresholds.",
        title="Net benefit",
        height=330,
    )
    for series, (at, values) in enumerate(curves.values()):
        shown = values >= floor
        panel.line(at[shown].tolist(), values[shown].tolist(), series)
    everybody = {g: explorer.positives[g] / (explorer.negatives[g] + explorer.positives[g]) for g in groups}
    rows = [[g, *_read(*curves[g], everybody[g])] for g in groups]
    return Figure(
        "benefit",
        f"Net benefit by {name}",
        "True positives per image, less false positives with the weight t / (1 - t) that the threshold t "
        "gives "
        "them. 0 is to treat nobody. In the table, behind each value, what treating everybody would give: "
        "where "
        "it is higher, the model does not help this group at this threshold.",
        [panel.svg],
        groups,
        Table(("group", *(f"at {t:g}" for t in _READ_AT)), rows),
    )


def _read(at: Floats, values: Floats, prevalence: float) -> list[str]:
    """The curve at some thresholds, and what it would be if everybody were positive."""
    found = []
    for t in _READ_AT:
        everybody = prevalence - (1 - prevalence) * t / (1 - t)
        place = int(np.searchsorted(at, t, side="right")) - 1
        own = f"{values[place]:.3f}" if place >= 0 else "–"
        found.append(f"{own} (everybody {everybody:.3f})")
    return found
