"""The audit: every metric, gap, effect and test of anybody's predictions, with intervals by patient."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from fairdx.auditing.assemble import audit_binary
from fairdx.auditing.dependence import Shown
from fairdx.auditing.design import MOST_CROSSED
from fairdx.auditing.family import corrected
from fairdx.auditing.images import Images
from fairdx.auditing.joint import Joint, audit_apart, audit_joint
from fairdx.auditing.profile import Truth
from fairdx.auditing.result import AuditResult, Note, Settings
from fairdx.auditing.selection import with_unlabelled
from fairdx.auditing.study import Study
from fairdx.auditing.threshold import Thresholds
from fairdx.core.errors import InputError
from fairdx.inference.uncertainty import check_group_size, check_level
from fairdx.metrics.inputs import (
    Floats,
    Ints,
    distinct_names,
    is_missing,
    plain,
    same_length,
    to_attributes,
    to_codes,
    to_numpy,
    to_scores,
    to_weights,
)
from fairdx.metrics.matching import same_order
from fairdx.metrics.positive import positive_place
from fairdx.metrics.reliability import TEN, Bins
from fairdx.metrics.scores import binary_truth, class_codes
from fairdx.metrics.threshold import at_precision

FEW_LABELS = 4
"""With more classes or findings than this, intersections are audited only if they are asked for."""

MOST_TABLES = 30
"""With more attributes and intersections than this, the latter are audited only if they are asked for."""

MOST_CLASSES = 50
"""Of more classes than this none is audited against the rest: each would need a table of all classes."""


def audit(  # noqa: PLR0913 - each is one fact of the audit, and all but two are keywords
    y_true: Any,
    y_score: Any,
    *,
    sensitive_features: Any,
    patients: Any = None,
    sample_weight: Any = None,
    positive_class: Any = None,
    threshold: float | Mapping[str, float] | Thresholds = 0.5,
    reference: Any = None,
    covariates: Any = None,
    compare_to: Any = None,
    min_group_size: int = 30,
    n_replicates: int = 2000,
    n_permutations: int = 999,
    level: float = 0.95,
    interval: Literal["percentile", "bca"] = "percentile",
    seed: int = 0,
    calibration_bins: int | str | Bins = TEN,
    intersections: bool | None = None,
    explore: bool = True,
) -> AuditResult:
    """Audit predictions for fairness between groups.

    Columns may be lists, NumPy arrays, pandas or polars columns, Arrow arrays, or torch tensors.

    Args:
        y_true: Truth: two classes, shape (n,); more classes, shape (n,); or 0/1 findings, shape (n, L).
            Missing labels are allowed: an image counts where it has one, and a note says how many have none.
        y_score: Scores in [0, 1]: P(Y=1), shape (n,); by class, (n, K); or by finding, (n, L). Columns of a
            frame that are named after classes or findings belong to them, whatever their order.
        sensitive_features: One attribute, shape (n,), or several as a mapping or data frame; of several the
            intersections are audited too.
        patients: Patient of each image, shape (n,). Patients are resampled; images are independent if None.
        sample_weight: What each image counts, shape (n,), of any scale; 1 if None. Those of weight 0 are left
            out. Intervals are of weighted figures; nothing is permuted then.
        positive_class: The class of two that is the disease. Not needed for 0 and 1, nor for classes in words
            that say so themselves (`fairdx.metrics.positive`).
        threshold: Operating point: a decision is score >= threshold. For several classes the largest score
            decides and the threshold is that of the one-vs-rest audits. A mapping gives findings or classes,
            groups (as "sex:F") and the second score ("compare") their own; "*" is that of all others.
        reference: Group that effects compare with, or a mapping from attribute to group; the largest if None.
        covariates: Columns to standardise effects over besides the label, as for `sensitive_features`.
        compare_to: A second table of scores (after mitigation, say) for the same images, as `y_score`.
        min_group_size: Groups with fewer images are reported, but left out of gaps, effects and tests.
        n_replicates: Bootstrap replicates.
        n_permutations: Permutations of the test of ADF.
        level: Nominal coverage of intervals.
        interval: Of rates and effects; gaps and information have intervals by test inversion.
        seed: The same seed gives the same result.
        calibration_bins: Bins of the calibration error and of the calibration plot: a number of bins of equal
            frequency, or one as in "uniform:15" for bins of equal width.
        intersections: Whether intersections of attributes are audited too. If None they are, unless there are
            more than `FEW_LABELS` classes or findings: then a note says that they are not.
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
    attributes, points = to_attributes(sensitive_features), Thresholds.of(threshold)
    single = not isinstance(sensitive_features, Mapping)
    same_order(
        {
            **({} if single else {f"sensitive feature {n}": c for n, c in sensitive_features.items()}),
            "y_true": y_true,
            "y_score": y_score,
            "sensitive_features": sensitive_features if single else None,
            "patients": patients,
            "sample_weight": sample_weight,
            "compare_to": compare_to,
        }
    )
    y_true, y_score, compare_to = (plain(v) for v in (y_true, y_score, compare_to))
    truth, scores = to_numpy(y_true, "y_true"), at_precision(to_scores(y_score), *points.values)
    named = {f"sensitive feature {name!r}": column.codes for name, column in attributes.items()}
    same_length(y_true=truth, y_score=scores, **named)
    patient = None if patients is None else to_codes(patients, "patients").codes
    after = None if compare_to is None else to_scores(compare_to, "compare_to")
    after = None if after is None else at_precision(after, *points.values)
    weight = None if sample_weight is None else to_weights(sample_weight, len(truth))
    for name, column in (("patients", patient), ("compare_to", after)):
        if column is not None:
            same_length(y_true=truth, **{name: column})
    if after is not None and after.shape != scores.shape:
        raise InputError(f"compare_to has shape {after.shape} but y_score {scores.shape}.")
    covariate = None if covariates is None else to_attributes(covariates)
    bins = Bins.of(calibration_bins)
    settings = Settings(
        points.default,
        check_level(level),
        interval,
        n_replicates,
        n_permutations,
        seed,
        check_group_size(min_group_size),
        patient is not None,
        [] if covariate is None else list(covariate),
        points.named,
        weight is not None,
        bins.number,
        bins.kind,
    )
    _check(settings)
    crossed, notes = _crossed(intersections, max(truth.shape[1:], scores.shape[1:]), len(attributes))
    study = Study.of(
        attributes,
        reference,
        patient,
        covariate,
        settings,
        intersections=crossed,
        weight=weight,
        thresholds=points,
    )
    names = distinct_names(y_score, "y_score"), distinct_names(compare_to, "compare_to")
    notes += [
        Note("limit", None, f"{name} has {size:,} groups, more than {MOST_CROSSED}, and is not audited.")
        for name, size in study.left_out.items()
    ]
    images, zero = Images(study, truth, scores, after, names, explore).weighted()
    notes += zero
    if truth.ndim == 2:
        return _multilabel(images, distinct_names(y_true, "y_true"), notes)
    kept, left_out = images.labelled()
    notes = [*notes, *left_out]
    if scores.ndim == 1:
        return with_unlabelled(_binary(kept, positive_class, notes), images.unlabelled())
    return _classes(kept, positive_class, notes)


def _crossed(asked: bool | None, columns: tuple[int, ...], n_attributes: int) -> tuple[bool, list[Note]]:
    """Whether attributes are crossed, and a note if that is left out without having been asked for."""
    n_labels, n_tables = columns[0] if columns else 1, n_attributes * (n_attributes + 1) // 2 + 1
    if asked is not None or n_attributes < 2 or (n_labels <= FEW_LABELS and n_tables <= MOST_TABLES):
        return asked is not False, []
    many = f"{n_labels} classes or findings" if n_labels > FEW_LABELS else f"{n_attributes} attributes"
    text = f"Intersections of attributes are not audited with {many}; "
    return False, [
        Note("limit", None, f"{text}ask for them with --intersections (intersections=True in Python).")
    ]


def _check(settings: Settings) -> None:
    for name in ("n_replicates", "n_permutations"):
        if getattr(settings, name) < 20:
            raise InputError(f"{name} is {getattr(settings, name)}; give at least 20 (1000 is usual).")
    if settings.interval not in ("percentile", "bca"):
        raise InputError(f"interval is {settings.interval!r}; give 'percentile' or 'bca'.")


def _binary(images: Images, positive_class: Any, notes: list[Note]) -> AuditResult:
    _check_thresholds(images, [])
    label = binary_truth(images.truth, positive_class)
    names = to_codes(images.truth, "y_true").names
    if label.min() == label.max():
        raise InputError(f"y_true holds the single class {names[0]}; an audit needs images of both classes.")
    positive = to_codes(images.truth[label == 1], "y_true").names[0]
    negative = ", ".join(to_codes(images.truth[label == 0], "y_true").names)
    result = _audited(images, Truth.of(label), [negative, positive], notes)
    return corrected(result, images.study, [images.shown(Truth.of(label))])


def _audited(images: Images, truth: Truth, names: list[str], notes: list[Note]) -> AuditResult:
    """The audit of one column of scores, its p-values not yet corrected."""
    result = audit_binary(images.study, truth, images.scores, images.after, names, explore=images.explore)
    return replace(result, notes=notes)


def _check_thresholds(images: Images, labels: list[str]) -> None:
    images.study.thresholds.check(labels, images.study.attributes, second=images.after is not None)


def _classes(images: Images, positive_class: Any, notes: list[Note]) -> AuditResult:
    """One class for each image, and a column of scores for each class."""
    n_classes = images.scores.shape[1]
    codes = class_codes(images.truth, n_classes)
    names = to_codes(images.truth, "y_true").names
    classes = list(names) if len(names) == n_classes else [str(k) for k in range(n_classes)]
    images = images.matched(classes, "class")
    if n_classes > 2:
        _check_thresholds(images, classes)
    if n_classes == 2:
        positive = positive_place(classes, positive_class, what="y_true")
        return _binary(images.column(positive), classes[positive], notes)
    present = (codes[:, None] == np.arange(n_classes)).astype(np.int64)
    _require_both(present.astype(float), classes)
    if n_classes > MOST_CLASSES:
        text = (
            f"With {n_classes} classes, more than {MOST_CLASSES}, no class is audited against the rest. To "
            "audit one, give a truth of this class and all others, and its score alone."
        )
        notes = [*notes, Note("limit", None, text)]
    few = range(n_classes) if n_classes <= MOST_CLASSES else ()
    each = {
        name: _audited(images.column(k).at(name), Truth.of(present[:, k], codes), [f"not {name}", name], [])
        for k, name in enumerate(classes)
        if k in few
    }
    joint = Joint(codes, images.scores.argmax(1).astype(np.int64), present, images.scores)
    shown = [
        images.column(k).at(name).shown(Truth.of(present[:, k], codes))
        for k, name in enumerate(classes)
        if k in few
    ]
    together = Shown(joint.label, joint.decision, None, None, np.ones(len(codes), dtype=np.bool_))
    result = audit_joint(images.study, joint, "multiclass", each, classes)
    return _finished(images.study, result, [*shown, together], notes)


def _multilabel(images: Images, names: list[str], notes: list[Note]) -> AuditResult:
    """Several findings for each image, each audited on the images whose label is known."""
    truth = np.where(is_missing(images.truth), np.nan, images.truth).astype(float)
    if truth.shape != images.scores.shape:
        raise InputError(
            f"y_true has shape {truth.shape} but y_score {images.scores.shape}; give one column per finding."
        )
    if not np.isin(truth[~np.isnan(truth)], (0, 1)).all():
        raise InputError("y_true of several findings must be 0 or 1; other values occur.")
    findings = names or [str(k) for k in range(truth.shape[1])]
    if names:
        images = images.matched(findings, "finding")
    _require_both(truth, findings)
    _check_thresholds(images, findings)
    each = {name: _finding(images.at(name), truth[:, k], k, name) for k, name in enumerate(findings)}
    known = ~np.isnan(truth).any(1)
    if not known.all():
        notes = [*notes, _note(f"The labels of all findings are known of {known.sum():,} images.")]
    shown = [_shown_finding(images.column(k), truth[:, k]) for k in range(len(findings))]
    if known.sum() < images.study.settings.min_group_size or not images.study.comparable(known):
        result = audit_apart(images.study, "multilabel", each)
        return _finished(images.study, result, [*shown, None], notes)
    present, scores = truth[known].astype(np.int64), images.scores[known]
    columns = [images.at(name).decided(scores[:, k], known) for k, name in enumerate(findings)]
    decided = np.stack(columns, axis=1).astype(np.int64)
    codes = _combinations(np.concatenate([present, decided])).reshape(2, -1)
    joint = Joint(codes[0], codes[1], present, scores)
    result = audit_joint(images.study.take(known), joint, "multilabel", each)
    label, decision = np.zeros((2, len(known)), dtype=np.int64)
    label[known], decision[known] = codes
    together = Shown(label, decision, None, None, known)
    return _finished(images.study, result, [*shown, together], notes)


def _shown_finding(column: Images, truth: Floats) -> Shown:
    known = ~np.isnan(truth)
    return column.shown(Truth.of(np.where(known, truth, 0.0).astype(np.int64)), known)


def _finished(
    study: Study, result: AuditResult, shown: Sequence[Shown | None], notes: list[Note]
) -> AuditResult:
    """With corrected p-values and all notes."""
    result = corrected(result, study, shown)
    of_labels = [
        replace(note, text=f"{name}: {note.text}") for name, r in result.per_label.items() for note in r.notes
    ]
    return replace(result, notes=[*notes, *result.notes, *of_labels])


def _combinations(rows: Ints) -> Ints:
    """Number the distinct rows of zeros and ones (n, L), column by column so that any L will do."""
    code = np.zeros(len(rows), dtype=np.int64)
    for column in rows.T:
        code = np.unique(2 * code + column, return_inverse=True)[1]
    return code


def _finding(images: Images, truth: Floats, k: int, name: str) -> AuditResult:
    known = ~np.isnan(truth)
    notes = []
    if not known.all():
        left_out = f"{(~known).sum():,} of {len(known):,}"
        notes = [_note(f"{left_out} images have no label of {name} and are left out of its audit.")]
    part, label = images.take(known).column(k), truth[known].astype(np.int64)
    result = _audited(part, Truth.of(label), [f"not {name}", name], notes)
    return with_unlabelled(result, images.without_label(~known, images.scores[~known, k]))


def _note(text: str) -> Note:
    return Note("caution", None, text)


def _require_both(present: Floats, names: list[str]) -> None:
    """Every class or finding must occur, and none in all images; nan where a label is not known."""
    for name, label in zip(names, present.T, strict=True):
        if len(np.unique(label[~np.isnan(label)])) < 2:
            raise InputError(f"y_true: every image or none is of class {name!r}; leave this class out.")
