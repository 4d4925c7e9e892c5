"""The page of a monitor: what is shown so far, and the course of every gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from xml.etree.ElementTree import Element

import numpy as np

from fairdx.auditing.monitored import Course, MonitorResult
from fairdx.metrics.definitions import METRICS
from fairdx.report.figures import Figure, Table, shorten
from fairdx.report.numbers import POINTS, Style, integer, style_of
from fairdx.report.page import render_page
from fairdx.report.svg import Axis, Panel

_TICKS = 4
_HYPHEN = "\u2011"  # a panel takes the plain one for a minus


@dataclass(frozen=True)
class Section:
    """What the page shows of one attribute.

    Attributes:
        name: The attribute.
        sentences: What is shown of it at the last look.
        figures: Courses of gaps, then of effects.
    """

    name: str
    sentences: Sequence[str]
    figures: Sequence[Figure]


def render_monitor(result: MonitorResult, *, title: str | None = None, command: str | None = None) -> str:
    """The page of a monitor as one self-contained HTML text.

    Args:
        result: What it found.
        title: Heading of the page.
        command: How it was started.

    Returns:
        The page.
    """
    last = result.looks[-1]
    patients = f" of {integer(last.patients_so_far)} patients" if result.settings.clustered else ""
    head = (
        f"{integer(last.images_so_far)} images{patients} in {len(result.looks)} periods, from "
        f"{result.looks[0].name} to {last.name}. Positive is {result.classes[1]!r}, from a score of "
        f"{result.settings.threshold:g} on."
    )
    return render_page(
        "monitor.html",
        title=title or f"Fairness over time: {', '.join(result.attributes)}",
        head=head,
        result=result,
        sections=[_section(result, name) for name in result.attributes],
        facts=facts(result),
        command=command,
    )


def sentences(result: MonitorResult, name: str) -> list[str]:
    """What is shown of an attribute at the last look, a sentence for each interval that leaves out 0."""
    about, found = result.attributes[name], list[str]()
    if about.excluded:
        found.append(
            f"{name}: not compared, with fewer than {result.settings.min_group_size} images: "
            f"{', '.join(about.excluded)}."
        )
    if not result.gaps[name]:
        return [*found, f"{name}: fewer than two groups are large enough to compare."]
    shown = {metric: first_shown(course) for metric, course in result.gaps[name].items()}
    for metric, look in shown.items():
        if look is not None:
            course, style = result.gaps[name][metric], style_of(metric)
            found.append(
                f"{name}: {METRICS[metric].title} is {style.in_words(course.value[-1])} "
                f"({style.interval(course.low[-1], course.high[-1])}){_pair(course)}; "
                f"{_since(course, look, result, 'to differ from 0 ')}."
            )
    for group, courses in result.effects[name].items():
        course, style = courses["direct_effect"], style_of("direct_effect")
        look = first_shown(course)
        if look is not None:
            more = "more" if course.value[-1] > 0 else "less"
            found.append(
                f"{name}: with the disease as in {about.reference}, {group} is decided positive "
                f"{POINTS.in_words(abs(course.value[-1]))} {more} often than "
                f"{about.reference} (direct effect, "
                f"{style.interval(course.low[-1], course.high[-1])}); {_since(course, look, result)}."
            )
    if about.reference in about.excluded:
        found.append(f"{name}: no effect can be given, as the reference {about.reference} is too small.")
    if not any(look is not None for look in shown.values()):
        found.append(f"{name}: no gap is shown to differ from 0 so far. This is no proof that there is none.")
    return found


def _since(course: Course, look: int, result: MonitorResult, what: str = "") -> str:
    """Since when a figure has been shown, or that it was shown and no longer is, as with a further group."""
    name = result.looks[look].name
    if _leaves_out_zero(course, -1):
        return f"it has been shown {what}since {name}"
    return f"it was shown {what}in {name} and is not with all images so far"


def _pair(course: Course) -> str:
    return "" if course.lowest is None else f", between {course.lowest} and {course.highest}"


def first_shown(course: Course) -> int | None:
    """The first look at which the interval leaves out 0; None if there is none."""
    return next((k for k in range(len(course.value)) if _leaves_out_zero(course, k)), None)


def _leaves_out_zero(course: Course, look: int) -> bool:
    return course.low[look] > 0 or course.high[look] < 0


def facts(result: MonitorResult) -> list[tuple[str, str]]:
    """Sizes, settings and versions."""
    settings, last = result.settings, result.looks[-1]
    found = [
        ("Images", integer(last.images_so_far)),
        (
            "Patients",
            integer(last.patients_so_far) if settings.clustered else "not given: images taken as independent",
        ),
        ("Threshold", f"{settings.threshold:g}, as given"),
        ("Intervals", f"confidence sequences, {settings.level:.0%} over all looks at once"),
        ("Smallest group compared", f"{settings.min_group_size} images"),
    ]
    for name, about in result.attributes.items():
        sizes = ", ".join(f"{g} {integer(n)}" for g, n in list(about.groups.items())[:12])
        found.append((f"Groups of {name}", f"{sizes}; reference {about.reference}"))
    return [
        *found,
        ("Version", f"fairdx {result.fairdx_version}, schema {result.schema_version}"),
        ("Created", result.created),
    ]


def _section(result: MonitorResult, name: str) -> Section:
    figures = []
    if result.gaps[name]:
        figures.append(
            _figure(result, f"gaps-{name}", f"Gaps between the groups of {name}", result.gaps[name])
        )
    for group, courses in result.effects[name].items():
        title = f"Effects on {group}, against {result.attributes[name].reference}"
        figures.append(_figure(result, f"effects-{name}-{group}", title, courses))
    return Section(name, sentences(result, name), figures)


def _figure(result: MonitorResult, name: str, title: str, courses: Mapping[str, Course]) -> Figure:
    caption = (
        "The line is the figure of all images so far, and the band its confidence sequence: whenever one "
        f"looks, all of it holds at once with {result.settings.level:.0%}. Marks are single periods, "
        "with intervals that hold for all of them at once. Zero is fair."
    )
    head = ("period", *(f"{METRICS[m].title}, so far" for m in courses))
    rows = [
        [look.name, *(_cell(style_of(m), c, k) for m, c in courses.items())]
        for k, look in enumerate(result.looks)
    ]
    panels = [_panel(result, METRICS[m].title, style_of(m), c) for m, c in courses.items()]
    return Figure(name, title, caption, panels, ("all images so far", "single periods"), Table(head, rows))


def _cell(style: Style, course: Course, look: int) -> str:
    return f"{style(course.value[look])} ({style.interval(course.low[look], course.high[look])})"


def _panel(result: MonitorResult, title: str, style: Style, course: Course) -> Element:
    columns = (course.value, course.low, course.high, course.period, course.period_low, course.period_high)
    value, low, high, period, period_low, period_high = (np.array(c, float) * style.scale for c in columns)
    known = np.concatenate([value, low, high, period])
    n = len(result.looks)
    places = np.unique(np.linspace(0, n - 1, min(n, _TICKS)).round().astype(int)).tolist()
    names = [shorten(look.name, 12).replace("-", _HYPHEN) for look in result.looks]
    spoken = f"{title}, at the last look {_cell(style, course, n - 1)}"
    x = Axis(-0.5, n - 0.5, "period", lambda k: names[round(k)], tuple(float(k) for k in places))
    y = Axis.around(known[np.isfinite(known)].tolist(), style.unit.strip() or "difference")
    panel = Panel(x, y, label=spoken, title=title)
    panel.band(range(n), low.tolist(), high.tolist(), 0)
    panel.line(range(n), value.tolist(), 0)
    for k in range(n):
        if isfinite(period[k]):
            if isfinite(period_low[k]):
                ends = np.clip([period_low[k], period_high[k]], y.low, y.high)
                panel.whisker(k, float(ends[0]), float(ends[1]), 1, thin=True)
            panel.marker(k, float(period[k]), 1)
    return panel.svg
