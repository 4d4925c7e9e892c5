"""Everything that is resampled, once, for all attributes of an audit."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.design import Grouping, Sample
from fairdx.auditing.profile import Grid, Profile, Profiler, Truth
from fairdx.auditing.resampled import Discrimination, Groups, Resampled
from fairdx.auditing.result import Settings
from fairdx.auditing.study import Study
from fairdx.auditing.threshold import SECOND, Thresholds
from fairdx.core.errors import InputError
from fairdx.core.progress import advanced
from fairdx.inference.delong import delong
from fairdx.inference.resampling import effective_patients
from fairdx.metrics.causal import strata
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.parametric import covariate_design
from fairdx.metrics.precision import precision_from_histogram
from fairdx.metrics.reliability import Bins, expected_calibration_error
from fairdx.metrics.scores import auc_from_histogram, score_histogram

MOST_EXPLORED = 60
"""Groups of an attribute or intersection up to which thresholds are explored; a page shows 30 of them."""

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
        stratum, covariate, design = None, None, None
        if study.covariates is not None:
            stratum, covariate = strata(truth.full, study.covariates)
            first = np.unique(stratum, return_index=True)[1]
            design = truth.full[first], covariate_design(study.covariates, first)
        points = [study.thresholds, study.thresholds.for_label(SECOND)][: len(scores)]
        own_bins = study.settings.bins
        grids = [
            Grid.of(s, p.default, truth, study.weight, own_bins) for s, p in zip(scores, points, strict=True)
        ]
        sample = Sample(
            study.finest,
            int(study.finest.max()) + 1,
            truth,
            scores,
            grids,
            study.patient,
            stratum,
            study.weight,
            _decided(study, scores, points),
        )
        own = sample.tables()
        profilers = [_profilers(sample, own, wanted, which, own_bins) for which in range(len(scores))]
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


def _decided(study: Study, scores: list[Floats], points: list[Thresholds]) -> list[Ints] | None:
    """Decisions on each score, if groups have thresholds of their own."""
    by_image = [point.by_image(study.attributes) for point in points]
    if all(own is None for own in by_image):
        return None
    return [
        (score >= (point.default if own is None else own)).astype(np.int64)
        for score, point, own in zip(scores, points, by_image, strict=True)
    ]


def _profilers(
    sample: Sample, own: list[Floats], wanted: list[Grouping], which: int, bins: Bins
) -> dict[str, Profiler]:
    squared, of_full = sample.squared_errors(which)[None], sample.truth.of_full
    return {
        g.name: Profiler.of(
            g.coarsen(own[which])[0], g.coarsen(squared)[0], sample.grids[which], of_full, bins
        )
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
                wide = wide and len(grouping.groups) <= MOST_EXPLORED
                decided = _own_decisions(sample, grouping, chunk, which)
                profile = by_name[grouping.name].profile(grouping.coarsen(chunk[which]), wide, decided)
                parts[which][place].append(profile)
        if sample.stratum is not None:
            strata_parts.append(chunk[-1])
        done += len(chunk[0])
        advanced(len(chunk[0]))
    return [[Profile.join(p) for p in by_place] for by_place in parts], strata_parts


def _own_decisions(sample: Sample, grouping: Grouping, tables: list[Floats], which: int) -> Floats | None:
    """Tables by class and decision, if groups have thresholds of their own."""
    return None if sample.decided is None else grouping.coarsen(tables[len(sample.grids) + which])


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
    decided = _own_decisions(sample, grouping, own, which)
    profile = profiler.profile(grouping.coarsen(own[which]), decided=decided)
    found = _discrimination(sample, which, group, n)
    kinds, multiplicity = np.zeros((0, n, sample.n_classes, 1)), np.zeros(0)
    score_kinds, score_multiplicity = kinds, multiplicity
    if settings.dependent or settings.interval == "bca":
        kinds, multiplicity = sample.decision_kinds[which]
        kinds = grouping.coarsen(kinds)
    if settings.dependent:
        score_kinds, score_multiplicity = sample.score_kinds[which]
        score_kinds = grouping.coarsen(score_kinds)
    return Resampled(
        Groups.of(grouping.groups, group, sample.truth.label, sample.patient, settings, sample.weight),
        replace(profile, auc=found.auc[None], precision=found.precision[None]),
        replace(  # bins cost 1e-5 or so
            repeated,
            auc=repeated.auc + (found.auc - profile.auc),
            precision=repeated.precision + (found.precision - profile.precision),
        ),
        kinds,
        multiplicity,
        score_kinds,
        score_multiplicity,
        found,
        _calibration_errors(sample, which, group, n, settings.bins),
        float("nan")
        if sample.decided is not None
        else float(sample.grids[which].edges[sample.grids[which].cut - 1]),
    )


def _discrimination(sample: Sample, which: int, group: Ints, n: int) -> Discrimination:
    """Exact AUC of each group with DeLong's variance, and exact average precision."""
    columns = np.full((5, n), np.nan)
    for s in range(n):
        rows = group == s
        label, scores = sample.truth.label[rows], sample.scores[which][rows]
        patient, weight = (None if x is None else x[rows] for x in (sample.patient, sample.weight))
        columns[:, s] = 0.0, 0.0, *(_holders(label == y, patient, weight) for y in (1, 0)), 0.0
        columns[[0, 4], s] = area_and_precision(label, scores, weight)
        try:
            found = delong(label, scores, patients=patient, sample_weight=weight)
            columns[1, s] = found.covariance[0, 0]
        except InputError:  # fewer than two patients with one of the labels: no variance
            continue
    return Discrimination(*columns)


def _holders(rows: NDArray[np.bool_], patient: Ints | None, weight: Floats | None) -> float:
    """Patients (images) that some images are of; with weights their effective number."""
    if patient is None:
        return float(rows.sum())
    if weight is None:
        return float(len(np.unique(patient[rows])))
    return float(effective_patients(np.zeros(rows.sum(), np.int64), patient[rows], 1, weight[rows])[0])


def area_and_precision(label: Ints, scores: Floats, weight: Floats | None) -> tuple[float, float]:
    """Exact AUC and average precision of some images, nan where undefined."""
    values, place = np.unique(scores, return_inverse=True)
    if len(values) == 0:
        return float("nan"), float("nan")
    table = score_histogram(np.zeros_like(place), label, place, (1, 2, len(values)), weight)
    return float(auc_from_histogram(table)[0]), float(precision_from_histogram(table)[0])


def _calibration_errors(sample: Sample, which: int, group: Ints, n: int, bins: Bins) -> Floats:
    label, scores, weight = sample.truth.label, sample.scores[which], sample.weight
    errors = []
    for s in range(n):
        rows = group == s
        own = None if weight is None else weight[rows]
        errors.append(expected_calibration_error(label[rows], scores[rows], own, bins))
    return np.array(errors)
