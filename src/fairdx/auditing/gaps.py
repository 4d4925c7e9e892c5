"""Gaps between groups, and what decisions and scores tell about the group: estimates and tests."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.groups import absolute_sum
from fairdx.auditing.permuted import SCALED, Permuted
from fairdx.auditing.resampled import Resampled
from fairdx.auditing.result import Gap, Test
from fairdx.inference.information import Information, moved_inside
from fairdx.inference.score_intervals import (
    Areas,
    Figures,
    Normal,
    Shares,
    critical_value,
    detectable_gap,
    gap_ends,
    gap_p_value,
    ratio_ends,
)
from fairdx.inference.uncertainty import Estimate, Interval, length_interval
from fairdx.metrics import counts as tables
from fairdx.metrics.compared import GAP_SHARES, Compared
from fairdx.metrics.definitions import METRICS
from fairdx.metrics.inputs import Floats
from fairdx.metrics.ratios import RATIO_OF
from fairdx.metrics.scores import equity_scaled

LEAST_IMAGES = 10
"""A rate of fewer images than this is reported, but not compared with others."""


def compared_shares(data: Resampled, compared: Compared, counts: Floats, replicates: Floats) -> Shares:
    """The rates of a gap, nan in groups with too few images behind them.

    Args:
        data: Profiles of the groups that are compared.
        compared: Which rates.
        counts: Shape (..., S, 2, 2).
        replicates: Shape (B, ..., S, 2, 2).

    Returns:
        The rates with their intervals, shape (..., S, R).
    """
    value, images = compared.rates(counts), compared.images(data.who.rows(counts))
    held = compared.wholes.any(-1)  # which labels images of each rate may have, (R, 2)
    label = np.where(held.all(-1), -1, held.argmax(-1))
    found = data.who.shares(value, compared.rates(replicates), images, label)
    return Shares(np.where(images >= LEAST_IMAGES, value, np.nan), found.size, found.widen)


def gap_estimates(data: Resampled, permuted: Permuted, scored: Permuted) -> tuple[dict[str, Gap], list[Test]]:
    """Gaps between the groups and the information about them, with tests of each.

    Args:
        data: Profiles of the groups that are compared.
        permuted: Their images, to permute.
        scored: The same by bins of the score; without patients if these are too many to permute.

    Returns:
        Gaps by metric, and the tests; their p-values are not yet corrected for each other.
    """
    gaps, tests = {}, []
    for name, make in GAP_SHARES.items():
        compared = make(2)
        shares = compared_shares(data, compared, data.sample.counts[0], data.replicates.counts)
        gaps[name] = _gap(data, shares)
        gaps |= {ratio: _ratio(data, shares) for ratio, own in RATIO_OF.items() if own == name}
        tests.append(permuted.rates_test(name, compared, shares))
    for name, figures, method in (
        ("auroc_gap", _areas(data), "Obuchowski" if data.settings.dependent else "DeLong"),
        ("calibration_gap", _calibration(data), "bootstrap standard errors"),
    ):
        gaps[name] = _gap(data, figures, METRICS[name].maximum)
        tests.append(permuted.test(name, method, gap_p_value(figures)))
    # Not tested: groups with other prevalences have other areas, however fair the score is.
    gaps["average_precision_gap"] = _gap(data, _precisions(data))
    for found, test in (_decision_information(data, permuted), _score_information(data, scored)):
        gaps.update(found)
        tests.append(test)
    return gaps, tests


def _areas(data: Resampled) -> Areas:
    areas = data.areas()
    value = np.where(_few(data), np.nan, areas.value)
    return Areas(value, areas.positives, areas.negatives, areas.variance, areas.widen)


def _precisions(data: Resampled) -> Shares:
    shares = data.precisions()
    return Shares(np.where(_few(data), np.nan, shares.value), shares.size, shares.widen)


def _few(data: Resampled) -> NDArray[np.bool_]:
    """Whether a group has too few images of a label, (S, 1)."""
    return np.asarray(data.who.held.min(1, keepdims=True) < LEAST_IMAGES)


def _calibration(data: Resampled) -> Normal:
    value, repeated = data.sample.in_the_large[0], data.replicates.in_the_large
    few = data.images < LEAST_IMAGES
    error = np.std(np.where(np.isfinite(repeated), repeated, value), axis=0)
    return Normal(np.where(few, np.nan, value)[:, None], error[:, None], data.widen[:, None])


def _gap(data: Resampled, figures: Figures, most: float = 1.0) -> Gap:
    return gap_of(figures, data.groups, data.settings.level, int(data.images.sum()), most)


def gap_of(figures: Figures, groups: tuple[str, ...], level: float, n: int, most: float = 1.0) -> Gap:
    """The largest gap between two groups in some figures.

    Args:
        figures: Of the groups, shape (S, R); nan in those that are left out.
        groups: Names of the groups.
        level: Nominal coverage.
        n: Number of images.
        most: The largest gap that there can be.

    Returns:
        The gap with its interval.
    """
    value = figures.value
    low, high = (float(end) for end in gap_ends(figures, level))
    left_out = [g for s, g in enumerate(groups) if np.isnan(value[s]).any()]
    spread = np.fmax.reduce(value, axis=0) - np.fmin.reduce(value, axis=0)
    if np.isnan(low):
        method, lowest, highest, found = "undefined", None, None, float("nan")
    else:
        column = value[:, int(np.nanargmax(spread))]
        method, found = "score intervals of pairs", float(np.nanmax(spread))
        lowest, highest = groups[int(np.nanargmin(column))], groups[int(np.nanargmax(column))]
    estimate = Estimate(found, low, min(high, most), level, method, n)
    return Gap(estimate, lowest, highest, detectable_gap(figures, level), left_out)


def _ratio(data: Resampled, shares: Shares) -> Gap:
    """The smallest ratio of two groups' rates."""
    value, level = shares.value, data.settings.level
    low, high = ratio_ends(shares, level)
    left_out = [g for s, g in enumerate(data.groups) if np.isnan(value[s]).any()]
    n = int(data.images.sum())
    if np.isnan(low):
        undefined = Estimate(float("nan"), low, high, level, "undefined", n)
        return Gap(undefined, None, None, float("nan"), left_out)
    found = tables.ratio(np.fmin.reduce(value, axis=0), np.fmax.reduce(value, axis=0))
    column = value[:, int(np.nanargmin(found))]
    lowest, highest = (data.groups[int(pick(column))] for pick in (np.nanargmin, np.nanargmax))
    estimate = Estimate(float(np.nanmin(found)), low, high, level, "score intervals of pairs", n)
    return Gap(estimate, lowest, highest, float("nan"), left_out)


@dataclass(frozen=True)
class InformationEstimates:
    """Both estimates of an information, the test of none, and the smallest that would be found."""

    plug_in: Estimate
    corrected: Estimate
    p_value: float
    detectable: float


def information_estimates(
    counts: Floats, found: Information, design_effect: float, level: float, p_value: float
) -> InformationEstimates:
    """Plug-in and bias-corrected estimates of I(S; D | Y), with one interval.

    Args:
        counts: Shape (S, Y, D).
        found: The root of the information with its noise.
        design_effect: From `fairdx.metrics.counts.design_effect`.
        level: Nominal coverage.
        p_value: Of no information.

    Returns:
        Both estimates in nats. The interval is one for the true information, so it belongs to both: it
        allows for the bias, which is why the plug-in estimate may lie above it. The corrected one is kept
        within it: in sparse tables the bias is larger than what is taken away.
    """
    n, plug_in = int(counts.sum()), float(tables.mutual_information(counts))
    bias = float(tables.information_bias(counts, sample_size=float(n), design_effect=design_effect))
    interval = found.interval(level)
    corrected = float(moved_inside(max(0.0, plug_in - bias), interval.low, interval.high))
    first, second = (Estimate.of(value, interval, n) for value in (plug_in, corrected))
    return InformationEstimates(first, second, p_value, found.detectable(level))


def decision_information(data: Resampled, permuted: Permuted) -> tuple[InformationEstimates, str]:
    """ADF with its interval, and how it was tested."""
    counts, level = data.sample.classes[0], data.settings.level
    effect = data.design_effect
    noise = Information.of(counts, data.replicates.classes, *permuted.null(counts, effect))
    p_value, method = permuted.information_test(counts, float(noise.p_value()))
    if permuted.patients is not None and np.isfinite(p_value):
        noise = noise.matched(p_value, level)
    return information_estimates(counts, noise, effect, level, p_value), method


def _decision_information(data: Resampled, permuted: Permuted) -> tuple[dict[str, Gap], Test]:
    found, method = decision_information(data, permuted)
    name = "approximate_diagnosis_fairness"
    gaps = {
        name: Gap(found.plug_in, None, None, found.detectable, []),
        f"{name}_corrected": Gap(found.corrected, None, None, found.detectable, []),
    }
    return gaps, permuted.test(name, method, found.p_value)


def _score_information(data: Resampled, permuted: Permuted) -> tuple[dict[str, Gap], Test]:
    counts, name = data.sample.score_table[0], "score_mutual_information"
    effect, dependent = data.score_design_effect, data.settings.dependent
    if dependent and permuted.patients is None:
        scale = float(np.sqrt(effect) * data.widen.max())
        noise = Information.of(counts, data.replicates.score_table, permuted.rows(counts), scale)
        p_value, method = float(noise.p_value()), SCALED
    else:
        noise = Information.of(counts, data.replicates.score_table, *permuted.null(counts, effect))
        p_value, method = permuted.information_test(counts, float(noise.p_value()))
        if dependent and np.isfinite(p_value):
            noise = noise.matched(p_value, data.settings.level)
    found = information_estimates(counts, noise, effect, data.settings.level, p_value)
    gap = Gap(found.corrected, None, None, found.detectable, [])
    return {name: gap}, permuted.test(name, method, p_value)


def equity_scaled_estimate(data: Resampled, overall: Resampled) -> Gap:
    """Equity-scaled AUC of the groups against the AUC over all images.

    It is AUC / (1 + D). The sum of deviations D is a length: percentiles of it never reach zero, so its
    interval is an inverted test. The ends are those of both intervals at their worst, which covers more often
    than it needs to.
    """
    whole, level, n = overall.discrimination.auc, data.settings.level, int(data.images.sum())
    known = np.flatnonzero(np.isfinite(data.discrimination.auc))
    areas = data.discrimination.auc[known]
    repeated = data.replicates.auc[:, known] - overall.replicates.auc[:, :1]
    spread = length_interval(areas - whole[0], repeated, absolute_sum, level, data.widen[known])
    low, high = (float(end[0, 0]) for end in overall.areas().ends(critical_value(level)))
    interval = Interval(low / (1 + spread.high), high / (1 + spread.low), level, spread.method)
    estimate = Estimate.of(float(equity_scaled(whole, areas[None])[0]), interval, n)
    left_out = [g for s, g in enumerate(data.groups) if s not in known]
    if len(known) == 0:
        return Gap(estimate, None, None, float("nan"), left_out)
    lowest, highest = (data.groups[known[pick(areas)]] for pick in (np.argmin, np.argmax))
    return Gap(estimate, lowest, highest, float("nan"), left_out)
