"""AUC by pairs of groups against scikit-learn, and the bound of equal rates against Fairlearn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fairdx.metrics.pairs import equalized_auroc_bound, pair_aurocs, within_group_auroc
from fairdx.metrics.rates import UndefinedMetricWarning


def population(n=600, seed=0):
    rng = np.random.default_rng(seed)
    group, label = rng.integers(0, 3, n), rng.integers(0, 2, n)
    score = np.round(label + 0.8 * group + rng.normal(size=n), 1)  # with ties
    return label, score, group


def test_each_pair_of_groups_is_an_auc_of_its_own():
    label, score, group = population()
    areas, names = pair_aurocs(label, score, sensitive_features=group)
    assert names == ("0", "1", "2")
    for ill in range(3):
        for well in range(3):
            rows = ((label == 1) & (group == ill)) | ((label == 0) & (group == well))
            assert areas[ill, well] == pytest.approx(roc_auc_score(label[rows], score[rows]))


def test_the_auc_is_their_mean_by_pairs_and_within_groups_the_diagonal():
    label, score, group = population()
    areas, _ = pair_aurocs(label, score, sensitive_features=group)
    ill, well = (np.bincount(group[label == y], minlength=3) for y in (1, 0))
    pairs = np.outer(ill, well)
    assert (areas * pairs).sum() / pairs.sum() == pytest.approx(roc_auc_score(label, score))
    own = np.average(np.diag(areas), weights=np.diag(pairs))
    assert within_group_auroc(label, score, sensitive_features=group) == pytest.approx(own)


def test_moving_a_whole_group_changes_nothing_within_groups():
    label, score, group = population()
    moved = score + 100.0 * group
    assert within_group_auroc(label, moved, sensitive_features=group) == pytest.approx(
        within_group_auroc(label, score, sensitive_features=group)
    )


def test_an_empty_cell_is_nan_and_said():
    label, score, group = population()
    label = np.where(group == 1, 0, label)
    areas, _ = pair_aurocs(label, score, sensitive_features=group)
    assert np.isnan(areas[1]).all()
    assert np.isfinite(areas[[0, 2]]).all()
    with pytest.warns(UndefinedMetricWarning, match="'1' lacks a class"):
        assert np.isnan(equalized_auroc_bound(label, score, sensitive_features=group))
    with pytest.warns(UndefinedMetricWarning, match="no group has both"):
        assert np.isnan(within_group_auroc(group == 1, score, sensitive_features=group))


def test_the_bound_of_two_hulls_that_cross_by_hand():
    """Group a reaches (0, 1/2), group b (1/2, 1); the lower of the hulls is the diagonal's mirror pair.

    Hull a: (0, 1/2) to (1, 1). Hull b: (0, 0) to (1/2, 1) to (1, 1). They cross at f = 1/3.
    Area: (1/3)(2/3)/2 + (2/3)(2/3 + 1)/2 = 1/9 + 5/9.
    """
    label = [1, 1, 0, 0, 1, 1, 0, 0]
    score = [0.9, 0.1, 0.5, 0.5, 0.5, 0.5, 0.9, 0.1]
    # b: one healthy patient above both ill ones, one below. Its hull: (1/2, 1) beats (1/2, 0).
    found = equalized_auroc_bound(label, score, sensitive_features=list("aaaabbbb"))
    assert found == pytest.approx(2 / 3)


def test_no_equalized_odds_decision_of_fairlearn_lies_above_the_bound():
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.base import BaseEstimator, ClassifierMixin

    label, score, group = population(2000)
    bound = equalized_auroc_bound(label, score, sensitive_features=group)

    class Given(ClassifierMixin, BaseEstimator):
        def fit(self, x, y):
            self.classes_ = np.unique(y)
            return self

        def predict(self, x):
            return np.asarray(x)[:, 0]

    fitted = ThresholdOptimizer(
        estimator=Given().fit(None, label),
        constraints="equalized_odds",
        objective="balanced_accuracy_score",
        predict_method="predict",
        prefit=True,
    )
    fitted.fit(score[:, None], label, sensitive_features=group)
    decided = fitted._pmf_predict(score[:, None], sensitive_features=group)[:, 1]
    balanced = 0.5 + 0.5 * (decided[label == 1].mean() - decided[label == 0].mean())
    # A concave curve through (f, t) has at least the area of the two lines, which is the balanced accuracy.
    assert balanced <= bound + 1e-3
    assert bound <= roc_auc_score(label[group == 0], score[group == 0]) + 0.1
