"""Figures' data: ROC, calibration and scores by group, and the threshold explorer."""

import numpy as np

from fairdx.auditing.binary import EFFECTS, Resampled
from fairdx.auditing.estimates import information_length, information_vectors
from fairdx.auditing.profile import Grid, Profiler
from fairdx.auditing.result import Curves, Explorer, Series
from fairdx.inference.uncertainty import length_intervals
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import effects_from_counts
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.rates import binary_rates
from fairdx.metrics.reliability import calibration_table

EXPLORER_REPLICATES = 300
"""Replicates behind the explorer's intervals: ends good to about a tenth of the width."""

_HISTOGRAM_EDGES = np.linspace(0, 1, 41)
_RATES = ("selection_rate", "tpr", "fpr", "ppv", "npv", "accuracy")


def curves(
    histogram: Floats, scores: Floats, label: Ints, group: Ints, profiler: Profiler, level: float
) -> list[Curves]:
    """Curves of every group.

    Args:
        histogram: Of the sample, (S, 2, K).
        scores: Shape (n,).
        label: Shape (n,).
        group: Shape (n,).
        profiler: Its bins.
        level: Of the Wilson intervals.

    Returns:
        One entry per group.
    """
    place = np.minimum((scores * 40).astype(np.int64), 39)
    shape = (len(histogram), 2, 40)
    bars = tables.count_table(group, label, place, shape).astype(np.int64)
    return [_curves(h, bars[s], profiler, level) for s, h in enumerate(histogram)]


def _curves(histogram: Floats, bars: Ints, profiler: Profiler, level: float) -> Curves:
    above = np.append(np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1], [[0.0], [0.0]], axis=1)
    rates = tables.ratio(above, above[:, :1])[:, ::-1]
    table = calibration_table(histogram, profiler.grid.mean_score, profiler.calibration_bins)
    count = table["count"]
    observed = tables.ratio(table["positive"], count)
    low, high = _wilson(observed, count, level)
    return Curves(
        rates[0].tolist(),
        rates[1].tolist(),
        tables.ratio(table["score"], count).tolist(),
        observed.tolist(),
        low.tolist(),
        high.tolist(),
        count.astype(int).tolist(),
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


def explorer(every: Resampled, compared: Resampled, reference: int, grid: Grid, effect: float) -> Explorer:
    """The threshold explorer of an attribute.

    Args:
        every: Profiles of all groups.
        compared: Profiles of the groups that are compared.
        reference: Index of the reference among these, -1 if it is too small to compare with.
        grid: The score bins.
        effect: Design effect of ADF at the audit's threshold.

    Returns:
        Counts and intervals at every explored threshold.
    """
    sample, replicates = _at_thresholds(every)
    own, own_replicates = _at_thresholds(compared)
    totals = every.sample.counts[0].sum(-1).astype(int)
    chosen = every.sample.selected[0].astype(int)
    names = every.groups
    return Explorer(
        thresholds=grid.edges[grid.explored].tolist(),
        negatives=dict(zip(names, totals[:, 0].tolist(), strict=True)),
        positives=dict(zip(names, totals[:, 1].tolist(), strict=True)),
        selected_negatives={g: chosen[s, 0].tolist() for s, g in enumerate(names)},
        selected_positives={g: chosen[s, 1].tolist() for s, g in enumerate(names)},
        gaps=_gap_series(own, own_replicates, compared, effect) if len(compared.groups) > 1 else {},
        effects=_effect_series(own, own_replicates, compared, reference) if reference >= 0 else {},
        rates=_rate_series(sample, replicates, every),
        n_replicates=len(replicates),
    )


def _at_thresholds(data: Resampled) -> tuple[Floats, Floats]:
    """Tables by threshold: the sample's (G, S, 2, 2) and the replicates' (b, G, S, 2, 2)."""

    def table(selected: Floats, counts: Floats) -> Floats:
        rest = counts.sum(-1)[..., None] - selected
        return np.moveaxis(np.stack([rest, selected], axis=-1), -2, 1)

    some = slice(0, EXPLORER_REPLICATES)
    repeated = table(data.replicates.selected[some], data.replicates.counts[some])
    return table(data.sample.selected, data.sample.counts)[0], repeated


def _gap_series(
    sample: Floats, replicates: Floats, data: Resampled, design_effect: float
) -> dict[str, Series]:
    level, found = data.settings.level, {}
    for name, rates in (
        ("demographic_parity_difference", lambda c: tables.selection_rates(c)[..., 1:]),
        ("equal_opportunity_difference", tables.opportunity_rates),
        ("equalized_odds_difference", lambda c: tables.decision_rates(c)[..., 1]),
        ("accuracy_difference", lambda c: tables.accuracies(c)[..., None]),
    ):
        vectors = rates(sample)
        low, high = length_intervals(vectors, rates(replicates), tables.largest_gap, level, data.widen)
        found[name] = Series(tables.largest_gap(vectors).tolist(), low.tolist(), high.tolist())
    roots, repeated = information_vectors(sample, replicates)
    low, high = length_intervals(roots, repeated, information_length, level, data.widen)
    plug_in, ends = tables.mutual_information(sample), ((low**2).tolist(), (high**2).tolist())
    n = np.asarray(sample.sum((-1, -2, -3)))
    bias = tables.information_bias(sample, sample_size=n, design_effect=design_effect)
    found["approximate_diagnosis_fairness"] = Series(plug_in.tolist(), *ends)
    corrected = np.maximum(plug_in - bias, 0.0)
    found["approximate_diagnosis_fairness_corrected"] = Series(corrected.tolist(), *ends)
    return found


def _percentiles(values: Floats, replicates: Floats, data: Resampled) -> Series:
    """Values (G,) and replicates (b, G); ends are nan where more than a twentieth is undefined."""
    from scipy.special import ndtr, ndtri

    tail = float(ndtr(data.widen * ndtri((1 - data.settings.level) / 2)))
    bad = np.isnan(values) | (np.isnan(replicates).mean(0) > 0.05)
    filled = np.where(bad, 0.0, replicates)
    quantile = np.nanquantile if np.isnan(filled).any() else np.quantile
    low, high = quantile(filled, [tail, 1 - tail], axis=0)
    return Series(values.tolist(), np.where(bad, np.nan, low).tolist(), np.where(bad, np.nan, high).tolist())


def _effect_series(
    sample: Floats, replicates: Floats, data: Resampled, reference: int
) -> dict[str, dict[str, Series]]:
    values, repeated = (effects_from_counts(c, reference) for c in (sample, replicates))
    return {
        group: {name: _percentiles(values[name][:, s], repeated[name][..., s], data) for name in EFFECTS}
        for s, group in enumerate(data.groups)
        if s != reference
    }


def _rate_series(sample: Floats, replicates: Floats, data: Resampled) -> dict[str, dict[str, Series]]:
    values, repeated = binary_rates(sample), binary_rates(replicates)
    return {
        group: {name: _percentiles(values[name][:, s], repeated[name][..., s], data) for name in _RATES}
        for s, group in enumerate(data.groups)
    }
