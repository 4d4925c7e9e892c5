"""Figures that the pages share: the path diagram and score histograms, each with its numbers as a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fairdx.report.svg import SERIES, Axis, Panel, add, render, root, sheet

BINS = 40
"""Bins of a score histogram between 0 and 1."""


@dataclass(frozen=True)
class Table:
    """The text equivalent of a figure.

    Attributes:
        head: Column names.
        rows: Cells as text; the first of a row is its name.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """One or more panels that share a legend.

    Attributes:
        name: File name without ending, and anchor in the page.
        title: What is shown.
        caption: How to read it.
        panels: The drawings.
        legend: Names of the series, in order; an empty name stands for a series that is not in the figure.
        table: The same in numbers.
        wide: Whether it is one wide drawing.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Element]
    legend: Sequence[str] = ()
    table: Table | None = None
    wide: bool = False
    columns: int = field(default=2)

    @property
    def drawings(self) -> list[Markup]:
        """The panels for a page; ElementTree has escaped what they hold."""
        return [Markup(render(panel)) for panel in self.panels]

    def file(self) -> str:
        """The figure as an SVG file of its own."""
        return sheet(self.panels, self.legend, self.title, self.columns)


def shorten(text: str, most: int = 22) -> str:
    """Text that fits a drawing."""
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass(frozen=True)
class Effects:
    """Effects of one state (before, after) as written on the path diagram.

    Attributes:
        state: Name of the state; empty if there is only one.
        direct: Effect along S → X, with interval.
        indirect: Effect along S → Y → X, with interval.
        total: Both.
    """

    state: str
    direct: str
    indirect: str
    total: str


def path_diagram(attribute: str, label: str, effects: Sequence[Effects]) -> Element:
    """The causal graph S → Y → X → Ŷ, S → X with the effects on its arrows.

    Args:
        attribute: Name of S.
        label: Name of Y.
        effects: One entry per state.

    Returns:
        The drawing.
    """
    spoken = "; ".join(
        f"{e.state + ': ' if e.state else ''}direct effect {e.direct}, indirect effect {e.indirect}, "
        f"total effect {e.total}"
        for e in effects
    )
    extra = 18 * (len(effects) - 1)
    svg = root(800, 300 + 2 * extra, f"Causal paths from {attribute} to the decision. {spoken}.")
    high, low = 110 + extra, 210 + extra
    places = {"S": (60, low), "Y": (250, high), "X": (440, low), "Ŷ": (650, low)}
    for start, end, kind in (("S", "Y", "s1"), ("Y", "X", "s1"), ("S", "X", "s0"), ("X", "Ŷ", "plain")):
        _arrow(svg, places[start], places[end], kind)
    for letter, name in (("S", attribute), ("Y", label), ("X", "image"), ("Ŷ", "decision")):
        x, y = places[letter]
        add(svg, "circle", cx=x, cy=y, r=21, class_="node")
        add(svg, "text", letter, x=x, y=y + 5, class_="strong middle")
        add(svg, "text", shorten(name), x=x, y=y + 38, class_="tick middle")
    _lines(
        svg,
        250,
        18,
        "Indirect effect: through the disease (S → Y → X)",
        [(e.state, e.indirect) for e in effects],
    )
    _lines(
        svg, 250, low + 38, "Direct effect: past the disease (S → X)", [(e.state, e.direct) for e in effects]
    )
    _lines(svg, 650, low + 60, "Total effect", [(e.state, e.total) for e in effects])
    return svg


def _arrow(svg: Element, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
    (x0, y0), (x1, y1) = start, end
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    x0, y0, x1, y1 = x0 + 22 * ux, y0 + 22 * uy, x1 - 24 * ux, y1 - 24 * uy
    add(svg, "path", d=f"M{x0:.1f} {y0:.1f}L{x1 - 6 * ux:.1f} {y1 - 6 * uy:.1f}", class_=f"arrow {kind}")
    bx, by = x1 - 11 * ux, y1 - 11 * uy
    d = f"M{x1:.1f} {y1:.1f}L{bx - 5 * uy:.1f} {by + 5 * ux:.1f}L{bx + 5 * uy:.1f} {by - 5 * ux:.1f}z"
    add(svg, "path", d=d, class_=f"head {kind}")


def _lines(svg: Element, x: float, y: float, title: str, rows: Sequence[tuple[str, str]]) -> None:
    add(svg, "text", title, x=x, y=y, class_="strong middle")
    for i, (state, text) in enumerate(rows):
        shown = f"{state}: {text}" if state else text
        add(svg, "text", shown, x=x, y=y + 18 * (i + 1), class_="value middle")


def histogram_panel(
    counts: Sequence[NDArray[np.int64]],
    *,
    names: Sequence[str],
    title: str,
    x_label: str,
    top: float,
    threshold: float | None,
) -> Element:
    """Shares of images by score, one outline per group.

    Args:
        counts: Images between the edges of `BINS` equal bins, one array of shape (BINS,) per group.
        names: Groups.
        title: Of the panel.
        x_label: Of the score.
        top: Largest share that fits.
        threshold: Where to draw the threshold.

    Returns:
        The drawing.
    """
    spoken = f"{title}: distribution of scores for {', '.join(names)}"
    edges = np.linspace(0, 1, BINS + 1).tolist()
    panel = Panel(
        Axis(0, 1, x_label, "{:g}".format, (0, 0.25, 0.5, 0.75, 1)),
        Axis.around([top], "share of the group's images", lambda share: f"{share * 100:g}%"),
        label=spoken,
        title=title,
    )
    for series, count in enumerate(counts):
        if count.sum():
            panel.steps(edges, (count / count.sum()).tolist(), series % SERIES)
    if threshold is not None:
        panel.rule(threshold, f"threshold {threshold:.3g}")
    return panel.svg


def score_counts(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Images in each of `BINS` equal bins of scores in [0, 1]; 1 belongs to the last."""
    place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    return np.bincount(place, minlength=BINS).astype(np.int64)


def largest_share(counts: Sequence[NDArray[np.int64]]) -> float:
    """The highest bar of several histograms, as a share of its own total."""
    return max((float(c.max() / c.sum()) for c in counts if c.sum()), default=1.0)


def tenths(counts: NDArray[np.int64]) -> list[str]:
    """Shares in ten bins, as text."""
    total = counts.sum()
    shares = counts.reshape(10, -1).sum(1) / max(total, 1)
    return [f"{share:.1%}" for share in shares] if total else ["–"] * 10
