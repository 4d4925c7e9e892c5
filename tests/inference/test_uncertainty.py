"""Intervals and tests against brute force, SciPy and known distributions."""

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import brentq
from scipy.stats import false_discovery_control

from fairdx.auditing import evaluate
from fairdx.core.errors import InputError
from fairdx.inference.delong import delong, delong_test
from fairdx.inference.permutation import permutation_test
from fairdx.inference.resampling import all_replicates, collapse, dense_vectors, effective_patients
from fairdx.inference.score_intervals import Shares, gap_ends
from fairdx.inference.uncertainty import (
    bca_interval,
    benjamini_hochberg,
    few_patients_factor,
    holm,
    jackknife_acceleration,
    length_interval,
    length_p_value,
    percentile_interval,
    tail_p_value,
)
from fairdx.metrics import counts as tables
from fairdx.metrics.scores import auc_by_group


def absolute(vector):
    return np.abs(vector[..., 0])


@pytest.fixture
def table():
    """120 images of 50 patients, who each are in one group."""
    rng = np.random.default_rng(0)
    patient = np.sort(np.concatenate([np.arange(50), rng.integers(0, 50, 70)]))
    s = rng.integers(0, 2, 50)[patient]
    y = rng.integers(0, 2, 120)
    own = rng.normal(size=50)[patient]
    p = 1 / (1 + np.exp(-(own + y + 0.7 * s + 0.5 * rng.normal(size=120) - 0.7)))
    return y, p, s, patient


def brute_force(table, statistic, clustered, draws=3000):
    """Resample rows (or all rows of resampled patients) one by one."""
    y, p, s, patient = table
    rng = np.random.default_rng(1)
    members = (
        [np.flatnonzero(patient == i) for i in range(50)] if clustered else list(np.arange(120)[:, None])
    )
    found = []
    for _ in range(draws):
        chosen = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        found.append(statistic(y[chosen], p[chosen], s[chosen]))
    return np.array(found)


@pytest.mark.parametrize("clustered", [False, True])
def test_count_bootstrap_has_the_distribution_of_row_resampling(table, clustered):
    y, p, s, patient = table
    d = (p >= 0.5).astype(int)
    units = collapse([(s * 2 + y) * 2 + d], [8], patient if clustered else None)
    draws = all_replicates(units, 3000, np.random.default_rng(2)).reshape(-1, 2, 2, 2)
    ours = tables.largest_gap(tables.selection_rates(draws)[..., 1:])

    def gap(y, p, s):
        return abs((p[s == 1] >= 0.5).mean() - (p[s == 0] >= 0.5).mean())

    theirs = brute_force(table, gap, clustered)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=4 * theirs.std() / np.sqrt(1500))
    assert ours.std() == pytest.approx(theirs.std(), rel=0.06)
    assert np.quantile(ours, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(theirs, [0.1, 0.5, 0.9]), abs=0.015
    )


@pytest.mark.parametrize("clustered", [False, True])
def test_auc_interval_agrees_with_row_resampling(table, clustered):
    y, p, s, patient = table
    ours = evaluate(y, p, sensitive_features=s, patients=patient if clustered else None, n_replicates=3000)
    theirs = brute_force(table, lambda y, p, s: auc_by_group(y, p, 0 * s, 1)[0], clustered)
    width = few_patients_factor(effective_patients(s, patient if clustered else None), 0.95)
    tail = scipy.stats.norm.cdf(-1.96 * width)
    low, high = np.quantile(theirs, [tail, 1 - tail])
    assert ours["auroc"].low == pytest.approx(low, abs=0.02)
    assert ours["auroc"].high == pytest.approx(high, abs=0.02)


def test_patients_with_equal_counts_are_collapsed():
    patient = np.repeat(np.arange(30), 2)
    cell = np.tile([0, 1], 30)
    units = collapse([cell], [3], patient)
    vectors, multiplicity = dense_vectors(units)
    assert vectors.tolist() == [[1, 1, 0]]
    assert multiplicity.tolist() == [30]
    assert units.counts.tolist() == [30, 30, 0]


def test_two_tables_are_resampled_with_the_same_patients():
    cell = np.arange(40) % 4
    units = collapse([cell, cell], [4, 4], None)
    draws = all_replicates(units, 50, np.random.default_rng(0))
    assert (draws[:, :4] == draws[:, 4:]).all()
    assert (draws.sum(1) == 80).all()
    assert len(np.unique(draws[:, 0])) > 1


def test_bca_agrees_with_scipy():
    data = np.random.default_rng(0).exponential(size=60)
    theirs = scipy.stats.bootstrap(
        (data,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    )
    left_out = (data.sum() - data) / 59
    acceleration = jackknife_acceleration(left_out, np.ones(60))
    ours = bca_interval(data.mean(), theirs.bootstrap_distribution, acceleration, 0.95)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-3)


def test_folded_normal_interval_matches_its_definition():
    # |v| with v_hat - v normal of standard error 1: closed form of the inversion, see `length_intervals`.
    draws = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    norm = scipy.stats.norm
    upper = brentq(lambda r: norm.cdf(0.5 - r) - norm.cdf(-0.5 - r) - 0.025, 1, 5)
    for observed, low, high in (
        (0.01, 0, 1.96),  # a lucky small estimate still reaches up to the detection limit
        (0.5, 0, upper),
        (2.5, 2.5 - 1.645, 2.5 + 1.96),
        (6, 6 - 1.96, 6 + 1.96),
    ):
        vector = np.array([float(observed)])
        found = length_interval(vector, vector + draws[:, None], absolute, 0.95)
        assert found.low == pytest.approx(low, abs=0.01)
        assert found.high == pytest.approx(high, abs=0.01)


def test_interval_leaves_out_zero_just_when_the_test_rejects():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 1))
    for observed in (1.0, 1.7, 1.9, 2.05, 2.4, 3.0):
        vector = np.array([observed])
        interval = length_interval(vector, vector + draws, absolute, 0.95)
        p = length_p_value(vector, vector + draws, absolute)
        assert (interval.low > 0) == (p < 0.05)


def test_p_values_are_counted_and_never_smaller_than_what_was_measured():
    draws = np.random.default_rng(0).normal(size=5000) ** 2
    assert tail_p_value(draws, 1.0) == pytest.approx(2 * scipy.stats.norm.sf(1), rel=0.05)
    assert tail_p_value(draws, 1e9) == 1 / 5001


def test_undefined_replicates_give_no_interval():
    draws = np.where(np.arange(100) < 10, np.nan, 0.5)
    assert np.isnan(percentile_interval(draws, 0.95).low)


def test_few_patients_factor_is_students():
    expected = np.sqrt(10 / 9) * scipy.stats.t.ppf(0.975, 9) / scipy.stats.norm.ppf(0.975)
    assert few_patients_factor(10, 0.95) == pytest.approx(expected)
    assert few_patients_factor(1e6, 0.95) == pytest.approx(1, abs=1e-5)


def test_multiple_tests():
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.005])
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, np.nan, 0.02], nan_ok=True)
    known = ~np.isnan(p)
    assert benjamini_hochberg(p)[known] == pytest.approx(false_discovery_control(p[known]))


def independent_delong(y, a, b):
    """DeLong's covariance from the full matrix of pairs."""
    out = []
    for p in (a, b):
        pairs = (p[y == 1][:, None] > p[y == 0]) + 0.5 * (p[y == 1][:, None] == p[y == 0])
        out.append((pairs.mean(), pairs.mean(1), pairs.mean(0)))
    cases = np.cov(np.stack([o[1] for o in out])) / (y == 1).sum()
    controls = np.cov(np.stack([o[2] for o in out])) / (y == 0).sum()
    return np.array([o[0] for o in out]), cases + controls


def test_delong_agrees_with_the_matrix_of_pairs(table):
    y, p, s, _ = table
    q = np.round(p + 0.1 * s, 1)  # with ties
    auc, covariance = independent_delong(y, p, q)
    found = delong(y, p, q)
    assert found.auc == pytest.approx(auc)
    assert found.covariance == pytest.approx(covariance)
    test = delong_test(y, p, q)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert test.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(auc[1] - auc[0]) / error))


PUBLISHED = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7  5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4  6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6  6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1  5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7  6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def test_delong_agrees_with_the_published_example():
    """Ovarian cancer data of DeLong et al. (1988); results as in "Comparing Receiver Operating
    Characteristic Curves", LOGISTIC procedure, SAS/STAT User's Guide.
    """
    albumin, protein, score, indicated = np.array(PUBLISHED.split(), dtype=float).reshape(-1, 4).T
    y, kg = 1 - indicated, score
    found = delong(y, -albumin, kg, -protein)
    assert found.auc == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    test = delong_test(y, kg, -albumin)
    assert (test.difference, test.standard_error) == pytest.approx((0.0108, 0.0953), abs=5e-5)
    assert test.p_value == pytest.approx(0.9102, abs=5e-5)


def test_clustered_delong_is_the_clustered_bootstrap(table):
    y, p, _, patient = table
    error = np.sqrt(delong(y, p, patients=patient).covariance[0, 0])
    draws = brute_force(table, lambda y, p, s: auc_by_group(y, p, 0 * s, 1)[0], clustered=True)
    assert error == pytest.approx(draws.std(), rel=0.1)
    assert delong(y, p, patients=np.arange(120)).covariance == pytest.approx(delong(y, p).covariance)


def test_delong_needs_both_classes():
    with pytest.raises(InputError, match="single class"):
        delong([1, 1], [0.2, 0.3])


@pytest.mark.parametrize("clustered", [False, True])
def test_permutation_test_agrees_with_shuffling(table, clustered):
    y, p, s, patient = table
    if clustered:  # three images each, so that patterns of labels recur
        patient = np.repeat(np.arange(40), 3)
        s = np.tile([0, 1], 20)[patient]
    d = (p >= 0.5).astype(int)
    found = permutation_test(
        y, d, sensitive_features=s, patients=patient if clustered else None, n_permutations=4000
    )
    rng = np.random.default_rng(3)
    strata = y
    if clustered:
        own = s.reshape(40, 3)[:, 0]
        strata = y.reshape(40, 3).sum(1)
    reached = 0
    for _ in range(2000):
        shuffled = (own if clustered else s).copy()
        for stratum in np.unique(strata):
            shuffled[strata == stratum] = rng.permutation(shuffled[strata == stratum])
        group = shuffled[patient] if clustered else shuffled
        counts = tables.count_table(group, y, d, (2, 2, 2))
        reached += tables.mutual_information(counts) >= found.statistic - 1e-12
    assert found.p_value == pytest.approx(reached / 2000, abs=0.04)


def test_a_patient_in_two_groups_cannot_be_permuted():
    with pytest.raises(InputError, match="several groups"):
        permutation_test([0, 1], [0, 1], sensitive_features=["a", "b"], patients=["p", "p"])


def test_effective_patients_counts_equal_and_unequal_ones():
    assert effective_patients(np.zeros(12, int), np.repeat(np.arange(4), 3)).tolist() == [4]
    found = effective_patients(np.array([1, 1, 1, 1, 0]), np.array([0, 0, 0, 1, 2]), 3)
    assert found == pytest.approx([1, 16 / 10, 0])
    assert effective_patients(np.array([0, 0, 1]), None).tolist() == [2, 1]


def test_the_paired_test_of_few_patients_is_student_s(table):
    y, p, _, patient = table
    found = delong_test(y, p, p**2 + 0.1 * np.sin(20 * p), patients=patient)
    expected = 2 * scipy.stats.t.sf(abs(found.difference) / found.standard_error, 49)
    assert found.p_value == pytest.approx(expected)


def test_gaps_of_rates_near_1_are_held():
    """Rates of 0.02 and 0.97 in 1,940 and 60 images: 0.932 of 20,000 intervals of equalized odds."""
    rng, images = np.random.default_rng(0), np.array([[1358, 582], [42, 18]])
    value = rng.binomial(images, [0.02, 0.97], (20_000, 2, 2)) / images
    shares = Shares(value, np.broadcast_to(images.astype(float), value.shape), np.ones_like(value))
    low, _ = gap_ends(shares, 0.95)
    assert 0.925 <= np.mean(low <= 0) <= 0.94
