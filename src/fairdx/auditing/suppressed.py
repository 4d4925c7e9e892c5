"""Audits that may leave a hospital: no count of a few people is in them or follows from them."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fairdx.auditing.findings import discrimination
from fairdx.auditing.models import audit_models
from fairdx.auditing.result import AuditResult, Gap, Note, Support, Withheld
from fairdx.auditing.small_cells import Plan, few, plan
from fairdx.auditing.threshold import SECOND, Thresholds
from fairdx.core.errors import InputError
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.definitions import THRESHOLD_FREE
from fairdx.metrics.inputs import (
    Codes,
    Floats,
    Ints,
    is_missing,
    to_attributes,
    to_codes,
    to_numpy,
    to_scores,
)
from fairdx.metrics.scores import binary_truth
from fairdx.metrics.threshold import at_precision

FEW_SCORES = 20
"""Of a score with so few values, decisions can be counted from its AUC and its squared error."""

_COUNTED = re.compile(r"\d[\d,]* of (the )?(\d[\d,]* )?")
_ROWS = re.compile(r"\d[\d,]* rows? \(first: row \d+\)")


def audit_suppressed(
    y_true: Any,
    y_score: Any,
    models: Mapping[str, Any] | None = None,
    *,
    least: int,
    first: str | None = None,
    **settings: Any,
) -> AuditResult:
    """Audit one finding such that no count of 1 to `least` - 1 people can be read from the result.

    Groups in which a label and decision have fewer people are joined (`fairdx.auditing.small_cells`). Where
    no two groups are left, the attribute keeps the figures that rest on scores alone, or is left out. Curves,
    histograms and other thresholds are never in the result, since at some threshold a count is always small.
    Two audits of overlapping images can still be subtracted from each other.

    Args:
        y_true: Truth of two classes, shape (n,).
        y_score: P(Y=1), shape (n,).
        models: Scores of further models, as for `fairdx.auditing.models.audit_models`.
        least: Fewest people, patients or else images, that a count other than 0 may stand for; 2 or more.
        first: As for `fairdx.auditing.models.audit_models`.
        **settings: As for `fairdx.auditing.engine.audit`.

    Returns:
        The audit, with `withheld`.

    Raises:
        InputError: As the audit; or there are several findings or classes, thresholds of groups, or nothing
            that can be shown.
    """
    if least < 2:
        raise InputError(f"counts below {least} are to be suppressed: give 2 or more; 10 is usual.")
    truth = to_numpy(y_true, "y_true")
    if truth.ndim > 1 or to_scores(y_score).ndim > 1:
        raise InputError("small cells can be suppressed in audits of a single finding: give one at a time.")
    models = dict(models or {})
    kept = ~is_missing(truth)
    if settings.get("sample_weight") is not None:
        kept &= to_numpy(settings["sample_weight"], "sample_weight") > 0
    attributes = {n: _rows(c, kept) for n, c in to_attributes(settings.pop("sensitive_features")).items()}
    for name in ("patients", "sample_weight", "compare_to"):
        settings[name] = None if settings.get(name) is None else _rows(settings[name], kept)
    if settings.get("covariates") is not None:
        settings["covariates"] = {n: _rows(c, kept) for n, c in to_attributes(settings["covariates"]).items()}
    scores = [_rows(s, kept) for s in (y_score, *models.values())]
    label = binary_truth(_rows(y_true, kept), settings.get("positive_class"))
    people = (
        np.arange(len(label)) if settings["patients"] is None else to_codes(settings["patients"], "").codes
    )
    decisions = _decisions(scores, settings, list(models), first, attributes)
    if few(label, people, least).any() or not 0 < label.mean() < 1:
        raise InputError(f"fewer than {least} people have, or have not, the finding: nothing can be shown.")
    coarse = any(len(np.unique(s)) <= FEW_SCORES for s in _columns(scores, settings["compare_to"]))
    found = plan(attributes, label, decisions, people, least, coarse=coarse)
    if not found.attributes:
        raise InputError(
            f"no attribute has two groups with {least} people of each label: nothing can be shown."
        )
    settings["reference"] = _reference(settings.get("reference"), found)
    settings |= {"sensitive_features": found.attributes, "explore": False}
    settings["patients"] = None if settings["patients"] is None else found.people
    if not found.crossed:
        settings["intersections"] = False
    named = dict(zip(models, scores[1:], strict=True))
    result = audit_models(_rows(y_true, kept), scores[0], named, first=first, **settings)
    withheld = Withheld(
        least,
        found.cells,
        found.joined,
        found.left_out,
        found.undecided,
        not found.overall,
        not found.crossed,
    )
    result = replace(result, models={name: _shown(one, withheld) for name, one in result.models.items()})
    result = _shown(result, withheld)
    if not kept.all():
        text = "Some images have no label, or count nothing, and are left out."
        result = replace(result, notes=[*result.notes, Note("caution", None, text)])
    return result


def without_counts(text: str, least: int) -> str | None:
    """A remark about the rows of a table, without its counts; None where it would still tell one.

    Args:
        text: As readers of tables write them, "12 of 400 rows have no label".
        least: Fewest people that a count may stand for.

    Returns:
        The remark with "some" for counts of rows, and for what they are counted of.

    Example:
        >>> without_counts("3 of 1,400 rows have no label in y and are left out.", 10)
        'Some rows have no label in y and are left out.'
        >>> without_counts("race: group 'Other' has a single image.", 10)
    """
    plain = _ROWS.sub("some rows", _COUNTED.sub("some ", text))
    counts = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", plain)]
    if "single" in plain or any(0 < n < least for n in counts):
        return None
    return plain[0].upper() + plain[1:]


def _rows(column: Any, kept: np.ndarray[Any, Any]) -> Any:
    """Some of the rows of a column, in the form in which audits take it."""
    if isinstance(column, Codes):
        return column if kept.all() else column.take(kept)
    return to_numpy(column, "column")[kept]


def _decisions(
    scores: list[Any],
    settings: Mapping[str, Any],
    models: list[str],
    first: str | None,
    groups: Mapping[str, Codes],
) -> list[Ints]:
    """The decision on each image, by every score."""
    given = Thresholds.of(settings.get("threshold", 0.5))
    if any(name.partition(":")[0] in groups and ":" in name for name in given.named):
        raise InputError("small cells can be suppressed where all groups have one threshold.")
    points = [given.for_label(first or "").default, *(given.for_label(name).default for name in models)]
    columns = _columns(scores, settings["compare_to"])
    if settings["compare_to"] is not None:
        points.append(given.named.get(SECOND, points[0]))
    both = zip(columns, points, strict=True)
    return [(at_precision(column, point) >= point).astype(np.int64) for column, point in both]


def _columns(scores: list[Any], second: Any) -> list[Floats]:
    """Every column of scores."""
    return [to_scores(s) for s in (*scores, *([] if second is None else [second]))]


def _reference(given: Any, found: Plan) -> Any:
    """The reference groups under the names of the groups that they were joined to."""
    names = {a: {g: new for new, parts in j.items() for g in parts} for a, j in found.joined.items()}
    if isinstance(given, Mapping):
        return {a: names.get(a, {}).get(g, g) for a, g in given.items() if a in found.attributes} or None
    return next((of[given] for of in names.values() if given in of), given)


def _shown(result: AuditResult, withheld: Withheld) -> AuditResult:
    """The result without what is withheld."""
    least, hidden = withheld.least, withheld.decisions
    support = {
        a: {g: s for g, s in of.items() if _supported(result, a, g, s, least)}
        for a, of in result.support.items()
    }
    unsure = {a for a, of in result.support.items() if len(support[a]) < len(of)}
    notes = [
        note
        for note in result.notes
        if note.attribute not in hidden
        and not (note.attribute in unsure and "leave out" in note.text)
        and "one mix of" not in note.text
    ]
    notes += [discrimination(result, a) for a in hidden if "auroc_gap" in result.gaps.get(a, {})]
    notes += [Note("limit", None, text) for text in in_words(withheld)]
    order = ("finding", "caution", "limit")
    none: dict[str, Any] = {"curves": {}, "explorer": {}, "case_mix": {}, "labels_missing": {}}
    for name in (
        "effects",
        "adjusted_effects",
        "modelled_effects",
        "simultaneous_effects",
        "sensitivity",
        "missing_bounds",
    ):
        none[name] = {a: {} if a in hidden else of for a, of in getattr(result, name).items()}
    overall = result.overall
    return replace(
        result,
        overall={
            m: _counted(e, least) for m, e in overall.items() if not withheld.overall or m in THRESHOLD_FREE
        },
        by_group={
            a: {g: {m: _counted(e, least) for m, e in _free(found, a in hidden)} for g, found in of.items()}
            for a, of in result.by_group.items()
        },
        gaps={a: {m: _gap(g, least) for m, g in _free(of, a in hidden)} for a, of in result.gaps.items()},
        pooled={a: dict(_free(of, a in hidden)) for a, of in result.pooled.items()},
        comparison={
            a: dict(_free(of, a in hidden or (withheld.overall and a not in result.attributes)))
            for a, of in result.comparison.items()
        },
        support=support,
        tests=[t for t in result.tests if t.attribute not in hidden or t.metric in THRESHOLD_FREE],
        notes=sorted(notes, key=lambda note: order.index(note.kind)),
        withheld=withheld,
        **none,
    )


def _free(found: Mapping[str, Any], hidden: bool) -> list[tuple[str, Any]]:
    return [(m, one) for m, one in found.items() if not hidden or m in THRESHOLD_FREE]


def _counted(estimate: Estimate, least: int) -> Estimate:
    """With weights the number of images behind a predictive value is only a share, and may look small."""
    return replace(estimate, n=0) if 0 < estimate.n < least else estimate


def _gap(gap: Gap, least: int) -> Gap:
    return replace(gap, estimate=_counted(gap.estimate, least))


def _supported(result: AuditResult, name: str, group: str, support: Support, least: int) -> bool:
    """Whether neither the images that are left out nor those that are not are few."""
    about = result.attributes[name]
    pairs = ((support.group, about.groups[group]), (support.reference, about.groups[about.reference]))
    return not any(0 < n < least for left, every in pairs for n in (left, every - left))


def in_words(withheld: Withheld) -> list[str]:
    """What is not shown, in sentences."""
    least = withheld.least
    told = [
        f"Small numbers are withheld: no count of 1 to {least - 1} people is shown here or follows from what "
        f"is shown. Cells of a group, a label and a decision with so few: {withheld.cells:,}. Curves, "
        "histograms, other thresholds, figures with one mix of cases and bounds for missing labels are "
        "withheld from every such page."
    ]
    for name, joined in withheld.joined.items():
        listed = "; ".join(f"{new} ({len(parts)} groups)" for new, parts in joined.items())
        told.append(f"{name}: groups with small numbers are joined: {listed}.")
    if withheld.decisions:
        listed = ", ".join(withheld.decisions)
        told.append(
            f"{listed}: figures of decisions are withheld; those that rest on scores alone are shown."
        )
    if withheld.attributes:
        told.append(f"Nothing can be shown of {', '.join(withheld.attributes)}.")
    if withheld.overall:
        told.append(
            f"Fewer than {least} people have some label and decision: no figure of decisions is shown."
        )
    if withheld.intersections:
        told.append("Intersections of attributes are withheld.")
    return told
