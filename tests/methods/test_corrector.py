"""The corrector on numbers whose truth is known: what can be removed goes, what cannot is left alone."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import ks_2samp
from sklearn.metrics import log_loss

from fairdx.core.errors import InputError
from fairdx.methods import corrector
from fairdx.methods.base import Features, Spec
from fairdx.methods.corrector import Corrector, CorrectorConfig
from fairdx.methods.out_of_fold import out_of_fold_cells, splits, unseen
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.metrics.pairs import within_group_auroc
from fairdx.metrics.scores import mean_approximate_diagnosis_fairness
from fairdx.models.diagnosis import Diagnosis
from fairdx.models.networks import Diagnoser

SPEC = Spec(1, 32, 2, 2, group_names=("a", "b"))
QUICK = CorrectorConfig(weights=(4.0, 16.0), steps=15, maps=False)


@pytest.fixture(scope="module")
def model():
    found = pretraining(PretrainingConfig(encoder="test_resnet"), SPEC, seed=0)[0]
    return found.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)  # batches are drawn from the state that a run's stage sets


def population(model: Diagnoser, n=1500, *, gap, seed=0):
    """The score adds `gap` times a feature that tells the group, and nothing of the disease."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, n)
    label = (rng.random(n) < 0.3 + 0.1 * group).astype(np.int64)
    embedding = rng.normal(size=(n, model.features or 0))
    embedding[:, 0] += 2 * group
    embedding[:, 1] += 1.2 * label
    odds = 1.5 * embedding[:, 1] + gap * embedding[:, 0]
    return Features(embedding, np.stack([0 * odds, odds], 1), label, group, np.arange(n) // 2)


def corrected(method, features):
    diagnosis = Diagnosis(*(torch.tensor(part).float() for part in features[:2]))
    logit = method.fair.corrected(diagnosis).detach().double().numpy()
    return logit[:, 1] - logit[:, 0]


def judged(score, features):
    given = {"sensitive_features": features.group}
    return (
        within_group_auroc(features.label, score, **given),
        mean_approximate_diagnosis_fairness(features.label, score, **given),
    )


@pytest.mark.parametrize("forget", [False, True])
def test_a_gap_that_tells_nothing_of_the_disease_goes_on_new_patients(model, forget):
    """Leaving feature 0 out would be perfect: that is what is compared with. `forget`: others were learnt."""
    method = Corrector.build(QUICK, SPEC, model, seed=0)
    train, validation = (population(model, gap=0.6, seed=seed) for seed in (1, 2))
    if forget:  # a model that knows its training images: their scores say nothing of others
        train = train._replace(logit=train.logit + 3.0 * np.stack([0 * train.label, train.label], 1))
    record = method.solve(train, validation)
    new = population(model, 6000, gap=0.6, seed=3)
    odds = new.logit[:, 1] - new.logit[:, 0]
    before, after = judged(odds, new), judged(corrected(method, new), new)
    ideal = judged(new.embedding[:, 1], new)
    assert record["learnt_by_heart"] == forget
    assert not record.get("note")
    assert after[1] < before[1] / 10
    assert after[0] > ideal[0] - 0.01
    score = corrected(method, new)
    for y in (0, 1):
        own = [score[(new.label == y) & (new.group == s)] for s in (0, 1)]
        assert ks_2samp(*own).statistic < 0.08


@pytest.mark.parametrize("maps", [True, False])
def test_a_group_that_only_maps_show_is_taken_out_where_they_are_looked_at(model, maps):
    """The embedding tells of the group no more than the score does: without maps order has to pay."""
    method = Corrector.build(
        CorrectorConfig(budget=1.0, weights=(20.0, 80.0), steps=10, maps=maps), SPEC, model, seed=0
    )

    def images(n, seed):
        rng = np.random.default_rng(seed)
        drawn = population(model, n, gap=0.6, seed=seed)
        leaked = drawn.embedding[:, 0].copy()
        drawn.embedding[:, 0] = rng.normal(size=n)
        drawn.embedding[:, 1] = drawn.logit[:, 1]
        statistics = rng.normal(size=(n, method.residual.features - model.features))
        if maps:
            statistics[:, 5] = leaked
        return drawn._replace(embedding=np.concatenate([drawn.embedding, statistics], 1))

    method.solve(images(3000, 1), images(3000, 2))
    new = images(6000, 3)
    before, after = judged(new.logit[:, 1], new), judged(corrected(method, new), new)
    assert after[1] < before[1] / 10
    assert (after[0] > before[0]) == maps


def test_without_a_gap_beyond_chance_the_model_is_left_alone_and_that_is_said(model, caplog):
    method = Corrector.build(QUICK, SPEC, model, seed=0)
    same = population(model, gap=0.0)
    record = method.solve(same, same)
    assert "the model is left alone" in record["note"]
    assert record["note"] in caplog.text
    odds = same.logit[:, 1] - same.logit[:, 0]
    np.testing.assert_allclose(corrected(method, same), odds, atol=1e-5)


def test_a_gap_that_cannot_be_told_from_the_disease_is_not_bought_beyond_the_budget(model):
    """The group is nowhere but in the score itself: any correction would have to flatten the score."""
    rng = np.random.default_rng(5)
    n = 1500
    group, label = rng.integers(0, 2, n), rng.integers(0, 2, n)
    embedding = rng.normal(size=(n, model.features))
    embedding[:, 1] += 1.2 * label + 0.5 * group
    odds = 1.5 * embedding[:, 1]
    hard = Features(embedding, np.stack([0 * odds, odds], 1), label, group)
    method = Corrector.build(QUICK.model_copy(update={"budget": 0.0}), SPEC, model, seed=0)
    record = method.solve(hard, hard)
    score = corrected(method, hard)
    lost = judged(odds, hard)[0] - judged(score, hard)[0]
    assert record.get("note") or lost < 0.01


def test_guesses_are_of_patients_that_were_not_fitted_to(model):
    """Labels drawn at random: a fit knows its own patients, and out of fold nobody knows anything."""
    rng = np.random.default_rng(6)
    n = 400
    features = population(model, n, gap=0.0)._replace(
        label=rng.integers(0, 2, n), group=rng.integers(0, 2, n), embedding=rng.normal(size=(n, 300))
    )
    found = out_of_fold_cells(unseen(features, features), 2, penalty=1e-2)
    cell = features.group * 2 + features.label
    assert log_loss(cell, softmax(found, axis=1)) > np.log(4) - 0.02
    for fitted, left in splits(features):
        assert not set(features.patient[fitted]) & set(features.patient[left])


def test_three_groups_and_a_given_weight(model):
    spec = SPEC._replace(groups=3)
    method = Corrector.build(CorrectorConfig(weights=(20.0,), steps=15, maps=False), spec, model, seed=0)
    rng = np.random.default_rng(7)
    features = population(model, 3000, gap=0.0)
    group = rng.integers(0, 3, 3000)
    embedding = rng.normal(size=features.embedding.shape)
    embedding[:, :3] += 2 * np.eye(3)[group]
    odds = 1.5 * features.embedding[:, 1] + embedding[:, :3] @ np.array([0.0, 0.5, 1.0])
    embedding[:, 3] = features.embedding[:, 1]
    three = Features(embedding, np.stack([0 * odds, odds], 1), features.label, group)
    method.solve(three, three)
    assert judged(corrected(method, three), three)[1] < judged(odds, three)[1] / 5


def test_a_weight_that_is_given_is_not_begun_with(model, monkeypatch):
    """Begun with a large weight, the steps at it alone leave twice as much as the way up to it does."""
    features, new = (population(model, n, gap=0.6, seed=seed) for n, seed in ((3000, 1), (6000, 3)))

    def after():
        torch.manual_seed(0)
        method = Corrector.build(
            CorrectorConfig(weights=(15.0,), fidelity=0.3, maps=False), SPEC, model, seed=0
        )
        method.solve(features, features)
        return judged(corrected(method, new), new)

    ramped = after()
    monkeypatch.setattr(corrector, "WEIGHTS", ())
    assert ramped[1] < judged(new.logit[:, 1], new)[1] / 50
    assert ramped[1] < after()[1] / 2
    assert ramped[0] > judged(new.embedding[:, 1], new)[0] - 0.005


def test_several_classes_are_refused(model):
    with pytest.raises(InputError, match="3 classes"):
        Corrector.build(QUICK, SPEC._replace(classes=3), model, seed=0)
