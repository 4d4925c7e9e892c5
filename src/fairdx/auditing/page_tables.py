"""The tables of an audit's page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from fairdx.auditing.result import Attribute, AuditResult, Change, Gap, Test
from fairdx.inference.pooling import Pooled
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.definitions import METRICS
from fairdx.report.numbers import UNDEFINED, Style, direction_of, integer, probability, style_of, unit_of

GROUPS_AS_COLUMNS = 5
"""Attributes with more groups have one row per group, not one column."""


@dataclass(frozen=True)
class Cell:
    """A figure: its value, and its interval (or another remark) below."""

    value: str
    below: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table: its name, a remark below it, and its cells."""

    name: str
    below: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Grid:
    """A table: its caption, its column names and its rows."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]


def described(metric: str) -> tuple[str, str]:
    """A metric's title, and its unit and direction as a remark."""
    arrow, meaning = direction_of(metric)
    parts = [unit_of(metric), f"{arrow} {meaning}".strip()]
    return METRICS[metric].title, ", ".join(part for part in parts if part)


def cell(metric: str, estimate: Estimate) -> Cell:
    """An estimate with its interval."""
    style = style_of(metric)
    return Cell(style(estimate.value), style.interval(estimate.low, estimate.high))


def overall_table(result: AuditResult) -> Grid:
    """Performance over all images."""
    rows = [Row(*described(metric), [cell(metric, e)]) for metric, e in result.overall.items()]
    return Grid("All images", ["Metric", "Value"], rows)


def groups_table(about: Attribute, groups: Mapping[str, Mapping[str, Estimate]]) -> Grid:
    """Performance within each group; small attributes have a column per group, others a row."""
    metrics = list(next(iter(groups.values())))
    caption = f"Every group of {about.name}; the smaller figures are intervals"
    sizes = {g: Cell(integer(n), _behind(about, g)) for g, n in about.groups.items()}
    if len(groups) <= GROUPS_AS_COLUMNS:
        rows = [Row(*described(m), [cell(m, groups[g][m]) for g in groups]) for m in metrics]
        return Grid(caption, ["Metric", *groups], [Row("Images", "", [sizes[g] for g in groups]), *rows])
    head = ["Group", "Images", *(_short(m) for m in metrics)]
    by_group = [
        Row(g, "not compared: too few images" if g in about.excluded else "", [sizes[g], *_cells(found)])
        for g, found in groups.items()
    ]
    return Grid(caption, head, by_group)


def _behind(about: Attribute, group: str) -> str:
    """How much the images of a group tell."""
    told = f"{integer(about.patients[group])} patients"
    if group in about.effective:
        told += f", as {integer(round(about.effective[group]))} of equal weight"
    return told


def _cells(found: Mapping[str, Estimate]) -> list[Cell]:
    return [cell(metric, estimate) for metric, estimate in found.items()]


def _short(metric: str) -> str:
    unit = unit_of(metric)
    return f"{METRICS[metric].abbreviation}{f', {unit}' if unit else ''}"


def gaps_table(result: AuditResult, name: str) -> Grid:
    """Gaps and information between the groups of an attribute, with tests and what could be detected."""
    tests = {test.metric: test for test in result.tests if test.attribute == name and test.group is None}
    rows = [_gap_row(metric, gap, tests.get(metric)) for metric, gap in result.gaps[name].items()]
    head = ["Difference between groups", "Value", "Between", "p", "p, family", "p, BH", "Detectable"]
    caption = (
        "Largest differences between groups. p: of no difference; family (Westfall and Young) and BH "
        "(Benjamini and Hochberg) are corrected for all tests of this audit: of family, one in twenty audits "
        "without any difference has a value below 0.05. Detectable: the smallest difference found four times "
        "in five."
    )
    return Grid(caption, head, rows)


def _gap_row(metric: str, gap: Gap, test: Test | None) -> Row:
    pair = (
        Cell(UNDEFINED) if gap.lowest is None else Cell(f"{gap.lowest} (lowest)", f"{gap.highest} (highest)")
    )
    return Row(
        *described(metric),
        [cell(metric, gap.estimate), pair, *_p_cells(test), Cell(style_of(metric)(gap.detectable))],
    )


def _p_cells(test: Test | None) -> list[Cell]:
    if test is None:
        return [Cell(UNDEFINED)] * 3
    return [
        Cell(probability(test.p_value), test.method),
        *(Cell(probability(p)) for p in (test.p_family, test.p_bh)),
    ]


def effects_table(result: AuditResult, name: str) -> Grid:
    """Effects of each group against the reference, and the same standardised over covariates."""
    adjusted, modelled = (d.get(name, {}) for d in (result.adjusted_effects, result.modelled_effects))
    names = list(next(iter(result.effects[name].values())))
    head = ["Group", *(f"{METRICS[m].title}, points" for m in names)]
    if adjusted:
        head += [f"{METRICS[m].title}, {how}" for how in ("adjusted", "by model") for m in names]
    tests = {(t.group, t.metric): t for t in result.tests if t.attribute == name}
    head += ["p (direct)", "p, family", "p, BH"]
    rows = [
        Row(
            group,
            "",
            [
                *(cell(m, found[m]) for m in names),
                *(cell(m, part[group][m]) for part in (adjusted, modelled) if part for m in names),
                *_p_cells(tests.get((group, "direct_effect"))),
            ],
        )
        for group, found in result.effects[name].items()
    ]
    covariates = ", ".join(result.settings.covariates)
    caption = f"Effects against {result.attributes[name].reference}" + (
        f"; adjusted: standardised over {covariates} too, within values that both groups have; by model: "
        "over all values, by logistic regressions in which the group and the covariates add up"
        if adjusted
        else ""
    )
    return Grid(caption, head, rows)


def case_mix_table(result: AuditResult, name: str) -> Grid:
    """True-positive rates and AUCs of groups with one mix of the covariates, beside those as they are."""
    found, raw, gaps = result.case_mix[name], result.by_group[name], result.gaps[name]
    metrics = [("tpr", "equal_opportunity_difference"), ("auroc", "auroc_gap")]
    rows = [
        Row(
            group,
            _left_out(sum(left[group] for metric, left in found.left_out.items() if metric == "auroc")),
            [cell(m, figures[m]) for m, _ in metrics for figures in (raw[group], own)],
        )
        for group, own in found.by_group.items()
    ]
    ends = [Row("Largest gap", "", [cell(g, x[g].estimate) for _, g in metrics for x in (gaps, found.gaps)])]
    covariates = ", ".join(result.settings.covariates)
    caption = (
        f"Groups with one mix of {covariates}: what would remain if the diseased of all groups had the same. "
        "The rate is standardised over the diseased of all groups; the AUC compares each of them with the "
        "others of the group that have the same covariates (Janes and Pepe 2009)."
    )
    head = ["Group", *(f"{_short(m)}, {how}" for m, _ in metrics for how in ("as it is", "one mix"))]
    return Grid(caption, head, [*rows, *ends])


def _left_out(images: int) -> str:
    return f"without {integer(images)} images whose covariates some group lacks" if images else ""


def labels_table(result: AuditResult, name: str) -> Grid:
    """What images without a label may do to the gaps between the groups of an attribute."""
    rows = []
    for metric, found in result.labels_missing[name].gaps.items():
        style = style_of(metric)
        rows.append(
            Row(
                *described(metric),
                [
                    Cell(style(result.gaps[name][metric].estimate.value)),
                    Cell(style(found.at_random)),
                    Cell(style.interval(found.low, found.high)),
                    Cell("never" if isnan(found.turning) else f"{found.turning:.0%}"),
                ],
            )
        )
    caption = (
        "Images that have a score but no label. As the others: they have each label as often as the "
        "labelled images of their group with the same decision. Turns around: the share of them whose labels "
        "would have to be the worst ones for the gap. Chance comes on top of all of this."
    )
    head = [
        "Difference between groups",
        "Labelled only",
        "As the others",
        "Whatever they are",
        "Turns around",
    ]
    return Grid(caption, head, rows)


def sensitivity_table(result: AuditResult, name: str) -> Grid:
    """What it would take to explain the direct effects of an attribute away."""
    rows = [
        Row(
            group,
            "",
            [
                Cell(_plain(found.e_value), f"for the end nearer to 0: {_plain(found.e_value_interval)}"),
                Cell("none" if isnan(found.missed_share) else f"{found.missed_share:.1%}"),
            ],
        )
        for group, found in result.sensitivity[name].items()
    ]
    caption = (
        "What would explain the direct effects away. Common cause: the risk ratio by which an unmeasured "
        "cause of disease and image would have to go with the group and with positive decisions (E-value; 1 "
        "is nothing). Missed disease: the share of images recorded negative, in the group with more positive "
        "decisions, that would have to be diseased."
    )
    return Grid(caption, ["Group", "Common cause", "Missed disease"], rows)


def pooled_table(result: AuditResult, name: str) -> Grid:
    """Figures of every group after partial pooling, beside the raw ones."""
    found = result.pooled[name]
    rows = [
        Row(
            group,
            "",
            [_pooled_cell(metric, of.get(group)) for metric, of in found.items()],
        )
        for group in result.attributes[name].groups
        if any(group in of for of in found.values())
    ]
    caption = (
        "Groups after partial pooling: what a rate probably is, given those of the other groups. Small "
        "groups are drawn to the rest; the raw figure is in brackets. Worst: the probability "
        "that no other group is worse in truth."
    )
    return Grid(caption, ["Group", *(_short(metric) for metric in found)], rows)


def _pooled_cell(metric: str, found: Pooled | None) -> Cell:
    if found is None:
        return Cell(UNDEFINED)
    style = style_of(metric)
    ends = style.interval(found.low, found.high)
    return Cell(f"{style(found.value)} [{style(found.raw)}]", f"{ends}; worst {found.worst:.0%}")


def _plain(value: float) -> str:
    return UNDEFINED if isnan(value) else f"{value:.2f}"


def comparison_table(result: AuditResult, name: str) -> Grid:
    """A second table of predictions against the first, for an attribute or for all images."""
    changes = result.comparison[name]
    caption = f"Between the groups of {name}" if name in result.attributes else "All images"
    rows = [_change_row(metric, change) for metric, change in changes.items()]
    return Grid(caption, ["Metric", "Before", "After", "Change", "p", "p, family"], rows)


def _change_row(metric: str, change: Change) -> Row:
    style = style_of(metric)
    signed = Style(style.scale, style.digits, signed=True, unit=style.unit)
    moved = change.difference
    return Row(
        *described(metric),
        [
            Cell(style(change.before)),
            Cell(style(change.after)),
            Cell(signed(moved.value), signed.interval(moved.low, moved.high)),
            Cell(probability(change.p_value), change.method),
            Cell(probability(change.p_family)),
        ],
    )
