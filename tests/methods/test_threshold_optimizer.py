import sys

import numpy as np
import pytest
from fairlearn.postprocessing import ThresholdOptimizer as Reference
from sklearn.linear_model import LogisticRegression

from fairdx.core.errors import InputError
from fairdx.methods.base import Spec
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.methods.threshold_optimizer import ThresholdOptimizer, ThresholdOptimizerConfig, _decided
from fairdx.metrics.rates import equalized_odds_difference
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings


def make(classes=2, **changes):
    spec = Spec(1, 32, classes, 2)
    model = pretraining(PretrainingConfig(encoder="test_resnet"), spec, seed=0)[0]
    return ThresholdOptimizer.build(ThresholdOptimizerConfig(**changes), spec, model, seed=0)


def sample(n, seed=0):
    """Scores that favour group 1, as a fitted logistic regression gives them to Fairlearn and to us."""
    rng = np.random.default_rng(seed)
    group, label = rng.integers(0, 2, n), rng.integers(0, 2, n)
    feature = (label + 0.8 * group + rng.normal(size=n))[:, None]
    return feature, label, group


@pytest.fixture(scope="module")
def reference():
    feature, label, _ = sample(2000)
    return LogisticRegression().fit(feature, label)


@pytest.mark.parametrize("constraints", ["equalized_odds", "demographic_parity", "true_positive_rate_parity"])
def test_decisions_are_those_of_fairlearn_and_their_shares_its_probabilities(reference, constraints):
    feature, label, group = sample(2000)
    test, _, test_group = sample(400, seed=1)
    theirs = Reference(
        estimator=reference,
        constraints=constraints,
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="predict_proba",
    ).fit(feature, label, sensitive_features=group)
    probability = theirs._pmf_predict(test, sensitive_features=test_group)[:, 1]
    scores, test_scores = reference.predict_proba(feature), reference.predict_proba(test)
    method = make(constraints=constraints)
    draws = np.array(
        [
            method.adjust(scores, label, group, seed=seed)(test_scores, test_group)[:, 1] >= 0.5
            for seed in range(12)
        ]
    )
    certain = (probability == 0) | (probability == 1)
    assert certain.any()
    assert (draws[:, certain] == (probability[certain] == 1)).all()
    lots = draws[:, ~certain]
    assert lots.size
    error = 5 * np.sqrt(0.25 / lots.size)
    assert lots.mean() == pytest.approx(probability[~certain].mean(), abs=error)


def test_the_rule_brings_equalized_odds_on_other_patients():
    def gap(decision, label, group):
        return equalized_odds_difference(label, decision, sensitive_features=group)

    feature, label, group = sample(6000)
    test, test_label, test_group = sample(6000, seed=1)
    model = LogisticRegression().fit(feature, label)
    rule = make().adjust(model.predict_proba(feature), label, group, seed=0)
    scores = model.predict_proba(test)
    before = gap((scores[:, 1] >= 0.5).astype(int), test_label, test_group)
    adjusted = rule(scores, test_group)
    assert before > 0.2
    assert gap((adjusted[:, 1] >= 0.5).astype(int), test_label, test_group) < 0.05
    again = rule(scores, test_group)
    np.testing.assert_array_equal(adjusted, again)


def test_the_score_orders_as_the_model_within_a_decision_and_keeps_its_side():
    decision = np.array([0, 1, 0, 1, 0, 1])
    score = np.array([0.0, 0.0, 1.0, 1.0, 0.4, 0.6])
    found = _decided(decision, score)
    np.testing.assert_allclose(found.sum(1), 1)
    positive = found[:, 1]
    np.testing.assert_array_equal(positive >= 0.5, decision == 1)
    assert ((positive >= 0) & (positive <= 1)).all()
    for value in (0, 1):
        assert (np.argsort(positive[decision == value]) == np.argsort(score[decision == value])).all()


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(InputError, match="two classes, and the label has 3"):
        make(classes=3)
    scores = np.stack([np.linspace(1, 0, 8), np.linspace(0, 1, 8)], 1)
    label, group = np.array([0, 1] * 4), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(InputError, match=r"those of group 1 .* are all of one class"):
        make().adjust(scores, np.array([0, 1, 0, 1, 1, 1, 1, 1]), group, seed=0)
    rule = make().adjust(scores, label, group, seed=0)
    with pytest.raises(InputError, match="no thresholds for group 2"):
        rule(scores, group + 1)
    monkeypatch.setitem(sys.modules, "fairlearn.postprocessing", None)
    with pytest.raises(InputError, match=r"pip install 'fairdx\[study\]'"):
        make()


def test_a_run_reports_the_randomised_decisions_and_no_true_effects(small_phantom, tmp_path):
    settings = load_settings(
        None,
        (
            f"data.root={small_phantom.root}",
            "method.name=threshold_optimizer",
            "model.encoder=test_resnet",
            "model.epochs=1",
            "model.batch_size=16",
            "evaluation.replicates=20",
            "evaluation.true_effect_patients=16",
            "trainer.precision=fp32",
        ),
    )
    import pandas as pd

    figures = run(settings, tmp_path)["methods"]
    assert figures["threshold_optimizer"]["threshold"] == 0.5
    assert figures["threshold_optimizer"]["threshold_chosen_on"] == "validation"
    assert "true_direct_effect" in figures["vanilla"]
    assert "true_direct_effect" not in figures["threshold_optimizer"]
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    plain, adjusted = (
        table[(table["method"] == name) & (table["split"] == "test")].reset_index(drop=True)
        for name in ("vanilla", "threshold_optimizer")
    )
    np.testing.assert_allclose(adjusted["score"], (adjusted["decision"] + plain["score"]) / 2, atol=1e-12)
    assert figures["threshold_optimizer"]["accuracy"]["value"] == pytest.approx(
        (adjusted["decision"] == adjusted["label"]).mean()
    )
