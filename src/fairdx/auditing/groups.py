"""Performance within groups: every rate and score metric of each group, with its interval."""

from dataclasses import replace

import numpy as np

from fairdx.auditing.resampled import Resampled
from fairdx.inference.score_intervals import critical_value
from fairdx.inference.uncertainty import Estimate, Interval, length_interval
from fairdx.metrics.benefit import benefit_of_counts
from fairdx.metrics.counts import by_label
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.rates import binary_rates

LABEL_OF_RATE = {"tpr": 1, "fpr": 0}
"""The label of all images behind a rate; of the others they have both."""


def group_estimates(data: Resampled, of_full: Ints) -> dict[str, dict[str, Estimate]]:
    """Every performance metric of every group.

    Args:
        data: Profiles of an attribute, or of all images as a single group.
        of_full: The label of each class, (Z,).

    Returns:
        {group: {metric: estimate}}.
    """
    found: dict[str, dict[str, Estimate]] = {group: {} for group in data.groups}
    areas = {"auroc": _areas(data), "average_precision": _precisions(data)}
    for name, estimates in {**_rates(data, of_full), **areas, **_scores(data)}.items():
        for group, estimate in zip(data.groups, estimates, strict=True):
            found[group][name] = estimate
    return found


def rate_ends(
    data: Resampled, counts: Floats, replicates: Floats
) -> dict[str, tuple[Floats, Floats, Floats, Floats]]:
    """Rates within groups with score intervals.

    Args:
        data: Profiles of the groups.
        counts: Shape (..., S, 2, 2).
        replicates: Shape (B, ..., S, 2, 2).

    Returns:
        By rate: value, lower end, upper end and images behind it, each of shape (..., S).
    """
    values, repeated = binary_rates(counts), binary_rates(replicates)
    images = denominators(data.who.rows(counts))
    critical, found = critical_value(data.settings.level), {}
    for name, value in values.items():
        label = np.array([LABEL_OF_RATE.get(name, -1)])
        shares = data.who.shares(value[..., None], repeated[name][..., None], images[name][..., None], label)
        low, high = shares.ends(critical)
        found[name] = (value, low[..., 0], high[..., 0], images[name])
    return found


def denominators(counts: Floats) -> dict[str, Floats]:
    """Images that each rate of `binary_rates` rests on, by group, from (..., S, 2, 2)."""
    labels, decisions, images = counts.sum(-1), counts.sum(-2), counts.sum((-1, -2))
    own = {"tpr": labels[..., 1], "fpr": labels[..., 0], "ppv": decisions[..., 1], "npv": decisions[..., 0]}
    return {name: own.get(name, images) for name in binary_rates(counts)}


def _rates(data: Resampled, of_full: Ints) -> dict[str, list[Estimate]]:
    level, found = data.settings.level, {}
    for name, ends in rate_ends(data, data.sample.counts[0], data.replicates.counts).items():
        found[name] = [
            Estimate(
                float(value),
                float(low),
                float(high),
                level,
                "undefined" if np.isnan(value) else "Wilson",
                round(float(n)),
            )
            for value, low, high, n in zip(*ends, strict=True)
        ]
    if data.settings.interval != "bca":
        return found
    repeated = binary_rates(data.replicates.counts)
    for name, estimates in found.items():
        for s, estimate in enumerate(estimates):
            if 0 < estimate.value < 1:  # at 0 and 1 all replicates agree
                estimates[s] = data.signed(
                    estimate.value,
                    repeated[name][:, s],
                    estimate.n,
                    s,
                    lambda classes, name=name, s=s: binary_rates(by_label(classes, of_full))[name][:, s],  # type: ignore[misc]
                )
    return found


def _areas(data: Resampled) -> list[Estimate]:
    areas, level = data.areas(), data.settings.level
    low, high = areas.ends(critical_value(level))
    return [
        Estimate(
            float(a), float(lo), float(hi), level, "undefined" if np.isnan(a) else "Newcombe's score", int(n)
        )
        for a, lo, hi, n in zip(areas.value[:, 0], low[:, 0], high[:, 0], data.images, strict=True)
    ]


def _precisions(data: Resampled) -> list[Estimate]:
    shares, level = data.precisions(), data.settings.level
    low, high = shares.ends(critical_value(level))
    return [
        Estimate(
            float(p), float(lo), float(hi), level, "undefined" if np.isnan(p) else "score of a share", int(n)
        )
        for p, lo, hi, n in zip(shares.value[:, 0], low[:, 0], high[:, 0], data.images, strict=True)
    ]


def _benefits(data: Resampled) -> list[Estimate]:
    """Net benefit at the audit's threshold."""
    value = benefit_of_counts(data.sample.counts[0], data.threshold)
    repeated = benefit_of_counts(data.replicates.counts, data.threshold)
    return [data.signed(float(value[s]), repeated[:, s], int(n), s, None) for s, n in enumerate(data.images)]


def _scores(data: Resampled) -> dict[str, list[Estimate]]:
    found = {}
    for name, attribute in (
        ("brier_score", "brier"),
        ("calibration_slope", "slope"),
        ("calibration_intercept", "intercept"),
    ):
        value, repeated = getattr(data.sample, attribute)[0], getattr(data.replicates, attribute)
        found[name] = [
            data.signed(float(value[s]), repeated[:, s], int(n), s, None) for s, n in enumerate(data.images)
        ]
    found["net_benefit"] = _benefits(data)
    found["expected_calibration_error"] = [_calibration_error(data, s) for s in range(len(data.groups))]
    return found


def _calibration_error(data: Resampled, s: int) -> Estimate:
    """ECE is the sum of |residual| over bins: a length, which cannot be negative.

    What is taken away for its bias may leave less than the lower end; then the interval reaches down to it.
    """
    interval = length_interval(
        data.sample.residual[0, s],
        data.replicates.residual[:, s],
        absolute_sum,
        data.settings.level,
        float(data.widen[s]),
    )
    value = float(data.calibration_error[s])
    interval = replace(interval, low=min(interval.low, value), high=max(interval.high, value))
    return Estimate.of(value, interval, int(data.images[s]))


def absolute_sum(vector: Floats) -> Floats:
    """Sum of sizes: (..., K) to (...)."""
    total: Floats = np.abs(vector).sum(-1)
    return total


def undefined(level: float, n: int) -> Estimate:
    """An estimate of what is not defined."""
    nan = float("nan")
    return Estimate.of(nan, Interval(nan, nan, level, "undefined"), n)
