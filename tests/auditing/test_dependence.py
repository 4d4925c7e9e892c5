"""How the tests of an audit depend on each other, beside the permutation of groups image by image."""

import numpy as np
import pytest
from scipy import stats

from fairdx import metrics
from fairdx.auditing import audit
from fairdx.auditing.dependence import Dependence, Shown
from fairdx.auditing.profile import Truth
from fairdx.auditing.result import Settings
from fairdx.auditing.study import Study
from fairdx.metrics.inputs import to_attributes

QUICK = {"n_replicates": 60, "n_permutations": 99, "explore": False}
FUNCTIONS = {
    "demographic_parity_difference": metrics.demographic_parity_difference,
    "equal_opportunity_difference": metrics.equal_opportunity_difference,
    "auroc_gap": metrics.auroc_gap,
    "approximate_diagnosis_fairness": metrics.approximate_diagnosis_fairness,
    "direct_effect": None,
}


@pytest.mark.parametrize("per_patient", [1, 3])
def test_statistics_go_together_as_under_permutation(per_patient):
    rng, n = np.random.default_rng(0), 900
    patient = np.arange(n) // per_patient
    y = (rng.random(n) < 0.4).astype(int)
    latent = 1.2 * y + rng.normal(size=n) + 0.8 * rng.normal(size=n)[patient]
    score = 1 / (1 + np.exp(-latent))
    group = rng.integers(0, 2, n)[patient]
    attributes = to_attributes({"group": group})
    settings = Settings(0.5, 0.95, "percentile", 60, 99, 0, 30, per_patient > 1, [])
    study = Study.of(attributes, "0", patient if per_patient > 1 else None, None, settings)
    result = audit(
        y,
        score,
        sensitive_features={"group": group},
        patients=study.patient,
        reference=0,
        **QUICK,
    )
    truth = Truth.of(y)
    everyone = np.ones(n, dtype=bool)
    shown = Shown(truth.full, (score >= 0.5).astype(int), truth.label, score, everyone)
    drawn = Dependence(study, [result], [shown]).draws()
    place = {test.metric: k for k, test in enumerate(result.tests)}
    permuted = {name: [] for name in FUNCTIONS}
    for _ in range(400):
        s = rng.permutation(group[::per_patient])[patient]
        for name, function in FUNCTIONS.items():
            if name == "direct_effect":
                effect = metrics.direct_effect(y, score >= 0.5, sensitive_features=s, reference="0")["1"]
                permuted[name].append(abs(effect))
            else:
                given = score if name == "auroc_gap" else score >= 0.5
                permuted[name].append(function(y, given, sensitive_features=s))
    names = list(FUNCTIONS)
    expected = stats.spearmanr(np.array([permuted[name] for name in names]).T).statistic
    found = stats.spearmanr(drawn[:, [place[name] for name in names]]).statistic
    np.testing.assert_allclose(found, expected, atol=0.17)  # of 400, an error of 0.05 each


def test_a_corrected_p_value_is_between_the_plain_one_and_holms():
    rng, n = np.random.default_rng(1), 700
    s, y = rng.integers(0, 3, n), rng.integers(0, 4, n)
    score = rng.dirichlet(np.ones(4), n)
    score[np.arange(n), y] += 0.6 - 0.3 * (s == 1)
    score /= score.sum(1, keepdims=True)
    found = audit(y, score, sensitive_features={"group": s}, **QUICK)
    every = [t for r in (found, *found.per_label.values()) for t in r.tests]
    assert all(t.p_value <= t.p_family <= t.p_holm + 1e-12 for t in every)
    sharper = [t for t in every if t.p_holm < 1 and t.p_family < 0.8 * t.p_holm]
    assert len(sharper) > 3


def test_findings_that_are_not_known_of_all_images_are_one_family_too():
    rng, n = np.random.default_rng(2), 600
    y = rng.integers(0, 2, (n, 3)).astype(float)
    y[:200, 1] = np.nan
    score = np.clip(0.4 * np.nan_to_num(y) + 0.6 * rng.random((n, 3)), 0, 1)
    found = audit(y, score, sensitive_features=rng.integers(0, 2, n), **QUICK)
    every = [t for r in (found, *found.per_label.values()) for t in r.tests]
    assert len(every) == 3 * 12 + 1
    assert all(t.p_value <= t.p_family <= t.p_holm + 1e-12 for t in every)


def test_the_covariance_of_many_images_is_that_of_some(monkeypatch):
    rng, n = np.random.default_rng(3), 4000
    s, y = rng.integers(0, 2, n), rng.integers(0, 2, n)
    score = np.clip(0.3 * y + 0.7 * rng.random(n), 0, 1)
    given = {"sensitive_features": s, **QUICK}
    whole = audit(y, score, **given)
    monkeypatch.setattr("fairdx.auditing.dependence._MOST_IMAGES", 1000)
    some = audit(y, score, **given)
    for a, b in zip(whole.tests, some.tests, strict=True):
        assert b.p_family == pytest.approx(a.p_family, abs=0.06)
