"""The correction for many tests, beside closed forms and beside Holm's."""

import numpy as np
import pytest
from scipy import stats

from fairdx.inference.uncertainty import holm
from fairdx.inference.westfall_young import step_down

B = 19_999


def test_independent_tests_are_corrected_as_sidak_has_it():
    null = np.random.default_rng(0).normal(size=(B, 6)) ** 2
    p = np.array([0.004, 0.9, 0.03, 0.2, 0.5, 0.6])
    found = step_down(p, null).p_values
    assert found[0] == pytest.approx(1 - (1 - 0.004) ** 6, abs=0.004)
    assert found[2] == pytest.approx(1 - (1 - 0.03) ** 5, abs=0.01)  # the smallest is no longer asked about
    assert (found <= holm(p) + 1e-12).all()


def test_normal_tests_that_go_together_have_the_tail_of_their_largest():
    m, shared = 5, 0.9
    rng = np.random.default_rng(1)
    z = np.sqrt(shared) * rng.normal(size=(B, 1)) + np.sqrt(1 - shared) * rng.normal(size=(B, m))
    covariance = shared + (1 - shared) * np.eye(m)
    p = 0.02
    bound = stats.norm.isf(p)
    expected = 1 - stats.multivariate_normal(cov=covariance).cdf(np.full(m, bound))
    found = step_down(np.array([p, 0.3, 0.4, 0.5, 0.6]), z)
    assert found.p_values[0] == pytest.approx(expected, abs=0.004)
    # What a test must reach to be found: the tail at which the largest of all is in its upper twentieth.
    grid = np.linspace(1.6, 2.6, 11)
    sizes = np.array([1 - stats.multivariate_normal(cov=covariance).cdf(np.full(m, g)) for g in grid])
    assert found.needed == pytest.approx(stats.norm.sf(np.interp(-0.05, -sizes, grid)), rel=0.1)


def test_tests_without_draws_count_as_bonferroni_has_it():
    p = np.array([0.001, np.nan, 0.02, 0.3])
    null = np.full((B, 4), np.nan)
    np.testing.assert_allclose(step_down(p, null).p_values, holm(p))
    null[:, 2] = np.random.default_rng(2).normal(size=B)
    assert step_down(p, null).p_values[0] == pytest.approx(0.003, abs=1e-3)
    assert step_down(np.array([np.nan]), null[:, :1]).p_values.tolist() == pytest.approx(
        [np.nan], nan_ok=True
    )


def test_one_family_in_twenty_without_any_difference_is_found():
    """1,000 families of eight dependent tests: a share of 0.05 lies below 0.067 nineteen times in twenty."""
    rng, m = np.random.default_rng(3), 8
    root = np.linalg.cholesky(0.7 ** np.abs(np.subtract.outer(np.arange(m), np.arange(m))))
    null = np.abs(rng.normal(size=(999, m)) @ root.T)
    p = 2 * stats.norm.sf(np.abs(rng.normal(size=(1000, m)) @ root.T))
    found = np.mean([(step_down(row, null).p_values <= 0.05).any() for row in p])
    by_holm = np.mean([(holm(row) <= 0.05).any() for row in p])
    assert 0.035 <= found <= 0.067
    assert by_holm < found
