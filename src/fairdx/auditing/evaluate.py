"""The figures of one trained model with their intervals: what a training run reports."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.auditing.assemble import measure_binary
from fairdx.auditing.attribute import most_affected
from fairdx.auditing.groups import undefined
from fairdx.auditing.joint import Joint, joint_overall, measure_joint
from fairdx.auditing.profile import Truth
from fairdx.auditing.result import Gap, Settings
from fairdx.auditing.study import Study
from fairdx.core.errors import InputError
from fairdx.inference.uncertainty import Estimate, check_group_size, check_level
from fairdx.metrics.inputs import same_length, to_codes, to_numpy, to_scores
from fairdx.metrics.scores import binary_truth, class_codes
from fairdx.metrics.threshold import at_precision

GAPS = (
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "approximate_diagnosis_fairness",
    "approximate_diagnosis_fairness_corrected",
)


def evaluate(  # noqa: PLR0913 - each is one fact of the evaluation
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitive_features: Any,
    threshold: float = 0.5,
    patients: Any = None,
    n_replicates: int = 2000,
    n_permutations: int = 999,
    seed: int = 0,
    reference: Any = None,
    positive_class: int | None = None,
    level: float = 0.95,
    min_group_size: int = 30,
) -> dict[str, Estimate]:
    """Estimate performance, gaps, ADF and effects with intervals: those of an audit with the same options.

    Args:
        y_true: Labels, shape (n,).
        y_score: P(Y=1) of shape (n,), decided as score >= threshold; or class probabilities of shape (n, K),
            decided for the largest.
        sensitive_features: Groups, shape (n,), as names or codes.
        threshold: Operating point for scores of shape (n,), in [0, 1].
        patients: Patient of each image, shape (n,); images are independent if None.
        n_replicates: Bootstrap replicates.
        n_permutations: Of the test of ADF, which its interval agrees with.
        seed: Of all randomness.
        reference: Reference group of the effects; the largest if None.
        positive_class: Column whose decision the effects are of, for scores of shape (n, K); the last
            if None.
        level: Nominal coverage.
        min_group_size: Groups with fewer images are left out of gaps and effects.

    Returns:
        auroc, accuracy, demographic_parity_difference, equal_opportunity_difference,
        equalized_odds_difference, approximate_diagnosis_fairness (plug-in),
        approximate_diagnosis_fairness_corrected, direct_effect, indirect_effect and total_effect. Of more
        than two groups the effects are those of the group whose direct effect is largest in size, with
        intervals that hold for all groups at once. Undefined values are nan.

    Raises:
        InputError: If columns do not fit or there is one group only.
    """
    scores = at_precision(to_scores(y_score), threshold)
    group = to_codes(sensitive_features, "sensitive_features")
    same_length(y_true=to_numpy(y_true, "y_true"), y_score=scores, sensitive_features=group.codes)
    if n_replicates < 2:
        raise InputError(f"n_replicates is {n_replicates}; give at least 2 (1000 is usual).")
    patient = None if patients is None else to_codes(patients, "patients").codes
    if patient is not None:
        same_length(patients=patient, y_true=group.codes)
    binary = scores.ndim == 1
    settings = Settings(
        threshold if binary else 0.5,
        check_level(level),
        "percentile",
        n_replicates,
        n_permutations,
        seed,
        check_group_size(min_group_size),
        patient is not None,
        [],
    )
    study = Study.of({"sensitive_features": group}, reference, patient, None, settings)
    if binary:
        found, part = measure_binary(study, Truth.of(binary_truth(y_true)), scores)
        return _chosen(found, part.gaps, part.simultaneous, study)
    code, k = class_codes(y_true, scores.shape[1]), scores.shape[1]
    present = (code[:, None] == np.arange(k)).astype(np.int64)
    joint = Joint(code, scores.argmax(1).astype(np.int64), present, scores)
    positive = k - 1 if positive_class is None else positive_class
    measured = measure_joint(study, joint, study.groupings[0], positive)
    return _chosen(joint_overall(study, joint), measured.gaps, measured.effects, study)


def _chosen(
    overall: dict[str, Estimate],
    gaps: dict[str, Gap],
    effects: dict[str, dict[str, Estimate]],
    study: Study,
) -> dict[str, Estimate]:
    nothing = undefined(study.settings.level, study.n)
    found = {name: overall[name] for name in ("auroc", "accuracy")}
    found |= {name: gaps[name].estimate if name in gaps else nothing for name in GAPS}
    group = most_affected(effects)
    if group is None:
        group = next(iter(effects), None)
    return found | {
        name: nothing if group is None else effects[group][name]
        for name in ("direct_effect", "indirect_effect", "total_effect")
    }
