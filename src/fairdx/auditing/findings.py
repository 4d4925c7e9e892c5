"""The result in words: what was found, how sure that is, and what cannot be said."""

from math import isnan

from fairdx.auditing.design import MISSING
from fairdx.auditing.findings_adjusted import case_mix_notes
from fairdx.auditing.findings_general import in_general
from fairdx.auditing.result import Attribute, AuditResult, Note, Test
from fairdx.metrics.definitions import METRICS
from fairdx.metrics.ratios import FOUR_FIFTHS
from fairdx.report.numbers import p_is

MANY_NUMBERS = 12
"""An attribute with more groups than this that are numbers is probably a measurement."""

ROUNDING = 1e-12
"""Figures of this size are rounding errors of figures that are equal."""


def findings(result: AuditResult) -> list[Note]:
    """Sentences for the top of a report, for binary audits.

    Args:
        result: The audit, its notes not yet filled in.

    Returns:
        Findings first, then cautions, then limits.
    """
    notes: list[Note] = []
    for about in result.attributes.values():
        notes += _about(result, about)
    order = {"finding": 0, "caution": 1, "limit": 2}
    return sorted([*notes, *in_general(result)], key=lambda note: order[note.kind])


def headline(result: AuditResult) -> str:
    """The first line of a page and of the console: who is positive, how many, and the AUC.

    Args:
        result: An audit, or that of one class or finding.
    """
    who = f"{result.n_images:,} images"
    if result.settings.clustered:
        who += f" of {result.n_patients:,} patients"
    area = result.overall["auroc"]
    ends = "" if isnan(area.low) else f" ({area.level:.0%} interval {area.low:.3f} to {area.high:.3f})"
    auc = f"AUC {area.value:.3f}{ends}"
    if result.task != "binary":
        kind = "classes" if result.task == "multiclass" else "findings"
        listed = ", ".join(result.classes[:MANY_NUMBERS])
        more = f" and {n - MANY_NUMBERS} more" if (n := len(result.classes)) > MANY_NUMBERS else ""
        return f"{len(result.classes)} {kind}: {listed}{more}. {who}. Mean {auc}."
    negative, positive = result.classes
    share = result.overall["prevalence"].value
    return f"Positive is {positive!r}, negative is {negative!r}. {who}, {share:.1%} positive. {auc}."


def sizes(result: AuditResult) -> list[str]:
    """A sentence for each attribute with the number of images in each of its groups."""
    found = []
    for about in result.attributes.values():
        if not about.intersection:
            listed = ", ".join(f"{g} {n:,}" for g, n in list(about.groups.items())[:MANY_NUMBERS])
            more = f" and {len(about.groups) - MANY_NUMBERS} more groups" * (len(about.groups) > MANY_NUMBERS)
            found.append(f"{about.name}: {listed}{more}.")
    return found


def _about(result: AuditResult, about: Attribute) -> list[Note]:
    name, notes = about.name, _doubts(result, about)
    if about.excluded:
        notes.append(_too_small(result, about))
    if not result.gaps[name]:
        return [*notes, _note("limit", name, f"{name}: fewer than two groups are large enough to compare.")]
    notes.append(_decision(result, name))
    notes += _four_fifths(result, name)
    if result.effects[name]:
        notes.append(_effect(result, name, most_affected(result, name)))
    elif about.reference in about.excluded:
        text = f"{name}: no effects are estimated, as the reference {about.reference} is too small."
        notes.append(_note("caution", name, text))
    notes.append(discrimination(result, name))
    notes += case_mix_notes(result, name)
    notes.append(_power(result, name))
    if result.explorer and name not in result.explorer:
        text = f"{name}: no other thresholds are explored, as it has {len(about.groups)} groups."
        notes.append(_note("limit", name, text))
    notes += _left_out(result, name)
    areas = {g: found["auroc"].value for g, found in result.by_group[name].items()}
    undefined = [g for g, area in areas.items() if isnan(area)]
    if undefined:
        text = (
            f"{name}: the AUC of a group with images of one label only is undefined: {', '.join(undefined)}."
        )
        notes.append(_note("caution", name, text))
    return notes


def _too_small(result: AuditResult, about: Attribute) -> Note:
    """Which groups are not compared, and whether their images or their patients are too few."""
    least = result.settings.min_group_size
    listed = ", ".join(f"{g} ({about.groups[g]:,})" for g in about.excluded[:10])
    why = f"fewer than {least} images"
    if any(about.groups[g] >= least for g in about.excluded):
        why += " or too few patients"
    text = (
        f"{about.name}: groups with {why} are reported but not compared: {listed}"
        f"{' and more' if len(about.excluded) > 10 else ''}."
    )
    return _note("caution", about.name, text)


def _doubts(result: AuditResult, about: Attribute) -> list[Note]:
    """Cautions about the attribute itself: numbers as groups, patients in several groups."""
    if about.intersection:
        return []
    name, notes = about.name, []
    numbers = [group for group in about.groups if _is_number(group)]
    if len(numbers) > MANY_NUMBERS:
        notes.append(
            _note(
                "caution",
                name,
                f"{name}: {len(numbers)} of its groups are numbers. If it is a measurement, divide it first, "
                f"as --group {name}@40,60 does.",
            )
        )
    twice = sum(about.patients.values()) - result.n_patients if result.settings.clustered else 0
    if twice:
        twice = min(twice, result.n_patients)
        count = f"{twice:,}" if len(about.groups) == 2 else f"up to {twice:,}"
        notes.append(
            _note(
                "caution",
                name,
                f"{name}: {count} of {result.n_patients:,} patients occur in more than one group. "
                f"If {name} cannot change, the groups or the patients are wrong.",
            )
        )
    return notes


def _left_out(result: AuditResult, name: str) -> list[Note]:
    """Cautions about groups that some differences leave out, and images that adjusted effects leave out."""
    titles: dict[tuple[str, ...], list[str]] = {}
    hidden = _hidden(result, name)
    for metric, gap in result.gaps[name].items():
        if gap.left_out:
            titles.setdefault(tuple(gap.left_out), []).append(METRICS[metric].title)
    covariates, reference = ", ".join(result.settings.covariates), result.attributes[name].reference
    unsupported = [
        _note(
            "caution",
            name,
            f"{name}: effects adjusted for {covariates} leave out {left.group:,} images of {group} and "
            f"{left.reference:,} of {reference}: their values lack a label in the other group.",
        )
        for group, left in result.support.get(name, {}).items()
        if left.group or left.reference
    ]
    about = result.attributes[name]
    told = []
    for groups, metrics in titles.items():
        rest = len(about.groups) - len({*about.excluded, *groups})
        done = "the other groups are compared" if rest > 1 else "fewer than two groups are left"
        told.append(
            f"{name}: {done}, without {', '.join(groups)}, where a group has too few images of a label or "
            f"decision: {', '.join(metrics)}."
        )
    return [*hidden, *unsupported, *(_note("caution", name, text) for text in told)]


def _hidden(result: AuditResult, name: str) -> list[Note]:
    """What images without a group may hide."""
    bounds = result.missing_bounds.get(name, {})
    told = [
        f"{METRICS[metric].title} between {' and '.join(f'{100 * end:.1f}' for end in bounds[metric])} points"
        for metric in ("demographic_parity_difference", "equal_opportunity_difference")
        if metric in bounds and not isnan(bounds[metric][0])
    ]
    if not told:
        return []
    count = result.attributes[name].groups[MISSING]
    text = (
        f"{name}: {count:,} of the images have no value of {name}. Whatever their groups are, between the "
        f"others the gaps of these images are: {'; '.join(told)} (chance comes on top)."
    )
    return [_note("caution", name, text)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _note(kind: str, attribute: str | None, text: str) -> Note:
    return Note(kind, attribute, text)  # type: ignore[arg-type]


def _test(result: AuditResult, attribute: str, metric: str, group: str | None = None) -> Test | None:
    keys = (attribute, metric, group)
    return next((t for t in result.tests if (t.attribute, t.metric, t.group) == keys), None)


def _p(test: Test | None) -> str:
    if test is None or isnan(test.p_value):
        return "untested"
    corrected = p_is(test.p_family).removeprefix("p ").removeprefix("= ")
    return f"{p_is(test.p_value)}, {corrected} corrected for all tests"


def _number(value: float, digits: int = 3) -> str:
    return "undefined" if isnan(value) else f"{0.0 if abs(value) < ROUNDING else value:.{digits}g}"


def _range(low: float, high: float) -> str:
    if isnan(low) or isnan(high):
        return "not known"
    return f"{_number(low)} to {_number(high)}"


def _decision(result: AuditResult, name: str) -> Note:
    gap = result.gaps[name]["approximate_diagnosis_fairness_corrected"].estimate
    test = _test(result, name, "approximate_diagnosis_fairness")
    size = 1 - result.settings.level
    if test is None or isnan(test.p_value):
        verdict = "could not be tested for a dependence on the group"
    elif test.p_family <= size:
        verdict = "depends on the group"
    elif test.p_value <= size:
        verdict = "may depend on the group (not significant after correction)"
    else:
        verdict = "shows no dependence on the group beyond chance"
    return _note(
        "finding",
        name,
        f"{name}: given the true diagnosis, the decision {verdict} (ADF {_number(gap.value)} nats, "
        f"{gap.level:.0%} interval {_range(gap.low, gap.high)}; {_p(test)}).",
    )


def _four_fifths(result: AuditResult, name: str) -> list[Note]:
    """The four-fifths rule in words, for attributes themselves."""
    gap = result.gaps[name]["demographic_parity_ratio"]
    ratio = gap.estimate
    if gap.lowest is None or result.attributes[name].intersection:
        return []
    if gap.lowest == gap.highest:
        return [_note("finding", name, f"{name}: all groups are decided positive equally often.")]
    if ratio.high < FOUR_FIFTHS:
        verdict = "below four fifths, so the rule is broken"
    elif ratio.low >= FOUR_FIFTHS:
        verdict = "not below four fifths, so the rule is kept"
    else:
        verdict = "which may be above or below four fifths, so the rule is not settled"
    text = (
        f"{name}: {gap.lowest} is decided positive {ratio.value:.2f} times as often as {gap.highest} "
        f"({ratio.level:.0%} interval {ratio.low:.2f} to {ratio.high:.2f}), {verdict}. It is a rule for "
        "hiring: where the disease is more frequent in a group, positive decisions should be too."
    )
    return [_note("finding", name, text)]


def sure_effects(result: AuditResult, name: str) -> list[str]:
    """The groups of an attribute for which the interval of the direct effect, for all at once, excludes 0."""
    ends = {g: e["direct_effect"] for g, e in result.simultaneous_effects.get(name, {}).items()}
    return [g for g, e in ends.items() if e.low > ROUNDING or e.high < -ROUNDING]


def most_affected(result: AuditResult, name: str) -> str:
    """The group of an attribute with the largest direct effect, whatever its sign."""
    sizes = {g: abs(e["direct_effect"].value) for g, e in result.effects[name].items()}
    return max(sizes, key=lambda g: -1.0 if isnan(sizes[g]) else sizes[g])


def _effect(result: AuditResult, name: str, group: str) -> Note:
    # Of several groups the one with the largest effect is quoted: its interval has to hold for all of them.
    effect = result.simultaneous_effects[name][group]["direct_effect"]
    reference = result.attributes[name].reference
    if isnan(effect.value):
        text = f"{name}: the direct effect for {group} is undefined: it lacks a label of {reference}."
        return _note("limit", name, text)
    more = "more" if effect.value > 0 else "less"
    certain = sure_effects(result, name)
    sure = "excludes" if group in certain else "includes"
    others = [other for other in certain if other != group]
    also = f" So does that for {', '.join(others)}." if others and group in certain else ""
    also = f" For {', '.join(others)} it excludes 0." if others and not also else also
    at_once = " for all groups at once" if len(result.effects[name]) > 1 else ""
    ends = f"interval{at_once} {effect.low * 100:.1f} to {effect.high * 100:.1f} points, which {sure} 0"
    if isnan(effect.low):
        ends = "without an interval, since too many replicates leave it undefined"
    return _note(
        "finding",
        name,
        f"{name}: with the disease as in {reference}, {group} is decided positive "
        f"{abs(effect.value) * 100:.1f} points {more} often than {reference} (direct effect, {ends}).{also}",
    )


def discrimination(result: AuditResult, name: str) -> Note:
    """Which group has the lowest AUC, which the highest, and how sure the gap is."""
    gap = result.gaps[name]["auroc_gap"]
    if gap.lowest is None:
        return _note("limit", name, f"{name}: AUCs cannot be compared, since one is undefined.")
    low = result.by_group[name][gap.lowest]["auroc"].value
    if gap.lowest == gap.highest:
        text = (
            f"{name}: all groups have the AUC {low:.3f} ({gap.estimate.level:.0%} interval of the gap "
            f"{_range(gap.estimate.low, gap.estimate.high)})."
        )
        return _note("finding", name, text)
    return _note(
        "finding",
        name,
        f"{name}: the AUC is lowest in {gap.lowest} ({low:.3f}) and {gap.estimate.value:.3f} higher in "
        f"{gap.highest} ({gap.estimate.level:.0%} interval of the gap "
        f"{_range(gap.estimate.low, gap.estimate.high)}; {_p(_test(result, name, 'auroc_gap'))}).",
    )


def _missed(detectable: float) -> str:
    """Sizes of a gap between rates, which is 1 at most."""
    return f"under {_number(detectable, 2)}" if detectable < 1 else "of any size"


def _power(result: AuditResult, name: str) -> Note:
    gaps = result.gaps[name]
    parts = [
        f"{title} {_missed(gaps[metric].detectable)}"
        for metric, title in (
            ("equal_opportunity_difference", "true-positive rate gaps"),
            ("demographic_parity_difference", "selection rate gaps"),
            ("auroc_gap", "AUC gaps"),
        )
        if not isnan(gaps[metric].detectable)
    ]
    if not parts:
        return _note("limit", name, f"{name}: no gap can be tested with these numbers.")
    text = (
        f"{name}: at this sample size, {', '.join(parts)} would be missed more than one time in five, by the "
        "tests as corrected."
    )
    return _note("limit", name, text)
