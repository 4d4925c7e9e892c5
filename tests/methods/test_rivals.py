"""Rivals behind the frozen model, against what their papers promise."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from fairdx.methods.base import Features, Spec
from fairdx.methods.last_layer import LastLayer, LastLayerConfig
from fairdx.methods.linear_post import LinearPost, LinearPostConfig, cell_prices
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.methods.residual_head import ResidualHead, ResidualHeadConfig
from fairdx.metrics.scores import mean_approximate_diagnosis_fairness
from fairdx.models.diagnosis import Diagnosis

SPEC = Spec(1, 32, 2, 2, group_names=("a", "b"))


@pytest.fixture(scope="module")
def model():
    found = pretraining(PretrainingConfig(encoder="test_resnet"), SPEC, seed=0)[0]
    return found.eval().requires_grad_(False)


def population(model, n=3000, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, n)
    label = (rng.random(n) < np.where(group == 1, 0.5, 0.2)).astype(np.int64)
    embedding = rng.normal(size=(n, model.features))
    embedding[:, 0] += 2 * group
    embedding[:, 1] += 1.5 * label
    odds = 1.5 * embedding[:, 1] + 0.6 * embedding[:, 0]
    return Features(embedding, np.stack([0 * odds, odds], 1), label, group)


def scores(method, features):
    diagnosis = Diagnosis(*(torch.tensor(part).float() for part in features[:2]))
    logit = method.fair.corrected(diagnosis).detach().double().numpy()
    return logit[:, 1] - logit[:, 0]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (LastLayer, LastLayerConfig()),
        (LinearPost, LinearPostConfig()),
        (ResidualHead, ResidualHeadConfig()),
    ],
)
def test_on_new_patients_less_is_left_of_a_gap_that_can_be_removed(kind, config, model):
    method = kind.build(config, SPEC, model, seed=0)
    known, new = population(model, seed=1), population(model, 6000, seed=2)
    torch.manual_seed(0)
    method.solve(known, known)
    left = [
        mean_approximate_diagnosis_fairness(new.label, score, sensitive_features=new.group)
        for score in (new.logit[:, 1] - new.logit[:, 0], scores(method, new))
    ]
    assert left[1] < left[0] / 3


def test_a_balanced_head_has_the_weights_of_scikit_learn_on_balanced_copies(model):
    """Weights n / (cells n_sy) are what repeating images would be: checked against whole copies."""
    from sklearn.linear_model import LogisticRegression

    drawn = population(model, 1200)
    place = drawn.label * 2 + drawn.group
    counts = (120, 60, 30, 60)
    rows = np.concatenate([np.flatnonzero(place == c)[:n] for c, n in enumerate(counts)])
    features = Features(*(part[rows] for part in drawn[:4]))
    method = LastLayer.build(LastLayerConfig(penalty=1.0), SPEC, model, seed=0)
    method.solve(features, features)
    cell = features.label * 2 + features.group
    rows = np.repeat(np.arange(len(cell)), (120 // np.array(counts))[cell])
    mean, spread = features.embedding.mean(0), features.embedding.std(0)
    standard = (features.embedding - mean) / spread
    # Copies make the loss larger than the weights do, whose mean is 1: the penalty is scaled back.
    penalty = len(cell) / len(rows)
    fitted = LogisticRegression(C=penalty, max_iter=5000).fit(standard[rows], features.label[rows])
    np.testing.assert_allclose(
        scores(method, features), fitted.decision_function(standard), atol=0.05, rtol=0.02
    )


@pytest.mark.parametrize("tolerance", [0.0, 0.05])
def test_the_prices_are_the_dual_of_the_linear_programme_of_the_paper(tolerance):
    """The primal by another solver: the best randomised decisions with equal rates, on the same images."""
    rng = np.random.default_rng(3)
    cells = rng.dirichlet([2, 1, 1, 2], 400)
    shares = cells.mean(0)
    gain = cells[:, 1] + cells[:, 3] - shares[1] - shares[3]
    ratio = (cells / shares).reshape(400, 2, 2)
    differences = (ratio - ratio.mean(1, keepdims=True)).reshape(400, 4)
    bounds = np.concatenate([differences.T, -differences.T]) / 400
    solved = linprog(-gain / 400, A_ub=bounds, b_ub=np.full(8, tolerance), bounds=[(0, 1)] * 400)
    price = cell_prices(cells, tolerance=tolerance)
    value = cells[:, 1] + cells[:, 3] - cells @ price - shares[1] - shares[3]
    decided = (value > 0).astype(float)
    rates = np.abs(differences.T @ decided) / 400
    assert (rates <= tolerance + 0.02).all()
    assert (gain * decided).mean() == pytest.approx(-solved.fun, abs=2e-3)
