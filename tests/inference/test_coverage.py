"""Do 95 % intervals cover the truth 95 % of the time, and do permutation tests keep their level?

Scores come from a model whose rates, AUCs, ADF and effects are known in closed form, with and without
patients of one to ten images whose scores share half of their variance.
"""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from fairdx.auditing import evaluate
from fairdx.auditing.estimates import gap_estimate, information_estimates, signed_estimate
from fairdx.inference.paired import length_change
from fairdx.inference.permutation import permutation_test
from fairdx.inference.resampling import all_replicates, collapse, dense_vectors, effective_patients
from fairdx.inference.uncertainty import few_patients_factor
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import effects_from_counts
from fairdx.metrics.scores import auc_from_histogram

SHIFT = 1.5  # of the score by the disease
CUT = 0.75  # the latent score is decided positive above it
PREVALENCE = np.array([0.3, 0.5])  # by group


def simulate(rng, n, gap, clustered):
    """Groups, labels, scores, patients; group 1 scores `gap` higher with the disease, half that without."""
    patient = np.repeat(np.arange(n), rng.integers(1, 11, n))[:n] if clustered else np.arange(n)
    patients = int(patient[-1]) + 1
    s = rng.integers(0, 2, patients)[patient]
    y = (rng.random(n) < PREVALENCE[s]).astype(int)
    shared, own = rng.normal(size=patients)[patient], rng.normal(size=n)
    latent = SHIFT * y + gap * s * (1 + y) / 2 + np.sqrt(0.5) * (shared + own)
    return s, y, norm.cdf(latent - CUT), patient


def truth(gap):
    """The figures of the population, from normal probabilities."""
    mean = np.array([[0, SHIFT], [gap / 2, SHIFT + gap]])
    positive = norm.cdf(mean - CUT)
    labels = np.stack([1 - PREVALENCE, PREVALENCE], axis=1)
    table = 0.5 * labels[..., None] * np.stack([1 - positive, positive], axis=-1)
    auc = norm.cdf((mean[:, 1] - mean[:, 0]) / np.sqrt(2))
    return {
        "demographic_parity_difference": float(tables.largest_gap(tables.selection_rates(table))),
        "equal_opportunity_difference": float(positive[1, 1] - positive[0, 1]),
        "approximate_diagnosis_fairness_corrected": float(tables.mutual_information(table)),
        "direct_effect": float(effects_from_counts(table, 0)["direct_effect"][1]),
        "auroc_gap": float(auc.max() - auc.min()),
    }


BINS = 50  # of the score; half of them are decided positive


def estimates(s, y, p, patient, seed):
    """The library's estimates from one resampled table of (group, label, score bin)."""
    own_bins = np.minimum((p * BINS).astype(int), BINS - 1)
    units = collapse([(s * 2 + y) * BINS + own_bins], [4 * BINS], patient)
    fine = all_replicates(units, 400, np.random.default_rng(seed)).reshape(-1, 2, 2, BINS)
    draws, own = (decide(t) for t in (fine, units.counts.reshape(2, 2, BINS)))
    n, widen = len(y), few_patients_factor(effective_patients(s, patient), 0.95)
    effect = 1.0
    if patient is not None:
        vectors, multiplicity = dense_vectors(units)
        effect = tables.design_effect(decide(vectors.reshape(-1, 2, 2, BINS)), multiplicity)
    direct = [effects_from_counts(t, 0)["direct_effect"] for t in (own, draws)]
    areas = [auc_from_histogram(t)[..., None] for t in (units.counts.reshape(2, 2, BINS), fine)]
    return {
        "demographic_parity_difference": gap_estimate(
            tables.selection_rates(own), tables.selection_rates(draws), n, 0.95, widen
        ),
        "equal_opportunity_difference": gap_estimate(
            tables.opportunity_rates(own), tables.opportunity_rates(draws), n, 0.95, widen
        ),
        "approximate_diagnosis_fairness_corrected": information_estimates(own, draws, effect, n, 0.95, widen)[
            1
        ],
        "direct_effect": signed_estimate(float(direct[0][1]), direct[1][:, 1], n, 0.95, widen),
        "auroc_gap": gap_estimate(*areas, n, 0.95, widen),
    }


def decide(fine):
    """Decisions at a score of 0.5: (..., BINS) to (..., 2)."""
    half = BINS // 2
    return np.stack([fine[..., :half].sum(-1), fine[..., half:].sum(-1)], axis=-1)


def coverage(n, gap, clustered, draws):
    """Share of intervals that hold the truth, by metric."""
    rng, expected = np.random.default_rng([n, clustered]), truth(gap)
    hits = dict.fromkeys(expected, 0)
    for seed in range(draws):
        s, y, p, patient = simulate(rng, n, gap, clustered)
        found = estimates(s, y, p, patient if clustered else None, seed)
        for name, value in expected.items():
            hits[name] += found[name].low - 1e-12 <= value <= found[name].high + 1e-12
    return {name: count / draws for name, count in hits.items()}


def test_the_study_s_estimates_are_those_of_evaluate():
    s, y, p, patient = simulate(np.random.default_rng(0), 600, 0.3, clustered=True)
    found = estimates(s, y, p, patient, 0)
    whole = evaluate(y, p, sensitive_features=s, patients=patient, n_replicates=2000, reference=0)
    for name in set(found) & set(whole):
        assert found[name].value == pytest.approx(whole[name].value)
        width = whole[name].high - whole[name].low
        assert found[name].low == pytest.approx(whole[name].low, abs=0.15 * width)
        assert found[name].high == pytest.approx(whole[name].high, abs=0.15 * width)


def change_coverage(n, gaps, draws):
    """Share of intervals of the change between two tables, whose gaps are given, that hold the truth."""
    rng = np.random.default_rng([n, *(int(100 * g) for g in gaps)])
    rates = {
        "demographic_parity_difference": lambda t: tables.selection_rates(t)[..., 1:],
        "equal_opportunity_difference": tables.opportunity_rates,
    }
    first, second = (truth(gap) for gap in gaps)
    hits = dict.fromkeys(rates, 0)
    for seed in range(draws):
        s, y, first_score, second_score = simulate_pair(rng, n, gaps)
        cell = ((s * 2 + y) * 2 + (first_score >= 0.5)) * 2 + (second_score >= 0.5)
        units = collapse([cell], [16], None)
        fine = all_replicates(units, 400, np.random.default_rng(seed)).reshape(-1, 2, 2, 2, 2)
        own = units.counts.reshape(1, 2, 2, 2, 2)
        for name, rate in rates.items():
            value = tuple(rate(own.sum(axis))[0] for axis in (4, 3))
            repeated = tuple(rate(fine.sum(axis)) for axis in (4, 3))
            found = length_change(value, repeated, tables.largest_gap, 0.95).interval
            hits[name] += found.low - 1e-9 <= second[name] - first[name] <= found.high + 1e-9
    return {name: count / draws for name, count in hits.items()}


def simulate_pair(rng, n, gaps):
    """Groups, labels and two scores of the same images that share 0.7 of their variance."""
    s = rng.integers(0, 2, n)
    y = (rng.random(n) < PREVALENCE[s]).astype(int)
    shared = np.sqrt(0.7) * rng.normal(size=n)
    latent = [SHIFT * y + g * s * (1 + y) / 2 + shared + np.sqrt(0.3) * rng.normal(size=n) for g in gaps]
    return s, y, *(norm.cdf(value - CUT) for value in latent)


@pytest.mark.long
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize("n", [500, 2000, 10_000])
def test_intervals_cover_the_truth(n, gap, clustered, record_property):
    draws = 1000
    found = coverage(n, gap, clustered, draws)
    record_property("coverage", found)
    error = np.sqrt(0.95 * 0.05 / draws)  # of each share, by chance
    for name, share in found.items():
        assert 0.93 - 2 * error <= share <= 0.97 + 2 * error, (name, share)
    assert 0.93 <= np.mean(list(found.values())) <= 0.97


@pytest.mark.long
@pytest.mark.parametrize("clustered", [False, True])
def test_permutation_p_values_are_uniform_without_and_small_with_a_difference(clustered):
    rng = np.random.default_rng(0)
    p_values = {0.0: [], 0.5: []}
    for gap, found in p_values.items():
        for seed in range(400 if gap == 0 else 100):
            s, y, p, patient = simulate(rng, 1500, gap, clustered)
            given = patient if clustered else None
            test = permutation_test(
                y, p >= 0.5, sensitive_features=s, patients=given, n_permutations=199, seed=seed
            )
            found.append(test.p_value)
    assert kstest(p_values[0.0], "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values[0.5]) < 0.05) > (0.5 if clustered else 0.8)


def test_intervals_cover_the_truth_in_a_quick_look():
    found = coverage(500, 0.0, clustered=False, draws=60)
    assert min(found.values()) > 0.85  # a percentile interval of a gap would never cover zero


@pytest.mark.long
@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.3, 0.0), (0.3, 0.1), (0.3, 0.3)])
@pytest.mark.parametrize("n", [500, 2000])
def test_intervals_of_changes_cover_the_truth(n, gaps):
    draws = 400
    error = np.sqrt(0.95 * 0.05 / draws)
    for name, share in change_coverage(n, gaps, draws).items():
        assert 0.93 - 2 * error <= share, (name, share)  # near zero they may be wider than needed


def test_intervals_of_changes_cover_a_gap_that_went_away():
    found = change_coverage(2000, (0.3, 0.0), 60)
    assert min(found.values()) > 0.88  # the percentile interval of equal opportunity covers 0.86 of the time
