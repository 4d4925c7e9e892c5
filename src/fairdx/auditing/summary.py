"""Two pages for a committee: what was audited, who is in it, what was found, what it cannot say, who signs.

Figures and sentences are those of the audit (`fairdx.auditing.findings`); nothing is claimed here that its
intervals do not allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, isnan

from fairdx.auditing.findings import headline, most_affected, sure_effects
from fairdx.auditing.page import top_notes
from fairdx.auditing.page_figures import forest_panel
from fairdx.auditing.result import Attribute, AuditResult, Gap
from fairdx.auditing.suppressed import in_words
from fairdx.inference.uncertainty import Estimate
from fairdx.report.figures import Figure, shorten
from fairdx.report.numbers import POINTS, SIGNED_POINTS, Style, integer
from fairdx.report.page import render_page

MOST_ROWS = 12
"""Groups, or differences of several findings, that a table shows."""

MOST_MARKS = 8
"""Differences that the picture shows."""

_LETTERS = 105  # in a line of print
_NARROW = 40  # in a line of the first column of the table of groups
_FIRST_PAGE = 49  # lines that its table and its sentences share
_LIMITS, _UNSURE = 12, 4  # lines on the second page
_OF_100 = Style(100, 0)
_NAME = 28

_GLOSSARY = (
    "Direct effect: how much more often one group is decided positive than another, the disease held. ADF "
    "(Approximate Diagnosis Fairness): what the decision tells about the group once the disease is known. 0 "
    "is fair. For two groups of equal size and error rates near 15 %, 0.0025 nats go with 5 points between "
    "groups with the same disease, 0.01 nats with 10 points."
)


@dataclass(frozen=True)
class Line:
    """A line of a table: what it is about, its cells, and the intervals below them."""

    name: str
    cells: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Lines:
    """A table, and how many lines it leaves out."""

    head: Sequence[str]
    lines: Sequence[Line]
    left_out: int

    @property
    def height(self) -> float:
        """In lines of print."""
        wide = len(self.head) < 4
        return sum(2.8 if len(line.name) > _NARROW and not wide else 1.7 for line in self.lines)


def render_summary(result: AuditResult, *, title: str | None = None) -> str:
    """A summary that prints on two A4 pages at most.

    Args:
        result: An audit, or one read again from its JSON (`fairdx.auditing.reread`).
        title: Heading; one that names the attributes if None.

    Returns:
        One self-contained HTML text.
    """
    names = [shorten(name, _NAME) for name in _plain(result)]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    title = shorten(title or f"Is the model fair between groups of {listed}?", 120)
    people, (shown, of) = _people(result), _shown(result)
    changes = _changes(result) if result.per_label else None
    used = people.height + (0 if changes is None else changes.height) + 2 * (len(title) > 60)
    notes = [n for n in top_notes(result)[0] if n.kind != "limit" or n.attribute is not None]
    general = [n.text for n in top_notes(result)[0] if n.kind == "limit" and n.attribute is None]
    own = {kind: [n.text for n in notes if n.kind == kind] for kind in ("finding", "caution", "limit")}
    withheld = [] if result.withheld is None else in_words(result.withheld)
    general = [*withheld, *(text for text in general if text not in withheld)]
    return render_page(
        "summary.html",
        title=title,
        result=result,
        head=shorten(headline(result), 5 * _LETTERS),
        threshold=_threshold(result),
        overall=_of_100(result),
        people=people,
        found=_kept(own["finding"], _FIRST_PAGE - used),
        changes=changes,
        figure=_figure(shown, of, result.settings.level),
        glossary=_GLOSSARY if shown else "",
        unsure=_kept(own["caution"], _UNSURE),
        limits=_kept([*general, *own["limit"]], _LIMITS + MOST_MARKS - len(shown)),
        next=_next(result),
    )


def _plain(result: AuditResult) -> dict[str, Attribute]:
    return {name: about for name, about in result.attributes.items() if not about.intersection}


def _kept(texts: Sequence[str], lines: float) -> list[str]:
    """As many sentences as fit, and how many do not; the first always does."""
    kept = list[str]()
    for text in (shorten(text, 8 * _LETTERS) for text in texts):
        lines -= 1.15 * ceil(len(text) / _LETTERS)
        if lines < 0 and kept:
            break
        kept.append(text)
    more = len(texts) - len(kept)
    return [*kept, f"{more} more in the whole page."] if more else kept


def _threshold(result: AuditResult) -> str:
    settings = result.settings
    if result.task == "multiclass" or settings.threshold is None:
        return "The class with the largest score is the decision."
    own = f"; {len(settings.thresholds)} have a threshold of their own" if settings.thresholds else ""
    return f"An image is decided positive from a score of {settings.threshold:g} on{own}."


def _of_100(result: AuditResult) -> list[str]:
    """How often the model is right, as counts of 100."""
    found = result.overall
    told = [
        ("tpr", "Of 100 images with the disease it finds {}"),
        ("fpr", "Of 100 images without it, it calls {} positive"),
    ]
    return [
        text.format(_count(found[m])) + "." for m, text in told if m in found and isfinite(found[m].value)
    ]


def _count(estimate: Estimate) -> str:
    return f"{_OF_100(estimate.value)} ({_OF_100.interval(estimate.low, estimate.high)})"


def _people(result: AuditResult) -> Lines:
    """Every group with its size; of a single finding also how often it is ill, and found to be so."""
    single = not result.per_label and "prevalence" in result.overall
    head = ["Group", "Images", "Patients", *(["With the disease"] if single else [])]
    shown = {"tpr": "Found, of 100 with the disease", "fpr": "False alarms, of 100 without it"}
    rates = [m for m in shown if single and m in result.overall]
    lines = []
    for name, about in _plain(result).items():
        for group, n in sorted(about.groups.items(), key=lambda item: -item[1]):
            figures = result.by_group[name][group]
            patients = integer(about.patients[group]) if result.settings.clustered else "not given"
            cells = [(integer(n), ""), (patients, "")]
            cells += [(f"{figures['prevalence'].value:.0%}", "")] if single else []
            cells += [_cell(figures.get(m)) for m in rates]
            small = ", too few to compare" if group in about.excluded else ""
            lines.append(Line(f"{shorten(name, _NAME)}: {shorten(group, _NAME)}{small}", cells))
    return Lines([*head, *(shown[m] for m in rates)], lines[:MOST_ROWS], len(lines) - MOST_ROWS)


def _cell(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None or isnan(estimate.value):
        return "–", ""
    return _OF_100(estimate.value), _OF_100.interval(estimate.low, estimate.high)


@dataclass(frozen=True)
class Difference:
    """A difference between groups: of what, the estimate, and whether its interval holds 0."""

    name: str
    estimate: Estimate

    @property
    def sure(self) -> float:
        """Its distance from 0 at the end of the interval nearer to it; negative if that holds 0."""
        e = self.estimate
        return max(e.low, -e.high) if isfinite(e.low) else -1.0


def _differences(result: AuditResult) -> list[Difference]:
    """Of every attribute and label the largest direct effect of a group, and the gap in sensitivity."""
    found = []
    parts = result.per_label or {"": result}
    for label, one in parts.items():
        lead = f"{shorten(label, 16)}, " if label else ""
        for name, about in _plain(one).items():
            if one.effects.get(name):
                group = _quoted(one, name)
                effect = one.simultaneous_effects[name][group]["direct_effect"]
                pair = f"{shorten(group, 10)} against {shorten(about.reference, 10)}"
                found.append(Difference(f"{lead}{shorten(name, 14)}: direct effect, {pair}", effect))
            gap = one.gaps.get(name, {}).get("equal_opportunity_difference")
            if gap is not None:
                found.append(Difference(f"{lead}{shorten(name, 14)}: gap in disease found", gap.estimate))
    return [d for d in found if isfinite(d.estimate.value)]


def _quoted(result: AuditResult, name: str) -> str:
    """The group whose direct effect is shown: the largest of those that are sure, else the largest of all."""
    sizes = {g: abs(result.effects[name][g]["direct_effect"].value) for g in sure_effects(result, name)}
    return max(sizes, key=lambda g: sizes[g]) if sizes else most_affected(result, name)


def _changes(result: AuditResult) -> Lines:
    """Of several classes or findings the differences, those that are surest to be there first."""
    ordered = sorted(_differences(result), key=lambda d: -d.sure)
    lines = [
        Line(
            d.name,
            [(SIGNED_POINTS(d.estimate.value), SIGNED_POINTS.interval(d.estimate.low, d.estimate.high))],
        )
        for d in ordered
    ]
    return Lines(["Difference", "Points"], lines[:MOST_ROWS], len(lines) - MOST_ROWS)


def _shown(result: AuditResult) -> tuple[list[Difference], int]:
    """The differences that are surest to be there, in the order of the audit; and how many there are."""
    every = _differences(result)
    surest = sorted(every, key=lambda d: -d.sure)[:MOST_MARKS]
    return [d for d in every if d in surest], len(every)


def _figure(shown: Sequence[Difference], of: int, level: float) -> Figure | None:
    if not shown:
        return None
    more = f" The {len(shown)} of {of} that are surest to be there." if len(shown) < of else ""
    rows = [(d.name, d.estimate) for d in shown]
    return Figure(
        "differences",
        "Differences between groups, in percentage points",
        f"Each mark is an estimate, each line its {level:.0%} interval. 0 is no difference. A line that "
        f"reaches 0 is no proof of fairness.{more}",
        [forest_panel("", rows, POINTS, "percentage points", 740, left=390)],
        wide=True,
        columns=1,
    )


def _next(result: AuditResult) -> list[str]:
    """What to do, from what the intervals allow."""
    told = []
    parts = result.per_label or {"": result}
    differ, open_ = list[str](), list[str]()
    for label, one in parts.items():
        for name in _plain(one):
            effects = one.simultaneous_effects.get(name)
            if not effects:
                continue
            what = f"{label}, {name}" if label else name
            if sure_effects(one, name):
                differ.append(shorten(what, _NAME))
            else:
                open_.append(
                    shorten(what, _NAME) + _could_be(one.gaps[name].get("equal_opportunity_difference"))
                )
    if differ:
        told.append(
            f"{_listed(differ)}: decisions differ though the disease is the same. Before use, find out why: "
            "devices, image quality, how ill those are who come, how the truth was recorded. Then change the "
            "model or its threshold, or correct it with fairdx, and audit again on other images."
        )
    if open_:
        told.append(
            f"{_listed(open_)}: no direct effect is shown. Decide whether differences that could be missed "
            "are small enough; if not, audit more images."
        )
    if result.withheld is not None and (result.withheld.decisions or result.withheld.attributes):
        told.append("Read the audit without suppression inside the hospital: here figures are withheld.")
    if not result.settings.clustered:
        told.append(
            "Give the patient of each image and audit again: without it the intervals may be too narrow."
        )
    told.append(
        "Check that these patients are like those whom the model will serve, and that the truth is right."
    )
    told.append(
        "If the model is used, name who follows these differences (fairdx monitor) and when it is stopped."
    )
    return told


def _could_be(gap: Gap | None) -> str:
    if gap is None or isnan(gap.detectable):
        return ""
    if gap.detectable >= 1:
        return " (gaps in disease found may be missed whatever their size)"
    return f" (gaps in disease found under {100 * gap.detectable:.0f} points may be missed)"


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names[:4]) + (f"; and {len(names) - 4} more" if len(names) > 4 else "")
