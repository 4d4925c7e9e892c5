"""Audits of several models on the same images, each compared with the first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fairdx.auditing.engine import audit
from fairdx.auditing.result import AuditResult
from fairdx.core.errors import InputError


def audit_models(y_true: Any, y_score: Any, models: Mapping[str, Any], **settings: Any) -> AuditResult:
    """Audit a model, and others on the same images.

    Args:
        y_true: Truth, as for `fairdx.auditing.engine.audit`.
        y_score: Scores of the model that the others are compared with.
        models: Scores of the others, by name.
        **settings: As for `fairdx.auditing.engine.audit`, but for `compare_to`.

    Returns:
        The audit of the first model; its `models` are those of the others, each with its changes against the
        first (paired, by the same resampled patients). P-values are corrected within each model.

    Raises:
        InputError: As `fairdx.auditing.engine.audit`; or a second score is given besides.
    """
    if models and settings.get("compare_to") is not None:
        raise InputError("give several models, or a second score to compare with, not both.")
    found = {}
    for name, scores in models.items():
        changes = audit(y_true, y_score, **{**settings, "compare_to": scores, "explore": False})
        own = audit(y_true, scores, **{**settings, "compare_to": None})
        parts = {
            label: replace(one, comparison=changes.per_label[label].comparison)
            for label, one in own.per_label.items()
        }
        found[name] = replace(own, comparison=changes.comparison, per_label=parts)
    return replace(audit(y_true, y_score, **settings), models=found)
