"""The estimate of ADF in tables with few images in most cells."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import random_table

from fairdx.auditing.joint import ADF, _information, _sparse
from fairdx.inference.sparse_information import Course
from fairdx.metrics import counts as tables

GROUPS = (500, 400, 100)


def chances(wrong, classes=8):
    """Chances of a decision (S, K, K) in groups that are wrong so often, evenly over the other classes."""
    wrong = np.asarray(wrong)[:, None, None]
    return np.where(np.eye(classes) == 1, 1 - wrong, wrong / (classes - 1))


def sample(rng, groups=GROUPS, classes=8, wrong=(0.3, 0.3, 0.3)):
    """Counts (S, Y, D) of groups, and 60 tables with their margins."""
    cells = np.stack([rng.multinomial(n, np.full(classes, 1 / classes)) for n in groups])
    chance = chances(wrong, classes)
    counts = rng.multinomial(cells, chance)
    drawn = [random_table(counts[:, y].sum(1), counts[:, y].sum(0), seed=rng).rvs(60) for y in range(classes)]
    return counts.astype(float), np.stack(drawn, axis=2).astype(float)


def estimate(counts, drawn):
    """ADF, and the p-value of none."""
    permuted = SimpleNamespace(
        null=lambda sample, effect: (drawn, 1.0),
        information_test=lambda sample, p_value: (p_value, "permutation"),
        patients=None,
        settings=SimpleNamespace(level=0.95, seed=0),
        test=lambda metric, method, p_value: p_value,
    )
    replicates = drawn  # they say how wide an interval is, not where the estimate lies
    gaps, p_value = _information(permuted, counts, replicates, 1.0)
    return gaps[f"{ADF}_corrected"].estimate, p_value


def test_it_is_as_often_too_small_as_too_large_where_there_is_none():
    """To first order the bias is (|S|-1)(|D|-1)|Y| / 2n, which these tables exceed: all would be above 0."""
    rng = np.random.default_rng(0)
    found, first_order = [], []
    for _ in range(150):
        counts, drawn = sample(rng)
        assert _sparse(counts)
        found.append(estimate(counts, drawn)[0].value)
        plug_in = float(tables.mutual_information(counts))
        first_order.append(plug_in - float(tables.information_bias(counts, sample_size=counts.sum())))
    assert 0.38 <= np.mean(np.array(found) == 0) <= 0.62  # half of 150, three standard errors
    assert np.mean(np.array(first_order) <= 0) < 0.3


def test_full_tables_keep_the_closed_form():
    counts, drawn = sample(np.random.default_rng(1), (20_000, 20_000, 20_000), classes=3)
    assert not _sparse(counts)
    plug_in = float(tables.mutual_information(counts))
    bias = float(tables.information_bias(counts, sample_size=counts.sum()))
    assert estimate(counts, drawn)[0].value == max(0.0, plug_in - bias)


@pytest.mark.parametrize(("last", "bar"), [(0.5, 0.87), (0.1, 0.86)])
def test_intervals_hold_a_group_that_errs_more_or_less(last, bar):
    """Of 80 intervals of which 0.95 or 0.94 hold, three standard errors less.

    Noise drawn as if all groups erred alike is too large for a group that hardly errs: 0.76 held.
    """
    rng, wrong = np.random.default_rng(2), (0.3, 0.3, last)
    truth = float(tables.mutual_information(chances(wrong) * np.array(GROUPS)[:, None, None]))
    held = []
    for _ in range(80):
        found, p_value = estimate(*sample(rng, wrong=wrong))
        held.append(found.low <= truth <= found.high)
        assert (found.low > 0) == (p_value <= 0.05)
        assert found.low <= found.value <= found.high
    assert np.mean(held) >= bar


def test_images_that_come_twice_say_no_more():
    """The ends are alike to half a standard error; images taken for independent would be a fifth too sure."""
    counts, drawn = sample(np.random.default_rng(3), wrong=(0.3, 0.3, 0.8))
    null, plug_in = tables.mutual_information(drawn), float(tables.mutual_information(counts))
    once = np.array(Course.of(counts, null, 0.95, 1.0, 0.2, 0).found(plug_in, True))
    twice, apart = (
        np.array(Course.of(2 * counts, null, 0.95, scale, 0.2, 0).found(plug_in, True))
        for scale in (np.sqrt(2), 1.0)
    )
    error = (once[2] - once[0]) / 4
    assert (np.abs(twice - once) < error / 2).all()
    assert np.ptp(apart[[0, 2]]) < 0.8 * np.ptp(once[[0, 2]])
