"""The audit: every metric, gap, effect and test of anybody's predictions, with intervals by patient."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdx.auditing.assemble import audit_binary
from fairdx.auditing.family import corrected
from fairdx.auditing.joint import Joint, audit_each, audit_joint
from fairdx.auditing.profile import Truth
from fairdx.auditing.result import AuditResult, Settings
from fairdx.auditing.study import Study
from fairdx.core.errors import InputError
from fairdx.inference.uncertainty import check_level
from fairdx.metrics.inputs import (
    Floats,
    Ints,
    same_length,
    to_attributes,
    to_codes,
    to_numpy,
    to_scores,
)
from fairdx.metrics.scores import binary_truth, class_codes


def audit(  # noqa: PLR0913 - each is one fact of the audit, and all but two are keywords
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitive_features: Any,
    patients: Any = None,
    threshold: float = 0.5,
    reference: Any = None,
    covariates: Any = None,
    compare_to: ArrayLike | None = None,
    min_group_size: int = 30,
    n_replicates: int = 2000,
    n_permutations: int = 999,
    level: float = 0.95,
    interval: Literal["percentile", "bca"] = "percentile",
    seed: int = 0,
    explore: bool = True,
) -> AuditResult:
    """Audit predictions for fairness between groups.

    Columns may be lists, NumPy arrays, pandas or polars columns, or torch tensors.

    Args:
        y_true: Truth: two classes, shape (n,); more classes, shape (n,); or 0/1 findings, shape (n, L).
        y_score: Scores in [0, 1]: P(Y=1), shape (n,); by class, (n, K); or by finding, (n, L).
        sensitive_features: One attribute, shape (n,), or several as a mapping or data frame; of several the
            intersections are audited too.
        patients: Patient of each image, shape (n,). Patients are resampled; images are independent if None.
        threshold: Operating point: a decision is score >= threshold. For several classes the largest score
            decides and the threshold is that of the one-vs-rest audits.
        reference: Group that effects compare with, or a mapping from attribute to group; the largest if None.
        covariates: Columns to standardise effects over besides the label, as for `sensitive_features`.
        compare_to: A second table of scores (after mitigation, say) for the same images, as `y_score`.
        min_group_size: Groups with fewer images are reported, but left out of gaps, effects and tests.
        n_replicates: Bootstrap replicates.
        n_permutations: Permutations of the test of ADF.
        level: Nominal coverage of intervals.
        interval: Of rates and effects; gaps and information have intervals by test inversion.
        seed: The same seed gives the same result.
        explore: Whether to compute the figures at other thresholds too, for the page's explorer.

    Returns:
        All figures, tests and notes.

    Raises:
        InputError: If a column does not fit, holds what it must not, or leaves nothing to compare.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> sex, truth = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
        >>> score = np.clip(0.3 * truth + 0.1 * sex + 0.5 * rng.random(400), 0, 1)
        >>> found = audit(truth, score, sensitive_features={"sex": sex}, n_replicates=200)
        >>> found.gaps["sex"]["demographic_parity_difference"].estimate.low > 0
        True
    """
    attributes = to_attributes(sensitive_features)
    scores, truth = to_scores(y_score), to_numpy(y_true, "y_true")
    named = {f"sensitive feature {name!r}": column.codes for name, column in attributes.items()}
    same_length(y_true=truth, y_score=scores, **named)
    patient = None if patients is None else to_codes(patients, "patients").codes
    after = None if compare_to is None else to_scores(compare_to, "compare_to")
    for name, column in (("patients", patient), ("compare_to", after)):
        if column is not None:
            same_length(y_true=truth, **{name: column})
    if after is not None and after.shape != scores.shape:
        raise InputError(f"compare_to has shape {after.shape} but y_score {scores.shape}.")
    covariate = None if covariates is None else to_attributes(covariates)
    settings = Settings(
        threshold,
        check_level(level),
        interval,
        n_replicates,
        n_permutations,
        seed,
        min_group_size,
        patient is not None,
        [] if covariate is None else list(covariate),
    )
    _check(settings)
    study = Study.of(attributes, reference, patient, covariate, settings)
    if truth.ndim == 2:
        return _multilabel(study, truth, scores, after, list(getattr(y_true, "columns", [])), explore)
    if scores.ndim == 2 and scores.shape[1] > 2:
        return _multiclass(study, truth, scores, after, explore)
    if scores.ndim == 2:  # two columns of probabilities: the second is P(Y=1)
        scores, after = scores[:, -1], None if after is None else after[:, -1]
    return _binary(study, truth, scores, after, explore)


def _check(settings: Settings) -> None:
    if not 0 <= (settings.threshold or 0.0) <= 1:
        raise InputError(f"threshold is {settings.threshold}; give a number in [0, 1].")
    for name in ("n_replicates", "n_permutations"):
        if getattr(settings, name) < 20:
            raise InputError(f"{name} is {getattr(settings, name)}; give at least 20 (1000 is usual).")
    if settings.interval not in ("percentile", "bca"):
        raise InputError(f"interval is {settings.interval!r}; give 'percentile' or 'bca'.")


def _binary(
    study: Study, truth: NDArray[Any], scores: Floats, after: Floats | None, explore: bool
) -> AuditResult:
    label = binary_truth(truth)
    names = to_codes(truth, "y_true").names
    if label.min() == label.max():
        raise InputError(f"y_true holds the single class {names[0]}; an audit needs images of both classes.")
    return corrected(audit_binary(study, Truth.of(label), scores, after, list(names), explore=explore))


def _multiclass(
    study: Study, truth: NDArray[Any], scores: Floats, after: Floats | None, explore: bool
) -> AuditResult:
    n_classes = scores.shape[1]
    codes = class_codes(truth, n_classes)
    names = to_codes(truth, "y_true").names
    classes = list(names) if len(names) == n_classes else [str(k) for k in range(n_classes)]
    present = (codes[:, None] == np.arange(n_classes)).astype(np.int64)
    joint = Joint(codes, scores.argmax(1).astype(np.int64), present, scores)
    _require_both(present, classes)
    return audit_joint(
        study, joint, "multiclass", audit_each(study, joint, after, classes, codes, explore=explore)
    )


def _multilabel(
    study: Study, truth: NDArray[Any], scores: Floats, after: Floats | None, names: list[Any], explore: bool
) -> AuditResult:
    if truth.shape != scores.shape:
        raise InputError(
            f"y_true has shape {truth.shape} but y_score {scores.shape}; give one column per finding."
        )
    if not np.isin(truth, (0, 1)).all():
        raise InputError("y_true of several findings must be 0 or 1; other values occur.")
    findings = [str(name) for name in names] or [str(k) for k in range(truth.shape[1])]
    present = truth.astype(np.int64)
    _require_both(present, findings)
    decided = (scores >= (study.settings.threshold or 0.0)).astype(np.int64)
    codes = np.unique(np.concatenate([present, decided]), axis=0, return_inverse=True)[1].reshape(2, -1)
    joint = Joint(codes[0], codes[1], present, scores)
    return audit_joint(
        study, joint, "multilabel", audit_each(study, joint, after, findings, None, explore=explore)
    )


def _require_both(present: Ints, names: list[str]) -> None:
    """Every class or finding must occur, and none in all images."""
    for name, label in zip(names, present.T, strict=True):
        if label.min() == label.max():
            raise InputError(f"y_true: every image or none is of class {name!r}; leave this class out.")
