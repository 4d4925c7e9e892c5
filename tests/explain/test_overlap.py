"""Overlap by hand, the size of its test under the null, and its power where something is there."""

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import jaccard_score, roc_auc_score

from fairdx.explain.overlap import (
    MEASURES,
    beyond_null,
    common_mass,
    empty_maps,
    paired_change,
    rank_correlation,
    summarise,
    top_cells,
    top_iou,
)
from fairdx.explain.probe import conditional_auroc, fit_probes
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
