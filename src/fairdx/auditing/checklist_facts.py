"""What an audit can answer in a reporting checklist, as sentences."""

from math import isfinite, isnan

from fairdx.auditing.findings import headline, sizes
from fairdx.auditing.page import top_notes
from fairdx.auditing.result import AuditResult
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.definitions import METRICS
from fairdx.report.numbers import style_of

_PERFORMANCE = ("auroc", "tpr", "fpr", "ppv", "npv", "accuracy", "expected_calibration_error")
_BY_GROUP = ("auroc", "tpr", "fpr")
_MOST_GROUPS = 12
_MOST_NOTES = 12


def facts_of_audit(result: AuditResult) -> dict[str, str]:
    """Sentences by key, as `fairdx.auditing.checklists` asks for them; without what is not known.

    Args:
        result: An audit, or one read again from its JSON.
    """
    plain, _ = top_notes(result)
    notes = {kind: [n.text for n in plain if n.kind == kind] for kind in ("finding", "caution", "limit")}
    told = [text for text in notes["caution"] if "label" in text or "missing" in text]
    found = {
        "sizes": headline(result),
        "groups": " ".join(sizes(result)),
        "label": f"Labels: {', '.join(result.classes[:_MOST_GROUPS])}. "
        "How they were obtained is for the authors to say.",
        "left_out": " ".join(told),
        "missing": _missing(result),
        "threshold": _threshold(result),
        "measures": f"{', '.join(METRICS[m].title for m in result.overall)}; differences between groups: "
        f"{', '.join(METRICS[m].title for m in _gaps(result))}.",
        "statistics": _statistics(result),
        "clusters": "Images of a patient are drawn together; differences between hospitals are not examined."
        if result.settings.clustered
        else "",
        "fairness": _fairness(result),
        "performance": _performance(result.overall, _PERFORMANCE),
        "subgroups": _subgroups(result),
        "crosstab": _crosstab(result),
        "power": _power(result),
        "sensitivity": _sensitivity(result),
        "findings": _few(notes["finding"]),
        "limits": _few([*notes["limit"], *notes["caution"]]),
        "software": f"fairdx {result.fairdx_version}.",
        "repeat": "The audit is computed from a table of predictions by `fairdx audit`; the same seed "
        f"({result.settings.seed}) gives the same figures.",
    }
    return {key: text for key, text in found.items() if text}


def _few(texts: list[str]) -> str:
    more = len(texts) - _MOST_NOTES
    return " ".join([*texts[:_MOST_NOTES], *([f"{more} more are in the audit."] if more > 0 else [])])


def _gaps(result: AuditResult) -> list[str]:
    part = next(iter(result.per_label.values()), result)
    return list(next(iter(part.gaps.values()), {}))


def _missing(result: AuditResult) -> str:
    groups = [name for name, about in result.attributes.items() if "(missing)" in about.groups]
    return f"Images without {', '.join(groups)} form a group of their own." if groups else ""


def _threshold(result: AuditResult) -> str:
    settings = result.settings
    if settings.threshold is None:
        return "The class with the largest score is the decision."
    own = ", ".join(f"{name} {t:g}" for name, t in settings.thresholds.items())
    more = f", with thresholds of their own for {own}" if own else ""
    return (
        f"An image is decided positive from a score of {settings.threshold:g} on{more}. How it was chosen "
        "is for the authors to say."
    )


def _statistics(result: AuditResult) -> str:
    settings = result.settings
    whose = "patients" if settings.clustered else "images"
    return (
        f"{settings.level:.0%} intervals: score intervals of rates, areas and gaps; {settings.interval} "
        f"intervals of effects from {settings.n_replicates:,} bootstrap replicates of {whose}. P-values are "
        f"corrected for all {len(result.tests)} tests of the audit (Westfall and Young; Holm; Benjamini and "
        "Hochberg)."
    )


def _fairness(result: AuditResult) -> str:
    names = ", ".join(name for name, about in result.attributes.items() if not about.intersection)
    crossed = any(about.intersection for about in result.attributes.values())
    return (
        f"Groups of {names}{' and their intersections' if crossed else ''} are compared: gaps in rates, AUC "
        "and calibration, what the decision tells about the group given the truth (ADF), and total, direct "
        "and indirect effects of the group on the decision."
    )


def _performance(found: dict[str, Estimate], metrics: tuple[str, ...]) -> str:
    told = []
    for metric in metrics:
        if metric in found and isfinite(found[metric].value):
            e, style = found[metric], style_of(metric)
            title = METRICS[metric].title
            told.append(f"{title} {style.in_words(e.value)} ({style.interval(e.low, e.high)})")
    return f"{'; '.join(told)}." if told else ""


def _subgroups(result: AuditResult) -> str:
    lines = [
        f"{name} {group}: {_performance(found, _BY_GROUP)}"
        for name, about in result.attributes.items()
        if not about.intersection
        for group, found in result.by_group[name].items()
    ]
    lines = [line for line in lines if not line.endswith(": ")]
    more = len(lines) - _MOST_GROUPS
    return " ".join([*lines[:_MOST_GROUPS], *([f"{more} more groups are in the audit."] if more > 0 else [])])


def _crosstab(result: AuditResult) -> str:
    """The table of decision by truth of all images; of weighted or several ones there is none."""
    found = result.overall
    if result.task != "binary" or result.settings.weighted or not {"tpr", "fpr", "prevalence"} <= set(found):
        return ""
    positive = round(found["prevalence"].value * result.n_images)
    negative = result.n_images - positive
    hits, alarms = round(found["tpr"].value * positive), round(found["fpr"].value * negative)
    return (
        f"With the disease: {hits:,} decided positive, {positive - hits:,} negative. Without it: {alarms:,} "
        f"decided positive, {negative - alarms:,} negative."
    )


def _power(result: AuditResult) -> str:
    told = []
    for name, about in result.attributes.items():
        gap = result.gaps.get(name, {}).get("equal_opportunity_difference")
        if not about.intersection and gap is not None and not isnan(gap.detectable):
            told.append(f"{name} {100 * gap.detectable:.1f} points")
    if not told:
        return ""
    return (
        "Smallest gap in true-positive rates that is found four times in five at this size: "
        f"{', '.join(told)}. Whether this size was planned is for the authors to say."
    )


def _sensitivity(result: AuditResult) -> str:
    told = [
        f"{name} {group} {one.e_value:.2f}"
        for name, of in result.sensitivity.items()
        for group, one in of.items()
        if not result.attributes[name].intersection and isfinite(one.e_value)
    ]
    if not told:
        return ""
    listed = ", ".join(told)
    return f"Strength of an unmeasured common cause that explains a direct effect (E-value): {listed}."
