import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdx.core.errors import InputError
from fairdx.study.front import hypervolume, hypervolumes, pareto_front
from fairdx.study.summary import Summary
from fairdx.study.tables import markdown

optuna_hypervolume = pytest.importorskip("optuna._hypervolume")

POINTS = st.lists(st.tuples(st.floats(0.5, 1), st.floats(0, 0.02)), min_size=1, max_size=12)


@given(POINTS)
def test_hypervolume_is_optunas(points):
    reference = (0.8, 0.01)
    minimised = np.array([[-auc, adf] for auc, adf in points])
    kept = minimised[(minimised[:, 0] <= -0.8) & (minimised[:, 1] <= 0.01)]
    expected = optuna_hypervolume.compute_hypervolume(kept, np.array([-0.8, 0.01])) if len(kept) else 0.0
    assert hypervolume(points, reference) == pytest.approx(expected, abs=1e-12)


def test_hypervolume_is_the_share_of_random_points_that_are_beaten():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(0.8, 1, 8), rng.uniform(0, 0.02, 8)])
    darts = np.column_stack([rng.uniform(0.8, 1, 100_000), rng.uniform(0, 0.01, 100_000)])
    beaten = ((points[:, None, 0] >= darts[:, 0]) & (points[:, None, 1] <= darts[:, 1])).any(0).mean()
    assert hypervolume(points, (0.8, 0.01)) == pytest.approx(beaten * 0.2 * 0.01, rel=0.02)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points):
    front = pareto_front(points)
    for (auc, adf), on_front in zip(points, front, strict=True):
        beaten = any(a >= auc and d <= adf and (a, d) != (auc, adf) for a, d in points)
        assert on_front == (not beaten)


def test_points_that_are_not_finite_count_for_nothing():
    points = [(0.9, 0.005), (np.nan, 0.001), (0.95, np.nan)]
    assert pareto_front(points).tolist() == [True, False, False]
    assert hypervolume(points, (0.8, 0.01)) == pytest.approx(0.1 * 0.005)


@pytest.fixture
def rows(row_maker):
    made = []
    for seed, shift in enumerate((-0.001, 0.0, 0.001)):
        made.append(
            row_maker(
                "vanilla",
                seed,
                settings={"method.eta": None},
                auroc=0.95 + shift,
                approximate_diagnosis_fairness=0.01,
            )
        )
        for eta, auc, adf in ((0.1, 0.95, 0.005), (0.2, 0.925, 0.0)):
            made.append(
                row_maker(
                    "ours",
                    seed,
                    settings={"method.eta": eta},
                    auroc=auc + shift,
                    approximate_diagnosis_fairness=adf + shift * 0.1 + 1e-4,
                )
            )
    return pd.DataFrame(made)


def test_hypervolumes_are_of_the_means_over_seeds(rows):
    found = hypervolumes(Summary(rows, ("method.eta",)), data="phantom")
    # By hand: 0.05 x (0.01 - 0.0051) + 0.025 x (0.0051 - 0.0001), of a rectangle of 0.05 x 0.01.
    assert found["ours"].value == pytest.approx((0.05 * 0.0049 + 0.025 * 0.005) / 0.0005)
    assert found["vanilla"].value == 0
    assert (found["ours"].points, found["ours"].seeds) == (2, 3)
    assert found["ours"].low < found["ours"].value < found["ours"].high


def test_the_jackknife_interval_is_students_where_the_area_is_linear(rows):
    one = rows[rows["method.eta"] != 0.2]
    found = hypervolumes(Summary(one, ("method.eta",)), data="phantom")["ours"]
    from scipy import stats

    shares = [
        (0.01 - adf) / 0.01 for adf in one.loc[one["method"] == "ours", "approximate_diagnosis_fairness"]
    ]
    expected = stats.t.interval(0.95, 2, np.mean(shares), stats.sem(shares))
    assert (found.low, found.high) == pytest.approx(expected)


def test_seeds_that_a_strength_lacks_are_left_out_of_all(rows):
    some = rows[~((rows["method.eta"] == 0.2) & (rows["seed"] == 2))]
    assert hypervolumes(Summary(some, ("method.eta",)), data="phantom")["ours"].seeds == 2


def test_tables_of_several_strengths_give_the_hypervolume(rows):
    text = markdown(Summary(rows, ("method.eta",)))
    assert "- phantom, ours: 0.740 (" in text
    assert "2 points, 3 seeds" in text
    assert "## Hypervolume" not in markdown(Summary(rows[rows["method.eta"] != 0.2], ("method.eta",)))


def test_without_vanilla_there_is_no_reference(rows):
    with pytest.raises(InputError, match="needs one line of vanilla on phantom"):
        hypervolumes(Summary(rows[rows["method"] == "ours"], ("method.eta",)), data="phantom")
