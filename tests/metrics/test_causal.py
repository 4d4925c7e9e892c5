"""Effects against a hand-computed table, an intervention on a simulated graph, and their identities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fairdx.core.errors import InputError
from fairdx.metrics import UndefinedMetricWarning, direct_effect, effects, indirect_effect, total_effect
from fairdx.metrics.causal import effects_from_counts


def test_effects_by_hand():
    # s-: 6 of y=0 (1 positive decision), 4 of y=1 (2); s+: 2 of y=0 (1), 8 of y=1 (6)
    y = [0] * 6 + [1] * 4 + [0] * 2 + [1] * 8
    d = [1] + [0] * 5 + [1] * 2 + [0] * 2 + [1, 0] + [1] * 6 + [0] * 2
    s = ["minus"] * 10 + ["plus"] * 10
    keywords = {"sensitive_features": s, "reference": "minus"}
    expected_direct = (1 / 2 - 1 / 6) * 0.6 + (6 / 8 - 2 / 4) * 0.4
    expected_indirect = (1 / 2) * (0.2 - 0.6) + (6 / 8) * (0.8 - 0.4)
    assert direct_effect(y, d, **keywords)["plus"] == pytest.approx(expected_direct)
    assert indirect_effect(y, d, **keywords)["plus"] == pytest.approx(expected_indirect)
    assert total_effect(y, d, **keywords)["plus"] == pytest.approx(0.7 - 0.3)


def test_estimates_agree_with_interventions_on_the_graph():
    rng = np.random.default_rng(0)
    n = 400_000
    noise = rng.normal(size=n)
    uniform = rng.random(n)

    def label(s):
        return (uniform < np.where(s == 1, 0.6, 0.25)).astype(int)

    def decide(s, y):
        return (noise + 1.5 * y + 0.5 * s > 1).astype(int)

    zeros, ones = np.zeros(n, int), np.ones(n, int)
    true_direct = decide(ones, label(zeros)).mean() - decide(zeros, label(zeros)).mean()
    true_total = decide(ones, label(ones)).mean() - decide(zeros, label(zeros)).mean()
    s = rng.integers(0, 2, n)
    y = label(s)
    found = effects(y, decide(s, y), sensitive_features=s, reference=0)[0]
    assert found.direct_effect == pytest.approx(true_direct, abs=0.005)
    assert found.total_effect == pytest.approx(true_total, abs=0.005)


def test_a_covariate_that_causes_the_group_and_the_disease_moves_no_adjusted_effect():
    """Age decides on the group, the disease and nothing else: within an age the group does nothing."""
    rng = np.random.default_rng(2)
    n = 200_000
    age = rng.integers(0, 3, n)
    s = (rng.random(n) < np.array([0.2, 0.5, 0.8])[age]).astype(int)
    y = (rng.random(n) < np.array([0.1, 0.3, 0.6])[age]).astype(int)
    d = (rng.random(n) < 0.1 + 0.6 * y).astype(int)
    plain = effects(y, d, sensitive_features=s, reference=0)[0]
    adjusted = effects(y, d, sensitive_features=s, reference=0, covariates={"age": age})[0]
    assert plain.total_effect > 0.1
    assert adjusted.total_effect == pytest.approx(0, abs=0.01)
    assert adjusted.indirect_effect == pytest.approx(0, abs=0.01)


def test_adjusted_effects_are_standardised_by_hand():
    """One value of the covariate serves; of the other the group lacks a label, and it is left out."""
    y = [0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 1, 0]
    d = [0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    s = ["r"] * 6 + ["g"] * 6
    c = ["x"] * 4 + ["z"] * 2 + ["x"] * 5 + ["z"]
    found = effects(y, d, sensitive_features=s, reference="r", covariates={"c": c})[0]
    rate = {("r", 0): 1 / 2, ("r", 1): 1.0, ("g", 0): 1 / 2, ("g", 1): 1.0}  # within x
    share = {("r", 1): 1 / 2, ("g", 1): 3 / 5}
    direct = sum((rate["g", v] - rate["r", v]) * (share["r", 1] if v else 1 - share["r", 1]) for v in (0, 1))
    indirect = (rate["g", 1] - rate["g", 0]) * (share["g", 1] - share["r", 1])
    assert found.direct_effect == pytest.approx(direct)
    assert found.indirect_effect == pytest.approx(indirect)
    assert found.total_effect == pytest.approx(direct + indirect)


def test_covariates_explain_a_difference_that_they_make():
    rng = np.random.default_rng(1)
    n = 200_000
    s = rng.integers(0, 2, n)
    old = (rng.random(n) < np.where(s == 1, 0.8, 0.2)).astype(int)
    y = rng.integers(0, 2, n)
    d = (rng.random(n) < 0.2 + 0.3 * y + 0.3 * old).astype(int)  # age alone makes the difference
    plain = effects(y, d, sensitive_features=s, reference=0)[0]
    adjusted = effects(y, d, sensitive_features=s, reference=0, covariates={"age": old})[0]
    assert plain.direct_effect == pytest.approx(0.18, abs=0.01)
    assert adjusted.direct_effect == pytest.approx(0, abs=0.01)
    assert adjusted.total_effect == pytest.approx(0, abs=0.01)  # the group does nothing within an age


@given(arrays(float, (3, 2, 2), elements=st.integers(0, 20).map(float)), st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_total_is_direct_plus_indirect(counts, reference):
    found = effects_from_counts(counts, reference)
    both = found["direct_effect"] + found["indirect_effect"]
    known = ~np.isnan(both)
    assert (found["total_effect"][known] == both[known]).all()
    n, chosen = counts.sum((1, 2)), counts[..., 1].sum(1)
    for s in np.flatnonzero(known & (n > 0)):
        if n[reference] > 0:
            difference = chosen[s] / n[s] - chosen[reference] / n[reference]
            assert found["total_effect"][s] == pytest.approx(difference, abs=1e-12)


def test_a_group_without_a_label_of_the_reference():
    with pytest.warns(UndefinedMetricWarning, match="'b'"):
        found = effects([0, 1, 1, 1], [0, 1, 0, 1], sensitive_features=list("aabb"), reference="a")[0]
    assert np.isnan(found.direct_effect)
    assert found.total_effect == 0  # the difference in selection rates is defined all the same


def test_unknown_reference_and_class_are_named():
    with pytest.raises(InputError, match="'c' is no group"):
        effects([0, 1], [0, 1], sensitive_features=["a", "b"], reference="c")
    with pytest.raises(InputError, match="positive_class"):
        effects([0, 1, 2], [0, 1, 2], sensitive_features=["a", "b", "a"])
