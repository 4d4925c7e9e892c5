"""Put a binary audit together: resample once, then estimate every attribute from the same replicates."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.binary import (
    Resampled,
    effect_estimates,
    equity_scaled_estimate,
    gap_estimates,
    group_estimates,
)
from fairdx.auditing.compare import changes
from fairdx.auditing.design import MISSING, SIGN, Grouping, Sample, all_images, groupings
from fairdx.auditing.explorer import curves, explorer
from fairdx.auditing.findings import findings
from fairdx.auditing.profile import Grid, Profile, Profiler
from fairdx.auditing.result import (
    SCHEMA_VERSION,
    Attribute,
    AuditResult,
    Curves,
    Explorer,
    Gap,
    Settings,
    Test,
)
from fairdx.inference.delong import delong, delong_groups_test
from fairdx.inference.permutation import group_is_constant, permute_codes
from fairdx.inference.resampling import effective_patients
from fairdx.inference.uncertainty import Estimate, benjamini_hochberg, holm
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import IDENTIFICATION, strata
from fairdx.metrics.inputs import Codes, Floats, Ints
from fairdx.metrics.scores import auc_by_group


@dataclass(frozen=True)
class Study:
    """What does not change between the audits of one call: who the images are of.

    Attributes:
        attributes: Sensitive attributes by name.
        references: Reference group by attribute, where one was named.
        patient: Patient codes, (n,), or None.
        covariates: Columns to standardise over, or None.
        settings: Of the audit.
        n: Number of images.
        intersections: Whether intersections of attributes are audited too.
        explore: Whether the threshold explorer is computed.
    """

    attributes: dict[str, Codes]
    references: dict[str, str]
    patient: Ints | None
    covariates: dict[str, Codes] | None
    settings: Settings
    n: int
    intersections: bool = True
    explore: bool = True

    @property
    def n_patients(self) -> int:
        """Number of patients; of images when none are given."""
        return self.n if self.patient is None else int(self.patient.max()) + 1

    def take(self, rows: NDArray[np.bool_]) -> "Study":
        """The same for some of the images, (n,); groups and patients that none of them has are gone."""
        if rows.all():
            return self
        covariates = self.covariates
        return replace(
            self,
            attributes={name: column.take(rows) for name, column in self.attributes.items()},
            patient=None if self.patient is None else np.unique(self.patient[rows], return_inverse=True)[1],
            covariates=None if covariates is None else {k: c.take(rows) for k, c in covariates.items()},
            n=int(rows.sum()),
        )


def describe(study: Study, grouping: Grouping, group: Ints) -> Attribute:
    """Sizes of the groups, which of them are too small, and which is the reference.

    Args:
        study: The study.
        grouping: The attribute.
        group: Group of each image, (n,).

    Returns:
        The description; the largest group whose attribute is known is the reference unless another was named.
    """
    size = np.bincount(group, minlength=len(grouping.groups))
    if study.patient is None:
        patients = size
    else:
        pairs = np.unique(group * study.n_patients + study.patient)
        patients = np.bincount(pairs // study.n_patients, minlength=len(size))
    small = [g for g, n in zip(grouping.groups, size, strict=True) if n < study.settings.min_group_size]
    named = np.array([MISSING not in g.split(SIGN) for g in grouping.groups])
    largest = grouping.groups[int(np.argmax(np.where(named | ~named.any(), size, -1)))]
    reference = study.references.get(grouping.name, largest)
    reference = reference if reference in grouping.groups else largest  # no image of this finding is of it
    return Attribute(
        grouping.name,
        dict(zip(grouping.groups, size.tolist(), strict=True)),
        dict(zip(grouping.groups, patients.tolist(), strict=True)),
        reference,
        small,
        grouping.intersection,
    )


def audit_binary(
    study: Study, label: Ints, scores: Floats, after: Floats | None, classes: list[str]
) -> AuditResult:
    """Audit P(Y=1) against a truth of 0 and 1.

    Args:
        study: The study.
        label: Shape (n,), 0 or 1, both occurring.
        scores: Shape (n,), in [0, 1].
        after: A second score of the same images, or None.
        classes: Names of the negative and the positive class.

    Returns:
        The audit.
    """
    threshold = study.settings.threshold
    assert threshold is not None  # for type checkers: only joint audits have none
    finest, found = groupings(study.attributes, intersections=study.intersections)
    stratum = None if study.covariates is None else strata(label, study.covariates)[0]
    given = [scores] if after is None else [scores, after]
    grids = [Grid.of(s, threshold) for s in given]
    sample = Sample(finest, int(finest.max()) + 1, label, given, grids, study.patient, stratum)
    everyone = all_images(sample.n_finest, found)
    draws = _Draws.make(sample, [everyone, *found], study)
    parts = [_attribute(draws, g, everyone, study) for g in found]
    result = AuditResult(
        schema_version=SCHEMA_VERSION,
        fairdx_version=_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task="binary",
        classes=classes,
        n_images=study.n,
        n_patients=study.n_patients,
        settings=study.settings,
        attributes={p.about.name: p.about for p in parts},
        overall=group_estimates(draws.data[everyone.name])["all"],
        by_group={p.about.name: p.by_group for p in parts},
        gaps={p.about.name: p.gaps for p in parts},
        effects={p.about.name: p.effects for p in parts},
        adjusted_effects={p.about.name: p.adjusted for p in parts if stratum is not None},
        tests=corrected([test for p in parts for test in p.tests]),
        curves=_all_curves(draws, [everyone, *found], level=study.settings.level),
        explorer={p.about.name: _explore(draws, p) for p in parts if study.explore},
        comparison=changes(draws.data, draws.data_after, {p.about.name: p.compared for p in parts}, sample),
        identification=IDENTIFICATION,
        notes=[],
    )
    return replace(result, notes=findings(result))


def _version() -> str:
    from importlib.metadata import version

    return version("fairdx")


def corrected(tests: list[Test]) -> list[Test]:
    """Fill in the p-values corrected for all tests of the audit."""
    p_values = np.array([test.p_value for test in tests])
    pairs = zip(holm(p_values).tolist(), benjamini_hochberg(p_values).tolist(), strict=True)
    return [replace(test, p_holm=a, p_bh=b) for test, (a, b) in zip(tests, pairs, strict=True)]


@dataclass(frozen=True)
class _Draws:
    """Everything resampled, by grouping."""

    sample: Sample
    profilers: dict[str, Profiler]
    data: dict[str, Resampled]
    data_after: dict[str, Resampled]
    strata: Floats | None  # (1 + B, F, Z, 2): the sample's own first

    @classmethod
    def make(cls, sample: Sample, wanted: list[Grouping], study: Study) -> "_Draws":
        own = sample.tables()
        profilers = [_profilers(sample, own, wanted, which) for which in range(len(sample.scores))]
        parts: dict[tuple[int, str], list[Profile]] = {}
        strata_parts = [] if sample.stratum is None else [own[-1]]
        rng = np.random.default_rng(study.settings.seed)
        done = 0
        for chunk in sample.replicates(study.settings.n_replicates, rng):
            for which, by_name in enumerate(profilers):
                for grouping in wanted:
                    explore = study.explore and which == 0 and done < 300 and grouping is not wanted[0]
                    profile = by_name[grouping.name].profile(grouping.coarsen(chunk[which]), explore)
                    parts.setdefault((which, grouping.name), []).append(profile)
            if sample.stratum is not None:
                strata_parts.append(chunk[-1])
            done += len(chunk[0])
        kinds, multiplicity = sample.decision_kinds()

        def resampled(which: int, grouping: Grouping) -> Resampled:
            profile = profilers[which][grouping.name].profile(grouping.coarsen(own[which]))
            group = grouping.of_finest[sample.finest]
            repeated = Profile.join(parts.pop((which, grouping.name)))
            exact = auc_by_group(sample.label, sample.scores[which], group, len(grouping.groups))
            return Resampled(
                grouping.groups,
                replace(profile, auc=exact[None]),
                replace(repeated, auc=repeated.auc + (exact - profile.auc)),  # bins cost 1e-5 or so
                grouping.coarsen(kinds),
                multiplicity,
                effective_patients(group, sample.patient),
                study.settings,
            )

        data = [{g.name: resampled(which, g) for g in wanted} for which in range(len(sample.scores))]
        return cls(
            sample,
            profilers[0],
            data[0],
            data[1] if len(data) > 1 else {},
            np.concatenate(strata_parts) if strata_parts else None,
        )


def _profilers(sample: Sample, own: list[Floats], wanted: list[Grouping], which: int) -> dict[str, Profiler]:
    squared = sample.squared_errors(which)[None]
    return {
        g.name: Profiler.of(g.coarsen(own[which])[0], g.coarsen(squared)[0], sample.grids[which])
        for g in wanted
    }


@dataclass(frozen=True)
class _Part:
    """What was found about one attribute."""

    about: Attribute
    compared: Ints  # groups that are not too small
    by_group: dict[str, dict[str, Estimate]]
    gaps: dict[str, Gap]
    effects: dict[str, dict[str, Estimate]]
    adjusted: dict[str, dict[str, Estimate]]
    tests: list[Test]


def _attribute(draws: _Draws, grouping: Grouping, everyone: Grouping, study: Study) -> _Part:
    sample, data = draws.sample, draws.data[grouping.name]
    group = grouping.of_finest[sample.finest]
    about = describe(study, grouping, group)
    by_group = group_estimates(data)
    chosen = np.array([s for s, g in enumerate(grouping.groups) if g not in about.excluded], dtype=np.int64)
    if len(chosen) < 2:
        return _Part(about, chosen, by_group, {}, {}, {}, [])
    rows = np.isin(group, chosen)
    patient = None if sample.patient is None else sample.patient[rows]
    compared = data.keep(chosen, effective_patients(group[rows], patient))
    gaps, p_gaps = gap_estimates(compared)
    gaps["equity_scaled_auroc"] = equity_scaled_estimate(compared, draws.data[everyone.name])
    tests = _gap_tests(about.name, p_gaps) + _special_tests(about.name, sample, group, rows, chosen, study)
    special = {t.metric for t in tests if t.method != "bootstrap"}
    tests = [t for t in tests if t.metric not in special or t.method != "bootstrap"]
    effects: dict[str, dict[str, Estimate]] = {}
    adjusted: dict[str, dict[str, Estimate]] = {}
    if about.reference not in about.excluded:
        base = compared.groups.index(about.reference)
        effects, p_effects = effect_estimates(
            compared, compared.sample.counts[0], compared.replicates.counts, base, of_counts=True
        )
        tests += [Test(about.name, m, g, "bootstrap", p, p, p) for (g, m), p in p_effects.items()]
        if draws.strata is not None:
            by_stratum = grouping.coarsen(draws.strata)[:, chosen]
            adjusted, _ = effect_estimates(compared, by_stratum[0], by_stratum[1:], base, of_counts=False)
    return _Part(about, chosen, by_group, gaps, effects, adjusted, tests)


def _gap_tests(attribute: str, p_values: dict[str, float]) -> list[Test]:
    names = {"approximate_diagnosis_fairness_corrected": "approximate_diagnosis_fairness"}
    return [Test(attribute, names.get(m, m), None, "bootstrap", p, p, p) for m, p in p_values.items()]


def _special_tests(
    name: str, sample: Sample, group: Ints, rows: NDArray[np.bool_], chosen: Ints, study: Study
) -> list[Test]:
    """Exact and analytic tests where they exist; they take the place of the bootstrap's."""
    code = np.searchsorted(chosen, group[rows])
    label, decision = sample.label[rows], (sample.grids[0].place >= sample.grids[0].cut)[rows]
    patient = None
    if sample.patient is not None:
        patient = np.unique(sample.patient[rows], return_inverse=True)[1]
        if not group_is_constant(code, patient):
            return []
    seeds, n = study.settings.seed, study.settings.n_permutations
    found = []
    adf = permute_codes(code, label, decision.astype(np.int64), patient, n, seeds)
    if adf.informative >= 0.5:
        method = f"permutation of {adf.exchangeable}"
        p = adf.p_value
        found.append(Test(name, "approximate_diagnosis_fairness", None, method, p, p, p))
    if len(chosen) == 2:
        p = _delong_p(label, sample.scores[0][rows], code, patient)
        found.append(Test(name, "auroc_gap", None, "DeLong" if patient is None else "Obuchowski", p, p, p))
    return found


def _delong_p(label: Ints, scores: Floats, code: Ints, patient: Ints | None) -> float:
    from fairdx.core.errors import InputError

    try:
        both = [
            delong(
                label[code == s], scores[code == s], patients=None if patient is None else patient[code == s]
            )
            for s in (0, 1)
        ]
    except InputError:  # a group with a single class: its AUC is undefined, and so is the test
        return float("nan")
    return delong_groups_test(*both).p_value


def _all_curves(draws: _Draws, wanted: list[Grouping], level: float) -> dict[str, dict[str, Curves]]:
    sample, own = draws.sample, draws.sample.tables()[0]
    found = {}
    for g in wanted:
        group = g.of_finest[sample.finest]
        made = curves(
            g.coarsen(own)[0], sample.scores[0], sample.label, group, draws.profilers[g.name], level
        )
        found[g.name] = dict(zip(g.groups, made, strict=True))
    return found


def _explore(draws: _Draws, part: _Part) -> Explorer:
    every = draws.data[part.about.name]
    compared = every.keep(part.compared, every.effective)
    effect = 1.0
    if every.settings.clustered and len(part.compared) > 1:
        effect = tables.design_effect(compared.kinds, compared.multiplicity)
    base = compared.groups.index(part.about.reference) if part.about.reference in compared.groups else -1
    return explorer(every, compared, base, draws.sample.grids[0], effect)
