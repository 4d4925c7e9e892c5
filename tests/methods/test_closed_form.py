"""Methods in closed form against what they promise, on numbers whose truth is known."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.linear_model import LogisticRegression

from fairdx.core.errors import InputError
from fairdx.methods.base import Features, Spec
from fairdx.methods.concept_erasure import ConceptErasure, ConceptErasureConfig, erasure
from fairdx.methods.guessed_transport import GuessedTransport, GuessedTransportConfig
from fairdx.methods.optimal_transport import OptimalTransport, OptimalTransportConfig
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.methods.score_shift import ScoreShift, ScoreShiftConfig, group_shift
from fairdx.methods.transport_maps import transport_maps
from fairdx.models.diagnosis import Diagnosis
from fairdx.models.rules import changed_scores


def population(n=4000, groups=3, seed=0, features=8):
    """Embeddings that hold label and group; the group is commoner among the ill."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    group = (rng.random(n) * (groups - 0.5 * label)).astype(np.int64).clip(0, groups - 1)
    directions = rng.normal(size=(groups + 1, features))
    mixing = rng.normal(size=(features, features))
    embedding = (
        2 * label[:, None] * directions[-1] + directions[group] + rng.normal(size=(n, features)) @ mixing
    )
    return embedding, label, group


@pytest.fixture(scope="module")
def spec():
    return Spec(1, 32, 2, 3, group_names=("a", "b", "c"))


@pytest.fixture(scope="module")
def model(spec):
    return pretraining(PretrainingConfig(), spec, seed=0)[0].eval().requires_grad_(False)


def test_within_each_label_groups_have_the_same_mean_after_erasure():
    embedding, label, group = population()
    projection, center = erasure(embedding, label, group)
    erased = embedding - (embedding - center) @ projection.T
    for y in (0, 1):
        means = [erased[(label == y) & (group == s)].mean(0) for s in range(3)]
        np.testing.assert_allclose(means[1:], [means[0]] * 2, atol=1e-8)
    np.testing.assert_allclose(projection @ projection, projection, atol=1e-8)  # a projection
    assert np.linalg.matrix_rank(projection) <= 4  # two directions for each label


def test_nothing_linear_in_the_group_is_left_and_the_diagnosis_stays():
    embedding, label, group = population(groups=2)
    projection, center = erasure(embedding, label, group)
    erased = embedding - (embedding - center) @ projection.T
    for y in (0, 1):
        rows = label == y
        found = LogisticRegression(C=1e3, max_iter=5000).fit(erased[rows], group[rows])
        assert np.ptp(found.predict_proba(erased[rows])[:, 1]) < 0.05  # it says the same of everybody
        told = LogisticRegression(C=1e3, max_iter=5000).fit(embedding[rows], group[rows])
        assert np.ptp(told.predict_proba(embedding[rows])[:, 1]) > 0.5
    before, after = (
        LogisticRegression(max_iter=5000).fit(x, label).score(x, label) for x in (embedding, erased)
    )
    assert after > before - 0.05


def test_erasing_the_group_altogether_is_the_theorem_of_the_paper():
    """LEACE by its formula: r(x) = x - Sxz (W Sxz)^+ W (x - E x), with the same covariance."""
    embedding, _, group = population(groups=2)
    projection, center = erasure(embedding, np.zeros(len(group), dtype=np.int64), group)
    x, z = embedding - embedding.mean(0), (group - group.mean())[:, None]
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    whiten = vectors @ np.diag(values**-0.5) @ vectors.T
    cross = x.T @ z / len(x)
    by_formula = cross @ np.linalg.pinv(whiten @ cross) @ whiten
    np.testing.assert_allclose(projection, by_formula, atol=1e-8)
    np.testing.assert_allclose(center, embedding.mean(0))


def test_the_shift_makes_mean_logits_within_labels_agree_where_the_group_is_certain():
    rng = np.random.default_rng(1)
    label, group = rng.integers(0, 2, 6000), rng.integers(0, 3, 6000)
    offset = np.array([0.0, 0.7, -0.4])
    odds = 2.0 * label + offset[group] + rng.normal(size=6000)
    logit = np.stack([np.zeros(6000), odds], 1)
    shift = group_shift(logit, label, group, 3)
    np.testing.assert_allclose(shift[:, 1] - shift[:, 0], offset, atol=0.1)
    moved = odds - (shift[:, 1] - shift[:, 0])[group]
    for y in (0, 1):
        means = [moved[(label == y) & (group == s)].mean() for s in range(3)]
        assert np.ptp(means) < 0.1


def test_prevalence_is_no_part_of_the_shift():
    """Logits that differ by the label alone, other prevalences: nothing to shift."""
    group = np.repeat([0, 1], 500)
    label = np.concatenate([np.arange(500) < 100, np.arange(500) < 300]).astype(np.int64)
    logit = np.stack([np.zeros(1000), 2.0 * label], 1)
    np.testing.assert_allclose(group_shift(logit, label, group, 2), 0, atol=1e-12)


@pytest.mark.parametrize(("strength", "distance"), [(0.0, 0.2), (1.0, 0.02)])
def test_after_the_whole_way_the_groups_scores_have_one_distribution(strength, distance):
    """The same prevalence in both groups: no weights, and the two-sample distance is the judge."""
    rng = np.random.default_rng(2)
    label = np.tile([0, 1], 10_000)
    group = np.repeat([0, 1], 10_000)
    odds = (
        1.5 * label
        + np.where(group == 1, 0.8, 0.0)
        + rng.normal(size=20_000) * np.where(group == 1, 1.3, 1.0)
    )
    at, maps = transport_maps(odds, label, group, 2, strength=strength)
    assert (np.diff(at) > 0).all()
    assert (np.diff(maps, axis=1) >= -1e-9).all()  # the order within a group stays
    moved = np.where(group == 0, np.interp(odds, at, maps[0]), np.interp(odds, at, maps[1]))
    found = ks_2samp(moved[group == 0], moved[group == 1]).statistic
    assert found >= distance if strength == 0 else found < distance


def test_prevalence_is_no_difference_to_take_out():
    """Equal scores within labels, other prevalences: the maps move nothing."""
    rng = np.random.default_rng(3)
    group = np.repeat([0, 1], 40_000)
    label = (rng.random(80_000) < np.where(group == 0, 0.2, 0.5)).astype(np.int64)
    odds = 2.0 * label + rng.normal(size=80_000)
    at, maps = transport_maps(odds, label, group, 2, strength=1.0)
    inside = (at > -2) & (at < 4)
    np.testing.assert_allclose(maps[:, inside], np.tile(at[inside], (2, 1)), atol=0.1)


def test_the_rule_of_a_model_that_is_told_the_group(spec, model):
    rng = np.random.default_rng(4)
    label, group = rng.integers(0, 2, 3000), rng.integers(0, 3, 3000)
    odds = 2.0 * label + 0.5 * group + rng.normal(size=3000)
    p = 1 / (1 + np.exp(-odds))
    method = OptimalTransport.build(OptimalTransportConfig(), spec, model, seed=0)
    rule = method.adjust(np.stack([1 - p, p], 1), label, group, seed=0)
    changed = rule(np.stack([1 - p, p], 1), group)
    np.testing.assert_allclose(changed.sum(1), 1)
    for s in range(3):
        rows = group == s
        assert (
            np.argsort(changed[rows, 1], kind="stable") == np.argsort(p[rows], kind="stable")
        ).mean() > 0.99
    names = np.array(["a", "b", "c"], dtype=object)[group]
    np.testing.assert_array_equal(changed_scores(rule.card, p, names), changed[:, 1])
    with pytest.raises(InputError, match="those of group 1"):
        method.adjust(np.stack([1 - p, p], 1), np.where(group == 1, 0, label), group, seed=0)


def test_the_network_of_the_guessed_maps_is_their_mean_by_posterior(spec, model):
    rng = np.random.default_rng(5)
    method = GuessedTransport.build(GuessedTransportConfig(), spec, model, seed=0)
    n = 600
    group, label = rng.integers(0, 3, n), rng.integers(0, 2, n)
    embedding = rng.normal(size=(n, 512)) + 0.3 * np.eye(3)[group] @ rng.normal(size=(3, 512))
    odds = 2.0 * label + 0.5 * group + rng.normal(size=n)
    features = Features(embedding, np.stack([0 * odds, odds], 1), label, group)
    method.solve(features, features)
    part = method.transport
    diagnosis = Diagnosis(torch.tensor(embedding).float(), torch.tensor(features.logit).float())
    posterior = part.posterior(diagnosis).numpy()
    at, target = part.at.numpy(), part.target.numpy()
    inside = np.clip(odds, at[0], at[-1])
    by_hand = sum(posterior[:, s] * np.interp(inside, at, target[s]) for s in range(3)) + odds - inside
    np.testing.assert_allclose(part(diagnosis)[:, 1], by_hand, atol=1e-4)
    assert (posterior.argmax(1) == group).mean() > 0.9


@pytest.mark.parametrize(
    ("method", "config"),
    [(ConceptErasure, ConceptErasureConfig()), (ScoreShift, ScoreShiftConfig())],
)
def test_a_solved_method_changes_what_it_says(method, config, spec, model):
    rng = np.random.default_rng(6)
    n = 800
    group, label = rng.integers(0, 3, n), rng.integers(0, 2, n)
    embedding = rng.normal(size=(n, 512)) + np.eye(3)[group] @ rng.normal(size=(3, 512))
    logit = model.head(torch.tensor(embedding).float()).detach().double().numpy()
    built = method.build(config, spec, model, seed=0)
    built.solve(Features(embedding, logit, label, group), Features(embedding, logit, label, group))
    part = built.fair.correction
    edited = part.edit(torch.tensor(embedding).float())
    after = part(Diagnosis(edited, model.head(edited))).detach().double().numpy()

    def spread(scores):
        odds = scores[:, 1] - scores[:, 0]
        return max(np.ptp([odds[(label == y) & (group == s)].mean() for s in range(3)]) for y in (0, 1))

    assert spread(after) < 0.2 * spread(logit)
