"""Figures within groups against the metrics themselves, and paired draws against a known difference."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fairdx.metrics.pairs import equalized_auroc_bound, pair_aurocs, within_group_auroc
from fairdx.metrics.rates import approximate_diagnosis_fairness
from fairdx.metrics.scores import mean_approximate_diagnosis_fairness
from fairdx.study.run import StudyRequest, run_study
from fairdx.study.within import Lines, Scored, with_choices, within_table, within_text


def scored(score, label, group, patient, fold=None):
    decision = (score >= np.median(score)).astype(np.int64)
    given = {"label": label, "group": group, "patient": patient, "fold": fold}
    return Scored.of(score, decision=decision, groups=2, **given)


def population(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    group, label = rng.integers(0, 2, n), rng.integers(0, 2, n)
    return label + 0.7 * group + rng.normal(size=n), label, group, np.arange(n) // 2


def test_each_figure_is_that_of_the_metric_of_its_name():
    score, label, group, patient = population()
    made = scored(score, label, group, patient)
    found, given = made.figures(), {"sensitive_features": group}
    assert found[0] == pytest.approx(roc_auc_score(label, score))
    assert found[1] == pytest.approx(within_group_auroc(label, score, **given))
    assert found[2] == pytest.approx(approximate_diagnosis_fairness(label, made.positive, **given))
    assert found[3] == pytest.approx(mean_approximate_diagnosis_fairness(label, score, **given), rel=1e-2)
    np.testing.assert_allclose(found[4:], pair_aurocs(label, score, **given)[0].ravel())
    assert made.bound() == equalized_auroc_bound(label, score, **given)


def test_a_weight_of_two_is_an_image_twice():
    score, label, group, patient = population(400)
    twice = np.repeat(np.arange(400), 1 + patient % 2)
    again = scored(score[twice], label[twice], group[twice], patient[twice])
    median = np.median(score)
    again = Scored(
        again.patient, again.cell, again.place, (again.score >= median).astype(np.int64), 2, again.score
    )
    weighted = scored(score, label, group, patient).figures(1.0 + patient % 2)
    np.testing.assert_allclose(weighted, again.figures(), rtol=1e-9)


def test_a_method_that_removes_the_gap_has_the_larger_area_surely():
    score, label, group, patient = population()
    flat = score - 0.7 * group
    lines = Lines(
        {
            ("skin", "vanilla", ""): [scored(score, label, group, patient)],
            ("skin", "half", ""): [scored(score - 0.35 * group, label, group, patient)],
            ("skin", "whole", ""): [scored(flat, label, group, patient)],
        },
        ("a", "b"),
        int(patient.max()) + 1,
    )
    frame = within_table(lines).set_index("method")
    assert frame.loc["whole", "within_change"] == pytest.approx(0)  # a group is moved as a whole
    assert frame.loc["whole", "within_low"] == pytest.approx(0)
    assert frame.loc["whole", "times_low"] > 4
    assert frame.loc["whole", "more than half, low"] > 0
    assert frame.loc["half", "more than whole, high"] < 0
    assert frame.loc["vanilla", "hypervolume"] == 0


def test_a_setting_is_chosen_by_the_other_folds_and_within_the_budget():
    """`strong` is fairer everywhere and costs too much; `good` is best but in fold 0, where it is useless."""
    score, label, group, patient = population()
    fold, noise = patient % 5, np.random.default_rng(1).normal(size=len(score))
    good = np.where(fold == 0, noise, score - 0.7 * group)
    settings = {"strong": score - 0.7 * group + 2 * noise, "good": good, "weak": score - 0.1 * group}
    lines = Lines(
        {
            ("skin", "vanilla", ""): [scored(score, label, group, patient, fold)],
            **{
                ("skin", "ours", key): [scored(s, label, group, patient, fold)] for key, s in settings.items()
            },
        },
        ("a", "b"),
        int(patient.max()) + 1,
    )
    chosen = with_choices(lines).scored[("skin", "ours", "chosen out of fold")][0].score
    np.testing.assert_array_equal(chosen[fold == 0], good[fold == 0])  # the others say so
    np.testing.assert_array_equal(chosen[fold == 1], settings["weak"][fold == 1])  # with fold 0, it costs


def test_a_study_writes_the_table_of_its_pooled_folds(runs, study_file, tmp_path):
    out = tmp_path / "out"
    settings = ("study.seeds=[5]", "study.folds=3", "run.evaluation.replicates=50")
    run_study(StudyRequest(study_file(), "compare", settings, out))
    frame = pd.read_csv(out / "within.csv").set_index("method")
    table = pd.read_parquet(out / "study.parquet")
    folders = table.loc[table["method"] == "ours", "folder"]
    test = pd.concat([pd.read_parquet(out / folder / "predictions.parquet") for folder in folders])
    test = test[test["split"] == "test"]
    expected = within_group_auroc(test["label"], test["score"], sensitive_features=test["sex"])
    assert frame.loc["ours", "within"] == pytest.approx(expected)  # all thresholds are 1/2
    assert "| ours |" in (out / "within.md").read_text()


def test_lines_that_the_table_lacks_are_named(runs, study_file, tmp_path):
    out = tmp_path / "out"
    runs.fails = lambda settings: (settings.method_name, settings.seed) == ("fair_diagnosis", 0)
    run_study(StudyRequest(study_file(), "compare", ("study.seeds=[0, 1]",), out))
    text = (out / "within.md").read_text()
    assert "Not in the table, since a run of theirs is missing" in text
    assert text.rstrip().endswith(": ours, phantom.")


def test_signs_of_markdown_and_a_vanilla_in_capitals():
    score, label, group, patient = population(400)
    lines = {("a|b", name, ""): [scored(score * k, label, group, patient)] for name, k in NAMES.items()}
    frame = within_table(Lines(lines, ("x|y", "<z>"), patient.max() + 1))
    assert frame["within_change"].tolist() == [0, pytest.approx(0)]
    head, rule, *rows = [line for line in within_text(frame).splitlines() if line.startswith("|")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in (head, rule, *rows)}
    assert len(columns) == 1
    assert "&lt;z>" in head


NAMES = {"Vanilla": 1.0, "m | n": 2.0}
