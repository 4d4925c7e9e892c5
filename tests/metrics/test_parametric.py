"""Effects by a model, beside scikit-learn's regression, a refitted bootstrap, and a truth by intervention."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from fairdx.auditing import audit
from fairdx.metrics.causal import strata
from fairdx.metrics.inputs import to_attributes
from fairdx.metrics.parametric import ModelledEffects, covariate_design

QUICK = {"n_replicates": 300, "n_permutations": 99, "explore": False}


def draw(rng, n, direct=0.8):
    """Age causes the group, the disease and the decision; no old patients in group 1 are well."""
    age = rng.integers(2, 9, n) * 10
    s = (rng.random(n) < expit((age - 50) / 25)).astype(int)
    y = (rng.random(n) < expit((age - 55) / 15)).astype(int)
    chance = decided(s, y, age, direct)
    d = (rng.random(n) < chance).astype(int)
    kept = ~((s == 1) & (age == 80) & (y == 0))
    return s[kept], y[kept], d[kept], age[kept]


def decided(s, y, age, direct):
    return expit(-1.5 + 2 * y + direct * s + (age - 50) / 40)


def tables(s, y, d, age):
    covariates = to_attributes({"age": age})
    stratum, _ = strata(y, covariates)
    first = np.unique(stratum, return_index=True)[1]
    counts = np.zeros((2, len(first), 2))
    np.add.at(counts, (s, stratum, d), 1)
    return counts, y[first], covariate_design(covariates, first), stratum


def test_the_effects_are_those_of_scikit_learns_regression():
    s, y, d, age = draw(np.random.default_rng(0), 3000)
    counts, label, design, stratum = tables(s, y, d, age)
    found, _ = ModelledEffects(label, design, 0).of(counts, counts[None])
    own = design[stratum]

    def standardised(columns):
        model = LogisticRegression(C=100.0, fit_intercept=False, tol=1e-10, max_iter=5000)
        model.fit(columns(s), d)
        base = s == 0
        chance = [model.predict_proba(columns(np.full(len(s), g))[base])[:, 1].mean() for g in (1, 0)]
        return chance[0] - chance[1]

    def with_label(group):
        levels = [(group == g) & (y == k) for g in (0, 1) for k in (0, 1)]
        return np.column_stack([*levels, *(own * (y == k)[:, None] for k in (0, 1))]).astype(float)

    direct = standardised(with_label)
    total = standardised(lambda group: np.column_stack([group == 0, group == 1, own]).astype(float))
    assert found["direct_effect"][1] == pytest.approx(direct, abs=2e-5)
    assert found["total_effect"][1] == pytest.approx(total, abs=2e-5)
    assert found["indirect_effect"][1] == pytest.approx(total - direct, abs=4e-5)
    assert found["direct_effect"][0] == 0


def test_replicates_are_nearly_those_of_a_fit_to_each():
    rng = np.random.default_rng(1)
    counts, label, design, _ = tables(*draw(rng, 2000))
    model = ModelledEffects(label, design, 0)
    repeated = rng.multinomial(int(counts.sum()), (counts / counts.sum()).ravel(), 40).reshape(
        -1, *counts.shape
    )
    near = model.of(counts, repeated.astype(float))[1]
    for name in ("direct_effect", "total_effect"):
        exact = [model.of(one.astype(float), counts[None])[0][name][1] for one in repeated]
        spread = np.std(exact)
        assert np.abs(near[name][:, 1] - exact).max() < 0.15 * spread
        assert near[name][:, 1].std() == pytest.approx(spread, rel=0.05)


def test_intervals_hold_the_truth_by_intervention():
    """The truth: both groups' decisions on the reference's patients, 500,000 of them."""
    rng = np.random.default_rng(2)
    s, y, _, age = draw(np.random.default_rng(9), 500_000)
    base = s == 0
    truth = np.mean(decided(1, y[base], age[base], 0.8) - decided(0, y[base], age[base], 0.8))
    held = []
    for _ in range(60):
        counts, label, design, _ = tables(*draw(rng, 2000))
        chance = (counts / counts.sum()).ravel()
        repeated = rng.multinomial(int(counts.sum()), chance, 200).reshape(-1, *counts.shape).astype(float)
        _, moved = ModelledEffects(label, design, 0).of(counts, repeated)
        low, high = np.quantile(moved["direct_effect"][:, 1], [0.025, 0.975])
        held.append(low < truth < high)
    assert np.mean(held) >= 51 / 60  # of sixty 95 % intervals fewer than 51 hold once in 500 times


def test_the_audit_shows_the_model_beside_the_strata():
    s, y, d, age = draw(np.random.default_rng(4), 3000)
    given = {"sensitive_features": s, "reference": 0, "covariates": {"age": age}}
    found = audit(y, np.where(d == 1, 0.9, 0.1), **given, **QUICK)
    modelled, by_strata = (
        effects["group"]["1"]["direct_effect"] for effects in (found.modelled_effects, found.adjusted_effects)
    )
    counts, label, design, _ = tables(s, y, d, age)
    expected = ModelledEffects(label, design, 0).of(counts, counts[None])[0]["direct_effect"][1]
    assert modelled.value == pytest.approx(expected)
    assert modelled.low < modelled.value < modelled.high
    assert found.support["group"]["1"].reference == ((s == 0) & (age == 80)).sum()
    assert modelled.value != by_strata.value
    assert "by model" in found.to_html()


def test_a_group_that_is_always_decided_alike_stays_finite():
    s, y, d, age = draw(np.random.default_rng(3), 500)
    d[s == 1] = 1
    counts, label, design, _ = tables(s, y, d, age)
    found, _ = ModelledEffects(label, design, 0).of(counts, counts[None])
    assert 0 < found["direct_effect"][1] < 1
