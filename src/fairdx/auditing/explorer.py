"""Figures' data: ROC, calibration and scores by group, and the threshold explorer."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fairdx.auditing.attribute import Part
from fairdx.auditing.design import Sample
from fairdx.auditing.draws import EXPLORER_REPLICATES, Draws
from fairdx.auditing.effects import EFFECTS, Strata, contrasts
from fairdx.auditing.gaps import compared_shares
from fairdx.auditing.groups import rate_ends
from fairdx.auditing.profile import Profiler
from fairdx.auditing.resampled import Groups, Resampled
from fairdx.auditing.result_curves import Curves, Explorer, Series
from fairdx.inference.information import Information, moved_inside
from fairdx.inference.score_intervals import critical_value, gap_ends
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics import counts as tables
from fairdx.metrics.benefit import benefit_of_counts
from fairdx.metrics.compared import GAP_SHARES
from fairdx.metrics.counts import by_label
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.reliability import calibration_table
from fairdx.metrics.smooth import SmoothCurve, smooth_calibration

EXPLORED_GAPS = (
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "accuracy_difference",
)
EXPLORED_RATES = ("selection_rate", "tpr", "fpr", "ppv", "npv", "accuracy")

_MOST_NUMBERS = 2_000_000  # in the tables of all replicates at the thresholds that are done at once
_HISTOGRAM_EDGES = np.linspace(0, 1, 41)


def curves(histogram: Floats, sample: Sample, group: Ints, profiler: Profiler, who: Groups) -> list[Curves]:
    """Curves of every group.

    Args:
        histogram: Of the sample by class, (S, Z, K).
        sample: The images.
        group: Shape (n,).
        profiler: Its bins.
        who: The groups; their effective numbers decide the width of the Wilson intervals if there are
            weights, and else images are taken as independent.

    Returns:
        One entry per group.
    """
    label, weight = sample.truth.label, sample.weight
    shrink = who.patients / who.weights.sum(1) if who.settings.weighted else np.ones(len(histogram))
    place = np.minimum((sample.scores[0] * 40).astype(np.int64), 39)
    shape = (len(histogram), 2, len(_HISTOGRAM_EDGES) - 1)
    bars = np.rint(tables.weighted_table(group, label, place, shape, weight)).astype(np.int64)
    by_truth = by_label(histogram, profiler.of_full)
    level, mean_score = who.settings.level, profiler.grid.mean_score
    made = zip(by_truth, bars, profiler.calibration_bins, shrink, _smooth(sample, group, level), strict=True)
    return [_curves(h, own, (bins, mean_score), few, smooth, level) for h, own, bins, few, smooth in made]


def _smooth(sample: Sample, group: Ints, level: float) -> Iterator[SmoothCurve]:
    grid = sample.grids[0]
    for s in range(int(group.max()) + 1):
        rows = group == s
        patient, weight = (None if c is None else c[rows] for c in (sample.patient, sample.weight))
        label, place = sample.truth.label[rows], grid.place[rows]
        yield smooth_calibration(grid.mean_score, place, label, patient, level, weight=weight)


def _curves(
    histogram: Floats, bars: Ints, bins: tuple[Ints, Floats], few: float, smooth: SmoothCurve, level: float
) -> Curves:
    above = np.append(np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1], [[0.0], [0.0]], axis=1)
    rates = tables.ratio(above, above[:, :1])[:, ::-1]
    place, mean_score = bins
    table = calibration_table(histogram, mean_score, place)
    count = table["count"]
    observed = tables.ratio(table["positive"], count)
    low, high = _wilson(observed, count * few, level)
    return Curves(
        rates[0].tolist(),
        rates[1].tolist(),
        tables.ratio(table["score"], count).tolist(),
        observed.tolist(),
        low.tolist(),
        high.tolist(),
        np.rint(count).astype(int).tolist(),
        smooth.score.tolist(),
        smooth.observed.tolist(),
        smooth.low.tolist(),
        smooth.high.tolist(),
        _HISTOGRAM_EDGES.tolist(),
        bars[0].tolist(),
        bars[1].tolist(),
    )


def _wilson(share: Floats, n: Floats, level: float) -> tuple[Floats, Floats]:
    """Wilson's score interval, images taken as independent."""
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    n = np.where(n > 0, n, np.nan)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def explorer(draws: Draws, part: Part) -> Explorer:
    """The threshold explorer of an attribute.

    Args:
        draws: What was resampled.
        part: What the audit found at its own threshold, which stands there in the explorer too.

    Returns:
        Counts and intervals at every explored threshold.
    """
    every, grid = draws.data[part.about.name], draws.sample.grids[0]
    of_full = draws.sample.truth.of_full
    totals = np.rint(every.sample.counts[0].sum(-1)).astype(int)
    chosen = np.rint(by_label(every.sample.selected, of_full)[0]).astype(int)
    names, thresholds = every.groups, grid.edges[grid.explored]
    joined: dict[str, Any] = {"gaps": {}, "effects": {}, "rates": {}, "benefit": {}}
    for some in _few_at_once(len(thresholds), len(names) * len(of_full)):
        _extend(joined, _part_of_series(every, part, of_full, thresholds, some))
    found = Explorer(
        thresholds=thresholds.tolist(),
        negatives=dict(zip(names, totals[:, 0].tolist(), strict=True)),
        positives=dict(zip(names, totals[:, 1].tolist(), strict=True)),
        selected_negatives={g: chosen[s, 0].tolist() for s, g in enumerate(names)},
        selected_positives={g: chosen[s, 1].tolist() for s, g in enumerate(names)},
        n_replicates=min(EXPLORER_REPLICATES, every.settings.n_replicates),
        **joined,
    )
    own = int(np.searchsorted(grid.explored, grid.cut - 1))
    for gap, series in found.gaps.items():
        _stand(series, own, part.gaps[gap].estimate)
    for group, by_name in found.effects.items():
        for name, series in by_name.items():
            _stand(series, own, part.effects[group][name])
    for group, by_name in found.rates.items():
        for name, series in by_name.items():
            _stand(series, own, part.by_group[group][name])
    for group, series in found.benefit.items():
        _stand(series, own, part.by_group[group]["net_benefit"])
    return found


def _few_at_once(n: int, cells: int) -> Iterator[slice]:
    """Parts of the thresholds, so few that their tables stay in the processor's own memory."""
    size = max(1, _MOST_NUMBERS // (EXPLORER_REPLICATES * cells * 2))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _part_of_series(
    every: Resampled, part: Part, of_full: Ints, thresholds: Floats, some: slice
) -> dict[str, Any]:
    """Every series at some of the thresholds."""
    given = _at_thresholds(every, some)
    compared = every.keep(part.chosen)
    kept = given[0][:, part.chosen], np.ascontiguousarray(given[1][:, :, part.chosen])
    return {
        "gaps": _gap_series(compared, kept, of_full) if part.gaps else {},
        "effects": _effect_series(compared, kept, part.about.reference) if part.effects else {},
        "rates": _rate_series(every, given, of_full),
        "benefit": _benefit_series(every, given, of_full, thresholds[some]),
    }


def _extend(found: dict[str, Any], more: dict[str, Any]) -> None:
    """Join series at further thresholds to those that are there."""
    for name, own in more.items():
        if isinstance(own, Series):
            whole = found.setdefault(name, Series([], [], []))
            for there, added in ((whole.value, own.value), (whole.low, own.low), (whole.high, own.high)):
                there.extend(added)
        else:
            _extend(found.setdefault(name, {}), own)


def _stand(series: Series, place: int, estimate: Estimate) -> None:
    """Put the audit's own figure where its threshold is."""
    series.value[place], series.low[place], series.high[place] = estimate.value, estimate.low, estimate.high


def _at_thresholds(data: Resampled, thresholds: slice) -> tuple[Floats, Floats]:
    """Tables at some thresholds: the sample's (G, S, Z, 2) and the replicates' (b, G, S, Z, 2)."""

    def table(selected: Floats, classes: Floats) -> Floats:
        rest = classes.sum(-1)[..., None] - selected
        return np.ascontiguousarray(np.moveaxis(np.stack([rest, selected], axis=-1), -2, 1))

    some = slice(0, EXPLORER_REPLICATES)
    repeated = table(data.replicates.selected[some][..., thresholds], data.replicates.classes[some])
    return table(data.sample.selected[..., thresholds], data.sample.classes)[0], repeated


def _series(value: Floats, low: Floats, high: Floats) -> Series:
    return Series(value.tolist(), low.tolist(), high.tolist())


def _gap_series(data: Resampled, given: tuple[Floats, Floats], of_full: Ints) -> dict[str, Series]:
    sample, replicates = given
    counts, repeated = by_label(sample, of_full), by_label(replicates, of_full)
    found = {}
    for name in EXPLORED_GAPS:
        shares = compared_shares(data, GAP_SHARES[name](2), counts, repeated)
        spread = np.fmax.reduce(shares.value, axis=-2) - np.fmin.reduce(shares.value, axis=-2)
        low, high = gap_ends(shares, data.settings.level)
        value = np.where(np.isnan(low), np.nan, np.fmax.reduce(spread, axis=-1))
        found[name] = _series(value, low, np.minimum(high, 1.0))
    return {**found, **_information_series(data, sample, replicates)}


def _information_series(data: Resampled, sample: Floats, replicates: Floats) -> dict[str, Series]:
    """ADF at every threshold; its noise is drawn from binomials without any information."""
    effect = data.design_effect
    rng = np.random.default_rng(data.settings.seed)
    totals, pooled = sample.sum(-1), sample.sum(-3)
    rate = np.clip(np.nan_to_num(tables.ratio(pooled[..., 1], pooled.sum(-1)))[:, None], 0.0, 1.0)
    # Sums of weights are no whole numbers.
    trials = np.where(totals > 0, np.maximum(np.rint(totals), 1), 0).astype(np.int64)
    drawn = rng.binomial(trials, rate, size=(len(replicates), *totals.shape))
    drawn = np.minimum(drawn * np.nan_to_num(tables.ratio(totals, trials.astype(float))), totals)
    null = np.stack([totals - drawn, drawn], axis=-1)
    noise = Information.of(sample, replicates, null, float(np.sqrt(effect)))
    plug_in, ends = tables.mutual_information(sample), noise.ends(data.settings.level)
    n = np.asarray(sample.sum((-1, -2, -3)))
    bias = tables.information_bias(sample, sample_size=n, design_effect=effect)
    return {
        "approximate_diagnosis_fairness": _series(plug_in, *ends),
        "approximate_diagnosis_fairness_corrected": _series(
            moved_inside(np.maximum(plug_in - bias, 0.0), *ends), *ends
        ),
    }


def _percentiles(values: Floats, replicates: Floats, data: Resampled, widen: float) -> Series:
    """Values (G,) and replicates (b, G); ends are nan where more than a twentieth is undefined."""
    from scipy.special import ndtr, ndtri

    tail = float(ndtr(widen * ndtri((1 - data.settings.level) / 2)))
    bad = np.isnan(values) | (np.isnan(replicates).mean(0) > 0.05)
    filled = np.where(bad, 0.0, replicates)
    quantile = np.nanquantile if np.isnan(filled).any() else np.quantile
    low, high = quantile(filled, [tail, 1 - tail], axis=0)
    return _series(values, np.where(bad, np.nan, low), np.where(bad, np.nan, high))


def _benefit_series(
    data: Resampled, given: tuple[Floats, Floats], of_full: Ints, thresholds: Floats
) -> dict[str, Series]:
    """Net benefit with the band of percentiles of the replicates."""
    sample, replicates = (by_label(c, of_full) for c in given)
    at = thresholds[:, None]
    values, repeated = benefit_of_counts(sample, at), benefit_of_counts(replicates, at)
    return {
        group: _percentiles(values[:, s], repeated[..., s], data, float(data.widen[s]))
        for s, group in enumerate(data.groups)
    }


def _effect_series(
    data: Resampled, given: tuple[Floats, Floats], reference: str
) -> dict[str, dict[str, Series]]:
    base, strata = data.groups.index(reference), Strata(*given, None)
    values, repeated = (strata.effects(c, base) for c in (strata.sample, strata.replicates))
    ends = {
        name: one.ends(critical_value(data.settings.level))
        for name, one in contrasts(data.who, strata, base).items()
    }
    found: dict[str, dict[str, Series]] = {}
    for s, group in enumerate(data.groups):
        for name in EFFECTS if s != base else ():
            if name in ends:
                low, high = (end[:, s] for end in ends[name])
                series = _series(values[name][:, s], low, high)
            else:
                widen = float(max(data.widen[s], data.widen[base]))
                series = _percentiles(values[name][:, s], repeated[name][..., s], data, widen)
            found.setdefault(group, {})[name] = series
    return found


def _rate_series(
    data: Resampled, given: tuple[Floats, Floats], of_full: Ints
) -> dict[str, dict[str, Series]]:
    sample, replicates = (by_label(c, of_full) for c in given)
    ends = rate_ends(data, sample, replicates)
    return {
        group: {name: _series(*(end[:, s] for end in ends[name][:3])) for name in EXPLORED_RATES}
        for s, group in enumerate(data.groups)
    }
