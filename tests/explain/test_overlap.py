"""Overlap by hand, the size of its test under the null, and its power where something is there."""

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import jaccard_score, roc_auc_score

from fairdx.explain.overlap import (
    MEASURES,
    among_dealt,
    beyond_null,
    common_mass,
    empty_maps,
    paired_change,
    rank_correlation,
    summarise,
    top_cells,
    top_iou,
)
from fairdx.explain.probe import ABSENT, PENALTY, conditional_auroc, dealt_groups, fit_probes, logistic
from fairdx.inference.clustered import clustered_mean


def test_measures_by_hand():
    a = np.array([[4.0, 0.0, 0.0, -7.0, 0.0]])
    b = np.array([[1.0, 1.0, 0.0, 0.0, 2.0]])
    assert common_mass(a, b)[0] == pytest.approx(0.25)
    assert common_mass(a, a)[0] == pytest.approx(1)
    assert common_mass(a, np.array([[0.0, 0, 0, 1, 0]]))[0] == 0
    assert top_iou(a, a)[0] == 1
    assert top_iou(a, b)[0] == 0


def test_measures_against_other_libraries():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 40))
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    p, q = top_cells(a), top_cells(b)
    assert (p.sum(1) == 8).all()
    np.testing.assert_allclose(top_iou(a, b), [jaccard_score(x, y) for x, y in zip(p, q, strict=True)])


def test_what_is_empty_is_found():
    maps = np.array([[0.0, 0, 0], [-1, -2, -3], [2, 2, 2], [np.nan, 1, 2], [-1, 0, 1]])
    assert empty_maps(maps).tolist() == [True, True, True, True, False]


def _maps(rng, n, *, tie=0.0, common=1.0):
    """Maps with a layout common to all images, and a part that both maps of an image share."""
    layout = common * rng.normal(size=(2, 1, 16))
    own = rng.normal(size=(1, n, 16))
    return 3 + layout + tie * own + rng.normal(size=(2, n, 16))  # so high that none is empty


@pytest.mark.parametrize("measure", MEASURES)
def test_the_null_is_rejected_as_often_as_it_should_be(measure):
    """With unrelated maps, all with the same layout, the difference is there in 5 % of the runs."""
    runs, found = 300, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        first, second = _maps(rng, 60)
        cells, patients = rng.integers(0, 2, 60), np.arange(60)
        beyond = beyond_null(
            MEASURES[measure], first, second, cells=cells, patients=patients, seed=seed, partners=10
        )
        estimate = summarise(beyond, patients, np.ones(60, bool)).beyond
        found += not estimate.low <= 0 <= estimate.high
    assert binomtest(found, runs, 0.05).pvalue > 0.001, found / runs


@pytest.mark.parametrize("measure", MEASURES)
def test_a_common_layout_is_no_overlap_and_a_common_part_is(measure):
    rng = np.random.default_rng(1)
    for tie, there in ((0.0, False), (1.0, True)):
        first, second = _maps(rng, 300, tie=tie, common=2.0)
        beyond = beyond_null(
            MEASURES[measure], first, second, cells=np.zeros(300, int), patients=np.arange(300), seed=0
        )
        found = summarise(beyond, np.arange(300), np.ones(300, bool))
        assert (found.beyond.low > 0) == there
        assert found.beyond.value == pytest.approx(found.own.value - found.null.value, abs=1e-9)


def test_the_null_is_that_of_all_pairs_where_all_are_partners():
    rng = np.random.default_rng(2)
    first, second = _maps(rng, 12)
    beyond = beyond_null(
        common_mass, first, second, cells=np.zeros(12, int), patients=np.arange(12), seed=0, partners=11
    )
    every = np.array([[common_mass(a[None], b[None])[0] for b in second] for a in first])
    off = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(beyond.null, (every * off).sum(1) / 11)
    expected = np.diag(every) - (every * off).sum(1) / 11 - (every * off).sum(0) / 11 + every[off].mean()
    np.testing.assert_allclose(beyond.influence, expected)


def test_a_patient_is_not_their_own_null():
    rng = np.random.default_rng(3)
    first, second = _maps(rng, 6)
    beyond = beyond_null(
        common_mass, first, second, cells=np.zeros(6, int), patients=np.repeat([0, 1], 3), seed=0
    )
    expected = [common_mass(np.repeat(first[[0]], 3, 0), second[3:]).mean()]
    np.testing.assert_allclose(beyond.null[0], expected[0])
    alone = beyond_null(common_mass, first, second, cells=np.arange(6), patients=np.arange(6), seed=0)
    assert np.isnan(alone.null).all()


def test_intervals_know_of_patients():
    rng = np.random.default_rng(4)
    per_patient = rng.normal(size=50)
    values = np.repeat(per_patient, 8)
    one = clustered_mean(per_patient, np.arange(50))
    many = clustered_mean(values, np.repeat(np.arange(50), 8))
    assert (many.low, many.high) == pytest.approx((one.low, one.high))
    assert np.isnan(clustered_mean(np.array([]), np.array([], int)).value)
    assert np.isnan(clustered_mean(np.array([1.0, 2.0]), np.array([0, 0])).low)


def test_shuffled_labels_show_nothing_and_paired_changes_use_the_same_images():
    rng = np.random.default_rng(5)
    before = rng.normal(size=200)
    after = before - 0.2 + 0.01 * rng.normal(size=200)
    before[:3] = np.nan
    change = paired_change(before, after, np.arange(200))
    assert change.n == 197
    assert change.low < -0.2 < change.high < 0


def test_the_probe_finds_the_group_given_the_label_and_only_that():
    rng = np.random.default_rng(6)
    n = 1200
    label = rng.integers(0, 2, n)
    group = (rng.random(n) < 0.2 + 0.6 * label).astype(int)  # the label says much of the group
    seen = rng.normal(size=(n, 20))
    seen[:, 0] += 3 * label
    found = {}
    for name, shift in (("none", 0.0), ("some", 1.0)):
        embedding = seen.copy()
        embedding[:, 1] += shift * group
        (probe,) = fit_probes(embedding, label, [group], np.arange(n), classes=2, groups=2, seed=0)
        import torch

        logits = probe.logits(
            torch.from_numpy(embedding), torch.from_numpy(label), torch.from_numpy(probe.fold)
        ).numpy()
        found[name] = conditional_auroc(logits, label, group, np.arange(n))
    assert abs(found["none"].value - 0.5) < 0.06
    assert found["some"].low > 0.7


def test_the_conditional_auroc_is_that_within_labels():
    rng = np.random.default_rng(7)
    label, group = rng.integers(0, 2, 100), rng.integers(0, 2, 100)
    logits = rng.normal(size=(100, 2))
    odds = logits[:, 1] - logits[:, 0]
    parts = [roc_auc_score(group[label == y], odds[label == y]) for y in (0, 1)]
    weights = [(group[label == y] == 1).sum() * (group[label == y] == 0).sum() for y in (0, 1)]
    found = conditional_auroc(logits, label, group, np.arange(100))
    assert found.value == pytest.approx(np.average(parts, weights=weights))


@pytest.mark.parametrize("groups", [2, 3])
def test_many_probes_at_once_are_those_of_scikit_learn(groups):
    rng = np.random.default_rng(8)
    seen = np.abs(rng.normal(size=(300, 40))) @ rng.normal(size=(40, 40)) + rng.normal(size=40)
    seen[:, 3] = 5.0  # a dead unit
    group = rng.integers(0, groups, (4, 300))
    group[3] = 1  # one group only
    seen[:, 0] += 2 * group[0]
    weight, bias = logistic(seen, group, groups)
    spread = np.where(seen.std(0) > 1e-9, seen.std(0), np.inf)
    scaled = (seen - seen.mean(0)) / spread
    for one in range(3):
        fitted = LogisticRegression(C=PENALTY, max_iter=5000, tol=1e-9).fit(scaled, group[one])
        expected = fitted.decision_function(scaled)
        logit = seen @ weight[one].T + bias[one]
        if groups == 2:
            np.testing.assert_allclose(logit[:, 1] - logit[:, 0], expected, atol=1e-4)
        else:
            np.testing.assert_allclose(
                logit - logit.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=1e-4
            )
    assert np.allclose(weight[3], 0, atol=1e-8)
    assert bias[3].argmax() == 1
    assert np.delete(bias[3], 1).max() < ABSENT / 2


def test_dealt_groups_are_the_patients_groups_in_another_order():
    rng = np.random.default_rng(9)
    patients = np.repeat(np.arange(100), 2)
    label = np.repeat(rng.integers(0, 2, 100), 2)
    label[::8] = 1 - label[::8]  # some patients are ill in one of two images
    group = np.repeat(rng.integers(0, 3, 100), 2)
    deals = dealt_groups(label, group, patients, count=50, seed=0)
    for dealt in deals:
        assert (dealt[::2] == dealt[1::2]).all()
        for ill in range(2):
            both = (label[::2] == ill) & (label[1::2] == ill)
            assert sorted(dealt[::2][both]) == sorted(group[::2][both])
    assert abs(np.mean([(dealt == group).mean() for dealt in deals]) - 1 / 3) < 0.08
    again = dealt_groups(label, group, patients, count=50, seed=0)
    assert all((one == two).all() for one, two in zip(deals, again, strict=True))


def test_the_interval_of_the_conditional_auroc_is_that_of_delong_with_clusters():
    rng = np.random.default_rng(10)
    group, odds = rng.integers(0, 2, 200), rng.normal(size=200)
    odds += 0.5 * group
    logits = np.stack([np.zeros(200), odds], axis=1)
    label, patients = np.zeros(200, dtype=int), np.arange(200)
    found = conditional_auroc(logits, label, group, patients)
    wins = (odds[group == 1][:, None] > odds[group == 0]).astype(float)
    one, two = wins.mean(1), wins.mean(0)
    error = np.sqrt(one.var() / len(one) + two.var() / len(two))  # DeLong et al., 1988
    assert found.value == pytest.approx(wins.mean())
    assert found.high - found.low == pytest.approx(2 * 1.972 * error, rel=0.01)  # t with 199 degrees
    twice = conditional_auroc(
        np.repeat(logits, 2, 0), np.repeat(label, 2), np.repeat(group, 2), np.repeat(patients, 2)
    )
    assert (twice.value, twice.low) == pytest.approx((found.value, found.low))
    nothing = conditional_auroc(logits, label, np.zeros(200, dtype=int), patients)
    assert np.isnan(nothing.value)


def test_the_true_groups_among_dealt_ones_by_hand():
    dealt = np.arange(39.0)
    assert among_dealt(40.0, dealt, 7).p == pytest.approx(2 / 40)
    assert among_dealt(-1.0, dealt, 7).p == pytest.approx(2 / 40)
    assert among_dealt(18.5, dealt, 7).p == 1.0
    assert among_dealt(36.5, dealt, 7).p == pytest.approx(2 * 3 / 40)
    assert among_dealt(38.0, dealt, 7).p == pytest.approx(2 * 2 / 40)  # as high as one of them
    found = among_dealt(1.0, np.append(dealt, np.nan), 7)
    assert (found.deals, found.images, found.mean) == (39, 7, 19)
    assert np.isnan(among_dealt(np.nan, dealt, 7).p)
    assert np.isnan(among_dealt(1.0, np.array([]), 7).p)
