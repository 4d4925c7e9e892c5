"""Audits with several classes, or several findings per image: the joint table, then one against the rest."""

from dataclasses import dataclass, replace

import numpy as np

from fairdx.auditing.assemble import now, package_version
from fairdx.auditing.design import Grouping
from fairdx.auditing.effects import Strata, effect_estimates
from fairdx.auditing.gaps import LEAST_IMAGES, InformationEstimates, information_estimates
from fairdx.auditing.permuted import Permuted
from fairdx.auditing.resampled import Groups
from fairdx.auditing.result import SCHEMA_VERSION, Attribute, AuditResult, Gap, Note, Test
from fairdx.auditing.several import Scored, resample_together
from fairdx.auditing.study import Study
from fairdx.inference.information import Information
from fairdx.inference.resampling import all_replicates, collapse, dense_vectors
from fairdx.inference.score_intervals import Shares, critical_value, gap_ends
from fairdx.inference.sparse_information import Course
from fairdx.inference.uncertainty import Estimate, Interval, few_patients_factor, percentile_interval
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import IDENTIFICATION
from fairdx.metrics.inputs import Floats, Ints

MOST_CELLS = 20_000
"""A joint table larger than this is not compared between groups: most of its cells would be empty."""

ADF = "approximate_diagnosis_fairness"

_FAR = 3.0  # standard errors above the plug-in estimate, up to which the upper end is looked for


@dataclass(frozen=True)
class Joint:
    """What is decided of each image: one of K classes, or one of K combinations of findings.

    Attributes:
        label: True class or combination, (n,).
        decision: Decided one, (n,), coded like `label`.
        present: Truth of each class or finding, (n, L).
        scores: Of each, (n, L).
    """

    label: Ints
    decision: Ints
    present: Ints
    scores: Floats

    @property
    def size(self) -> int:
        """Number of classes or combinations, K."""
        return int(max(self.label.max(), self.decision.max())) + 1


def audit_joint(
    study: Study,
    joint: Joint,
    task: str,
    per_label: dict[str, AuditResult],
    classes: list[str] | None = None,
) -> AuditResult:
    """Audit of the joint decision, around the audits of each class or finding.

    Args:
        study: The study.
        joint: The classes or findings.
        task: "multiclass" or "multilabel".
        per_label: Audits one against the rest, by class or finding, not yet corrected.
        classes: Names of all classes; those of `per_label` if None.

    Returns:
        The audit, not yet corrected: accuracy (of all findings at once), gaps and ADF of the joint decision.
    """
    parts = {g.name: measure_joint(study, joint, g) for g in study.groupings}
    by_group = {
        g.name: {n: {"accuracy": e} for n, e in _accuracies(study, joint, g).items()} for g in study.groupings
    }
    result = _result(study, task, per_label, joint_overall(study, joint), by_group)
    gaps, tests = (
        {name: part.gaps for name, part in parts.items()},
        [t for p in parts.values() for t in p.tests],
    )
    text = "The joint table is audited here"
    text += "; each class or finding has its own audit." if per_label else "."
    own = Note("limit", None, text)
    return replace(result, gaps=gaps, tests=tests, classes=classes or list(per_label), notes=[own])


def audit_apart(study: Study, task: str, per_label: dict[str, AuditResult]) -> AuditResult:
    """The frame around audits of findings whose labels are hardly ever known together.

    Args:
        study: The study.
        task: "multilabel".
        per_label: Audits of each finding, not yet corrected.

    Returns:
        The audit: the mean AUC, and nothing about the joint decision.
    """
    nan = float("nan")
    area = float(np.mean([one.overall["auroc"].value for one in per_label.values()]))
    undefined = Estimate(nan, nan, nan, study.settings.level, "undefined", 0)
    overall = {
        "accuracy": undefined,
        "auroc": replace(undefined, value=area, method="mean over findings", n=study.n),
    }
    by_group = {g.name: {name: {"accuracy": undefined} for name in g.groups} for g in study.groupings}
    result = _result(study, task, per_label, overall, by_group)
    text = "Each finding has its own audit; too few images have all labels to audit them together."
    return replace(result, gaps={g.name: {} for g in study.groupings}, notes=[Note("limit", None, text)])


def _result(
    study: Study,
    task: str,
    per_label: dict[str, AuditResult],
    overall: dict[str, Estimate],
    by_group: dict[str, dict[str, dict[str, Estimate]]],
) -> AuditResult:
    """An audit without gaps, effects and tests of its own."""
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        fairdx_version=package_version(),
        created=now(),
        task=task,  # type: ignore[arg-type]
        classes=list(per_label),
        n_images=study.n,
        n_patients=study.n_patients,
        n_effective=study.n_effective,
        settings=study.settings,
        attributes={g.name: study.describe(g) for g in study.groupings},
        overall=overall,
        by_group=by_group,
        gaps={},
        effects={},
        adjusted_effects={},
        simultaneous_effects={},
        pooled={},
        missing_bounds={},
        sensitivity={},
        modelled_effects={},
        support={},
        tests=[],
        curves={},
        explorer={},
        comparison={},
        identification=IDENTIFICATION,
        notes=[],
        per_label=per_label,
    )


def joint_overall(study: Study, joint: Joint) -> dict[str, Estimate]:
    """Accuracy of the joint decision, and the mean AUC over classes or findings."""
    everyone = Grouping("", ("all",), np.zeros(int(study.finest.max()) + 1, dtype=np.int64), ({},))
    return {"accuracy": _accuracies(study, joint, everyone)["all"], "auroc": _mean_auc(study, joint)}


def _accuracies(study: Study, joint: Joint, grouping: Grouping) -> dict[str, Estimate]:
    group, right = grouping.of_finest[study.finest], (joint.label == joint.decision).astype(np.int64)
    names, settings = grouping.groups, study.settings
    units = collapse([group * 2 + right], [len(names) * 2], study.patient, study.weight)
    rng = np.random.default_rng(settings.seed)
    repeated = all_replicates(units, settings.n_replicates, rng).reshape(-1, len(names), 2)
    own = units.counts.reshape(len(names), 2)
    value, values = (tables.ratio(c[..., 1], c.sum(-1)) for c in (own, repeated))
    who = Groups.of(names, group, right, study.patient, settings, study.weight)
    shares = who.shares(value[:, None], values[..., None], who.images[:, None].astype(float))
    low, high = shares.ends(critical_value(settings.level))
    return {
        name: Estimate(
            float(value[s]), float(low[s, 0]), float(high[s, 0]), settings.level, "Wilson", int(who.images[s])
        )
        for s, name in enumerate(names)
    }


def _mean_auc(study: Study, joint: Joint) -> Estimate:
    """Mean AUC of one against the rest, with a percentile interval by patient."""
    settings, weight = study.settings, study.weight
    scored = [Scored(label, scores) for label, scores in zip(joint.present.T, joint.scores.T, strict=True)]
    found = resample_together(
        scored, study.patient, weight, n_replicates=settings.n_replicates, seed=settings.seed
    )
    everyone = np.zeros(study.n, dtype=np.int64)
    who = Groups.of(("all",), everyone, joint.present[:, 0], study.patient, settings, weight)
    widen = float(few_patients_factor(who.patients[0], settings.level))
    interval = percentile_interval(found.auc_replicates.mean(1), settings.level, widen)
    return Estimate.of(float(found.auc.mean()), interval, study.n)


@dataclass(frozen=True)
class JointPart:
    """What was found about one attribute.

    Attributes:
        about: The attribute.
        gaps: By metric; empty if fewer than two groups can be compared, or the table has too many cells.
        tests: Not yet corrected.
        effects: Of the decision for one class, with intervals for all groups at once.
    """

    about: Attribute
    gaps: dict[str, Gap]
    tests: list[Test]
    effects: dict[str, dict[str, Estimate]]


def measure_joint(study: Study, joint: Joint, grouping: Grouping, positive: int | None = None) -> JointPart:
    """Gaps and ADF of the joint decision.

    Args:
        study: The study.
        joint: The classes or findings.
        grouping: The attribute.
        positive: The class whose decision effects are estimated of; no effects if None.

    Returns:
        The figures.
    """
    about, group = study.describe(grouping), grouping.of_finest[study.finest]
    chosen = np.array([s for s, g in enumerate(grouping.groups) if g not in about.excluded], dtype=np.int64)
    k = joint.size
    if len(chosen) < 2 or len(chosen) * k * k > MOST_CELLS:
        return JointPart(about, {}, [], {})
    rows = np.isin(group, chosen)
    code, cell = np.searchsorted(chosen, group[rows]), (joint.label * k + joint.decision)[rows]
    patient = None if study.patient is None else np.unique(study.patient[rows], return_inverse=True)[1]
    names = tuple(grouping.groups[s] for s in chosen)
    weight = None if study.weight is None else study.weight[rows]
    who = Groups.of(names, code, np.zeros_like(code), patient, study.settings, weight)
    units = collapse([code * k * k + cell], [len(chosen) * k * k], patient, weight)
    sample = units.counts.reshape(-1, k, k)
    rng = np.random.default_rng(study.settings.seed)
    replicates = all_replicates(units, study.settings.n_replicates, rng).reshape(-1, *sample.shape)
    gaps = {name: _gap(who, name, sample, replicates) for name in JOINT_RATES}
    effect = 1.0
    if patient is not None:
        kinds, multiplicity = dense_vectors(units)
        effect = tables.design_effect(kinds.reshape(-1, *sample.shape), multiplicity)
    permuted = Permuted.of(
        about.name, sample, np.zeros(k, dtype=np.int64), (code, cell, patient), study.settings
    )
    information, test = _information(permuted, sample, replicates, effect)
    effects = {}
    if positive is not None and about.reference in names:
        effects = _effects(who, sample, replicates, names.index(about.reference), positive)
    return JointPart(about, {**information, **gaps}, [test], effects)


JOINT_RATES = {
    "demographic_parity_difference": tables.selection_rates,
    "equal_opportunity_difference": tables.opportunity_rates,
    "equalized_odds_difference": tables.odds_rates,
}
"""The rates (..., S, R) of the gaps in a joint decision."""


def _images_behind(name: str, counts: Floats, n_rates: int) -> Floats:
    """Images behind each rate, (S, R): of all labels, or of one label each."""
    by_label = counts.sum(-1)
    if name == "demographic_parity_difference":
        return np.broadcast_to(by_label.sum(-1, keepdims=True), (len(counts), n_rates))
    own = by_label[:, 1:] if n_rates == 1 else by_label
    return np.repeat(own, n_rates // own.shape[1], axis=1)


def _rows(who: Groups, counts: Floats) -> Floats:
    """Images in the cells of a table (S, K, K), those of a group shared out like their weights."""
    scale = who.images / np.where(who.weights.sum(1) > 0, who.weights.sum(1), 1.0)
    scaled: Floats = counts * scale[:, None, None]
    return scaled if who.settings.weighted else counts


def _gap(who: Groups, name: str, sample: Floats, replicates: Floats) -> Gap:
    value, level = JOINT_RATES[name](sample), who.settings.level
    images = _images_behind(name, _rows(who, sample), value.shape[-1])
    shares = who.shares(value, JOINT_RATES[name](replicates), images)
    known = Shares(np.where(images >= LEAST_IMAGES, value, np.nan), shares.size, shares.widen)
    low, high = (float(end) for end in gap_ends(known, level))
    spread = np.fmax.reduce(known.value, axis=0) - np.fmin.reduce(known.value, axis=0)
    found = float("nan") if np.isnan(low) else float(np.nanmax(spread))
    method = "undefined" if np.isnan(low) else "score intervals of pairs"
    estimate = Estimate(found, low, min(high, 1.0), level, method, int(who.images.sum()))
    left_out = [g for s, g in enumerate(who.names) if np.isnan(known.value[s]).any()]
    return Gap(estimate, None, None, float("nan"), left_out)


def _information(
    permuted: Permuted, sample: Floats, replicates: Floats, effect: float
) -> tuple[dict[str, Gap], Test]:
    noise = Information.of(sample, replicates, *permuted.null(sample, effect))
    p_value, method = permuted.information_test(sample, float(noise.p_value()))
    matched = noise
    if permuted.patients is not None and np.isfinite(p_value):
        matched = noise.matched(p_value, permuted.settings.level)
    found = information_estimates(sample, matched, effect, permuted.settings.level, p_value)
    if _sparse(sample) and noise.known:
        found = _simulated(found, noise, sample, effect, permuted.settings.seed)
    gaps = {
        ADF: Gap(found.plug_in, None, None, found.detectable, []),
        f"{ADF}_corrected": Gap(found.corrected, None, None, found.detectable, []),
    }
    return gaps, permuted.test(ADF, method, p_value)


def _simulated(
    found: InformationEstimates, noise: Information, sample: Floats, effect: float, seed: int
) -> InformationEstimates:
    """The same with estimate and interval by simulation: the closed form of the bias is too small."""
    plug_in, level = found.plug_in, found.plug_in.level
    most = float((noise.size + _FAR * noise.along.std() * noise.spread) ** 2)
    course = Course.of(sample, noise.null**2, level, float(np.sqrt(effect)), most, seed)
    low, value, high = course.found(plug_in.value, found.p_value <= 1 - level)
    if not course.reaches(plug_in.value):
        high = max(high, plug_in.high)
    interval = Interval(low, high, level, plug_in.method)
    first, second = (Estimate.of(size, interval, plug_in.n) for size in (plug_in.value, value))
    return InformationEstimates(first, second, found.p_value, found.detectable)


def _sparse(counts: Floats) -> bool:
    """Whether, as in Cochran's rule, more than a fifth of the cells expect fewer than five images.

    Tables with two decisions never are: their bias is nearly that of the closed form.
    """
    expected = tables.independent(counts)
    few = (expected > 0) & (expected < 5)
    return counts.shape[-1] > 2 and bool(few.sum() > (expected > 0).sum() / 5)


def _effects(
    who: Groups, sample: Floats, replicates: Floats, reference: int, positive: int
) -> dict[str, dict[str, Estimate]]:
    """Effects on the decision for one class, the true class held."""

    def one(counts: Floats) -> Floats:
        return np.stack([counts.sum(-1) - counts[..., positive], counts[..., positive]], axis=-1)

    others = len(who.names) - 1
    return effect_estimates(who, Strata(one(sample), one(replicates)), reference, comparisons=others)
