"""Weights of images, and thresholds of findings, groups and models, through `audit`."""

import json

import fairlearn.metrics as fl
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from fairdx import metrics
from fairdx.auditing import audit
from fairdx.auditing.models import audit_models
from fairdx.auditing.page import render_audit
from fairdx.auditing.threshold import Thresholds
from fairdx.core.errors import InputError
from fairdx.inference.delong import delong

QUICK = {"n_replicates": 300, "n_permutations": 99, "explore": False}


def images(n=600, seed=0):
    rng = np.random.default_rng(seed)
    s, y = rng.choice(["a", "b", "c"], n), rng.integers(0, 2, n)
    score = np.clip(0.3 * y + 0.1 * (s == "a") + 0.7 * rng.random(n), 0, 1)
    return y, score, s, rng.gamma(1, size=n)


@pytest.fixture(scope="module")
def weighted():
    y, score, s, w = images()
    return audit(y, score, sensitive_features=s, sample_weight=w, **QUICK)


THEIRS = {
    "auroc": lambda y, p, d, w: sk.roc_auc_score(y, p, sample_weight=w),
    "average_precision": lambda y, p, d, w: sk.average_precision_score(y, p, sample_weight=w),
    "brier_score": lambda y, p, d, w: sk.brier_score_loss(y, p, sample_weight=w),
    "accuracy": lambda y, p, d, w: sk.accuracy_score(y, d, sample_weight=w),
    "tpr": lambda y, p, d, w: sk.recall_score(y, d, sample_weight=w),
    "fpr": lambda y, p, d, w: 1 - sk.recall_score(y, d, sample_weight=w, pos_label=0),
    "ppv": lambda y, p, d, w: sk.precision_score(y, d, sample_weight=w),
    "selection_rate": lambda y, p, d, w: np.average(d, weights=w),
    "prevalence": lambda y, p, d, w: np.average(y, weights=w),
}


@pytest.mark.parametrize("name", list(THEIRS))
def test_weighted_figures_are_those_of_scikit_learn(weighted, name):
    y, score, s, w = images()
    for group, rows in {"all": s != "", **{g: s == g for g in "abc"}}.items():
        found = weighted.overall if group == "all" else weighted.by_group["group"][group]
        expected = THEIRS[name](y[rows], score[rows], score[rows] >= 0.5, w[rows])
        assert found[name].value == pytest.approx(expected, abs=1e-9)
        assert found[name].low < expected < found[name].high


@pytest.mark.parametrize(
    "name",
    [
        "demographic_parity_difference",
        "equalized_odds_difference",
        "equal_opportunity_difference",
        "demographic_parity_ratio",
        "equalized_odds_ratio",
    ],
)
def test_weighted_gaps_and_ratios_are_those_of_fairlearn(weighted, name):
    y, score, s, w = images()
    expected = getattr(fl, name)(y, score >= 0.5, sensitive_features=s, sample_weight=w)
    assert weighted.gaps["group"][name].estimate.value == pytest.approx(expected, abs=1e-9)


def test_weighted_information_and_calibration(weighted):
    y, score, s, w = images()
    adf = metrics.approximate_diagnosis_fairness(y, score >= 0.5, sensitive_features=s, sample_weight=w)
    assert weighted.gaps["group"]["approximate_diagnosis_fairness"].estimate.value == pytest.approx(adf)
    own = metrics.calibration(y, score, sample_weight=w)["expected_calibration_error"]
    assert weighted.overall["expected_calibration_error"].value == pytest.approx(own)


def test_only_ratios_of_weights_count(weighted):
    y, score, s, w = images()
    again = audit(y, score, sensitive_features=s, sample_weight=250 * w, **QUICK)
    for name, one in weighted.by_group["group"]["a"].items():
        two = again.by_group["group"]["a"][name]
        assert (two.value, two.low, two.high) == pytest.approx((one.value, one.low, one.high), rel=1e-6)


def test_a_whole_weight_is_an_image_that_is_there_so_often():
    """Copies of an image that share a patient are what a weight stands for: all figures agree."""
    y, score, s, _ = images(800)
    w = np.random.default_rng(1).integers(1, 5, 800)
    one = audit(y, score, sensitive_features=s, sample_weight=w, **{**QUICK, "n_replicates": 2000})
    copies = np.repeat(np.arange(800), w)
    two = audit(
        y[copies],
        score[copies],
        sensitive_features=s[copies],
        patients=copies,
        **{**QUICK, "n_replicates": 2000},
    )
    for name, first in one.by_group["group"]["b"].items():
        second = two.by_group["group"]["b"][name]
        if name != "expected_calibration_error":  # what chance adds to it is that of independent images
            binned = name.startswith("calibration")  # in bins of the score, of which more images have more
            assert second.value == pytest.approx(first.value, abs=5e-3 if binned else 1e-9), name
            assert second.high - second.low == pytest.approx(first.high - first.low, rel=0.12), name
    for name, gap in one.gaps["group"].items():
        if name == "score_mutual_information":  # in bins of equally many images, which copies move
            continue
        other = two.gaps["group"][name].estimate
        assert other.value == pytest.approx(gap.estimate.value, abs=2e-3), name
        assert other.high - other.low == pytest.approx(gap.estimate.high - gap.estimate.low, rel=0.2), name


def test_the_effective_number_of_images_is_that_of_kish(weighted):
    _, _, s, w = images()
    assert weighted.n_effective == pytest.approx(w.sum() ** 2 / (w**2).sum())
    for group, effective in weighted.attributes["group"].effective.items():
        own = w[s == group]
        assert effective == pytest.approx(own.sum() ** 2 / (own**2).sum())
    assert any("Kish" in note.text for note in weighted.notes)


def test_the_variance_of_a_weighted_area_is_that_of_the_bootstrap():
    y, score, _, w = images(400)
    found = delong(y, score, sample_weight=w)
    assert found.auc[0] == pytest.approx(sk.roc_auc_score(y, score, sample_weight=w))
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 400, 400) for _ in range(600)]
    drawn = [sk.roc_auc_score(y[r], score[r], sample_weight=w[r]) for r in rows]
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(np.std(drawn), rel=0.12)


def test_weights_of_a_case_control_sample_undo_its_sampling():
    """Cases all kept, one control in ten: weights give the prevalence back, and no rate is left out."""
    rng = np.random.default_rng(3)
    y, s = (rng.random(20_000) < 0.03).astype(int), rng.integers(0, 2, 20_000)
    score = np.clip(0.4 * y + 0.6 * rng.random(20_000), 0, 1)
    kept = (y == 1) | (rng.random(20_000) < 0.1)
    w = np.where(y == 1, 1.0, 10.0)[kept]
    found = audit(y[kept], score[kept], sensitive_features=s[kept], sample_weight=w, **QUICK)
    assert found.overall["prevalence"].value == pytest.approx(y.mean(), rel=0.1)
    assert found.overall["ppv"].low < y[score >= 0.5].mean() < found.overall["ppv"].high
    tpr = found.by_group["group"]["0"]["tpr"]
    assert tpr.n == pytest.approx((y[kept & (s == 0)]).sum(), abs=1)
    assert found.gaps["group"]["equal_opportunity_difference"].left_out == []


def test_images_without_weight_are_left_out_and_other_weights_refused():
    y, score, s, w = images()
    found = audit(y, score, sensitive_features=s, sample_weight=np.where(np.arange(600) < 50, 0, w), **QUICK)
    assert found.n_images == 550
    assert any("50 of 600 images have the weight 0" in note.text for note in found.notes)
    with pytest.raises(InputError, match="negative"):
        audit(y, score, sensitive_features=s, sample_weight=-w, **QUICK)


def test_groups_have_thresholds_of_their_own():
    y, score, s, _ = images()
    other = np.where(np.arange(600) % 2, "x", "y")
    given = {"s": s, "other": other}
    found = audit(y, score, sensitive_features=given, threshold={"s:a": 0.7, "*": 0.4}, **QUICK)
    decided = score >= np.where(s == "a", 0.7, 0.4)
    for name, groups in given.items():
        expected = fl.equalized_odds_difference(y, decided, sensitive_features=groups)
        assert found.gaps[name]["equalized_odds_difference"].estimate.value == pytest.approx(expected)
    assert found.overall["accuracy"].value == pytest.approx((decided == y).mean())
    assert found.overall["auroc"].value == pytest.approx(sk.roc_auc_score(y, score))
    assert np.isnan(found.overall["net_benefit"].value)
    assert found.settings.thresholds == {"s:a": 0.7}
    assert any("0.7 for s:a and 0.4 for all others" in note.text for note in found.notes)
    explored = audit(y, score, sensitive_features=given, threshold={"s:a": 0.7}, **{**QUICK, "explore": True})
    assert explored.explorer == {}


def test_findings_have_thresholds_of_their_own():
    rng = np.random.default_rng(2)
    truth = pd.DataFrame({name: rng.integers(0, 2, 400) for name in ("edema", "nodule")})
    score = (0.3 * truth + 0.7 * rng.random((400, 2))).clip(0, 1)
    s = rng.choice(["a", "b"], 400)
    found = audit(truth, score, sensitive_features=s, threshold={"edema": 0.3}, **QUICK)
    for name, t in (("edema", 0.3), ("nodule", 0.5)):
        assert found.per_label[name].settings.threshold == t
        expected = (truth[name] == (score[name] >= t)).mean()
        assert found.per_label[name].overall["accuracy"].value == pytest.approx(expected)
    decided = score >= [0.3, 0.5]
    assert found.overall["accuracy"].value == pytest.approx(
        (decided == truth.astype(bool)).all(axis=1).mean()
    )


def test_the_second_score_and_models_have_thresholds_of_their_own():
    y, score, s, _ = images()
    after = np.clip(score * 0.6, 0, 1)
    found = audit(
        y, score, sensitive_features=s, compare_to=after, threshold={"compare": 0.3, "*": 0.5}, **QUICK
    )
    change = found.comparison["overall"]["accuracy"]
    assert (change.before, change.after) == pytest.approx(
        (((score >= 0.5) == y).mean(), ((after >= 0.3) == y).mean())
    )
    models = audit_models(
        y, score, {"B": after}, first="A", sensitive_features=s, threshold={"B": 0.3, "A": 0.6}, **QUICK
    )
    assert models.overall["accuracy"].value == pytest.approx(((score >= 0.6) == y).mean())
    assert models.models["B"].overall["accuracy"].value == pytest.approx(((after >= 0.3) == y).mean())
    change = models.models["B"].comparison["overall"]["accuracy"]
    assert change.before == pytest.approx(((score >= 0.6) == y).mean())


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ({"group:z": 0.4}, "nothing called 'group:z'"),
        ({"edema": 0.4}, "nothing called 'edema'"),
        ({"compare": 0.4}, "nothing called 'compare'"),
        ({"group:a": 1.4}, "the threshold of group:a is 1.4"),
        (float("nan"), "threshold is nan"),
        ("half", "threshold is half"),
    ],
)
def test_thresholds_of_nothing_are_refused(threshold, message):
    y, score, s, _ = images(100)
    with pytest.raises(InputError, match=message):
        audit(y, score, sensitive_features=s, threshold=threshold, **QUICK)


def test_an_image_has_one_threshold():
    y, score, s, _ = images(100)
    given = {"s": s, "t": s}
    with pytest.raises(InputError, match="an image has two"):
        audit(y, score, sensitive_features=given, threshold={"s:a": 0.4, "t:b": 0.5}, **QUICK)


def test_thresholds_in_single_precision_are_compared_in_it():
    score = np.float32([0.7, 0.3, 0.2, 0.9] * 20)
    y, s = np.array([1, 0, 0, 1] * 20), np.array(["a", "a", "b", "b"] * 20)
    found = audit(y, score, sensitive_features=s, threshold={"group:a": 0.7, "*": 0.9}, **QUICK)
    assert found.overall["accuracy"].value == 1


@pytest.mark.parametrize("texts", [["0.4", "0.5"], ["a=b"], ["x=0.2", "x=0.2"]])
def test_thresholds_of_the_command_line_that_cannot_be_read(texts):
    with pytest.raises(InputError, match="--threshold"):
        Thresholds.parse(texts)


def test_the_four_fifths_rule_in_words():
    rng = np.random.default_rng(5)
    s = np.repeat(["a", "b"], 2000)
    y = rng.integers(0, 2, 4000)
    for share, verdict in ((0.3, "the rule is broken"), (0.48, "the rule is kept")):
        score = np.where(rng.random(4000) < np.where(s == "a", 0.5, share), 0.9, 0.1)
        found = audit(y, score, sensitive_features=s, **QUICK)
        assert sum(verdict in note.text for note in found.notes) == 1
    found = audit(y[1900:2100], score[1900:2100], sensitive_features=s[1900:2100], **QUICK)
    assert any("the rule is not settled" in note.text for note in found.notes)


def test_the_decision_curve_of_a_group_is_the_net_benefit_with_a_band():
    y, score, s, _ = images(2000)
    found = audit(y, score, sensitive_features=s, **{**QUICK, "explore": True})
    explorer = found.explorer["group"]
    own = [t for t in range(len(explorer.thresholds)) if 0 < explorer.thresholds[t] < 0.9]
    for k in own[:: len(own) // 8]:
        t = explorer.thresholds[k]
        expected = metrics.net_benefit(y[s == "a"], score[s == "a"], t)
        assert explorer.benefit["a"].value[k] == pytest.approx(expected)
        assert explorer.benefit["a"].low[k] <= expected <= explorer.benefit["a"].high[k]
    assert found.by_group["group"]["a"]["net_benefit"].value == pytest.approx(
        metrics.net_benefit(y[s == "a"], score[s == "a"], 0.5)
    )


def test_figures_at_every_threshold_are_those_of_the_weighted_images():
    y, score, s, w = images(300, seed=3)
    w = np.where(s == "a", w / 1000, w)  # a group that counts next to nothing
    result = audit(y, score, sensitive_features=s, sample_weight=w, n_replicates=40)
    found = result.explorer["group"]
    for group in "abc":
        own = s == group
        for place, threshold in enumerate(found.thresholds):
            for name, decided, true in (
                ("npv", score < threshold, y == 0),
                ("ppv", score >= threshold, y == 1),
            ):
                rows = own & decided
                expected = np.average(true[rows], weights=w[rows]) if rows.any() else np.nan
                value = found.rates[group][name].value[place]
                assert value == pytest.approx(expected, abs=1e-6, nan_ok=True), (group, name, threshold)
    adf = found.gaps["approximate_diagnosis_fairness_corrected"]
    assert np.isfinite([adf.value[1:], adf.low[1:], adf.high[1:]]).all()  # at first all are decided positive
    kish = w[s == "a"].sum() ** 2 / (w[s == "a"] ** 2).sum()
    assert result.attributes["group"].effective["a"] == pytest.approx(kish, rel=1e-6)
    render_audit(result)


@pytest.mark.parametrize("scale", [1e-9, 1 / 300, 3.0, 1e12])
@pytest.mark.parametrize("clustered", [False, True])
def test_the_scale_of_weights_changes_no_digit(scale, clustered):
    y, score, s, w = images(300)
    patients = np.arange(300) // 2 if clustered else None

    def found(weight):
        result = audit(
            y, score, sensitive_features=s, sample_weight=weight, patients=patients, n_replicates=40
        )
        return {k: v for k, v in json.loads(result.to_json()).items() if k != "created"}

    assert found(w) == found(w * scale)
