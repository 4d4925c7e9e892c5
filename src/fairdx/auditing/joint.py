"""Audits with several classes, or several findings per image: the joint table, then one against the rest."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from fairdx.auditing.assemble import Study, corrected, describe
from fairdx.auditing.design import Grouping, groupings
from fairdx.auditing.estimates import gap_estimate, information_estimates, signed_estimate
from fairdx.auditing.result import SCHEMA_VERSION, AuditResult, Gap, Note, Test
from fairdx.inference.permutation import group_is_constant, permute_codes
from fairdx.inference.resampling import all_replicates, collapse, dense_vectors, effective_patients
from fairdx.inference.uncertainty import Estimate, few_patients_factor
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import IDENTIFICATION
from fairdx.metrics.inputs import Ints

MOST_CELLS = 20_000
"""A joint table larger than this gets a test of ADF but no interval: most cells would be empty."""


def audit_joint(
    study: Study,
    label: Ints,
    decision: Ints,
    task: str,
    per_label: dict[str, AuditResult],
) -> AuditResult:
    """Audit of the joint decision, around the audits of each class or finding.

    Args:
        study: The study.
        label: Class of each image, or its combination of findings, (n,).
        decision: Decided class or combination, (n,), coded like `label`.
        task: "multiclass" or "multilabel".
        per_label: Audits one against the rest, by class or finding.

    Returns:
        The audit: accuracy (of all findings at once), gaps and ADF of the joint decision.
    """
    finest, found = groupings(study.attributes, intersections=study.intersections)
    n_labels = int(max(label.max(), decision.max())) + 1
    overall = _accuracy(np.zeros_like(finest), label, decision, study)["all"]
    parts = [_attribute(g, g.of_finest[finest], label, decision, n_labels, study) for g in found]
    first = next(iter(per_label.values()))
    mean_auc = float(np.mean([r.overall["auroc"].value for r in per_label.values()]))
    nan = float("nan")
    auroc = replace(overall, value=mean_auc, low=nan, high=nan, method="mean over classes")
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        fairdx_version=first.fairdx_version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=task,  # type: ignore[arg-type]
        classes=list(per_label),
        n_images=study.n,
        n_patients=study.n_patients,
        settings=study.settings,
        attributes={g.name: describe(study, g, g.of_finest[finest]) for g in found},
        overall={"accuracy": overall, "auroc": auroc},
        by_group={
            g.name: {
                name: {"accuracy": e}
                for name, e in _accuracy(g.of_finest[finest], label, decision, study, g).items()
            }
            for g in found
        },
        gaps={g.name: gaps for g, (gaps, _) in zip(found, parts, strict=True)},
        effects={},
        adjusted_effects={},
        tests=corrected([t for _, tests in parts for t in tests]),
        curves={},
        explorer={},
        comparison={},
        identification=IDENTIFICATION,
        notes=[
            Note("limit", None, "The joint table is audited here; each class or finding has its own audit."),
            *[
                replace(note, text=f"{name}: {note.text}")
                for name, r in per_label.items()
                for note in r.notes
            ],
        ],
        per_label=per_label,
    )


def _accuracy(
    group: Ints, label: Ints, decision: Ints, study: Study, grouping: Grouping | None = None
) -> dict[str, Estimate]:
    names = ("all",) if grouping is None else grouping.groups
    right = (label == decision).astype(np.int64)
    units = collapse([group * 2 + right], [len(names) * 2], study.patient)
    rng = np.random.default_rng(study.settings.seed)
    repeated = all_replicates(units, study.settings.n_replicates, rng).reshape(-1, len(names), 2)
    own = units.counts.reshape(len(names), 2)
    value, values = (tables.ratio(c[..., 1], c.sum(-1)) for c in (own, repeated))
    widen = few_patients_factor(effective_patients(group, study.patient), study.settings.level)
    return {
        name: signed_estimate(float(value[s]), values[:, s], int(own[s].sum()), study.settings.level, widen)
        for s, name in enumerate(names)
    }


def _attribute(
    grouping: Grouping, group: Ints, label: Ints, decision: Ints, n_labels: int, study: Study
) -> tuple[dict[str, Gap], list[Test]]:
    about = describe(study, grouping, group)
    chosen = np.array([s for s, g in enumerate(grouping.groups) if g not in about.excluded], dtype=np.int64)
    if len(chosen) < 2:
        return {}, []
    rows = np.isin(group, chosen)
    code, label, decision = np.searchsorted(chosen, group[rows]), label[rows], decision[rows]
    patient = None if study.patient is None else np.unique(study.patient[rows], return_inverse=True)[1]
    tests = []
    if patient is None or group_is_constant(code, patient):
        settings = study.settings
        adf = permute_codes(code, label, decision, patient, settings.n_permutations, settings.seed)
        p, name = adf.p_value, "approximate_diagnosis_fairness"
        tests.append(Test(about.name, name, None, f"permutation of {adf.exchangeable}", p, p, p))
    names = tuple(grouping.groups[s] for s in chosen)
    return _gaps(names, code, label, decision, patient, n_labels, study), tests


def _gaps(
    names: tuple[str, ...],
    code: Ints,
    label: Ints,
    decision: Ints,
    patient: Ints | None,
    n_labels: int,
    study: Study,
) -> dict[str, Gap]:
    shape, level, n = (len(names), n_labels, n_labels), study.settings.level, len(code)
    if np.prod(shape) > MOST_CELLS:
        return {}
    cell = (code * n_labels + label) * n_labels + decision
    units = collapse([cell], [int(np.prod(shape))], patient)
    rng = np.random.default_rng(study.settings.seed)
    replicates = all_replicates(units, study.settings.n_replicates, rng).reshape(-1, *shape)
    sample = units.counts.reshape(shape)
    widen = few_patients_factor(effective_patients(code, patient), level)
    effect = 1.0
    if patient is not None:
        kinds, multiplicity = dense_vectors(units)
        effect = tables.design_effect(kinds.reshape(-1, *shape), multiplicity)
    information = information_estimates(sample, replicates, effect, n, level, widen)
    nan = float("nan")
    gaps = {
        name: Gap(estimate, None, None, nan)
        for name, estimate in zip(
            ("approximate_diagnosis_fairness", "approximate_diagnosis_fairness_corrected"),
            information,
            strict=True,
        )
    }
    for name, rates in (
        ("demographic_parity_difference", tables.selection_rates),
        ("equal_opportunity_difference", tables.opportunity_rates),
        ("equalized_odds_difference", tables.odds_rates),
    ):
        value = rates(sample)
        gaps[name] = Gap(gap_estimate(value, rates(replicates), n, level, widen), None, None, nan)
    return gaps
