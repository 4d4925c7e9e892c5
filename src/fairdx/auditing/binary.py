"""Estimates of a binary audit from profiles of the sample and of its replicates."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairdx.auditing.estimates import (
    gap_estimate,
    information_estimates,
    information_length,
    information_vectors,
    signed_estimate,
)
from fairdx.auditing.profile import Profile
from fairdx.auditing.result import Gap, Settings
from fairdx.inference.uncertainty import (
    Estimate,
    Interval,
    detectable_length,
    few_patients_factor,
    jackknife_acceleration,
    length_interval,
    length_p_value,
)
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import effects_from_strata
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.rates import binary_rates
from fairdx.metrics.scores import equity_scaled

EFFECTS = ("total_effect", "direct_effect", "indirect_effect")

GAP_RATES: dict[str, Callable[[Profile], Floats]] = {
    "demographic_parity_difference": lambda p: tables.selection_rates(p.counts)[..., 1:],
    "equal_opportunity_difference": lambda p: tables.opportunity_rates(p.counts),
    "equalized_odds_difference": lambda p: tables.decision_rates(p.counts)[..., 1],
    "accuracy_difference": lambda p: tables.accuracies(p.counts)[..., None],
    "predictive_parity_difference": lambda p: tables.predictive_values(p.counts)[..., 1:],
    "auroc_gap": lambda p: p.auc[..., None],
    "calibration_gap": lambda p: p.in_the_large[..., None],
}
"""The rates (B, S, R) that each gap is the largest difference of."""


@dataclass(frozen=True)
class Resampled:
    """Profiles of one attribute, with what intervals need.

    Attributes:
        groups: Names of the groups, S of them.
        sample: Profile of the sample, leading dimension 1.
        replicates: Profile of the replicates, leading dimension B.
        kinds: Tables (U, S, 2, 2) of distinct patients, and how many of each: for BCa and design effects.
        multiplicity: Shape (U,).
        effective: Effective number of patients of the smallest group compared.
        settings: Of the audit.
    """

    groups: tuple[str, ...]
    sample: Profile
    replicates: Profile
    kinds: Floats
    multiplicity: Floats
    effective: float
    settings: Settings

    @property
    def widen(self) -> float:
        """Factor for few patients."""
        return few_patients_factor(self.effective, self.settings.level)

    @property
    def images(self) -> Ints:
        """Images by group, (S,)."""
        images: Ints = self.sample.counts[0].sum((-1, -2)).astype(np.int64)
        return images

    def keep(self, chosen: Ints, effective: float) -> "Resampled":
        """The same for some of the groups."""
        names = tuple(self.groups[s] for s in chosen)
        kinds = self.kinds[:, chosen]
        return Resampled(
            names,
            self.sample.groups(chosen),
            self.replicates.groups(chosen),
            kinds,
            self.multiplicity,
            effective,
            self.settings,
        )

    def signed(
        self, value: float, replicates: Floats, n: int, statistic: Callable[[Floats], Floats] | None
    ) -> Estimate:
        """Estimate of a quantity of either sign; BCa if asked for and it is a function of the counts."""
        acceleration = None
        if self.settings.interval == "bca" and statistic is not None and np.isfinite(value):
            acceleration = jackknife_acceleration(
                statistic(self.sample.counts - self.kinds), self.multiplicity
            )
        return signed_estimate(value, replicates, n, self.settings.level, self.widen, acceleration)


def group_estimates(data: Resampled) -> dict[str, dict[str, Estimate]]:
    """Every performance metric of every group.

    Args:
        data: Profiles of an attribute, or of all images as a single group.

    Returns:
        {group: {metric: estimate}}.
    """
    found: dict[str, dict[str, Estimate]] = {group: {} for group in data.groups}
    images = data.images
    values, repeated = binary_rates(data.sample.counts), binary_rates(data.replicates.counts)
    denominators = _denominators(data.sample.counts[0])
    for name in values:
        for s, group in enumerate(data.groups):
            estimate = data.signed(
                float(values[name][0, s]),
                repeated[name][:, s],
                int(denominators.get(name, images)[s]),
                lambda counts, name=name, s=s: binary_rates(counts)[name][:, s],  # type: ignore[misc]
            )
            found[group][name] = _at_the_edge(estimate, data, s)
    for name, attribute in (
        ("auroc", "auc"),
        ("brier_score", "brier"),
        ("calibration_slope", "slope"),
        ("calibration_intercept", "intercept"),
    ):
        value, repeats = getattr(data.sample, attribute)[0], getattr(data.replicates, attribute)
        for s, group in enumerate(data.groups):
            found[group][name] = data.signed(float(value[s]), repeats[:, s], int(images[s]), None)
    for s, group in enumerate(data.groups):
        found[group]["expected_calibration_error"] = _calibration_error(data, s)
    return found


def _denominators(counts: Floats) -> dict[str, Floats]:
    """Images that each rate rests on, by group, from (S, 2, 2)."""
    labels, decisions = counts.sum(2), counts.sum(1)
    return {"tpr": labels[:, 1], "fpr": labels[:, 0], "ppv": decisions[:, 1], "npv": decisions[:, 0]}


def _at_the_edge(estimate: Estimate, data: Resampled, s: int) -> Estimate:
    """Wilson's interval for a rate of 0 or 1, where every replicate is the same; n is that of patients."""
    if estimate.value not in (0.0, 1.0):
        return estimate
    from scipy.special import ndtri

    held = data.kinds[:, s].sum((-1, -2)) > 0
    images, patients = data.images[s], float(data.multiplicity[held].sum())
    independent = max(estimate.n * patients / max(images, 1), 1.0)
    z = ndtri((1 + estimate.level) / 2) ** 2
    reach = float(z / (independent + z))
    low, high = (0.0, reach) if estimate.value == 0 else (1 - reach, 1.0)
    return Estimate(estimate.value, low, high, estimate.level, "Wilson", estimate.n)


def _calibration_error(data: Resampled, s: int) -> Estimate:
    """ECE is the sum of |residual| over bins: a length, which cannot be negative."""
    vector, replicates = data.sample.residual[0, s], data.replicates.residual[:, s]
    interval = length_interval(vector, replicates, _absolute_sum, data.settings.level, data.widen)
    return Estimate.of(float(np.abs(vector).sum()), interval, int(data.images[s]))


def _absolute_sum(vector: Floats) -> Floats:
    total: Floats = np.abs(vector).sum(-1)
    return total


def gap_estimates(data: Resampled) -> tuple[dict[str, Gap], dict[str, float]]:
    """Gaps between the groups and the information about them, with bootstrap p-values.

    Args:
        data: Profiles of the groups that are compared.

    Returns:
        Gaps by metric, and p-values by metric.
    """
    level, n = data.settings.level, int(data.images.sum())
    gaps, p_values = {}, {}
    for name, rates in GAP_RATES.items():
        value, repeated = rates(data.sample)[0], rates(data.replicates)
        estimate = gap_estimate(value, repeated, n, level, data.widen)
        detectable = detectable_length(value, repeated, tables.largest_gap, level)
        gaps[name] = Gap(estimate, *_furthest(value, data.groups), detectable)
        p_values[name] = length_p_value(value, repeated, tables.largest_gap, data.widen)
    return {**gaps, **_information(data, p_values)}, p_values


def _furthest(rates: Floats, groups: tuple[str, ...]) -> tuple[str | None, str | None]:
    """The pair of groups with the largest gap, lowest first."""
    spread = rates.max(0) - rates.min(0)
    if not np.isfinite(spread).all():
        return None, None
    column = rates[:, int(np.argmax(spread))]
    return groups[int(np.argmin(column))], groups[int(np.argmax(column))]


def _information(data: Resampled, p_values: dict[str, float]) -> dict[str, Gap]:
    level, n = data.settings.level, int(data.images.sum())
    effect = tables.design_effect(data.kinds, data.multiplicity) if data.settings.clustered else 1.0
    found = {}
    for names, sample, repeated in (
        (
            ("approximate_diagnosis_fairness", "approximate_diagnosis_fairness_corrected"),
            data.sample.counts[0],
            data.replicates.counts,
        ),
        (("score_mutual_information",), data.sample.score_table[0], data.replicates.score_table),
    ):
        estimates = information_estimates(sample, repeated, effect, n, level, data.widen)
        root, roots = information_vectors(sample, repeated)
        detectable = detectable_length(root, roots, information_length, level) ** 2
        for name, estimate in zip(names, estimates[-len(names) :], strict=True):
            found[name] = Gap(estimate, None, None, detectable)
        p_values[names[-1]] = length_p_value(root, roots, information_length, data.widen)
    return found


def equity_scaled_estimate(data: Resampled, overall: Resampled) -> Gap:
    """Equity-scaled AUC of the groups against the AUC over all images.

    It is AUC / (1 + D). The sum of deviations D is a length: percentiles of it never reach zero, so its
    interval is an inverted test. The ends are those of both intervals at their worst, which covers more often
    than it needs to.
    """
    whole, level, n = overall.sample.auc[:, 0], data.settings.level, int(data.images.sum())
    vector = data.sample.auc[0] - whole[0]
    repeated = data.replicates.auc - overall.replicates.auc[:, :1]
    spread = length_interval(vector, repeated, _absolute_sum, level, data.widen)
    area = data.signed(float(whole[0]), overall.replicates.auc[:, 0], n, None)
    interval = Interval(area.low / (1 + spread.high), area.high / (1 + spread.low), level, spread.method)
    estimate = Estimate.of(float(equity_scaled(whole, data.sample.auc)[0]), interval, n)
    return Gap(estimate, *_furthest(data.sample.auc[0][:, None], data.groups), float("nan"))


def effect_estimates(
    data: Resampled, sample: Floats, replicates: Floats, reference: int, *, of_counts: bool
) -> tuple[dict[str, dict[str, Estimate]], dict[tuple[str, str], float]]:
    """Effects of each group against the reference.

    Args:
        data: Profiles of the groups that are compared.
        sample: Strata by decision, (S, Z, 2).
        replicates: Of the replicates, (B, S, Z, 2).
        reference: Index of the reference group.
        of_counts: Whether strata are labels alone, so that BCa can be computed.

    Returns:
        {group: {effect: estimate}}, and p-values by (group, effect).
    """

    def compute(counts: Floats) -> dict[str, Floats]:
        return effects_from_strata(counts[..., 1], counts.sum(-1), reference)

    values, repeated = compute(sample), compute(replicates)
    found: dict[str, dict[str, Estimate]] = {}
    p_values: dict[tuple[str, str], float] = {}
    for s, group in enumerate(data.groups):
        if s == reference:
            continue
        n = int(data.images[s] + data.images[reference])
        for name in EFFECTS:
            statistic = (lambda c, name=name, s=s: compute(c)[name][:, s]) if of_counts else None
            estimate = data.signed(float(values[name][s]), repeated[name][:, s], n, statistic)
            found.setdefault(group, {})[name] = estimate
            p_values[group, name] = length_p_value(
                values[name][s][None], repeated[name][:, s, None], _absolute_sum, data.widen
            )
    return found, p_values


def undefined(level: float, n: int) -> Estimate:
    """An estimate of what is not defined."""
    nan = float("nan")
    return Estimate.of(nan, Interval(nan, nan, level, "undefined"), n)
