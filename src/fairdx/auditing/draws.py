"""Everything that is resampled, once, for all attributes of an audit."""

from dataclasses import dataclass, replace

import numpy as np

from fairdx.auditing.design import Grouping, Sample
from fairdx.auditing.profile import Grid, Profile, Profiler, Truth
from fairdx.auditing.resampled import Discrimination, Groups, Resampled
from fairdx.auditing.result import Settings
from fairdx.auditing.study import Study
from fairdx.core.errors import InputError
from fairdx.core.progress import advanced
from fairdx.inference.delong import delong
from fairdx.metrics.causal import strata
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.parametric import covariate_design
from fairdx.metrics.reliability import expected_calibration_error
from fairdx.metrics.scores import auc_by_group

EXPLORER_REPLICATES = 200
"""Replicates behind the explorer's intervals: ends good to about an eighth of the width."""


@dataclass(frozen=True)
class Draws:
    """Profiles of the sample and of its replicates, by grouping.

    Attributes:
        sample: The images.
        profilers: Of the first score, by grouping.
        data: Of the first score.
        data_after: Of the second, empty if there is none.
        strata: Tables of finest groups by stratum and decision, the sample's own first, (1 + B, F, Z, 2);
            None without covariates.
        covariate: The value of the covariates of each stratum.
        design: Class and covariates of each stratum as numbers, (Z,) and (Z, p).
    """

    sample: Sample
    profilers: dict[str, Profiler]
    data: dict[str, Resampled]
    data_after: dict[str, Resampled]
    strata: Floats | None
    covariate: Ints | None
    design: tuple[Ints, Floats] | None

    @property
    def overall(self) -> str:
        """Name of the grouping of all images, which is the first."""
        return next(iter(self.data))

    @classmethod
    def make(
        cls,
        study: Study,
        truth: Truth,
        scores: list[Floats],
        wanted: list[Grouping],
        *,
        explore: bool,
    ) -> "Draws":
        """Resample patients, and profile every replicate for every grouping.

        Args:
            study: The study.
            truth: The truth.
            scores: One score, or two.
            wanted: The groupings.
            explore: Whether thresholds are explored.

        Returns:
            The profiles.
        """
        threshold = study.settings.threshold or 0.0
        stratum, covariate, design = None, None, None
        if study.covariates is not None:
            stratum, covariate = strata(truth.full, study.covariates)
            first = np.unique(stratum, return_index=True)[1]
            design = truth.full[first], covariate_design(study.covariates, first)
        grids = [Grid.of(s, threshold, truth) for s in scores]
        n_finest = int(study.finest.max()) + 1
        sample = Sample(study.finest, n_finest, truth, scores, grids, study.patient, stratum)
        own = sample.tables()
        profilers = [_profilers(sample, own, wanted, which) for which in range(len(scores))]
        repeated, strata_parts = _replicated(sample, profilers, wanted, study.settings, explore=explore)
        data = [
            {
                g.name: _resampled(sample, which, g, own, profilers[which][g.name], parts, study.settings)
                for g, parts in zip(wanted, repeated[which], strict=True)
            }
            for which in range(len(scores))
        ]
        joined = None if stratum is None else np.concatenate([own[-1], *strata_parts])
        after = data[1] if len(data) > 1 else {}
        return cls(sample, profilers[0], data[0], after, joined, covariate, design)


def _profilers(sample: Sample, own: list[Floats], wanted: list[Grouping], which: int) -> dict[str, Profiler]:
    squared, of_full = sample.squared_errors(which)[None], sample.truth.of_full
    return {
        g.name: Profiler.of(g.coarsen(own[which])[0], g.coarsen(squared)[0], sample.grids[which], of_full)
        for g in wanted
    }


def _replicated(
    sample: Sample,
    profilers: list[dict[str, Profiler]],
    wanted: list[Grouping],
    settings: Settings,
    *,
    explore: bool,
) -> tuple[list[list[Profile]], list[Floats]]:
    """Profiles of all replicates by score and grouping, and their strata."""
    parts: list[list[list[Profile]]] = [[[] for _ in wanted] for _ in profilers]
    strata_parts: list[Floats] = []
    rng, done = np.random.default_rng(settings.seed), 0
    for chunk in sample.replicates(settings.n_replicates, rng):
        for which, by_name in enumerate(profilers):
            for place, grouping in enumerate(wanted):
                wide = explore and which == 0 and done < EXPLORER_REPLICATES and place > 0
                profile = by_name[grouping.name].profile(grouping.coarsen(chunk[which]), wide)
                parts[which][place].append(profile)
        if sample.stratum is not None:
            strata_parts.append(chunk[-1])
        done += len(chunk[0])
        advanced(len(chunk[0]))
    return [[Profile.join(p) for p in by_place] for by_place in parts], strata_parts


def _resampled(
    sample: Sample,
    which: int,
    grouping: Grouping,
    own: list[Floats],
    profiler: Profiler,
    repeated: Profile,
    settings: Settings,
) -> Resampled:
    group, n = grouping.of_finest[sample.finest], len(grouping.groups)
    profile = profiler.profile(grouping.coarsen(own[which]))
    found = _discrimination(sample, which, group, n)
    kinds, multiplicity = np.zeros((0, n, sample.n_classes, 1)), np.zeros(0)
    score_kinds, score_multiplicity = kinds, multiplicity
    if sample.patient is not None or settings.interval == "bca":
        kinds, multiplicity = sample.decision_kinds[which]
        kinds = grouping.coarsen(kinds)
    if sample.patient is not None:
        score_kinds, score_multiplicity = sample.score_kinds[which]
        score_kinds = grouping.coarsen(score_kinds)
    return Resampled(
        Groups.of(grouping.groups, group, sample.truth.label, sample.patient, settings),
        replace(profile, auc=found.auc[None]),
        replace(repeated, auc=repeated.auc + (found.auc - profile.auc)),  # bins cost 1e-5 or so
        kinds,
        multiplicity,
        score_kinds,
        score_multiplicity,
        found,
        _calibration_errors(sample, which, group, n),
    )


def _discrimination(sample: Sample, which: int, group: Ints, n: int) -> Discrimination:
    """Exact AUC of each group with DeLong's variance."""
    columns = np.full((4, n), np.nan)
    for s in range(n):
        rows = group == s
        label, scores = sample.truth.label[rows], sample.scores[which][rows]
        patient = None if sample.patient is None else sample.patient[rows]
        holders = [
            (label == y).sum() if patient is None else len(np.unique(patient[label == y])) for y in (0, 1)
        ]
        columns[1:, s] = 0.0, holders[1], holders[0]
        try:
            found = delong(label, scores, patients=patient)
            columns[:2, s] = found.auc[0], found.covariance[0, 0]
        except InputError:  # fewer than two patients with one of the labels: no variance
            columns[0, s] = auc_by_group(label, scores, np.zeros_like(label), 1)[0]
    return Discrimination(*columns)


def _calibration_errors(sample: Sample, which: int, group: Ints, n: int) -> Floats:
    label, scores = sample.truth.label, sample.scores[which]
    return np.array([expected_calibration_error(label[group == s], scores[group == s]) for s in range(n)])
