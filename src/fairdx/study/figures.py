"""A study's figures: the trade-off of AUC and ADF, and each metric over what was varied."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pandas as pd

from fairdx.report.figures import Figure, Table, shorten
from fairdx.report.svg import SERIES, Axis, Panel, add, nice_ticks
from fairdx.study.columns import Column, present
from fairdx.study.summary import Line, Mean, Summary, short, shown
from fairdx.study.tables import write_files
from fairdx.study.tradeoff import tradeoff

MOST_PANELS = 4
"""Values of a second setting that get panels of their own."""
_CORE = ("auroc", "equal_opportunity_difference", "approximate_diagnosis_fairness", "true_direct_effect")
"""Metrics that are drawn where two settings vary."""


def write_figures(
    rows: pd.DataFrame, folder: Path, *, varied: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[Path]:
    """Writes `figures/*.svg`.

    Args:
        rows: The table of runs; see `fairdx.study.summary`.
        folder: The study's folder; made if needed.
        varied: Columns of the varied settings.
        seeds: The seeds that were planned.

    Returns:
        The files.

    Raises:
        InputError: The rows do not fit together, or the folder cannot be written to.
    """
    figures = make_figures(Summary(rows, varied, seeds))
    return write_files(folder, {f"figures/{figure.name}.svg": figure.file() for figure in figures})


def make_figures(summary: Summary) -> list[Figure]:
    """The figures of a study: for each data set a trade-off, and curves where one or two settings vary."""
    made: list[Figure | None] = []
    for data in summary.data:
        lines = [line for line in summary.of(data) if line.runs]
        made.append(tradeoff(lines, summary, f"tradeoff-{slug(data)}"))
        for varied, own in _varied_together(lines, summary.varied):
            made.append(_ablation(own, list(summary.methods), varied, data))
    return [figure for figure in made if figure is not None]


def slug(text: str) -> str:
    """A name that is safe in a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-") or "data"


def _varied_together(
    lines: Sequence[Line], varied: Sequence[str]
) -> Iterator[tuple[Sequence[str], list[Line]]]:
    """What is drawn in one figure: settings of different methods have a figure each, with their lines."""
    if all(sum(value is not None for value in line.values) <= 1 for line in lines):
        for i, setting in enumerate(varied):
            own = [
                line
                for line in lines
                if line.values[i] is not None or all(value is None for value in line.values)
            ]
            yield [setting], [replace(line, values=(line.values[i],)) for line in own]
    elif len(varied) == 2:
        yield varied, list(lines)


def _ablation(lines: Sequence[Line], methods: list[str], varied: Sequence[str], data: str) -> Figure | None:
    """Each metric over the first varied setting; the second, if there is one, has a column of panels each."""
    curves = [line for line in lines if line.values[0] is not None]
    places = _places([line.values[0] for line in curves])
    if len(places) < 2:
        return None
    others = list(dict.fromkeys(line.values[1:] for line in curves))[:MOST_PANELS]
    columns = [c for c in present(lines) if len(varied) == 1 or c.metric in _CORE]
    axis = _axis(short(varied[0]), places)
    panels = []
    for column in columns:
        height = _height(column, lines)
        for other in others:
            chosen = [line for line in curves if line.values[1:] == other]
            level = [line for line in lines if line.values[0] is None and _fits(line.values[1:], other)]
            title = ", ".join([column.title, *(f"{short(varied[1])} {shown(v)}" for v in other)])
            panels.append(_panel(column, title, axis, height, places, chosen, level, methods))
    name = " and ".join(short(setting) for setting in varied)
    drawn = {line.method for line in lines}
    return Figure(
        f"{slug(name)}-{slug(data)}",
        f"Over {name}: {data}",
        "Marks are means over seeds, shades or bars their 95 % intervals. A level line without marks is a "
        "method without this setting. Higher is better for AUC and ACC; for all others, nearer to 0.",
        panels,
        [method if method in drawn else "" for method in methods],
        _numbers(columns, curves, varied),
        columns=len(others) if len(others) > 1 else 3,
    )


def _fits(values: Sequence[Any], other: Sequence[Any]) -> bool:
    return all(a is None or a == b for a, b in zip(values, other, strict=True))


def _numbers(columns: Sequence[Column], lines: Sequence[Line], varied: Sequence[str]) -> Table:
    head = ("method", *(short(name) for name in varied), *(f"{c.title}, {c.unit}" for c in columns))
    rows = [
        [
            line.method,
            *(shown(v) for v in line.values),
            *(c.text(line.estimates[c.metric].value) for c in columns),
        ]
        for line in lines
    ]
    return Table(head, rows)


def _places(values: Sequence[Any]) -> dict[Any, float]:
    """Where each value stands on the horizontal axis: numbers at themselves, names in a row."""
    distinct = list(dict.fromkeys(values))
    if all(isinstance(v, Real) and not isinstance(v, bool) for v in distinct):
        return {v: float(v) for v in sorted(distinct)}
    return {v: float(i) for i, v in enumerate(distinct)}


def _axis(label: str, places: Mapping[Any, float]) -> Axis:
    at = list(places.values())
    low, high = at[0], at[-1]
    if all(isinstance(v, Real) for v in places):
        close = min(b - a for a, b in pairwise(at)) < 0.09 * (high - low)
        ticks = tuple(t for t in nice_ticks(low, high) if low <= t <= high) if close else tuple(at)
        room = 0.04 * (high - low)
        return Axis(low - room, high + room, label, "{:g}".format, ticks)
    names = {place: shorten(shown(v), 14) for v, place in places.items()}
    return Axis(low - 0.5, high + 0.5, label, lambda t: names[t], tuple(at))


def _height(column: Column, lines: Sequence[Line]) -> Axis:
    means = [line.estimates[column.metric] for line in lines]
    ends = [v for m in means for v in _ends(column, m)]
    return Axis.around(ends, column.unit, "{:.4g}".format, zero=not column.higher)


def _ends(column: Column, mean: Mean) -> tuple[float, float, float]:
    """A mean and its interval as they are drawn."""
    drawn = column.possible(mean)
    return drawn.value * column.scale, drawn.low * column.scale, drawn.high * column.scale


def _panel(
    column: Column,
    title: str,
    x: Axis,
    y: Axis,
    places: Mapping[Any, float],
    lines: Sequence[Line],
    level: Sequence[Line],
    methods: Sequence[str],
) -> Element:
    spoken = "; ".join(
        f"{line.method} at {shown(line.values[0])}: {column.text(line.estimates[column.metric].value)}"
        for line in lines
    )
    panel = Panel(x, y, label=f"{title}. {spoken}", title=title, width=330, height=230)
    for line in level:
        series = methods.index(line.method) % SERIES
        _level(panel, line.method, line.estimates[column.metric].value * column.scale, series)
    for series, method in enumerate(methods):
        own = [line for line in lines if line.method == method]
        own.sort(key=lambda line: places[line.values[0]])
        if own:
            ordered = all(isinstance(value, Real) for value in places)
            aside = 0.0 if ordered else 0.5 * ((series + 0.5) / len(methods) - 0.5)
            xs = [places[line.values[0]] + aside for line in own]
            means = [line.estimates[column.metric] for line in own]
            _curve(panel, column, xs, means, series % SERIES, joined=ordered)
    return panel.svg


def _level(panel: Panel, name: str, value: float, series: int) -> None:
    """A method without the setting: the same at each of its values."""
    if not isfinite(value):
        return
    _, y = panel.at(panel.x.low, value)
    panel.line([panel.x.low, panel.x.high], [value, value], series)
    above = y - 5 if y > panel.top + 16 else y + 14
    add(panel.svg, "text", shorten(name), x=panel.right - 2, y=above, class_="tick end")


def _curve(
    panel: Panel, column: Column, xs: Sequence[float], means: Sequence[Mean], series: int, *, joined: bool
) -> None:
    values, low, high = zip(*(_ends(column, mean) for mean in means), strict=True)
    if joined:
        panel.band(xs, low, high, series)
        panel.line(xs, values, series)
    for x, value, a, b in zip(xs, values, low, high, strict=True):
        if isfinite(a) and isfinite(b):
            panel.whisker(x, a, b, series)
        if isfinite(value):
            panel.marker(x, value, series)
