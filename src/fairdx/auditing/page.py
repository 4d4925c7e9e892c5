"""The page of an audit: findings in words, the threshold explorer, every table and figure, the model card."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from fairdx.auditing import page_figures, page_tables
from fairdx.auditing.findings import headline, sizes
from fairdx.auditing.page_benefit import benefit_figure
from fairdx.auditing.page_explorer import ExplorerView, explorer_view
from fairdx.auditing.result import Attribute, AuditResult, Note
from fairdx.core.files import write_whole
from fairdx.metrics.definitions import METRICS
from fairdx.report.figures import Figure
from fairdx.report.numbers import SIGNED_POINTS, integer, p_is, style_of
from fairdx.report.page import render_page

MOST_BYTES = 4_900_000
"""A page larger than this loses detail."""


@dataclass(frozen=True)
class Detail:
    """How much a page shows, and what it says about the rest.

    Attributes:
        explore_labels: Whether the audits of single classes have explorers.
        draw_labels: Whether they have figures.
        explore_intersections: Whether intersections are explored.
        draw: Whether anything is drawn or explored at all.
        remark: What was left out.
    """

    explore_labels: bool
    draw_labels: bool
    explore_intersections: bool
    draw: bool
    remark: str


_MORE = "Use the JSON output or the Python result for all of it."
DETAILS = (
    Detail(True, True, True, True, ""),
    Detail(
        False,
        True,
        True,
        True,
        f"The explorers of single classes are left out to keep the page small. {_MORE}",
    ),
    Detail(
        False,
        False,
        False,
        True,
        "Figures and explorers of single classes and of intersections are left out to keep the page small. "
        + _MORE,
    ),
    Detail(False, False, False, False, f"All figures are left out to keep the page small. {_MORE}"),
)
"""From everything to tables only."""


@dataclass(frozen=True)
class AttributeView:
    """What the page shows of one attribute."""

    about: Attribute
    heading: str
    figures: Sequence[Figure]
    tables: Sequence[page_tables.Grid]
    curves: Sequence[Figure]
    groups: page_tables.Grid


@dataclass(frozen=True)
class Card:
    """A headline of one attribute."""

    title: str
    big: str
    unit: str
    lines: Sequence[str]


@dataclass(frozen=True)
class AuditView:
    """An audit, or that of one class, ready for the template."""

    identifier: str
    result: AuditResult
    cards: Sequence[Card]
    overall: page_tables.Grid
    explorer: ExplorerView | None
    attributes: Sequence[AttributeView]
    comparison: list[page_tables.Grid]
    comparison_crossed: list[page_tables.Grid]
    headline: str
    findings: Sequence[str]


def render_audit(result: AuditResult, *, title: str | None = None, command: str | None = None) -> str:
    """The page of an audit as one self-contained HTML text under 5 MB.

    Args:
        result: The audit.
        title: Heading of the page.
        command: How the audit was started, for its model card.

    Returns:
        The page. Where everything would be too large, figures of single classes and intersections go first,
        and the page says so.
    """
    page = ""
    for detail in DETAILS:
        page = _render(result, title, command, detail)
        if len(page.encode()) <= MOST_BYTES:
            break
    return page


def write_audit(
    result: AuditResult, path: str | Path, *, title: str | None = None, command: str | None = None
) -> None:
    """Write the page of an audit to a file; see `render_audit`.

    Raises:
        OSError: The file cannot be written.
    """
    write_whole(Path(path), render_audit(result, title=title, command=command).encode())


def _render(result: AuditResult, title: str | None, command: str | None, detail: Detail) -> str:
    main = _view(result, "all", detail.draw, detail.draw, detail.explore_intersections)
    labels = {
        name: _view(one, f"class{i}", detail.draw_labels, detail.explore_labels, detail.explore_intersections)
        for i, (name, one) in enumerate(result.per_label.items())
    }
    models = {
        name: _view(one, f"model{i}", detail.draw_labels, detail.explore_labels, detail.explore_intersections)
        for i, (name, one) in enumerate(result.models.items())
    }
    kinds = ("finding", "caution", "limit")
    plain, crossed = top_notes(result)
    several = "Each class against the rest" if result.task == "multiclass" else "Each finding"
    return render_page(
        "audit.html",
        script="explorer.js",
        title=title
        or f"Fairness audit: {', '.join(n for n, a in result.attributes.items() if not a.intersection)}",
        view=main,
        head=[headline(result), *sizes(result)],
        parts=[part for part in ((several, labels), ("Other models", models)) if part[1]],
        notes={kind: [note.text for note in plain if note.kind == kind] for kind in kinds},
        notes_crossed=[note.text for note in crossed],
        remark=detail.remark,
        facts=facts(result),
        command=command,
        result=result,
    )


def top_notes(result: AuditResult) -> tuple[list[Note], list[Note]]:
    """The notes for the top of the page, and those about intersections.

    The notes about one class stand in its own section; those that all classes share stand at the top once.
    """
    own = list(result.notes)
    if result.per_label:
        repeated = {f"{name}: {note.text}" for name, one in result.per_label.items() for note in one.notes}
        shared = {n.text: n for one in result.per_label.values() for n in one.notes if n.attribute is None}
        own = [*(note for note in own if note.text not in repeated), *shared.values()]
    crossed = {name for name, about in result.attributes.items() if about.intersection}
    return [n for n in own if n.attribute not in crossed], [n for n in own if n.attribute in crossed]


def _view(result: AuditResult, identifier: str, draw: bool, explore: bool, intersections: bool) -> AuditView:
    wide = [n for n in result.explorer if intersections or not result.attributes[n].intersection]
    return AuditView(
        identifier,
        result,
        [_card(result, about) for about in result.attributes.values() if not about.intersection],
        page_tables.overall_table(result),
        explorer_view(result, identifier, wide) if explore and wide else None,
        [
            _attribute(result, n, draw and (intersections or not a.intersection))
            for n, a in result.attributes.items()
        ],
        _comparison(result, crossed=False),
        _comparison(result, crossed=True),
        headline(result),
        [n.text for n in result.notes if n.attribute is not None],
    )


def _comparison(result: AuditResult, *, crossed: bool) -> list[page_tables.Grid]:
    """Tables of the change, of intersections or of everything else."""
    return [
        page_tables.comparison_table(result, name)
        for name in result.comparison
        if crossed == (name in result.attributes and result.attributes[name].intersection)
    ]


def _attribute(result: AuditResult, name: str, draw: bool) -> AttributeView:
    about = result.attributes[name]
    drawn, curves, grids = [], [], []
    if result.gaps.get(name):
        grids.append(page_tables.gaps_table(result, name))
        if draw:
            drawn.append(page_figures.forest(result, name))
    if result.effects.get(name):
        grids.append(page_tables.effects_table(result, name))
        if draw:
            drawn.append(page_figures.paths(result, name))
        grids.append(page_tables.sensitivity_table(result, name))
    if name in result.case_mix:
        grids.append(page_tables.case_mix_table(result, name))
    if name in result.labels_missing:
        grids.append(page_tables.labels_table(result, name))
    if result.pooled.get(name):
        grids.append(page_tables.pooled_table(result, name))
    if draw and name in result.curves:
        curves = [page_figures.discrimination(result, name), page_figures.scores(result, name)]
        benefit = benefit_figure(result, name) if name in result.explorer else None
        curves += [] if benefit is None else [benefit]
    heading = f"{name} (intersection)" if about.intersection else name
    groups = page_tables.groups_table(about, result.by_group[name])
    return AttributeView(about, heading, drawn, grids, curves, groups)


def _card(result: AuditResult, about: Attribute) -> Card:
    """The largest direct effect of an attribute, or its gap in decisions where there are no effects."""
    name, lines = about.name, []
    for metric in ("equal_opportunity_difference", "auroc_gap", "approximate_diagnosis_fairness_corrected"):
        gap = result.gaps.get(name, {}).get(metric)
        if gap is not None:
            style = style_of(metric)
            ends = style.interval(gap.estimate.low, gap.estimate.high)
            lines.append(f"{METRICS[metric].title}: {style.in_words(gap.estimate.value)} ({ends})")
    if result.per_label:
        lines.insert(0, _joint_decision(result, name))
    effects = {g: e["direct_effect"] for g, e in result.simultaneous_effects.get(name, {}).items()}
    known = {g: e for g, e in effects.items() if isfinite(e.value)}
    if not known:
        return Card(name, f"{len(about.groups)}", "groups", lines)
    group = max(known, key=lambda g: abs(known[g].value))
    e = known[group]
    ends = SIGNED_POINTS.interval(e.low, e.high)
    said = f"Direct effect on decisions for {group} against {about.reference}, the disease held ({ends})"
    return Card(name, SIGNED_POINTS(e.value), "points", [said, *lines])


def _joint_decision(result: AuditResult, name: str) -> str:
    """Whether the joint decision of several classes depends on the group; of two classes a note says so."""
    metric = "approximate_diagnosis_fairness"
    test = next((t for t in result.tests if (t.attribute, t.metric) == (name, metric)), None)
    if test is None or not isfinite(test.p_family):
        return "Whether the decision depends on the group beyond the true class was not tested."
    found = "depends" if test.p_family <= 1 - result.settings.level else "is not shown to depend"
    return (
        f"The decision {found} on the group beyond the true class "
        f"({p_is(test.p_family)}, corrected for all tests)."
    )


_BINNING = {"quantile": "of equally many images of a group", "uniform": "of equal width"}


def facts(result: AuditResult) -> list[tuple[str, str]]:
    """The model card: data, sizes, settings, versions."""
    settings = result.settings
    prevalence = result.overall.get("prevalence")
    found = [
        ("Task", result.task),
        ("Labels", ", ".join(result.classes)),
        ("Images", integer(result.n_images)),
        (
            "Patients",
            integer(result.n_patients) if settings.clustered else "not given: images taken as independent",
        ),
    ]
    if result.n_effective is not None:
        whose = "patients" if settings.clustered else "images"
        found.append(("Weights", f"as much as {integer(round(result.n_effective))} {whose} of equal weight"))
    if prevalence is not None:
        found.append(("Prevalence", f"{prevalence.value:.1%}"))
    for about in result.attributes.values():
        sizes = ", ".join(f"{g} {integer(n)}" for g, n in list(about.groups.items())[:12])
        more = f" and {len(about.groups) - 12} more" if len(about.groups) > 12 else ""
        found.append((f"Groups of {about.name}", f"{sizes}{more}; reference {about.reference}"))
    if result.task == "multiclass":
        found.append(("Decision", "the class with the largest score"))
    if settings.thresholds:
        own = ", ".join(f"{name} {t:g}" for name, t in settings.thresholds.items())
        found.append(("Thresholds of their own", own))
    if settings.threshold is not None:
        where = " (each class against the rest)" if result.task == "multiclass" else ""
        found.append(("Threshold", f"{settings.threshold:g}, as given: positive from this score on{where}"))
    found += [
        (
            "Intervals",
            f"{settings.level:.0%}, {settings.interval}; {integer(settings.n_replicates)} replicates",
        ),
        ("Permutations", integer(settings.n_permutations)),
        (
            "Calibration",
            f"{settings.calibration_bins} bins at most, {_BINNING[settings.calibration_binning]}",
        ),
        ("Smallest group compared", f"{settings.min_group_size} images"),
        ("Covariates", ", ".join(settings.covariates) or "none"),
        *_withheld(result),
        ("Seed", str(settings.seed)),
        ("Version", f"fairdx {result.fairdx_version}, schema {result.schema_version}"),
        ("Created", result.created),
    ]
    return found


def _withheld(result: AuditResult) -> list[tuple[str, str]]:
    if result.withheld is None:
        return []
    return [("Withheld", f"counts of 1 to {result.withheld.least - 1}; {result.withheld.cells:,} cells")]
