"""The figures of a run's page."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdx.metrics.definitions import METRICS
from fairdx.report.figures import (
    Effects,
    Figure,
    Table,
    histogram_panel,
    largest_share,
    path_diagram,
    score_counts,
    tenths,
)
from fairdx.report.numbers import integer
from fairdx.report.svg import SERIES, Axis, Panel
from fairdx.runs.folder import RunFolder
from fairdx.runs.words import effect_text, method_title

_MOST_CLASSES = 6


def run_figures(run: RunFolder) -> dict[str, Figure]:
    """The figures of a run by name: paths, and scores where the run has any."""
    made = [_paths(run), _scores(run)]
    return {figure.name: figure for figure in made if figure is not None}


def _state(run: RunFolder, method: str) -> str:
    if len(run.methods) == 1:
        return ""
    if len(run.methods) > 2:
        return method_title(method)
    return "before" if method == run.methods[0] else "after"


def _paths(run: RunFolder) -> Figure:
    names = ("direct_effect", "indirect_effect", "total_effect")
    effects = [
        Effects(_state(run, m), *(effect_text(run.estimate(m, name)) for name in names)) for m in run.methods
    ]
    rows = [[e.state or method_title(run.methods[0]), e.direct, e.indirect, e.total] for e in effects]
    return Figure(
        "paths",
        "How the group reaches the decision",
        "The group changes the decision along two paths. The indirect one is the disease itself "
        "being more or less "
        "frequent; the direct one should be zero. Effects are differences in the share decided positive, in "
        f"percentage points against {run.data['reference']}.",
        [path_diagram(run.data["attribute"], run.data["label"], effects)],
        table=Table(("model", "direct effect", "indirect effect", "total effect"), rows),
        wide=True,
        columns=1,
    )


def _scores(run: RunFolder) -> Figure | None:
    classes, groups = run.data["classes"], run.data["groups"][:SERIES]
    binary = len(classes) == 2
    drawn: list[tuple[str, str, float | None, list[NDArray[np.int64]]]] = []
    for code in range(min(len(classes), _MOST_CLASSES)):
        for method in run.methods:
            table = run.test_rows(method)
            column = "score" if binary else f"score_{classes[code]}"
            if column not in table:
                return None
            state = _state(run, method)
            title = f"{run.data['label']}: {classes[code]}{', ' + state if state else ''}"
            threshold = run.results["methods"][method].get("threshold")
            drawn.append((title, column, threshold, _counts(run, table, code, column, groups)))
    top = largest_share([c for *_, counts in drawn for c in counts])
    panels = [
        histogram_panel(
            counts,
            names=groups,
            title=title,
            x_label=column.replace("_", " ", 1),
            top=top,
            threshold=threshold,
        )
        for title, column, threshold, counts in drawn
    ]
    rows = [
        [f"{title}; {group}", integer(int(count.sum())), *tenths(count)]
        for title, _, _, counts in drawn
        for group, count in zip(groups, counts, strict=True)
    ]
    edges = [f"{i / 10:.1f}–{(i + 1) / 10:.1f}" for i in range(10)]
    return Figure(
        "scores",
        "Scores by group and true status",
        "Each outline is one group's share of images at each score, among images with the same true "
        "status. If the "
        "model is fair in the sense of this page, the outlines of the groups lie on one another."
        + (" Images right of the dashed line are decided positive." if binary else ""),
        panels,
        groups,
        Table(("images", "number", *edges), rows),
        columns=len(run.methods),
    )


def _counts(
    run: RunFolder, table: pd.DataFrame, code: int, column: str, groups: Sequence[str]
) -> list[NDArray[np.int64]]:
    label = table["label"] == code
    group = table[run.data["attribute"]].astype(str)
    return [score_counts(table.loc[label & (group == str(g)), column].to_numpy(dtype=float)) for g in groups]


def training_figures(run: RunFolder) -> list[Figure]:
    """One figure per stage: its loss terms and validation scores by epoch; none where nothing was trained."""
    made: list[Figure] = []
    if run.history.empty:
        return made
    for stage, table in run.history.groupby("stage", sort=False):
        epochs = table["epoch"].to_numpy(dtype=float)
        curves = {
            str(column): values.to_numpy(dtype=float)
            for column in table.columns.drop(["stage", "epoch", "kept"])
            if (values := pd.to_numeric(table[column], errors="coerce")).notna().any()
        }
        if curves:
            kept = epochs[table["kept"].to_numpy(dtype=bool)]
            made.append(_stage(str(stage), epochs, curves, int(kept[0])))
    return made


def _stage(
    stage: str, epochs: NDArray[np.float64], curves: dict[str, NDArray[np.float64]], kept: int
) -> Figure:
    known = {column: y[~np.isnan(y)] for column, y in curves.items()}
    rows = [[_curve_title(column), f"{y[0]:.4g}", f"{y[-1]:.4g}"] for column, y in known.items()]
    return Figure(
        f"training_{stage}",
        f"Stage “{_plain(stage)}”",
        "By epoch; epoch 0 is before the stage's first step. Solid: scores on validation images, and the "
        "ADF over operating points that a mask's epoch is judged by, on training images too where those are "
        f"few; dashed: loss terms. The weights kept are those of epoch {kept}.",
        [_history_panel(column, epochs, y) for column, y in curves.items()],
        table=Table(("curve", "first", "last"), rows),
        columns=3,
    )


def _curve_title(column: str) -> str:
    """`player/term` in words; validation scores by the abbreviations of their metrics."""
    owner, _, term = column.partition("/")
    if term in METRICS:
        return f"{_plain(owner)}: {METRICS[term].abbreviation}"
    return f"{_plain(owner)}: {_plain(term)}"


def _history_panel(column: str, epochs: NDArray[np.float64], values: NDArray[np.float64]) -> Element:
    known = ~np.isnan(values)
    x, y = epochs[known], values[known]
    span = Axis(0, max(1.0, float(epochs.max())), "epoch", "{:g}".format, _epoch_ticks(int(epochs.max())))
    title = _curve_title(column)
    panel = Panel(
        span,
        Axis.around(y.tolist(), "", "{:.4g}".format, zero=False),
        label=f"{title} by epoch, from {y[0]:.4g} to {y[-1]:.4g}",
        title=title,
        width=320,
        height=190,
    )
    style = 0 if column.startswith(("validation/", "judged/")) else 1
    panel.line(x.tolist(), y.tolist(), style)
    if len(x) < 20:
        for a, b in zip(x, y, strict=True):
            panel.marker(float(a), float(b), style)
    return panel.svg


def _epoch_ticks(last: int) -> tuple[float, ...]:
    step = max(1, -(-last // 6))
    return tuple(float(e) for e in range(0, max(last, 1) + 1, step))


def _plain(name: str) -> str:
    return name.replace("_", " ")
