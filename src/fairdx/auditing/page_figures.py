"""The figures of an audit's page."""

from collections.abc import Mapping, Sequence
from math import isfinite
from xml.etree.ElementTree import Element

import numpy as np

from fairdx.auditing.result import AuditResult
from fairdx.auditing.result_curves import Curves
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.definitions import METRICS
from fairdx.report.figures import (
    Effects,
    Figure,
    Table,
    histogram_panel,
    largest_share,
    path_diagram,
    shorten,
    tenths,
)
from fairdx.report.numbers import NATS, POINTS, SIGNED_POINTS, Style, integer, style_of
from fairdx.report.svg import SERIES, Axis, Panel, add

_ON_DIAGRAM = 4
_ROC_POINTS = 120
_READ_AT = (0.05, 0.1, 0.2, 0.3, 0.5)
"""False-positive rates at which the ROC curves are read into the table."""


def shown_groups(result: AuditResult, name: str) -> list[str]:
    """The groups that charts show: all, or the largest where there are more than can be told apart."""
    about = result.attributes[name]
    largest = sorted(about.groups, key=lambda g: -about.groups[g])[:SERIES]
    return [g for g in about.groups if g in largest]


def forest(result: AuditResult, name: str) -> Figure:
    """Gaps and effects of an attribute with their intervals, in points; information in nats beside it."""
    points: list[tuple[str, Estimate]] = []
    nats: list[tuple[str, Estimate]] = []
    for metric, gap in result.gaps[name].items():
        if METRICS[metric].unit == "nats":
            nats.append((METRICS[metric].abbreviation, gap.estimate))
        elif METRICS[metric].best == 0.0:
            title = METRICS[metric].title + (" × 100" if style_of(metric) != POINTS else "")
            points.append((title, gap.estimate))
    for group, found in result.effects.get(name, {}).items():
        points.append((f"Direct effect, {group}", found["direct_effect"]))
    panels = [forest_panel(f"{name}: differences", points, POINTS, "percentage points", 620)]
    if nats:
        panels.append(forest_panel(f"{name}: information", nats, NATS, "nats", 620))
    reference = result.attributes[name].reference
    return Figure(
        "forest",
        f"Differences between groups of {name}",
        "Each mark is an estimate and each line its confidence interval; zero is fair. An interval "
        "that reaches zero "
        f"is no proof of fairness: it may only be wide. Direct effects are against {reference}.",
        panels,
        wide=True,
        columns=1,
    )


def forest_panel(
    title: str,
    rows: Sequence[tuple[str, Estimate]],
    style: Style,
    unit: str,
    width: int,
    left: float = 200,
) -> Element:
    """Estimates with their intervals, one below the other.

    Args:
        title: Above the panel.
        rows: Name and estimate of each.
        style: How they are written; its scale is that of the axis.
        unit: Of the axis.
        width: Of the drawing.
        left: Room for the names, about 6.5 a letter.
    """
    ends = [v * style.scale for _, e in rows for v in (e.low, e.value, e.high) if isfinite(v)]
    spoken = "; ".join(f"{n} {style(e.value)} ({style.interval(e.low, e.high)})" for n, e in rows)
    height = 70 + 26 * len(rows)
    axis = Axis.around(ends, unit)
    panel = Panel(
        axis,
        Axis(0, len(rows), "", lambda _: "", (0.0, float(len(rows)))),
        label=f"{title}, in {unit}. {spoken}",
        title=title,
        width=width,
        height=height,
        left=left,
    )
    panel.rule(0.0)
    for i, (row, e) in enumerate(rows):
        place = len(rows) - i - 0.5
        _, y = panel.at(axis.low, place)
        add(panel.svg, "text", shorten(row, int(left / 6.5)), x=left - 8, y=y + 4, class_="value end")
        if not isfinite(e.value):
            add(panel.svg, "text", "not defined", x=left + 8, y=y + 4, class_="tick start")
            continue
        if isfinite(e.low) and isfinite(e.high):
            (a, _), (b, _) = panel.at(e.low * style.scale, 0), panel.at(e.high * style.scale, 0)
            add(panel.svg, "path", d=f"M{a:.1f} {y:.1f}H{b:.1f}", class_="whisker s0")
        panel.marker(e.value * style.scale, place, 0)
    return panel.svg


def paths(result: AuditResult, name: str) -> Figure:
    """The path diagram with the effects of the groups most affected."""

    def size(group: str) -> float:
        value = result.effects[name][group]["direct_effect"].value
        return abs(value) if isfinite(value) else -1.0

    chosen = sorted(result.effects[name], key=size, reverse=True)[:_ON_DIAGRAM]
    only = len(result.effects[name]) == 1
    states = []
    for group in chosen:
        found = result.effects[name][group]
        words = [_effect(found[m]) for m in ("direct_effect", "indirect_effect", "total_effect")]
        states.append(Effects("" if only else shorten(group, 16), *words))
    reference = result.attributes[name].reference
    more = (
        ""
        if len(chosen) == len(result.effects[name])
        else f" The {len(chosen)} groups most affected are shown."
    )
    return Figure(
        "paths",
        f"How {name} reaches the decision",
        "The group changes the decision along two paths: through the disease being more or less "
        "frequent (indirect), "
        "and past it (direct), which should be zero. Effects are differences in the share decided "
        "positive between "
        f"{chosen[0] if only else 'a group'} and {reference}, in percentage points.{more}",
        [path_diagram(name, "true status", states)],
        wide=True,
        columns=1,
    )


def _effect(e: Estimate) -> str:
    return f"{SIGNED_POINTS.in_words(e.value)} ({SIGNED_POINTS.interval(e.low, e.high)})"


def discrimination(result: AuditResult, name: str) -> Figure:
    """ROC and calibration by group."""
    groups = shown_groups(result, name)
    curves = {g: result.curves[name][g] for g in groups}
    head = ("group", *(f"sensitivity at false-positive rate {x:g}" for x in _READ_AT), "AUC")
    rows = [
        [g, *_sensitivities(c), style_of("auroc")(result.by_group[name][g]["auroc"].value)]
        for g, c in curves.items()
    ]
    return Figure(
        "roc",
        f"Discrimination and calibration by {name}",
        "Left: share of the diseased found against share of the healthy called positive, as the "
        "threshold moves; "
        "nearer the upper left corner is better. Right: observed share with the disease, as a "
        "smooth curve with a 95 % band by patient, and in bins of the score with Wilson intervals; on the "
        "diagonal the score means what it says." + _largest(result, name, groups),
        [_roc(name, curves), _calibration(name, curves)],
        groups,
        Table(head, rows),
    )


def _largest(result: AuditResult, name: str, groups: Sequence[str]) -> str:
    every = len(result.attributes[name].groups)
    return "" if len(groups) == every else f" The {len(groups)} largest of {every} groups are shown."


def _sensitivities(curve: Curves) -> list[str]:
    fpr, tpr = np.array(curve.roc_fpr), np.array(curve.roc_tpr)
    if not (np.isfinite(fpr).all() and np.isfinite(tpr).all()):
        return ["–"] * len(_READ_AT)
    return [f"{np.interp(x, fpr, tpr):.1%}" for x in _READ_AT]


def _unit(label: str) -> Axis:
    return Axis(0, 1, label, "{:g}".format, (0, 0.25, 0.5, 0.75, 1))


def _roc(name: str, curves: Mapping[str, Curves]) -> Element:
    panel = Panel(
        _unit("false-positive rate"),
        _unit("true-positive rate"),
        label=f"ROC curves by {name}: {', '.join(curves)}. The table below reads them at five points.",
        title="ROC",
        height=330,
    )
    panel.diagonal()
    for series, curve in enumerate(curves.values()):
        keep = _thin(len(curve.roc_fpr), _ROC_POINTS)
        panel.line([curve.roc_fpr[i] for i in keep], [curve.roc_tpr[i] for i in keep], series)
    return panel.svg


def _thin(n: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist() if n else []


def _calibration(name: str, curves: Mapping[str, Curves]) -> Element:
    bins = "; ".join(
        f"{g}: "
        + ", ".join(
            f"{s:.2f} → {o:.2f}"
            for s, o in zip(c.calibration_score, c.calibration_observed, strict=True)
            if isfinite(o)
        )
        for g, c in curves.items()
    )
    panel = Panel(
        _unit("score"),
        _unit("observed share with the disease"),
        label=f"Calibration by {name}, score → observed share. {bins}",
        title="Calibration",
        height=330,
    )
    panel.diagonal()
    for series, c in enumerate(curves.values()):
        panel.band(c.smooth_score, c.smooth_low, c.smooth_high, series)
        panel.line(c.smooth_score, c.smooth_observed, series)
        for x, y, low, high in zip(
            c.calibration_score, c.calibration_observed, c.calibration_low, c.calibration_high, strict=True
        ):
            if isfinite(y):
                panel.whisker(x, low, high, series)
                panel.marker(x, y, series)
    return panel.svg


def scores(result: AuditResult, name: str) -> Figure:
    """Score distributions by group within each true status."""
    groups = shown_groups(result, name)
    both = [
        [np.array(getattr(result.curves[name][g], which)) for g in groups]
        for which in ("histogram_negative", "histogram_positive")
    ]
    top = largest_share([count for counts in both for count in counts])
    titles = [f"True status: {c}" for c in result.classes]
    panels = [
        histogram_panel(
            counts, names=groups, title=title, x_label="score", top=top, threshold=result.settings.threshold
        )
        for title, counts in zip(titles, both, strict=True)
    ]
    rows = [
        [f"{title}; {g}", integer(int(count.sum())), *tenths(count)]
        for title, counts in zip(titles, both, strict=True)
        for g, count in zip(groups, counts, strict=True)
    ]
    head = ("images", "number", *(f"{i / 10:.1f}–{(i + 1) / 10:.1f}" for i in range(10)))
    return Figure(
        "scores",
        f"Scores by {name} and true status",
        "Each outline is one group's share of images at each score, among images with the same true "
        "status; images "
        "right of the dashed line are decided positive. Where the outlines differ, the score says "
        "something about the "
        "group that the disease does not explain." + _largest(result, name, groups),
        panels,
        groups,
        Table(head, rows),
    )
