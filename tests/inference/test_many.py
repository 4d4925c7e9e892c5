"""What audits of many images and groups rest on: blocks of patients, tables dealt, ranges of groups."""

import numpy as np
import pytest
from scipy.stats import random_table, studentized_range

from fairdx.inference.margins import with_margins
from fairdx.inference.resampling import all_replicates, blocks, collapse, effective_patients
from fairdx.inference.score_intervals import range_critical_value, range_tail


@pytest.mark.parametrize("groups", [3, 7, 40])
def test_the_range_of_many_groups_is_that_of_scipy(groups):
    ours = range_critical_value(groups, 2, 0.95)
    theirs = studentized_range.ppf(0.95**0.5, groups, np.inf) / np.sqrt(2)
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert range_tail(ours, groups, 2) == pytest.approx(0.05, rel=1e-6)
    far = studentized_range.sf(6 * np.sqrt(2), groups, np.inf)
    assert range_tail(6.0, groups, 1) == pytest.approx(far, rel=1e-4, abs=1e-12)
    assert range_tail(0.0, groups, 1) == pytest.approx(1.0)


def test_tables_dealt_have_their_margins_and_the_spread_of_scipys():
    table = np.array([[40.0, 12, 3, 9], [5, 30, 8, 1], [20, 20, 4, 0]])
    drawn = with_margins(table, 4000, np.random.default_rng(0))
    assert (drawn.sum(1) == table.sum(0)).all()
    assert (drawn.sum(2) == table.sum(1)).all()
    assert drawn.min() >= 0
    theirs = random_table(table.sum(1).astype(int), table.sum(0).astype(int), seed=1).rvs(4000)
    assert drawn.mean(0) == pytest.approx(theirs.mean(0), abs=0.2)
    assert drawn.var(0) == pytest.approx(theirs.var(0), rel=0.12, abs=0.02)


def test_blocks_are_of_equally_many_patients_and_keep_patients_whole():
    patient = np.repeat(np.arange(25_000), 2)
    block = blocks(patient, most=1000)
    assert (block[::2] == block[1::2]).all()
    sizes = np.bincount(block) / 2
    assert len(sizes) == 1000
    assert sizes.min() == sizes.max() == 25
    assert blocks(patient[:3000], most=1000) is not None
    assert (blocks(patient[:3000], most=1000) == patient[:3000]).all()


def test_replicates_of_blocks_vary_like_those_of_patients():
    """A share of 0.3 in 20,000 patients of two equal images: its variance is that of 20,000 draws."""
    rng = np.random.default_rng(2)
    cell = np.repeat((rng.random(20_000) < 0.3).astype(np.int64), 2)
    patient = np.repeat(np.arange(20_000), 2)
    units = collapse([cell], [2], blocks(patient, most=2000))
    drawn = all_replicates(units, 4000, np.random.default_rng(3))
    share = drawn[:, 1] / drawn.sum(1)
    p = cell.mean()
    assert share.std() == pytest.approx(np.sqrt(p * (1 - p) / 20_000), rel=0.08)


@pytest.mark.parametrize("most", [2, 400])
def test_effective_patients_count_in_cells_and_in_pairs_alike(most):
    rng = np.random.default_rng(4)
    group, patient, weight = rng.integers(0, 2, 300), rng.integers(0, 80, 300), rng.gamma(1, size=300)
    found = effective_patients(group, patient, most, weight)
    for s in (0, 1):
        own = np.bincount(patient[group == s], weights=weight[group == s])
        assert found[s] == pytest.approx(own.sum() ** 2 / (own**2).sum())
