"""The estimate of ADF in tables with few images in most cells."""

from types import SimpleNamespace

import numpy as np
from scipy.stats import random_table

from fairdx.auditing.joint import ADF, _information, _sparse
from fairdx.metrics import counts as tables


def without_dependence(rng, groups=(500, 400, 100), classes=8, wrong=0.3):
    """Counts (S, Y, D) of groups that are wrong equally often, and as many with the margins of the first."""
    chance = np.full((classes, classes), wrong / (classes - 1))
    np.fill_diagonal(chance, 1 - wrong)
    cells = np.stack([rng.multinomial(n, np.full(classes, 1 / classes)) for n in groups])
    counts = np.stack([[rng.multinomial(n, p) for n, p in zip(of, chance, strict=True)] for of in cells])
    drawn = [random_table(counts[:, y].sum(1), counts[:, y].sum(0), seed=rng).rvs(60) for y in range(classes)]
    return counts.astype(float), np.stack(drawn, axis=2).astype(float)


def estimate(counts, drawn):
    permuted = SimpleNamespace(
        null=lambda sample, effect: (drawn, 1.0),
        information_test=lambda sample, p_value: (p_value, "permutation"),
        patients=None,
        settings=SimpleNamespace(level=0.95, seed=0),
        test=lambda *_: None,
    )
    replicates = drawn  # they say how wide an interval is, not where the estimate lies
    return _information(permuted, counts, replicates, 1.0)[0][f"{ADF}_corrected"].estimate.value


def test_it_is_as_often_too_small_as_too_large_where_there_is_none():
    """To first order the bias is (|S|-1)(|D|-1)|Y| / 2n, which these tables exceed: all would be above 0."""
    rng = np.random.default_rng(0)
    found, first_order = [], []
    for _ in range(150):
        counts, drawn = without_dependence(rng)
        assert _sparse(counts)
        found.append(estimate(counts, drawn))
        plug_in = float(tables.mutual_information(counts))
        first_order.append(plug_in - float(tables.information_bias(counts, sample_size=counts.sum())))
    assert 0.38 <= np.mean(np.array(found) == 0) <= 0.62  # half of 150, three standard errors
    assert np.mean(np.array(first_order) <= 0) < 0.3


def test_full_tables_keep_the_closed_form():
    counts, drawn = without_dependence(np.random.default_rng(1), (20_000, 20_000, 20_000), classes=3)
    assert not _sparse(counts)
    plug_in = float(tables.mutual_information(counts))
    bias = float(tables.information_bias(counts, sample_size=counts.sum()))
    assert estimate(counts, drawn) == max(0.0, plug_in - bias)
