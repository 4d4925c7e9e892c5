"""Decision metrics against Fairlearn, scikit-learn, closed forms and invariances."""

import warnings

import fairlearn.metrics as fl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from fairdx.core.errors import InputError
from fairdx.metrics import (
    UndefinedMetricWarning,
    accuracy,
    approximate_diagnosis_fairness,
    balanced_accuracy,
    demographic_parity_difference,
    effects,
    equal_opportunity_difference,
    equalized_odds_difference,
    group_rates,
)
from fairdx.metrics import counts as tables

METRICS = (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    approximate_diagnosis_fairness,
)


def random_table(rng, n=400, groups=3, classes=2):
    return rng.integers(0, classes, n), rng.integers(0, classes, n), rng.integers(0, groups, n)


@pytest.mark.parametrize("seed", range(5))
def test_gaps_agree_with_fairlearn(seed):
    rng = np.random.default_rng(seed)
    y, d, s = random_table(rng)
    w = rng.random(len(y))
    for ours, theirs in (
        (demographic_parity_difference, fl.demographic_parity_difference),
        (equal_opportunity_difference, fl.equal_opportunity_difference),
        (equalized_odds_difference, fl.equalized_odds_difference),
    ):
        assert ours(y, d, sensitive_features=s) == pytest.approx(theirs(y, d, sensitive_features=s))
        weighted = ours(y, d, sensitive_features=s, sample_weight=w)
        assert weighted == pytest.approx(theirs(y, d, sensitive_features=s, sample_weight=w))


def test_group_rates_agree_with_fairlearn():
    y, d, s = random_table(np.random.default_rng(0))
    frame = fl.MetricFrame(
        metrics={
            "selection_rate": fl.selection_rate,
            "tpr": fl.true_positive_rate,
            "fpr": fl.false_positive_rate,
        },
        y_true=y,
        y_pred=d,
        sensitive_features=s,
    )
    ours = group_rates(y, d, sensitive_features=s)
    for name in ("selection_rate", "tpr", "fpr"):
        assert list(ours[name].values()) == pytest.approx(frame.by_group[name].tolist())


def test_adf_is_the_mutual_information_within_labels():
    y, d, s = random_table(np.random.default_rng(1), classes=3)
    within = sum(np.mean(y == c) * mutual_info_score(s[y == c], d[y == c]) for c in np.unique(y))
    assert approximate_diagnosis_fairness(y, d, sensitive_features=s) == pytest.approx(within)


def test_adf_closed_forms():
    # independent given the label: every (group, decision) pair equally often within each label
    y, s, d = (v.ravel() for v in np.meshgrid([0, 1], [0, 1, 2], [0, 1], indexing="ij"))
    assert approximate_diagnosis_fairness(y, d, sensitive_features=s) == pytest.approx(0, abs=1e-15)
    # the decision is the group: H(S | Y), here a fair coin at y = 0 and a 3:1 one at y = 1
    y = np.repeat([0, 1], [4, 4])
    s = np.array([0, 1, 0, 1, 0, 0, 0, 1])
    entropy = 0.5 * np.log(2) - 0.5 * (0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert approximate_diagnosis_fairness(y, s, sensitive_features=s) == pytest.approx(entropy)


def test_undefined_rates_are_nan_with_a_warning_that_names_the_group():
    y, d, s = [1, 0, 0, 0], [1, 0, 1, 0], ["men", "men", "women", "women"]
    with pytest.warns(UndefinedMetricWarning, match="'women'"):
        assert np.isnan(equal_opportunity_difference(y, d, sensitive_features=s))
    # Fairlearn invents a true-positive rate of 0 for women here
    assert fl.equal_opportunity_difference(y, d, sensitive_features=s) == 1.0


def test_perfect_and_weighted_accuracy():
    assert accuracy([0, 1, 1], [0, 1, 1]) == 1.0
    assert accuracy([0, 1], [0, 0], sample_weight=[3, 1]) == 0.75


@pytest.mark.parametrize(
    ("y", "d", "s", "told"),
    [
        ([0, 1], [0, 1, 1], ["a", "b"], "y_true has 2, y_pred has 3"),
        ([0, 1], [0, 1], ["a", None], "missing in 1 rows"),
        ([0, 1], [0, 1], ["a", 3], "mixes values of different types"),
        ([0, float("nan")], [0, 1], ["a", "b"], "y_true is missing"),
        ([], [], [], "no rows"),
        (["a", "b"], [0, 1], ["a", "b"], "use one type"),
    ],
)
def test_bad_columns(y, d, s, told):
    with pytest.raises(InputError, match=told):
        demographic_parity_difference(y, d, sensitive_features=s)


tables_of_counts = st.integers(2, 4).flatmap(
    lambda s: st.integers(2, 3).flatmap(
        lambda y: st.lists(st.integers(1, 9), min_size=s * y * y, max_size=s * y * y).map(
            lambda c: np.array(c).reshape(s, y, y)
        )
    )
)


def rows(counts):
    s, y, d = np.indices(counts.shape)
    return tuple(np.repeat(v.ravel(), counts.ravel()) for v in (y, d, s))


@given(tables_of_counts, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_order_and_names_of_groups_do_not_matter(counts, random):
    y, d, s = rows(counts)
    order = list(range(len(y)))
    random.shuffle(order)
    names = random.sample(["zebra", "ape", "cow", "dog"], counts.shape[0])
    renamed = np.array(names, dtype=object)[s][order]
    for metric in METRICS:
        expected = metric(y, d, sensitive_features=s)
        assert metric(y[order], d[order], sensitive_features=renamed) == pytest.approx(expected, abs=1e-12)


@given(tables_of_counts)
@settings(max_examples=40, deadline=None)
def test_equal_rates_within_labels_mean_no_information_and_no_direct_effect(counts):
    # Every group gets the first one's decisions, in multiples that differ by group and label.
    fair = counts[:1] * counts[:, :, :1]
    assert tables.mutual_information(fair.astype(float)) == pytest.approx(0, abs=1e-12)
    y, d, s = rows(fair)
    for effect in effects(y, d, sensitive_features=s, positive_class=1):
        assert effect.direct_effect == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 2, 2), (2, 3, 3)])
def test_plug_in_bias_and_its_correction(shape):
    rng = np.random.default_rng(0)
    n, draws = 600, 20_000
    groups, labels, decisions = shape
    p = np.full(groups, 1 / groups)[:, None, None] * np.full(labels, 1 / labels)[None, :, None]
    p = p * rng.dirichlet(np.full(decisions, 8.0), labels)[None]
    sampled = rng.multinomial(n, p.ravel(), size=draws).reshape(-1, *shape).astype(float)
    plug_in = tables.mutual_information(sampled)
    formula = (groups - 1) * (decisions - 1) * labels / (2 * n)
    assert plug_in.mean() == pytest.approx(formula, rel=0.05)
    corrected = plug_in - tables.information_bias(sampled, sample_size=float(n))
    assert corrected.mean() == pytest.approx(0, abs=0.05 * formula)


def test_correction_ignores_decisions_that_never_occur():
    y, s = np.repeat([0, 1], 50), np.tile([0, 1], 50)
    always = np.ones(100, dtype=int)
    counts = tables.count_table(s, y, always, (2, 2, 2))
    assert tables.degrees_of_freedom(counts) == 0


def test_information_root_has_the_length_of_the_information():
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 50, (20, 3, 2, 2)).astype(float)
    squared = (tables.information_root(counts) ** 2).sum((-1, -2, -3))
    assert squared == pytest.approx(tables.mutual_information(counts))


def test_design_effect_is_one_for_single_images_and_m_for_copies():
    rng = np.random.default_rng(0)
    cells = np.eye(8).reshape(8, 2, 2, 2)
    multiplicity = rng.integers(20, 40, 8).astype(float)
    assert tables.design_effect(cells, multiplicity) == pytest.approx(1)
    assert tables.design_effect(5 * cells, multiplicity) == pytest.approx(5, rel=0.02)


def test_a_hundred_percent_agreement_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = [0, 1, 0, 1]
        assert equalized_odds_difference(y, y, sensitive_features=list("aabb")) == 0


def test_balanced_accuracy_is_that_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    truth, decision = rng.integers(3, size=50), rng.integers(3, size=50)
    assert balanced_accuracy(truth, decision) == pytest.approx(balanced_accuracy_score(truth, decision))
    assert balanced_accuracy([1, 1, 1], [1, 0, 1]) == pytest.approx(2 / 3)
