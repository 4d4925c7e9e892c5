"""The smooth calibration curve beside scikit-learn's regression, and its band over simulated groups."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm, t
from sklearn.linear_model import LogisticRegression

from fairdx.auditing import audit
from fairdx.metrics.reliability import logit
from fairdx.metrics.smooth import natural_spline, smooth_calibration


def curve(score, label, patient=None, weight=None):
    values, place = np.unique(score, return_inverse=True)
    return smooth_calibration(values, place, label, patient, weight=weight)


def test_the_spline_is_a_line_beyond_its_knots_and_smooth_at_them():
    knots, x = np.array([-1.0, 0.0, 0.5, 2.0]), np.linspace(-3, 5, 8001)
    basis = natural_spline(x, knots)
    assert basis.shape == (8001, 4)
    bent = np.diff(basis, 2, axis=0)
    assert np.abs(bent[(x[1:-1] < -1) | (x[1:-1] > 2.001)]).max() < 1e-12
    assert np.abs(np.diff(bent, axis=0)).max() < 1e-5  # second derivatives have no jump


def test_the_curve_is_that_of_scikit_learns_regression_and_its_band_that_of_the_sandwich():
    rng, n = np.random.default_rng(0), 800
    score = np.round(rng.beta(2, 3, n), 3)
    label = (rng.random(n) < score**1.3).astype(int)
    patient = np.arange(n) // 2
    found = curve(score, label, patient)
    knots = logit(np.quantile(score, (0.05, 0.35, 0.65, 0.95), method="inverted_cdf"))
    design, wanted = natural_spline(logit(score), knots), natural_spline(logit(found.score), knots)
    model = LogisticRegression(C=100.0, fit_intercept=False, tol=1e-10, max_iter=20_000).fit(design, label)
    np.testing.assert_allclose(found.observed, expit(wanted @ model.coef_[0]), atol=1e-4)
    p = expit(design @ model.coef_[0])
    bread = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    pairs = (design * (label - p)[:, None]).reshape(-1, 2, 4).sum(1)
    covariance = bread @ pairs.T @ pairs @ bread * 400 / 399
    error = np.sqrt(np.einsum("ij,jk,ik->i", wanted, covariance, wanted))
    np.testing.assert_allclose(logit(found.high) - logit(found.observed), 1.966 * error, rtol=2e-3)


def test_with_weights_it_is_the_weighted_regression_and_its_sandwich():
    rng, n = np.random.default_rng(4), 900
    score = np.round(rng.beta(2, 3, n), 3)
    label = (rng.random(n) < score**1.3).astype(int)
    weight, patient = np.where(rng.random(n) < 0.3, 4.0, 0.5) * rng.random(n), np.arange(n) // 3
    found = curve(score, label, patient, weight)
    order = np.argsort(score)
    reached = np.cumsum(weight[order]) / weight.sum()
    knots = logit(score[order][np.searchsorted(reached, (0.05, 0.35, 0.65, 0.95))])
    design, wanted = natural_spline(logit(score), knots), natural_spline(logit(found.score), knots)
    model = LogisticRegression(C=100.0, fit_intercept=False, tol=1e-10, max_iter=20_000)
    model.fit(design, label, sample_weight=weight)
    np.testing.assert_allclose(found.observed, expit(wanted @ model.coef_[0]), atol=1e-4)
    p = expit(design @ model.coef_[0])
    bread = np.linalg.inv(design.T @ (design * (weight * p * (1 - p))[:, None]))
    whole = (design * (weight * (label - p))[:, None]).reshape(-1, 3, 4).sum(1)
    covariance = bread @ whole.T @ whole @ bread * 300 / 299
    error = np.sqrt(np.einsum("ij,jk,ik->i", wanted, covariance, wanted))
    reach = t.ppf(0.975, 296) * error
    np.testing.assert_allclose(logit(found.high) - logit(found.observed), reach, rtol=3e-3)
    np.testing.assert_allclose(logit(found.observed) - logit(found.low), reach, rtol=3e-3)


def test_a_weight_of_three_is_three_images_of_one_patient():
    rng, n = np.random.default_rng(5), 400
    score, times = rng.random(n).round(3), rng.integers(1, 4, n)
    label = (rng.random(n) < score).astype(int)
    weighted = curve(score, label, np.arange(n), times.astype(float))
    repeated = curve(*(np.repeat(column, times) for column in (score, label, np.arange(n))))
    for name in ("score", "observed", "low", "high"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9)


def test_copies_of_an_image_make_the_band_no_narrower():
    rng, n = np.random.default_rng(1), 500
    score = rng.random(n)
    label = (rng.random(n) < score).astype(int)
    once = curve(score, label)
    many = curve(np.repeat(score, 3), np.repeat(label, 3), np.repeat(np.arange(n), 3))
    np.testing.assert_allclose(many.high - many.low, once.high - once.low, rtol=0.02)


@pytest.mark.parametrize("images", [1, 4])
def test_the_band_holds_the_true_curve(images):
    """At five scores, 300 groups of 600 images; patients share an error of half the variance."""
    rng, at = np.random.default_rng(images), (0.1, 0.3, 0.5, 0.7, 0.9)
    held = np.zeros(len(at))
    for _ in range(300):
        score = np.repeat(rng.beta(1.5, 1.5, 600 // images), images)
        shared = np.repeat(rng.normal(size=600 // images), images)
        own = rng.normal(size=600)
        noise = own if images == 1 else np.sqrt(0.5) * (shared + own)
        label = (noise < norm.ppf(score**1.5)).astype(int)  # P(Y=1 | score) = score^1.5
        found = curve(score, label, np.arange(600) // images if images > 1 else None)
        low, high = (np.interp(at, found.score, end) for end in (found.low, found.high))
        held += (low <= np.power(at, 1.5)) & (np.power(at, 1.5) <= high)
    assert (held / 300).mean() >= 0.925  # 1,500 answers that hang together; a share of 0.95 is good to 0.012
    assert (held / 300).min() >= 0.90


def test_the_audit_gives_each_group_its_own_and_none_where_there_are_too_few_images():
    rng, n = np.random.default_rng(3), 1500
    s = np.repeat(["a", "b", "c"], [800, 670, 30])
    score = rng.random(n)
    y = (rng.random(n) < np.where(s == "b", score**2, score)).astype(int)
    found = audit(y, score, sensitive_features=s, n_replicates=60, n_permutations=99, explore=False)
    curves = found.curves["group"]
    middle = {g: np.interp(0.5, curves[g].smooth_score, curves[g].smooth_observed) for g in ("a", "b")}
    assert middle["a"] == pytest.approx(0.5, abs=0.08)
    assert middle["b"] == pytest.approx(0.25, abs=0.08)
    assert curves["c"].smooth_score == []
    page = found.to_html()
    assert "smooth curve" in page
