"""Methods behind a frozen model on data that nobody would choose: a sentence, or a result that holds."""

import numpy as np
import pytest
import torch

from fairdx.core.errors import InputError
from fairdx.methods import METHODS
from fairdx.methods.base import Features, Spec
from fairdx.methods.linear_post import cell_prices
from fairdx.methods.out_of_fold import unseen
from fairdx.metrics.pairs import within_group_auroc
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel

FEATURES = 8


class Linear(DiagnosisModel):
    """Shows an embedding, and is never asked for more."""

    features = FEATURES

    def forward(self, image, edit=None):
        raise NotImplementedError


def population(n=600, *, seed=0, classes=2, groups=2):
    """The score holds the group (feature 0) beside the disease (feature 1)."""
    rng = np.random.default_rng(seed)
    group, label = rng.integers(0, groups, n), rng.integers(0, classes, n)
    embedding = rng.normal(size=(n, FEATURES))
    embedding[:, 0] += 2 * group
    embedding[:, 1] += 1.5 * label
    odds = 1.5 * embedding[:, 1] + 0.6 * embedding[:, 0]
    logit = odds[:, None] * np.arange(classes)
    return Features(embedding, logit, label, group)


def built(name, spec=None, **settings):
    method = METHODS[name]
    torch.manual_seed(0)
    spec = spec or Spec(1, 32, 2, 2, group_names=("a", "b"))
    return method.build(method.config_class(**settings), spec, Linear(), seed=0)


def taken(features, rows):
    return Features(*(None if column is None else column[rows] for column in features))


def odds_of(method, features):
    diagnosis = Diagnosis(*(torch.tensor(part).float() for part in features[:2]))
    with torch.no_grad():
        logit = method.fair.corrected(diagnosis).double().numpy()
    return logit[:, 1] - logit[:, 0]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("last_layer", {}),
        ("residual_head", {"steps": 60}),
        ("linear_post", {}),
        ("score_shift", {}),
        ("guessed_transport", {}),
        ("corrector", {"weights": (20.0,), "maps": False}),
    ],
)
@pytest.mark.parametrize("constant", [0.0, 1e6])
def test_a_feature_that_never_varied_says_nothing_where_it_does(name, settings, constant):
    """As a unit of a network that was silent on all images but the next."""
    fitted = [population(seed=seed) for seed in (0, 1)]
    silent = [one.embedding.copy() for one in fitted]
    for embedding in silent:
        embedding[:, 5] = constant
    with_silent = built(name, **settings)
    with_silent.solve(*(one._replace(embedding=e) for one, e in zip(fitted, silent, strict=True)))
    new = population(seed=2)
    usual, other = new.embedding.copy(), new.embedding.copy()
    usual[:, 5], other[:, 5] = constant, constant + 3
    scores = [odds_of(with_silent, new._replace(embedding=e)) for e in (usual, other)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    assert np.abs(scores[0] - (new.logit[:, 1] - new.logit[:, 0])).max() > 0.1  # it did correct something
    assert within_group_auroc(new.label, scores[0], sensitive_features=new.group) > 0.75


@pytest.mark.parametrize("name", ["last_layer", "score_shift"])
def test_several_classes_are_fitted(name):
    spec = Spec(1, 32, 3, 2, group_names=("a", "b"))
    train, validation = (population(seed=seed, classes=3) for seed in (0, 1))
    method = built(name, spec)
    method.solve(train, validation)
    assert np.isfinite(odds_of(method, validation)).all()


@pytest.mark.parametrize("known", [None, 0, 2])
def test_one_of_several_classes_that_was_learnt_by_heart_is_enough(known):
    train, validation = (population(seed=seed, classes=3) for seed in (0, 1))
    if known is not None:
        logit = train.logit.copy()
        logit[:, known] += 5.0 * (train.label == known)
        train = train._replace(logit=logit)
    pool = unseen(train, validation)
    assert len(pool.images.label) == (1200 if known is None else 600)


def test_a_cell_without_images_has_no_rate_that_others_are_pulled_to():
    """Without an ill patient in group b, the decisions on the ill are those of group a alone."""
    rng = np.random.default_rng(3)
    cells = rng.dirichlet([2, 2, 2], 5000)
    cells = np.column_stack([cells, np.zeros(5000)])  # (a, 0), (a, 1), (b, 0), (b, 1)
    price = cell_prices(cells, tolerance=0.0)
    assert price[1] == 0
    assert price[3] == 0
    assert abs(price[0]) > 1e-3  # the healthy of both groups are still made alike
    decided = cells[:, 1] - cells @ price > cells[:, 1].mean()
    rates = (cells[decided] / cells.mean(0).clip(1e-12)).sum(0)[[0, 2]] / 5000
    assert abs(rates[0] - rates[1]) < 0.01


@pytest.mark.parametrize("name", ["last_layer", "linear_post", "concept_erasure"])
def test_groups_with_few_images_of_a_label_are_named(name, caplog):
    def few(features):
        ill = np.flatnonzero((features.group == 1) & (features.label == 1))
        return taken(features, np.setdiff1d(np.arange(len(features.label)), ill[2:]))

    method = built(name)
    (stage,) = method.stages()
    record = stage.solve(few(population(seed=0)), few(population(seed=1)))
    assert "(b with label 1: 4)" in record["note"]
    assert record["note"] in caplog.text
    assert "note" not in (stage.solve(population(seed=0), population(seed=1)) or {})


def test_images_of_one_patient_are_refused_where_others_have_to_judge():
    images = population()._replace(patient=np.zeros(600, dtype=np.int64))
    with pytest.raises(InputError, match=r"it needs 5 or more, and its images are of 1; look at the column"):
        built("corrector", maps=False).solve(images, images)
