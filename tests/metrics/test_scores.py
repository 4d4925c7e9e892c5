"""Score metrics against scikit-learn and hand computation."""

import numpy as np
import pytest
from scipy.stats import foldnorm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, mutual_info_score, roc_auc_score

from fairdx.core.errors import InputError
from fairdx.metrics import (
    UndefinedMetricWarning,
    approximate_diagnosis_fairness,
    auroc,
    auroc_gap,
    brier_score,
    calibration,
    equity_scaled_auroc,
    group_auroc,
    mean_approximate_diagnosis_fairness,
    score_mutual_information,
)
from fairdx.metrics.reliability import logit
from fairdx.metrics.scores import equal_frequency


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    return y, np.round(np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0.01, 0.99), 2), s, rng.random(500)


def test_auroc_agrees_with_scikit_learn_with_ties_and_weights(scored):
    y, p, s, w = scored
    assert auroc(y, p) == pytest.approx(roc_auc_score(y, p))
    assert auroc(y, p, sample_weight=w) == pytest.approx(roc_auc_score(y, p, sample_weight=w))
    areas = [roc_auc_score(y[s == g], p[s == g]) for g in (0, 1)]
    assert group_auroc(y, p, s)[0] == pytest.approx(areas)
    assert auroc_gap(y, p, sensitive_features=s) == pytest.approx(abs(areas[0] - areas[1]))
    whole = roc_auc_score(y, p)
    expected = whole / (1 + sum(abs(a - whole) for a in areas))
    assert equity_scaled_auroc(y, p, sensitive_features=s) == pytest.approx(expected)


def test_multi_class_auroc_is_the_mean_one_against_the_rest():
    rng = np.random.default_rng(1)
    y, p = rng.integers(0, 3, 300), rng.dirichlet([1, 1, 1], 300)
    assert auroc(y, p) == pytest.approx(roc_auc_score(y, p, multi_class="ovr", average="macro"))


def test_auroc_of_a_single_class_is_nan_with_a_warning():
    with pytest.warns(UndefinedMetricWarning, match="single class"):
        assert np.isnan(auroc([1, 1], [0.2, 0.3]))


def test_brier_agrees_with_scikit_learn(scored):
    y, p, _, w = scored
    assert brier_score(y, p, sample_weight=w) == pytest.approx(brier_score_loss(y, p, sample_weight=w))


def test_calibration_slope_is_that_of_a_logistic_regression(scored):
    y, p, _, _ = scored
    fit = LogisticRegression(C=np.inf, tol=1e-8).fit(logit(p)[:, None], y)
    found = calibration(y, p)
    assert found["calibration_slope"] == pytest.approx(fit.coef_[0, 0], rel=1e-3)
    from scipy.special import expit

    shifted = expit(logit(p) + found["calibration_intercept"])
    assert shifted.mean() == pytest.approx(y.mean(), abs=1e-9)  # what an intercept at slope 1 achieves


def test_calibrated_scores_are_found_calibrated():
    rng = np.random.default_rng(2)
    p = rng.random(200_000)
    found = calibration(rng.random(200_000) < p, p)
    assert found["calibration_slope"] == pytest.approx(1, abs=0.02)
    assert found["calibration_intercept"] == pytest.approx(0, abs=0.02)
    assert found["expected_calibration_error"] < 0.01


def test_expected_calibration_error_by_hand():
    # Scores of 0.2 with 40 % positives, scores of 0.8 with 80 %: |0.4 - 0.2| / 2 + 0, less what chance adds
    # to the mean of a normal variable's size: sqrt(2 / pi) of its standard deviation where it is 0.
    for each in (10, 10_000):
        y = np.repeat([1, 0, 1, 0], np.array([4, 6, 8, 2]) * each // 10)
        p = np.repeat([0.2, 0.8], each)
        sd = np.sqrt(0.16 / each)
        true = np.sqrt(0.2**2 - sd**2)
        first = 0.2 - (foldnorm(true / sd, scale=sd).mean() - true)
        expected = (first - np.sqrt(2 / np.pi) * sd) / 2
        assert calibration(y, p)["expected_calibration_error"] == pytest.approx(expected)
    assert expected == pytest.approx(0.1, abs=0.002)


def test_a_calibrated_score_has_no_calibration_error():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(200):
        p = rng.random(250)
        found.append(calibration(rng.random(250) < p, p)["expected_calibration_error"])
    assert np.mean(found) < 0.056 / 3  # the plain mean over bins is 0.056


def test_separated_classes_have_no_calibration_slope():
    assert np.isnan(calibration([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])["calibration_slope"])


def test_score_information_of_few_values_is_corrected_mutual_information():
    rng = np.random.default_rng(3)
    y, s = rng.integers(0, 2, 4000), rng.integers(0, 2, 4000)
    p = (rng.integers(0, 4, 4000) + 4 * (rng.random(4000) < 0.3) * s) / 8
    plug_in = sum(np.mean(y == c) * mutual_info_score(s[y == c], (8 * p[y == c]).astype(int)) for c in (0, 1))
    values = [len(np.unique(p[y == c])) for c in (0, 1)]
    expected = plug_in - sum(v - 1 for v in values) / 8000
    found = score_mutual_information(y, p, sensitive_features=s)
    assert found <= plug_in
    assert found == pytest.approx(expected, rel=0.05)  # ten bins may join two of the values


def test_score_information_is_near_zero_for_independent_scores(scored):
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 5000)
    found = score_mutual_information(y, rng.random(5000), sensitive_features=rng.integers(0, 3, 5000))
    assert found < 3 * np.sqrt(2 * 36) / 10_000  # three standard deviations of a chi-square with 36


def test_bins_keep_equal_values_together_and_ascend():
    bins = equal_frequency(np.array([50.0, 1, 1, 1, 47]), 10)
    assert bins.tolist() == sorted(bins.tolist())
    assert bins[0] == 0
    assert set(np.diff(bins)) <= {0, 1}


@pytest.mark.parametrize(
    ("p", "told"),
    [
        ([0.1, 1.5], r"must lie in \[0, 1\].*1.5 in row 1"),
        ([0.1, float("nan")], "first: row 1"),
        ([0.1, "high"], "'high' at position 1"),
    ],
)
def test_bad_scores(p, told):
    with pytest.raises(InputError, match=told):
        brier_score([0, 1], p)


def test_three_classes_need_three_columns():
    with pytest.raises(InputError, match="3 classes"):
        auroc([0, 1, 2], [0.1, 0.2, 0.3])


def test_mean_adf_is_the_mean_over_operating_points():
    rng = np.random.default_rng(3)
    label, group = rng.integers(2, size=300), rng.integers(2, size=300)
    score = rng.normal(size=300) + label + 0.5 * group
    cuts = np.quantile(score, [0.2, 0.9])
    expected = np.mean(
        [
            approximate_diagnosis_fairness(label, (score >= cut).astype(int), sensitive_features=group)
            for cut in cuts
        ]
    )
    found = mean_approximate_diagnosis_fairness(label, score, sensitive_features=group, thresholds=2)
    assert found == pytest.approx(expected)
    assert found > 3 / 300
