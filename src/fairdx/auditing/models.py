"""Audits of several models on the same images, each compared with the first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fairdx.auditing.engine import audit
from fairdx.auditing.result import AuditResult, Note
from fairdx.auditing.threshold import SECOND, Thresholds
from fairdx.core.errors import InputError


def audit_models(
    y_true: Any, y_score: Any, models: Mapping[str, Any], *, first: str | None = None, **settings: Any
) -> AuditResult:
    """Audit a model, and others on the same images.

    Args:
        y_true: Truth, as for `fairdx.auditing.engine.audit`.
        y_score: Scores of the model that the others are compared with.
        models: Scores of the others, by name.
        first: Name of the first model, if its threshold is to be named.
        **settings: As for `fairdx.auditing.engine.audit`, but for `compare_to`; models may have thresholds of
            their own, by name.

    Returns:
        The audit of the first model; its `models` are those of the others, each with its changes against the
        first (paired, by the same resampled patients). P-values are corrected within each model.

    Raises:
        InputError: As `fairdx.auditing.engine.audit`; or a second score is given besides.
    """
    if models and settings.get("compare_to") is not None:
        raise InputError("give several models, or a second score to compare with, not both.")
    names = [*models, *([] if first is None else [first])]
    given = Thresholds.of(settings.pop("threshold", 0.5))
    points = given.for_label(first or "").without(names)
    found = {}
    for name, scores in models.items():
        mine = given.for_label(name).without(names)
        both = replace(points, named={**points.named, SECOND: mine.default})
        second = {"compare_to": scores, "explore": False, "threshold": both}
        changes = audit(y_true, y_score, **{**settings, **second})
        own = audit(y_true, scores, **{**settings, "compare_to": None, "threshold": mine})
        parts = {
            label: replace(one, comparison=changes.per_label[label].comparison)
            for label, one in own.per_label.items()
        }
        found[name] = replace(own, comparison=changes.comparison, per_label=parts)
    result = audit(y_true, y_score, threshold=points, **settings)
    if not found:
        return result
    text = f"P-values are corrected within each of the {len(found) + 1} models, and not across models."
    return replace(result, models=found, notes=[*result.notes, Note("limit", None, text)])
