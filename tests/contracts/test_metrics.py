"""What every declared metric must do, through the audit; a new one is tested by being declared."""

import math

import numpy as np
import pytest

from fairdx.auditing import audit
from fairdx.metrics import METRICS, counts
from fairdx.metrics.compared import GAP_SHARES

OPTIONS = {"n_replicates": 40, "n_permutations": 39, "explore": False}


def images(n=400, seed=0):
    rng = np.random.default_rng(seed)
    s, y = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]), rng.integers(0, 2, n)
    score = np.round(1 / (1 + np.exp(-(2 * y + 0.5 * (s == "b") - 1 + rng.normal(size=n)))), 3)
    return y, score, s


def figures(result, names=None):
    """{(metric, where): estimate}, groups renamed back."""
    names = names or {}
    found = {(m, "all"): e for m, e in result.overall.items()}
    for group, own in result.by_group["group"].items():
        found |= {(m, names.get(group, group)): e for m, e in own.items()}
    found |= {(m, "gap"): gap.estimate for m, gap in result.gaps["group"].items()}
    for group, own in result.effects["group"].items():
        found |= {(m, names.get(group, group)): e for m, e in own.items()}
    return found


@pytest.fixture(scope="module")
def plain():
    y, score, s = images()
    return figures(audit(y, score, sensitive_features=s, reference="a", **OPTIONS))


def of(found, metric):
    return {where: e for (name, where), e in found.items() if name == metric}


def same(first, second, metric):
    one, two = (of(f, metric) for f in (first, second))
    assert set(one) == set(two)
    for where, estimate in one.items():
        assert two[where].value == pytest.approx(estimate.value, abs=1e-9, nan_ok=True), where


@pytest.mark.parametrize("metric", list(METRICS))
def test_it_is_in_the_audit_where_its_scope_says(plain, metric):
    found, scope = of(plain, metric), METRICS[metric].scope
    expected = {
        "performance": {"all", "a", "b", "c"},
        "gap": {"gap"},
        "information": {"gap"},
        "effect": {"b", "c"},
    }
    assert set(found) == expected[scope]


@pytest.mark.parametrize("metric", list(METRICS))
def test_it_lies_in_its_range_and_its_interval_too(plain, metric):
    about = METRICS[metric]
    for estimate in of(plain, metric).values():
        for number in (estimate.value, estimate.low, estimate.high):
            assert math.isnan(number) or about.minimum - 1e-9 <= number <= about.maximum + 1e-9
        assert not estimate.low > estimate.high


@pytest.mark.parametrize("metric", list(METRICS))
def test_it_does_not_depend_on_the_order_of_images(plain, metric):
    same(plain, _shuffled(), metric)


def _shuffled():
    if not hasattr(_shuffled, "found"):
        y, score, s = images()
        order = np.random.default_rng(1).permutation(len(y))
        result = audit(y[order], score[order], sensitive_features=s[order], reference="a", **OPTIONS)
        _shuffled.found = figures(result)
    return _shuffled.found


@pytest.mark.parametrize("metric", list(METRICS))
def test_it_does_not_depend_on_the_names_of_groups(plain, metric):
    same(plain, _renamed(), metric)


def _renamed():
    if not hasattr(_renamed, "found"):
        y, score, s = images()
        names = {"a": "z", "b": "y", "c": "x"}
        result = audit(y, score, sensitive_features=[names[g] for g in s], reference="z", **OPTIONS)
        _renamed.found = figures(result, {new: old for old, new in names.items()})
    return _renamed.found


@pytest.mark.parametrize("metric", list(METRICS))
def test_two_of_every_image_have_the_same_figures(plain, metric):
    """Corrections for the size of the sample move, but nothing else does."""
    about = METRICS[metric]
    if about.name.endswith("_corrected") or about.name in (
        "score_mutual_information",
        "expected_calibration_error",
    ):
        for where, estimate in of(plain, metric).items():
            # what chance adds is half as large, so the corrected figure is larger or both are 0
            assert of(_doubled(), metric)[where].value >= estimate.value - 0.01
    else:
        same(plain, _doubled(), metric)


def _doubled():
    if not hasattr(_doubled, "found"):
        y, score, s = (np.repeat(column, 2) for column in images())
        _doubled.found = figures(audit(y, score, sensitive_features=s, reference="a", **OPTIONS))
    return _doubled.found


@pytest.mark.parametrize("metric", [m for m in METRICS if METRICS[m].scope in ("gap", "information")])
def test_a_fair_table_has_its_ideal_value(metric):
    """Two groups with the same images: nothing differs."""
    y, score, _ = images(200)
    s = np.repeat(["a", "b"], 200)
    result = audit(np.tile(y, 2), np.tile(score, 2), sensitive_features=s, **OPTIONS)
    estimate = result.gaps["group"][metric].estimate
    best = result.overall["auroc"].value if metric == "equity_scaled_auroc" else METRICS[metric].best
    assert estimate.value == pytest.approx(best, abs=1e-9)
    tests = [t.p_value for t in result.tests if t.metric == metric]
    assert all(p > 0.5 for p in tests)


@pytest.mark.parametrize("name", list(GAP_SHARES))
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_rates_of_a_gap_are_shares_of_images(name, classes):
    rng = np.random.default_rng(2)
    table = rng.integers(0, 9, (4, classes, classes)).astype(float)
    compared = GAP_SHARES[name](classes)
    assert (compared.parts <= compared.wholes).all()
    strata = list(compared.strata(table))
    assert sorted(r for _, rates in strata for r in rates) == list(range(len(compared.parts)))
    for outcomes, rates in strata:
        assert (outcomes >= 0).all()
        assert outcomes.sum(1) == pytest.approx(compared.images(table)[:, rates[0]])
        own = counts.ratio(outcomes[:, : len(rates)], outcomes.sum(1, keepdims=True))
        assert compared.rates(table)[:, rates] == pytest.approx(own, nan_ok=True)


def test_every_gap_of_rates_is_declared():
    assert set(GAP_SHARES) <= set(METRICS)
