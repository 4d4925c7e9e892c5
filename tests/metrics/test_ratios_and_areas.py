"""Average precision, ratios of rates, net benefit and bins of calibration, against others and by hand."""

import warnings

import fairlearn.metrics as fl
import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, confusion_matrix

from fairdx import metrics
from fairdx.core.errors import InputError
from fairdx.inference.score_intervals import Shares, ratio_ends
from fairdx.metrics.reliability import Bins, calibration_table, expected_calibration_error


def images(n=500, seed=0, digits=2):
    rng = np.random.default_rng(seed)
    s, y = rng.choice(["a", "b", "c"], n), rng.integers(0, 2, n)
    score = np.clip(0.3 * y + 0.1 * (s == "a") + 0.7 * rng.random(n), 0, 1).round(digits)
    return y, score, s, rng.gamma(1, size=n)


@pytest.mark.parametrize("digits", [1, 2, 12])
@pytest.mark.parametrize("weighted", [False, True])
def test_average_precision_is_that_of_scikit_learn(digits, weighted):
    y, score, s, w = images(digits=digits)
    weight = w if weighted else None
    expected = average_precision_score(y, score, sample_weight=weight)
    assert metrics.average_precision(y, score, sample_weight=weight) == pytest.approx(expected, abs=1e-12)
    each = [average_precision_score(y[s == g], score[s == g], sample_weight=w[s == g]) for g in "abc"]
    gap = metrics.average_precision_gap(y, score, sensitive_features=s, sample_weight=w)
    assert gap == pytest.approx(max(each) - min(each), abs=1e-12)


def test_average_precision_needs_a_positive_image():
    with pytest.warns(metrics.UndefinedMetricWarning, match="no image is positive"):
        assert np.isnan(metrics.average_precision([0, 0], [0.1, 0.2]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "name", ["demographic_parity_ratio", "equal_opportunity_ratio", "equalized_odds_ratio"]
)
def test_ratios_are_those_of_fairlearn(name, weighted):
    y, score, s, w = images()
    given = {"sensitive_features": s, "sample_weight": w if weighted else None}
    ours = getattr(metrics, name)(y, score >= 0.5, **given)
    assert ours == pytest.approx(getattr(fl, name)(y, score >= 0.5, **given), abs=1e-12)


def test_a_ratio_of_rates_that_are_all_zero_is_undefined():
    assert np.isnan(metrics.demographic_parity_ratio([0, 1, 0, 1], [0] * 4, sensitive_features=list("aabb")))


def test_the_interval_of_a_ratio_solves_its_equations_and_covers():
    low, high = (end[0] for end in _wilson(30, 200)), (end[0] for end in _wilson(60, 200))
    (l1, u1), (l2, u2) = low, high
    figures = Shares(np.array([[0.15], [0.3]]), np.array([[200.0], [200.0]]), np.ones((1, 1)))
    lower, upper = ratio_ends(figures, 0.95)
    # Donner and Zou (2012): the difference p1 - r p2 has an end of its own interval at 0
    assert (0.15 - lower * 0.3) ** 2 == pytest.approx((0.15 - l1) ** 2 + (lower * (u2 - 0.3)) ** 2)
    assert (0.15 - upper * 0.3) ** 2 == pytest.approx((u1 - 0.15) ** 2 + (upper * (0.3 - l2)) ** 2)
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        value = rng.binomial([100, 150], [0.2, 0.4])[:, None] / np.array([[100], [150]])
        ends = ratio_ends(Shares(value, np.array([[100.0], [150.0]]), np.ones((1, 1))), 0.95)
        held += ends[0] <= 0.5 <= ends[1]
    assert held / 400 == pytest.approx(0.95, abs=3 * np.sqrt(0.05 * 0.95 / 400))


def _wilson(x, n):
    figures = Shares(np.array([x / n]), np.array([float(n)]), np.ones(1))
    return figures.ends(1.959963984540054)


def test_ratios_of_groups_without_any_difference_seldom_exclude_one():
    rng, out = np.random.default_rng(1), 0
    for _ in range(300):
        value = rng.binomial(200, 0.3, size=(6, 1)) / 200
        out += ratio_ends(Shares(value, np.full((6, 1), 200.0), np.ones((1, 1))), 0.95)[1] < 1
    assert out / 300 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.9])
def test_net_benefit_is_its_formula(threshold):
    y, score, _, w = images()
    tn, fp, fn, tp = confusion_matrix(y, score >= threshold, sample_weight=w).ravel()
    expected = (tp - fp * threshold / (1 - threshold)) / (tn + fp + fn + tp)
    assert metrics.net_benefit(y, score, threshold, sample_weight=w) == pytest.approx(expected)


def test_net_benefit_has_no_threshold_of_one():
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        metrics.net_benefit([0, 1], [0.1, 0.9], 1.0)


@pytest.mark.parametrize("kind", ["uniform", "quantile"])
def test_bins_are_those_of_scikit_learn(kind):
    y, score, _, _ = images(n=420, digits=12)
    theirs = calibration_curve(y, score, n_bins=7, strategy=kind)
    order = np.argsort(score)
    histogram = np.stack([1.0 - y[order], y[order]])
    place = Bins.of(f"{kind}:7").place(np.ones(420), score[order])
    table = calibration_table(histogram, score[order], place)
    assert table["positive"] / table["count"] == pytest.approx(theirs[0])
    assert table["score"] / table["count"] == pytest.approx(theirs[1])


def test_the_error_is_over_the_bins_that_were_asked_for():
    y, score, _, _ = images(n=400)
    assert metrics.calibration(y, score, bins="uniform:5")["expected_calibration_error"] == pytest.approx(
        expected_calibration_error(y, score, bins=Bins(5, "uniform"))
    )
    # of one image in each bin everything is chance
    few = np.linspace(0.05, 0.95, 10)
    assert expected_calibration_error(np.arange(10) % 2, few, bins=Bins(10, "uniform")) < 0.3


@pytest.mark.parametrize("given", ["equal:5", "1", "uniform:", "-3", "uniform:0", "101", "x"])
def test_other_bins_are_refused(given):
    with pytest.raises(InputError, match="calibration bins"):
        Bins.of(given)


def test_nothing_warns_where_groups_are_empty_of_a_decision():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            ratio_ends(Shares(np.array([[0.0], [0.4]]), np.full((2, 1), 50.0), np.ones((1, 1))), 0.95)[0] == 0
        )
