"""The audit's figures against the functions it is made of, and its behaviour at the edges."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fairdx import metrics
from fairdx.auditing import audit, evaluate, json_schema
from fairdx.core.errors import InputError
from fairdx.metrics.causal import effects


def make(n=600, seed=0, images=2):
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // images
    sex = np.array(["F", "M"])[rng.integers(0, 2, n)[patient]]
    age = np.array(["old", "young"])[rng.integers(0, 2, n)[patient]]
    y = (rng.random(n) < np.where(sex == "F", 0.5, 0.3)).astype(int)
    score = 1 / (1 + np.exp(-(2 * y + 0.5 * (sex == "F") + rng.normal(size=n) - 1.2)))
    return y, score, sex, age, patient


@pytest.fixture(scope="module")
def result():
    y, score, sex, age, patient = make()
    return audit(
        y,
        score,
        sensitive_features={"sex": sex, "age": age},
        patients=patient,
        n_replicates=300,
        covariates={"age": age},
        compare_to=score**2,
        reference={"sex": "M"},
    )


def test_values_are_those_of_the_functions(result):
    y, score, sex, age, _ = make()
    d = score >= 0.5
    gaps = result.gaps["sex"]
    for name in (
        "demographic_parity_difference",
        "equal_opportunity_difference",
        "equalized_odds_difference",
        "approximate_diagnosis_fairness",
    ):
        assert gaps[name].estimate.value == pytest.approx(
            getattr(metrics, name)(y, d, sensitive_features=sex)
        )
    for name in ("auroc_gap", "equity_scaled_auroc"):
        assert gaps[name].estimate.value == pytest.approx(
            getattr(metrics, name)(y, score, sensitive_features=sex)
        )
    rates = metrics.group_rates(y, d, sensitive_features=sex)
    for name, by_group in rates.items():
        for group, value in by_group.items():
            assert result.by_group["sex"][group][name].value == pytest.approx(value)
    assert result.overall["auroc"].value == pytest.approx(metrics.auroc(y, score))
    assert result.overall["brier_score"].value == pytest.approx(metrics.brier_score(y, score))
    calibrated = metrics.calibration(y, score)
    for name, value in calibrated.items():
        assert result.overall[name].value == pytest.approx(value, abs=0.01)
    own = effects(y, d, sensitive_features=sex, reference="M")[0]
    assert result.effects["sex"]["F"]["direct_effect"].value == pytest.approx(own.direct_effect)
    adjusted = effects(y, d, sensitive_features=sex, reference="M", covariates={"age": age})[0]
    assert result.adjusted_effects["sex"]["F"]["direct_effect"].value == pytest.approx(adjusted.direct_effect)


def test_intersections_are_audited(result):
    assert list(result.attributes) == ["sex", "age", "sex × age"]
    groups = result.attributes["sex × age"].groups
    assert set(groups) == {"F × old", "F × young", "M × old", "M × young"}
    assert sum(groups.values()) == 600
    assert sum(result.attributes["sex"].patients.values()) == 300


def test_explorer_gives_what_an_audit_at_that_threshold_gives(result):
    y, score, sex, *_ = make()
    explored = result.explorer["sex"]
    at = len(explored.thresholds) // 3
    d = score >= explored.thresholds[at]
    for name in ("demographic_parity_difference", "approximate_diagnosis_fairness"):
        expected = getattr(metrics, name)(y, d, sensitive_features=sex)
        assert explored.gaps[name].value[at] == pytest.approx(expected)
        assert explored.gaps[name].low[at] <= explored.gaps[name].high[at]
    assert explored.selected_positives["F"][at] == int((d & (y == 1) & (sex == "F")).sum())
    expected = effects(y, d, sensitive_features=sex, reference="M")[0].direct_effect
    assert explored.effects["F"]["direct_effect"].value[at] == pytest.approx(expected)
    assert 0.5 in explored.thresholds


def test_curves_end_where_they_must(result):
    curves = result.curves["sex"]["F"]
    assert (curves.roc_fpr[0], curves.roc_tpr[0]) == (0, 0)
    assert (curves.roc_fpr[-1], curves.roc_tpr[-1]) == (1, 1)
    area = np.trapezoid(curves.roc_tpr, curves.roc_fpr)
    assert area == pytest.approx(result.by_group["sex"]["F"]["auroc"].value, abs=1e-3)
    images = sum(curves.histogram_negative) + sum(curves.histogram_positive)
    assert images == result.attributes["sex"].groups["F"] == sum(curves.calibration_count)


def test_comparison_is_after_less_before(result):
    change = result.comparison["overall"]["accuracy"]
    assert change.difference.value == pytest.approx(change.after - change.before)
    auc = result.comparison["overall"]["auroc"]
    assert auc.before == pytest.approx(auc.after)  # squaring keeps the order
    assert "DeLong" in auc.method or "Obuchowski" in auc.method
    assert "approximate_diagnosis_fairness" in result.comparison["sex"]


def test_tests_are_corrected_over_all(result):
    p = np.array([t.p_value for t in result.tests])
    assert np.nanmin(p) * len(p) == pytest.approx(min(t.p_holm for t in result.tests))
    assert all(t.p_value <= t.p_bh <= t.p_holm for t in result.tests)
    adf = next(
        t for t in result.tests if t.attribute == "sex" and t.metric == "approximate_diagnosis_fairness"
    )
    assert adf.method == "permutation of groups of patients, studentised"


def test_json_follows_the_published_schema(result):
    loaded = json.loads(result.to_json())
    schema = json_schema()
    definition = schema["$defs"]["AuditResult"]
    assert set(loaded) == set(definition["properties"])
    assert loaded["gaps"]["sex"]["auroc_gap"]["estimate"]["value"] == pytest.approx(
        result.gaps["sex"]["auroc_gap"].estimate.value
    )
    assert loaded["schema_version"] == schema["version"]
    jsonschema.validate(loaded, schema)
    published = Path(__file__).parents[2] / "docs" / "audit.schema.json"
    # To publish a new version: json.dumps(json_schema(), indent=2, ensure_ascii=False)
    assert json.loads(published.read_text(encoding="utf-8")) == schema


def test_frame_has_every_estimate(result):
    frame = result.to_frame()
    assert len(frame) > 100
    row = frame.query("attribute == 'sex' and group == 'F' and metric == 'direct_effect'")
    assert row["value"].item() == result.effects["sex"]["F"]["direct_effect"].value


def test_notes_say_what_was_found_and_what_cannot_be(result):
    kinds = [note.kind for note in result.notes]
    assert kinds == sorted(kinds, key=["finding", "caution", "limit"].index)
    text = " ".join(note.text for note in result.notes)
    assert "decided positive" in text
    assert "nothing causes both the group and the disease" in text


def torch_tensor(values):
    return pytest.importorskip("torch").tensor(values)


@pytest.mark.parametrize("convert", [pd.Series, pl.Series, list, torch_tensor])
def test_same_seed_same_result_from_any_container(convert):
    y, score, sex, age, patient = make(200)
    text = list if convert is torch_tensor else convert  # tensors hold no text
    first = audit(y, score, sensitive_features={"sex": sex, "age": age}, patients=patient, n_replicates=50)
    second = audit(
        convert(y),
        convert(score),
        sensitive_features={"sex": text(sex), "age": text(age)},
        patients=convert(patient),
        n_replicates=50,
    )
    one, two = (json.loads(r.to_json()) for r in (first, second))
    del one["created"], two["created"]
    assert one == two


def test_data_frames_of_attributes():
    y, score, sex, age, _ = make(200)
    columns = {"sex": sex, "age": age}
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns)):
        found = audit(y, score, sensitive_features=frame, n_replicates=20)
        assert list(found.attributes) == ["sex", "age", "sex × age"]


def test_small_groups_are_reported_but_not_compared():
    y, score, sex, *_ = make()
    sex = sex.astype(object)
    sex[0] = "X"
    found = audit(y, score, sensitive_features={"sex": sex}, n_replicates=100)
    assert found.attributes["sex"].excluded == ["X"]
    assert "X" in found.by_group["sex"]
    assert np.isnan(found.by_group["sex"]["X"]["auroc"].value)
    assert list(found.effects["sex"]) == ["F"] or list(found.effects["sex"]) == ["M"]
    assert any("X (1)" in note.text for note in found.notes)


def test_a_rate_of_one_gets_an_interval():
    y = np.tile([0, 1], 100)
    found = audit(y, np.where(y, 0.9, 0.1), sensitive_features=np.repeat(["a", "b"], 100), n_replicates=100)
    tpr = found.by_group["group"]["a"]["tpr"]
    assert (tpr.value, tpr.high, tpr.method) == (1.0, 1.0, "Wilson")
    assert tpr.low == pytest.approx(1 - 1.96**2 / (50 + 1.96**2), abs=1e-4)


def test_the_interval_of_the_equity_scaled_auc_reaches_fair_models():
    """With equal groups it is the AUC itself; percentiles of its replicates all lie below."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 600), rng.integers(0, 4, 600)
    score = norm.cdf(1.5 * y + rng.normal(size=600) - 0.75)
    found = audit(y, score, sensitive_features=group, n_replicates=60, n_permutations=20)
    gap, auroc = found.gaps["group"]["equity_scaled_auroc"].estimate, found.overall["auroc"]
    assert gap.value < auroc.low
    assert gap.high == pytest.approx(auroc.high, rel=1e-3)  # widened for the smallest group
    assert gap.low < norm.cdf(1.5 / np.sqrt(2)) < gap.high


def test_multi_class_and_multi_label():
    rng = np.random.default_rng(0)
    s, y = rng.integers(0, 2, 300), rng.integers(0, 3, 300)
    p = rng.dirichlet([1, 1, 1], 300)
    found = audit(y, p, sensitive_features=s, n_replicates=50)
    assert (found.task, list(found.per_label)) == ("multiclass", ["0", "1", "2"])
    expected = metrics.approximate_diagnosis_fairness(y, p.argmax(1), sensitive_features=s)
    assert found.gaps["group"]["approximate_diagnosis_fairness"].estimate.value == pytest.approx(expected)
    findings = pd.DataFrame({"edema": rng.integers(0, 2, 300), "nodule": rng.integers(0, 2, 300)})
    found = audit(findings, rng.random((300, 2)), sensitive_features=s, n_replicates=50)
    assert (found.task, list(found.per_label)) == ("multilabel", ["edema", "nodule"])
    json.loads(found.to_json())


def test_bca_changes_intervals_a_little():
    y, score, sex, _, patient = make(300)
    plain, bca = (
        audit(y, score, sensitive_features=sex, patients=patient, n_replicates=400, interval=kind)
        for kind in ("percentile", "bca")
    )
    a, b = (r.by_group["group"]["F"]["tpr"] for r in (plain, bca))
    assert b.method == "bca"
    assert (a.low, a.high) != (b.low, b.high)
    assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.04)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"y_true": np.ones(60, int)}, "single class 1"),
        ({"y_score": np.full(60, 2.0)}, r"\[0, 1\]"),
        ({"sensitive_features": ["a"] * 60}, "single value"),
        ({"sensitive_features": np.arange(60) * 4 + np.arange(60) // 30}, None),
        ({"sensitive_features": ["a"] * 59}, "differ in length"),
        ({"reference": "c"}, "no group"),
        ({"threshold": 2.0}, "threshold"),
        ({"level": 95}, "level"),
        ({"n_replicates": 1}, "n_replicates"),
        ({"min_group_size": 0}, "min_group_size is 0"),
        ({"interval": "normal"}, "interval"),
        ({"compare_to": [0.5]}, "differ in length"),
    ],
)
def test_bad_arguments(change, told):
    arguments = {
        "y_true": np.tile([0, 1], 30),
        "y_score": np.linspace(0, 1, 60),
        "sensitive_features": np.repeat(["a", "b"], 30),
        "n_replicates": 50,
    }
    arguments.update(change)
    y, p = arguments.pop("y_true"), arguments.pop("y_score")
    if told is None:  # sixty groups of one: a result, with nothing compared
        found = audit(y, p, **arguments)
        assert any("fewer than two groups" in note.text for note in found.notes)
        return
    with pytest.raises(InputError, match=told):
        audit(y, p, **arguments)


def test_too_many_groups_look_like_an_identifier():
    with pytest.raises(InputError, match="identifier"):
        audit(np.tile([0, 1], 500), np.linspace(0, 1, 1000), sensitive_features=np.arange(1000))


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_evaluate_does_not_depend_on_the_order_or_names(seed):
    y, score, sex, _, patient = make(200, seed)
    order = np.random.default_rng(seed).permutation(200)
    first = evaluate(y, score, sensitive_features=sex, patients=patient, n_replicates=20, reference="F")
    names = np.where(sex == "F", "z", "a")[order]
    second = evaluate(
        y[order],
        score[order],
        sensitive_features=names,
        patients=patient[order],
        n_replicates=20,
        reference="z",
    )
    for name, estimate in first.items():
        assert second[name].value == pytest.approx(estimate.value, abs=1e-12, nan_ok=True)


def test_evaluate_of_class_probabilities():
    rng = np.random.default_rng(0)
    y, p, s = rng.integers(0, 3, 400), rng.dirichlet([1, 1, 1], 400), rng.integers(0, 2, 400)
    found = evaluate(y, p, sensitive_features=s, n_replicates=50)
    assert found["auroc"].value == pytest.approx(metrics.auroc(y, p))
    expected = metrics.equalized_odds_difference(y, p.argmax(1), sensitive_features=s)
    assert found["equalized_odds_difference"].value == pytest.approx(expected)
    both = found["direct_effect"].value + found["indirect_effect"].value
    assert found["total_effect"].value == pytest.approx(both, abs=1e-15)


def test_the_audit_does_not_import_torch():
    code = "import sys, fairdx; fairdx.audit; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
