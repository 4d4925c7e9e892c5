"""Charts as SVG, drawn by hand: they follow the page's colours, print, and work without any script.

Colours come from classes in `templates/charts.css`. Series i has the class `s{i}`: its colour, dash and
marker differ together, so that nothing depends on colour alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil, floor, isfinite, log10
from typing import Final
from xml.etree import ElementTree as Tree

from fairdx.report.numbers import MINUS

SERIES = 8
"""Series that can be told apart in one chart."""

MARKERS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "M-3.2-3.2h6.4v6.4h-6.4z",
    "M0-4.4L4.2 3.2H-4.2z",
    "M0-4.6L4.6 0L0 4.6L-4.6 0z",
    "M0 4.4L4.2-3.2H-4.2z",
    "M-4-1.3H-1.3V-4H1.3V-1.3H4V1.3H1.3V4H-1.3V1.3H-4z",
    "M-3.9-2.2L0-4.4L3.9-2.2V2.2L0 4.4L-3.9 2.2z",
    "M-4.4-2.6H4.4V2.6H-4.4z",
)

Numbers = Sequence[float]


def element(tag: str, text: str | None = None, **attributes: object) -> Tree.Element:
    """An SVG element; underscores in attribute names become hyphens, `class_` becomes `class`."""
    named = {k.rstrip("_").replace("_", "-"): _text(v) for k, v in attributes.items() if v is not None}
    made = Tree.Element(tag, named)
    made.text = text
    return made


def add(parent: Tree.Element, tag: str, text: str | None = None, **attributes: object) -> Tree.Element:
    """An SVG element inside another one."""
    made = element(tag, text, **attributes)
    parent.append(made)
    return made


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def render(svg: Tree.Element) -> str:
    """SVG as text for a page; everything in it is escaped."""
    return Tree.tostring(svg, encoding="unicode")


def root(width: float, height: float, label: str) -> Tree.Element:
    """An empty drawing that scales with its box and that a screen reader calls `label`."""
    return element("svg", viewBox=f"0 0 {width:g} {height:g}", class_="chart", role="img", aria_label=label)


SAME: Final = 1e-9
"""Values that differ by less than this, of their size or of 1, are drawn as one."""


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        low: Value at its start.
        high: Value at its end.
        label: What it shows, with unit.
        write: How tick labels are written.
        ticks: Where ticks are; chosen by `nice_ticks` if empty.
    """

    low: float
    high: float
    label: str
    write: Callable[[float], str] = "{:g}".format
    ticks: tuple[float, ...] = ()

    @classmethod
    def around(
        cls, values: Numbers, label: str, write: Callable[[float], str] = "{:g}".format, *, zero: bool = True
    ) -> "Axis":
        """An axis that holds all finite values (and 0, if asked), its ends on ticks."""
        kept = [v for v in values if isfinite(v)] + ([0.0] if zero else [])
        low, high = (min(kept), max(kept)) if kept else (0.0, 1.0)
        if high - low < SAME * max(1.0, abs(low), abs(high)):
            low, high = low - 0.5 * (not zero), high + 0.5
        ticks = nice_ticks(low, high)
        return cls(ticks[0], ticks[-1], label, write, ticks)


def nice_ticks(low: float, high: float, about: int = 5) -> tuple[float, ...]:
    """Round numbers from at or below `low` to at or above `high`, `low` < `high`."""
    raw = (high - low) / about
    power = 10.0 ** floor(log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


class Panel:
    """A chart with two axes.

    Args:
        x: Horizontal axis.
        y: Vertical axis.
        label: What a screen reader says instead of the chart.
        title: Above the chart.
        width: In units of the drawing, as is `height`.
        height: See `width`.
        left: Room for the labels of the vertical axis.
    """

    def __init__(
        self,
        x: Axis,
        y: Axis,
        *,
        label: str,
        title: str = "",
        width: float = 360,
        height: float = 250,
        left: float = 56,
    ) -> None:
        self.x, self.y = x, y
        self.width, self.height = width, height
        self.left, self.right = left, width - 22
        self.top, self.bottom = (28.0 if title else 12.0), height - 42
        self.svg = root(width, height, label)
        if title:
            add(self.svg, "text", title, x=self.left, y=16, class_="panel-title")
        self._axes()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Position in the drawing of a point given in units of the axes."""
        across = (x - self.x.low) / (self.x.high - self.x.low)
        up = (y - self.y.low) / (self.y.high - self.y.low)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def _axes(self) -> None:
        for tick in self.y.ticks or nice_ticks(self.y.low, self.y.high):
            _, y = self.at(self.x.low, tick)
            add(self.svg, "path", d=f"M{self.left:.1f} {y:.1f}H{self.right:.1f}", class_="grid")
            add(
                self.svg,
                "text",
                self.y.write(tick).replace("-", MINUS),
                x=self.left - 6,
                y=y + 4,
                class_="tick end",
            )
        for tick in self.x.ticks or nice_ticks(self.x.low, self.x.high):
            x, _ = self.at(tick, self.y.low)
            add(self.svg, "path", d=f"M{x:.1f} {self.bottom:.1f}v4", class_="axis")
            add(
                self.svg,
                "text",
                self.x.write(tick).replace("-", MINUS),
                x=x,
                y=self.bottom + 17,
                class_="tick middle",
            )
        add(self.svg, "path", d=f"M{self.left:.1f} {self.bottom:.1f}H{self.right:.1f}", class_="axis")
        middle = (self.left + self.right) / 2
        add(self.svg, "text", self.x.label, x=middle, y=self.height - 6, class_="label middle")
        up = (self.top + self.bottom) / 2
        turned = f"translate(12 {up:.1f}) rotate(-90)"
        add(self.svg, "text", self.y.label, transform=turned, class_="label middle")

    def line(self, xs: Numbers, ys: Numbers, series: int = 0) -> None:
        """A line through points; it breaks where one is not finite."""
        add(self.svg, "path", d=self._path(xs, ys), class_=f"line s{series}")

    def steps(self, edges: Numbers, heights: Numbers, series: int = 0) -> None:
        """The outline of a histogram, with a faint fill."""
        xs = [e for edge in edges for e in (edge, edge)]
        ys = [0.0, *(h for height in heights for h in (height, height)), 0.0]
        add(self.svg, "path", d=self._path(xs, ys), class_=f"area s{series}")
        add(self.svg, "path", d=self._path(xs, ys), class_=f"line s{series}")

    def band(self, xs: Numbers, low: Numbers, high: Numbers, series: int = 0) -> None:
        """An interval around a line; points without one are left out."""
        kept = [(x, a, b) for x, a, b in zip(xs, low, high, strict=True) if isfinite(a) and isfinite(b)]
        if kept:
            there = [self.at(x, min(b, self.y.high)) for x, _, b in kept]
            back = [self.at(x, max(a, self.y.low)) for x, a, _ in reversed(kept)]
            d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in there + back) + "z"
            add(self.svg, "path", d=d, class_=f"band s{series}")

    def marker(self, x: float, y: float, series: int = 0) -> None:
        """A marker, whose form depends on the series."""
        across, up = self.at(x, y)
        d = MARKERS[series % SERIES]
        add(self.svg, "path", d=d, transform=f"translate({across:.1f} {up:.1f})", class_=f"mark s{series}")

    def whisker(self, x: float, low: float, high: float, series: int = 0, *, thin: bool = False) -> None:
        """A vertical interval."""
        (across, a), (_, b) = self.at(x, low), self.at(x, high)
        add(
            self.svg,
            "path",
            d=f"M{across:.1f} {a:.1f}V{b:.1f}",
            class_=f"whisker{' thin' if thin else ''} s{series}",
        )

    def rule(self, x: float, text: str = "", kind: str = "rule") -> Tree.Element:
        """A vertical line with a word at its head."""
        across, _ = self.at(x, self.y.low)
        d = f"M{across:.1f} {self.bottom:.1f}V{self.top:.1f}"
        drawn = add(self.svg, "path", d=d, class_=kind)
        if text:
            end = across > (self.left + self.right) / 2
            place, side = (across - 5, "end") if end else (across + 5, "start")
            add(self.svg, "text", text, x=place, y=self.top + 10, class_=f"tick {side}")
        return drawn

    def diagonal(self) -> None:
        """The line y = x, as a reference."""
        (x0, y0), (x1, y1) = self.at(0, 0), self.at(1, 1)
        add(self.svg, "path", d=f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}", class_="reference")

    def _path(self, xs: Numbers, ys: Numbers) -> str:
        parts, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if not (isfinite(x) and isfinite(y)):
                pen = "M"
                continue
            across, up = self.at(x, y)
            parts.append(f"{pen}{across:.1f} {up:.1f}")
            pen = "L"
        return "".join(parts)


def swatch(series: int) -> str:
    """The line and marker of a series, for a legend."""
    svg = element("svg", viewBox="0 0 34 14", class_="swatch", aria_hidden="true")
    add(svg, "path", d="M1 7H33", class_=f"line s{series}")
    add(svg, "path", d=MARKERS[series % SERIES], transform="translate(17 7)", class_=f"mark s{series}")
    return render(svg)


def sheet(panels: Sequence[Tree.Element], names: Sequence[str], label: str, columns: int = 2) -> str:
    """Several panels of one size and their legend as a file of its own, in light colours.

    A series whose name is empty has no entry in the legend.
    """
    width, height = (float(v) for v in panels[0].get("viewBox", "").split()[2:])
    columns = min(columns, len(panels))
    rows = ceil(len(panels) / columns)
    entries = [(series, name) for series, name in enumerate(names) if name]
    legend, top = _legend_places([name for _, name in entries], columns * width)
    page = root(columns * width, top + rows * height, label)
    page.set("xmlns", "http://www.w3.org/2000/svg")
    add(page, "style", _light_css())
    add(page, "rect", width="100%", height="100%", class_="paper")
    for (series, name), (x, y) in zip(entries, legend, strict=True):
        add(page, "path", d=f"M{x:.1f} {y:.1f}h30", class_=f"line s{series % SERIES}")
        place = f"translate({x + 15:.1f} {y:.1f})"
        add(page, "path", d=MARKERS[series % SERIES], transform=place, class_=f"mark s{series % SERIES}")
        add(page, "text", name, x=x + 38, y=y + 4, class_="tick start")
    for i, panel in enumerate(panels):
        left, down = i % columns * width, top + i // columns * height
        box = f"0 0 {width:g} {height:g}"
        inner = add(page, "svg", viewBox=box, x=left, y=down, width=width, height=height)
        inner.extend(list(panel))
    return render(page)


def _legend_places(names: Sequence[str], width: float) -> tuple[list[tuple[float, float]], float]:
    """Where the entries of a legend stand, in as many lines as they need, and its height."""
    places: list[tuple[float, float]] = []
    x, y = 12.0, 14.0
    for name in names:
        if x > 12 and x + 38 + 7 * len(name) > width:
            x, y = 12.0, y + 20
        places.append((x, y))
        x += 60 + 7 * len(name)
    return places, y + 12 if names else 0.0


@cache
def _light_css() -> str:
    """The charts' style with the light palette written out: many SVG programs know no CSS variables."""
    css = files("fairdx.report").joinpath("templates/charts.css").read_text(encoding="utf-8")
    palette, rules = css.split("/* rules */")
    for declaration in palette[palette.index("{") + 1 : palette.index("}")].split(";"):
        name, _, value = declaration.partition(":")
        if value:
            rules = rules.replace(f"var({name.strip()})", value.strip())
    return rules
