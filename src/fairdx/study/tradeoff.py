"""The trade-off figure: AUC against ADF, a mark for each method and strength, with the Pareto front."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, isfinite, log10
from numbers import Real
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from fairdx.report.figures import Figure, Table, shorten
from fairdx.report.svg import SERIES, Axis, Panel, add
from fairdx.study.columns import COLUMNS, is_whole
from fairdx.study.front import ADF, AUC, pareto_front
from fairdx.study.summary import VANILLA, Line, Mean, Summary, shown

_CORRECTED = f"{ADF}_corrected"
_AUC = next(c for c in COLUMNS if c.metric == AUC)
_ADF = next(c for c in COLUMNS if c.metric == ADF)
_CHARACTER = 6.7
"""Width of a character of a label, roughly."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class _Dot:
    """A line of the study as a mark, in the units of the figure."""

    line: Line
    strength: Any  # the value of the setting by which its method is varied; None without one
    curve: tuple[Any, ...]
    series: int
    auc: Mean
    adf: Mean

    @property
    def place(self) -> tuple[float, float]:
        return self.auc.value, self.adf.value


def tradeoff(lines: Sequence[Line], summary: Summary, name: str) -> Figure | None:
    """Draws AUC against ADF.

    Args:
        lines: Of one data set.
        summary: The study; the order of its methods gives each its colour and mark.
        name: Of the figure's file.

    Returns:
        The figure; None if fewer than two lines have both metrics.
    """
    dots = list(_dots(lines))
    if len(dots) < 2:
        return None
    curves = list(dict.fromkeys(dot.curve for dot in dots))
    several = len(curves) < len(dots)
    panel = _draw(dots, lines, several)
    data = dots[0].line.data
    return Figure(
        name,
        f"Trade-off: {data}",
        _caption(dots, lines),
        [panel],
        [_label(dot) for dot in _first(dots)] if several and len(curves) <= SERIES else (),
        _table(dots, summary),
        wide=True,
        columns=1,
    )


def _caption(dots: Sequence[_Dot], lines: Sequence[Line]) -> str:
    """How to read the figure; nothing on what is not in it."""
    oracles = any(dot.line.needs_group for dot in dots)
    parts = [
        "Right and down is better: a higher AUC, and a decision that tells less about the group beyond the "
        "truth. Marks are means over seeds, bars their 95 % intervals. The dashed line joins the marks that "
        "no other beats in both"
        + ("; methods that need the group at test time (†) do not count." if oracles else ".")
    ]
    if not all(map(_is_whole, dots)):
        parts.append("Marks of which runs are missing do not count there either.")
    if len(_vanilla(dots)) == 1:
        parts.append("The dotted lines are vanilla's figures.")
    if _floor(lines) is not None:
        parts.append("“floor” is what ADF shows of a fair model by chance in so few images.")
    return " ".join(parts)


def _is_whole(dot: _Dot) -> bool:
    return is_whole(dot.line, _AUC) and is_whole(dot.line, _ADF)


def _vanilla(dots: Sequence[_Dot]) -> list[_Dot]:
    return [dot for dot in dots if dot.line.method.casefold() == VANILLA]


def _dots(lines: Sequence[Line]) -> Iterator[_Dot]:
    """Strengths of one method are one curve; where a second setting varies, each of its values is another."""
    places = _strengths(lines)
    curves = [(line.method, *_without(line.values, places[line.method])) for line in lines]
    series = {curve: i % SERIES for i, curve in enumerate(dict.fromkeys(curves))}
    for line, curve in zip(lines, curves, strict=True):
        strength = line.values[places[line.method]] if line.values else None
        if AUC in line.estimates and ADF in line.estimates:
            auc = _scaled(_AUC.possible(line.estimates[AUC]), _AUC.scale)
            adf = _scaled(_ADF.possible(line.estimates[ADF]), _ADF.scale)
            if isfinite(auc.value) and isfinite(adf.value):
                yield _Dot(line, strength, curve, series[curve], auc, adf)


def _strengths(lines: Sequence[Line]) -> dict[str, int]:
    """For each method, which of the varied settings is its strength: the first that it has."""
    places = dict.fromkeys((line.method for line in lines), 0)
    for method in places:
        own = {
            i
            for line in lines
            if line.method == method
            for i, value in enumerate(line.values)
            if value is not None
        }
        places[method] = min(own, default=0)
    return places


def _without(values: Sequence[Any], place: int) -> tuple[Any, ...]:
    return (*values[:place], *values[place + 1 :])


def _scaled(mean: Mean, by: float) -> Mean:
    return Mean(mean.value * by, mean.low * by, mean.high * by, mean.n)


def _first(dots: Sequence[_Dot]) -> list[_Dot]:
    """The first mark of each curve."""
    return list({dot.curve: dot for dot in reversed(dots)}.values())[::-1]


def _label(dot: _Dot) -> str:
    text = ", ".join(shown(part) for part in dot.curve if part is not None)
    return f"{shorten(text, 40)}{' †' if dot.line.needs_group else ''}"


def _table(dots: Sequence[_Dot], summary: Summary) -> Table:
    head = ("method", *summary.varied, "AUC, %", "interval", "ADF, 10⁻³", "interval")
    rows = []
    for dot in dots:
        auc, adf = _AUC.possible(dot.line.estimates[AUC]), _ADF.possible(dot.line.estimates[ADF])
        figures = (_AUC.text(auc.value), _AUC.interval(auc), _ADF.text(adf.value), _ADF.interval(adf))
        rows.append([dot.line.method, *(shown(v) for v in dot.line.values), *figures])
    return Table(head, rows)


class _Height:
    """The vertical axis: logarithmic where ADF spans more than a factor of ten."""

    def __init__(self, values: Sequence[float], ends: Sequence[float]) -> None:
        self.log = min(values) > 0 and max(values) > 10 * min(values)
        label = "ADF, 10⁻³ nats"
        if not self.log:
            self.axis = Axis.around([*values, *(e for e in ends if e > 0)], label)
            return
        known = [v for v in (*values, *ends) if v > min(values) / 4]
        low, high = log10(min(known)) - 0.05, log10(max(known)) + 0.05
        ticks = [log10(m) + e for e in range(floor(low), ceil(high) + 1) for m in (1, 2, 5)]
        shown_ticks = tuple(t for t in ticks if low <= t <= high)
        self.axis = Axis(low, high, f"{label} (log scale)", lambda t: f"{10**t:g}", shown_ticks)

    def __call__(self, value: float) -> float:
        """The place of a value, inside the axis."""
        if not self.log:
            return max(value, self.axis.low)
        return max(log10(value), self.axis.low) if value > 0 else self.axis.low


def _draw(dots: Sequence[_Dot], lines: Sequence[Line], several: bool) -> Element:
    floor_at = _floor(lines)
    values = [dot.adf.value for dot in dots] + ([floor_at] if floor_at else [])
    up = _Height(values, [e for dot in dots for e in (dot.adf.low, dot.adf.high) if isfinite(e)])
    x = Axis.around([v for d in dots for v in (d.auc.value, d.auc.low, d.auc.high)], "AUC, %", zero=False)
    spoken = "; ".join(
        f"{d.line.method}{_strength(d.line)}: AUC {d.auc.value:.2f} %, ADF {d.adf.value:.2f}" for d in dots
    )
    panel = Panel(x, up.axis, label=f"AUC against ADF. {spoken}", width=760, height=430, left=62)
    labels = _Labels(panel)
    _references(panel, up, dots, floor_at, labels)
    _front(panel, up, [dot for dot in dots if not dot.line.needs_group and _is_whole(dot)], labels)
    if several:
        _strength_lines(panel, up, dots)
    for dot in dots:
        _mark(panel, up, dot, labels)
    for dot in dots:
        text = shown(dot.strength) if _of_several(dot, dots) else _label(dot)
        labels.write(shorten(text, 30), *panel.at(dot.auc.value, up(dot.adf.value)))
    return panel.svg


def _of_several(dot: _Dot, dots: Sequence[_Dot]) -> bool:
    return sum(other.curve == dot.curve for other in dots) > 1


def _strength(line: Line) -> str:
    return "".join(f", {shown(value)}" for value in line.values if value is not None)


def _floor(lines: Sequence[Line]) -> float | None:
    """What the plug-in ADF shows of a fair model: how far it lies above its bias-corrected value, in 10⁻³."""
    gaps = [
        gap
        for line in lines
        if _CORRECTED in line.table and ADF in line.table
        for gap, corrected in zip(
            line.table[ADF] - line.table[_CORRECTED], line.table[_CORRECTED], strict=True
        )
        if corrected > 0 and gap > 0  # at 0 it was truncated, and the difference is not the bias
    ]
    return float(np.median(gaps)) * 1000 if gaps else None


def _references(
    panel: Panel, up: _Height, dots: Sequence[_Dot], floor_at: float | None, labels: "_Labels"
) -> None:
    """Vanilla's figures, and the floor of ADF."""
    vanilla = _vanilla(dots)
    if len(vanilla) == 1:
        x, y = panel.at(vanilla[0].auc.value, up(vanilla[0].adf.value))
        d = f"M{panel.left:.1f} {y:.1f}H{panel.right:.1f}M{x:.1f} {panel.top:.1f}V{panel.bottom:.1f}"
        add(panel.svg, "path", d=d, class_="reference")
    if floor_at is not None:
        _, y = panel.at(panel.x.low, up(floor_at))
        add(panel.svg, "path", d=f"M{panel.left:.1f} {y:.1f}H{panel.right:.1f}", class_="axis")
        labels.fixed(f"floor, {floor_at:.2g}", panel.left + 6, y - 5)


def _front(panel: Panel, up: _Height, dots: Sequence[_Dot], labels: "_Labels") -> None:
    """The staircase below which nothing lies."""
    on = pareto_front([dot.place for dot in dots])
    corners = sorted({dot.place for dot, kept in zip(dots, on, strict=True) if kept})
    if not corners:
        return
    points = [panel.at(auc, up(adf)) for auc, adf in corners]
    left, d = panel.left, f"M{panel.left:.1f} {points[0][1]:.1f}"
    for (x, y), (_, above) in zip(points, [*points[1:], (0.0, panel.top)], strict=True):
        d += f"H{x:.1f}V{above:.1f}"
        labels.keep_off((left, y - 2, x, y + 2))
        labels.keep_off((x - 2, above, x + 2, y))
        left = x
    add(panel.svg, "path", d=d, class_="rule")


def _strength_lines(panel: Panel, up: _Height, dots: Sequence[_Dot]) -> None:
    """Joins the strengths of a method in their order."""
    for curve in dict.fromkeys(dot.curve for dot in dots):
        own = [dot for dot in dots if dot.curve == curve]
        if not all(isinstance(dot.strength, Real) for dot in own):
            continue  # names have no order to join them in
        panel.line([d.auc.value for d in own], [up(d.adf.value) for d in own], own[0].series)


def _mark(panel: Panel, up: _Height, dot: _Dot, labels: "_Labels") -> None:
    height = up(dot.adf.value)
    x, y = panel.at(dot.auc.value, height)
    if isfinite(dot.adf.low) and isfinite(dot.adf.high):
        low, high = up(dot.adf.low), up(dot.adf.high)
        panel.whisker(dot.auc.value, low, high, dot.series, thin=True)
        labels.keep_off((x - 2, panel.at(0, high)[1], x + 2, panel.at(0, low)[1]))
    if isfinite(dot.auc.low) and isfinite(dot.auc.high):
        (a, _), (b, _) = panel.at(dot.auc.low, height), panel.at(dot.auc.high, height)
        add(panel.svg, "path", d=f"M{a:.1f} {y:.1f}H{b:.1f}", class_=f"whisker thin s{dot.series}")
        labels.keep_off((a, y - 2, b, y + 2))
    panel.marker(dot.auc.value, height, dot.series)
    labels.keep_off((x - 6, y - 6, x + 6, y + 6))


@dataclass
class _Labels:
    """Places names beside marks, where they cover as little as possible."""

    panel: Panel
    taken: list[Box] = field(default_factory=list)

    def keep_off(self, box: Box) -> None:
        """Marks a place as taken."""
        self.taken.append(box)

    def fixed(self, text: str, x: float, y: float) -> None:
        """Writes at a place."""
        add(self.panel.svg, "text", text, x=x, y=y, class_="tick start")
        self.keep_off((x, y - 11, x + _CHARACTER * len(text), y + 3))

    def write(self, text: str, x: float, y: float) -> None:
        """Writes beside a mark."""
        width = _CHARACTER * len(text)
        choices: list[tuple[float, float, str]] = []
        for away in (0, 10, 20, 32, 46):
            choices += [(x + 10, y + 4 + sign * away, "start") for sign in ((1,) if away == 0 else (-1, 1))]
            choices += [(x - 10, y + 4 + sign * away, "end") for sign in ((1,) if away == 0 else (-1, 1))]
            choices += [(x, y - 10 - away, "middle"), (x, y + 19 + away, "middle")]
        boxes = [self._box(width, *choice) for choice in choices]
        best = min(range(len(choices)), key=lambda i: (self._covered(boxes[i]), i))
        left, down, side = choices[best]
        add(self.panel.svg, "text", text, x=left, y=down, class_=f"value {side}")
        self.keep_off(boxes[best])

    @staticmethod
    def _box(width: float, x: float, y: float, side: str) -> Box:
        left = {"start": x, "end": x - width, "middle": x - width / 2}[side]
        return left, y - 11, left + width, y + 4

    def _covered(self, box: Box) -> float:
        """Area of what is taken under a box, and of the box outside the panel."""
        p = self.panel
        inside = _overlap(box, (p.left, p.top, p.right + 20, p.bottom))
        return sum(_overlap(box, other) for other in self.taken) + (_area(box) - inside) * 3


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _overlap(a: Box, b: Box) -> float:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
