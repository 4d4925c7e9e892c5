"""Bounds of gaps with missing groups or labels, beside every way to divide the images."""

from itertools import product

import numpy as np
import pytest

from fairdx import metrics
from fairdx.auditing import audit
from fairdx.metrics.bounds import gap_bounds, label_bounds
from fairdx.metrics.compared import GAP_SHARES

FUNCTIONS = {
    "demographic_parity_difference": metrics.demographic_parity_difference,
    "equal_opportunity_difference": metrics.equal_opportunity_difference,
    "equalized_odds_difference": metrics.equalized_odds_difference,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_they_are_the_smallest_and_largest_gap_of_all_ways_to_divide_the_images(name, seed):
    rng, n, hidden = np.random.default_rng(seed), 60, 8
    s, y, d = rng.integers(0, 2, n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    counts = np.zeros((3, 2, 2))
    np.add.at(counts, (np.where(np.arange(n) < hidden, 2, s), y, d), 1)
    low, high = gap_bounds(counts[:2], counts[2], GAP_SHARES[name](2))
    gaps = [
        FUNCTIONS[name](y, d, sensitive_features=np.append(way, s[hidden:]))
        for way in product((0, 1), repeat=hidden)
    ]
    assert high == pytest.approx(max(gaps))
    assert low <= min(gaps) + 1e-12
    if name != "equalized_odds_difference" and low > 0:  # each of whose rates has a bound of its own
        assert low == pytest.approx(min(gaps))
    elif name != "equalized_odds_difference":  # some way makes it 0, or as near as whole images allow
        assert min(gaps) < 0.05


def test_the_audit_says_what_missing_groups_may_hide():
    rng, n = np.random.default_rng(3), 900
    s = np.array(["a", "b", None], dtype=object)[rng.choice(3, n, p=[0.5, 0.4, 0.1])]
    s = np.where(s == None, "(missing)", s).astype(str)  # noqa: E711
    y = rng.integers(0, 2, n)
    score = np.clip(0.3 * y + 0.7 * rng.random(n), 0, 1)
    found = audit(y, score, sensitive_features={"sex": s}, n_replicates=60, n_permutations=99, explore=False)
    low, high = found.missing_bounds["sex"]["equal_opportunity_difference"]
    known = s != "(missing)"
    own = metrics.equal_opportunity_difference(y[known], score[known] >= 0.5, sensitive_features=s[known])
    assert low <= own <= high
    assert any("have no value of sex" in note.text for note in found.notes)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bounds_without_labels_are_the_gaps_of_all_ways_to_label_the_images(name, seed):
    rng, n, hidden = np.random.default_rng(seed), 60, 8
    s, y, d = rng.integers(0, 2, n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    known, unlabelled = np.zeros((2, 2, 2)), np.zeros((2, 2))
    np.add.at(known, (s[hidden:], y[hidden:], d[hidden:]), 1)
    np.add.at(unlabelled, (s[:hidden], d[:hidden]), 1)
    found = label_bounds(known, unlabelled, GAP_SHARES[name](2))
    gaps = [
        FUNCTIONS[name](np.append(way, y[hidden:]), d, sensitive_features=s)
        for way in product((0, 1), repeat=hidden)
    ]
    assert found.high == pytest.approx(max(gaps))
    assert found.low <= min(gaps) + 1e-12
    assert found.low <= found.at_random <= found.high
    if name == "demographic_parity_difference":  # which needs no labels
        assert found.low == pytest.approx(found.high)
    elif name == "equal_opportunity_difference" and found.low > 0:
        assert found.low == pytest.approx(min(gaps))
        assert np.isnan(found.turning)


def test_the_share_that_turns_a_gap_around_by_hand():
    """True-positive rates .8 and .6; 150 images of the second group without a label were decided positive.

    Six in ten of its labelled ones so decided are ill. At random its rate is 150 / 190. If a share t of the
    150 is all ill, it is (150 + 60 t) / (190 + 60 t), which is .8 at t = 1/6.
    """
    known = np.array([[[90, 10], [20, 80]], [[80, 40], [40, 60]]], dtype=float)
    found = label_bounds(known, np.array([[0.0, 0], [0, 150]]), GAP_SHARES["equal_opportunity_difference"](2))
    assert found.at_random == pytest.approx(0.8 - 150 / 190)
    assert found.turning == pytest.approx(1 / 6)
    assert (found.low, found.high) == (0.0, pytest.approx(0.8 - 0.6))


@pytest.fixture(scope="module")
def followed_up():
    """Of group b the negative decisions are followed up less often."""
    rng, n = np.random.default_rng(8), 2000
    s, y = np.array(["a", "b"])[rng.integers(0, 2, n)], rng.integers(0, 2, n).astype(float)
    score = np.clip(0.35 * y - 0.1 * (s == "b") * y + 0.65 * rng.random(n), 0, 1).round(3)
    lost = (s == "b") & (score < 0.5) & (rng.random(n) < 0.4)
    return s, y, score, lost


def test_the_audit_says_what_missing_labels_may_hide(followed_up):
    s, y, score, lost = followed_up
    options = {"n_replicates": 60, "n_permutations": 99, "explore": False}
    found = audit(np.where(lost, np.nan, y), score, sensitive_features={"sex": s}, **options)
    bounds = found.labels_missing["sex"].gaps["equal_opportunity_difference"]
    truth = metrics.equal_opportunity_difference(y, score >= 0.5, sensitive_features=s)
    assert found.labels_missing["sex"].images == {"a": 0, "b": int(lost.sum())}
    labelled = found.gaps["sex"]["equal_opportunity_difference"].estimate.value
    assert bounds.low <= truth <= bounds.high
    assert abs(bounds.at_random - truth) < abs(labelled - truth)  # labels are missing by the decision alone
    chosen = found.labels_missing["sex"].gaps["demographic_parity_difference"]
    every = metrics.demographic_parity_difference(y, score >= 0.5, sensitive_features=s)
    assert (chosen.low, chosen.high) == (pytest.approx(every), pytest.approx(every))
    assert "Images that have a score but no label." in found.to_html()
    assert any("have a score but no label (a 0, b " in note.text for note in found.notes)
    whole = audit(y, score, sensitive_features={"sex": s}, **options)
    assert whole.labels_missing == {}
    assert "Images that have a score but no label." not in whole.to_html()


def test_of_several_findings_each_has_its_own_missing_labels(followed_up):
    s, y, score, lost = followed_up
    truth = np.stack([np.where(lost, np.nan, y), 1 - y], axis=1)
    scores = np.stack([score, 1 - score], axis=1)
    found = audit(
        truth, scores, sensitive_features={"sex": s}, n_replicates=60, n_permutations=99, explore=False
    )
    assert found.per_label["0"].labels_missing["sex"].images["b"] == lost.sum()
    assert found.per_label["1"].labels_missing == {}
