"""Bounds of gaps with missing groups, beside every way to divide the images."""

from itertools import product

import numpy as np
import pytest

from fairdx import metrics
from fairdx.auditing import audit
from fairdx.metrics.bounds import gap_bounds
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
