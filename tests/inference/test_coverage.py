"""Do 95 % intervals cover the truth 95 % of the time, and do tests keep their level, through `audit` itself?

The cells are in `cells.py`, with the truth of each in closed form.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from fairdx.inference.paired import length_change
from fairdx.inference.resampling import all_replicates, collapse
from fairdx.metrics import counts as tables

SPEC = importlib.util.spec_from_file_location("cells", Path(__file__).with_name("cells.py"))
CELLS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CELLS)

DRAWS = 1000
ERROR = float(np.sqrt(0.95 * 0.05 / DRAWS))  # of each share, by chance


SHORT = {"8 classes, the small group has errors of its own": 0.91}
"""Where the aim of 0.93 is missed, and what is reached: docs/coverage.md says so."""


@pytest.mark.long
@pytest.mark.parametrize("name", list(CELLS.cells()))
def test_intervals_cover_the_truth_and_tests_keep_their_size(name, record_property):
    found = CELLS.study(name, DRAWS)
    record_property("found", found)
    for figure, share in found.items():
        if figure.startswith("coverage"):
            assert share >= SHORT.get(name, 0.93) - 2 * ERROR, (figure, share)
        elif figure.startswith("power"):
            assert found["power, Westfall-Young"] >= found["power, Holm"]
        else:
            assert share <= 0.055 + 2 * ERROR, (figure, share)


@pytest.mark.parametrize("name", ["10 positives in the small group", "ten groups"])
def test_intervals_cover_the_truth_in_a_quick_look(name):
    """Of 40 shares of 0.95 fewer than 33 hold once in 5,000 looks; the bootstrap of EO held in 0.83."""
    found = CELLS.study(name, 40)
    assert min(share for figure, share in found.items() if figure.startswith("coverage")) >= 33 / 40


def rates_of(gap):
    """Selection and true-positive rates of the latent-score model of `cells.py`, (S, label)."""
    mean = np.array([[0, 1.5], [gap / 2, 1.5 + gap]])
    return norm.cdf(mean - 0.75)


PREVALENCE = np.array([0.3, 0.5])


def truth(gap):
    positive = rates_of(gap)
    selected = (1 - PREVALENCE) * positive[:, 0] + PREVALENCE * positive[:, 1]
    return {
        "demographic_parity_difference": float(np.ptp(selected)),
        "equal_opportunity_difference": float(np.ptp(positive[:, 1])),
    }


def change_coverage(n, gaps, draws):
    """Share of intervals of the change between two tables, whose gaps are given, that hold the truth."""
    rng = np.random.default_rng([n, *(int(100 * g) for g in gaps)])
    rates = {
        "demographic_parity_difference": lambda t: tables.selection_rates(t)[..., 1:],
        "equal_opportunity_difference": tables.opportunity_rates,
    }
    first, second = (truth(gap) for gap in gaps)
    hits = dict.fromkeys(rates, 0)
    for seed in range(draws):
        s, y, first_score, second_score = simulate_pair(rng, n, gaps)
        cell = ((s * 2 + y) * 2 + (first_score >= 0.5)) * 2 + (second_score >= 0.5)
        units = collapse([cell], [16], None)
        fine = all_replicates(units, 400, np.random.default_rng(seed)).reshape(-1, 2, 2, 2, 2)
        own = units.counts.reshape(1, 2, 2, 2, 2)
        for name, rate in rates.items():
            value = tuple(rate(own.sum(axis))[0] for axis in (4, 3))
            repeated = tuple(rate(fine.sum(axis)) for axis in (4, 3))
            found = length_change(value, repeated, tables.largest_gap, 0.95).interval
            hits[name] += found.low - 1e-9 <= second[name] - first[name] <= found.high + 1e-9
    return {name: count / draws for name, count in hits.items()}


def simulate_pair(rng, n, gaps):
    """Groups, labels and two scores of the same images that share 0.7 of their variance."""
    s = rng.integers(0, 2, n)
    y = (rng.random(n) < PREVALENCE[s]).astype(int)
    shared = np.sqrt(0.7) * rng.normal(size=n)
    latent = [1.5 * y + g * s * (1 + y) / 2 + shared + np.sqrt(0.3) * rng.normal(size=n) for g in gaps]
    return s, y, *(norm.cdf(value - 0.75) for value in latent)


@pytest.mark.long
@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.3, 0.0), (0.3, 0.1), (0.3, 0.3)])
@pytest.mark.parametrize("n", [500, 2000])
def test_intervals_of_changes_cover_the_truth(n, gaps):
    draws = 400
    error = np.sqrt(0.95 * 0.05 / draws)
    for name, share in change_coverage(n, gaps, draws).items():
        assert 0.93 - 2 * error <= share, (name, share)  # near zero they may be wider than needed


def test_intervals_of_changes_cover_a_gap_that_went_away():
    found = change_coverage(2000, (0.3, 0.0), 60)
    assert min(found.values()) > 0.88  # the percentile interval of equal opportunity covers 0.86 of the time


def test_the_page_shows_what_was_counted(monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(root / "benchmarks")
    found = importlib.util.spec_from_file_location("counted", root / "benchmarks" / "coverage.py")
    counted = importlib.util.module_from_spec(found)
    found.loader.exec_module(counted)
    table = counted.Table(root / "docs" / "figures" / "coverage.csv", counted.FIELDS)
    page = (root / "docs" / "coverage.md").read_text(encoding="utf-8")
    for line in counted.markdown(table.read()):
        assert line in page, line
