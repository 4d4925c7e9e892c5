"""Pooled folds: every image once, decided as its own fold decided."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fairdx.core.errors import InputError
from fairdx.metrics.rates import accuracy, approximate_diagnosis_fairness
from fairdx.study.plan import plan_runs
from fairdx.study.pool import pool_folds, shifted
from fairdx.study.run import StudyRequest, run_study
from fairdx.study.settings import load_study

FOLDED = ("study.seeds=[5]", "study.folds=3")


def test_scores_keep_their_order_and_the_threshold_moves_to_a_half():
    scores = np.array([0.0, 0.01, 0.2, 0.3, 0.9, 1.0])
    moved = shifted(scores, 0.2)
    assert moved[2] == 0.5
    assert (np.diff(moved) > 0).all()
    np.testing.assert_array_equal(moved >= 0.5, scores >= 0.2)
    np.testing.assert_allclose(shifted(scores, 0.5)[1:-1], scores[1:-1])
    odds = moved[3] / (1 - moved[3])
    assert odds == pytest.approx((0.3 / 0.7) / (0.2 / 0.8))
    assert np.isfinite(shifted(scores, 0.0)).all()
    assert np.isfinite(shifted(scores, 1.0)).all()


def test_pooled_figures_are_those_of_all_test_images_together(runs, study_file, tmp_path):
    out = tmp_path / "out"
    path = study_file()
    run_study(StudyRequest(path, "compare", (*FOLDED, "run.evaluation.replicates=50"), out))
    table = pd.read_parquet(out / "study.parquet")
    pooled = pd.read_parquet(out / "pooled.parquet").set_index("method")
    assert table["fold"].tolist() == [0, 1, 2] * 2
    assert pooled["seed"].isna().all()
    assert pooled["fold"].isna().all()
    for method in ("vanilla", "ours"):
        folds = [
            pd.read_parquet(out / folder / "predictions.parquet")
            for folder in table.loc[table["method"] == method, "folder"]
        ]
        test = pd.concat([part[part["split"] == "test"] for part in folds])
        assert test["image"].is_unique
        row = pooled.loc[method]
        assert row["accuracy"] == pytest.approx(accuracy(test["label"], test["decision"]))
        assert row["approximate_diagnosis_fairness"] == pytest.approx(
            approximate_diagnosis_fairness(test["label"], test["decision"], sensitive_features=test["sex"])
        )
        assert row["auroc"] == pytest.approx(roc_auc_score(test["label"], test["score"]))  # thresholds: 1/2
        assert row["auroc/low"] < row["auroc"] < row["auroc/high"]
    assert "3 folds pooled" in (out / "table.md").read_text()


def test_folds_that_are_not_all_there_are_not_pooled_and_a_repeated_image_is_refused(
    runs, study_file, tmp_path
):
    out, path = tmp_path / "out", study_file()
    runs.fails = lambda settings: settings.data.fold == 2 and settings.method_name == "vanilla"
    run_study(StudyRequest(path, "compare", (*FOLDED, "run.evaluation.replicates=20"), out))
    assert pd.read_parquet(out / "pooled.parquet")["method"].tolist() == ["ours"]
    plan = plan_runs(load_study(path, "compare", (*FOLDED, "run.evaluation.replicates=20")), path)
    ours = [run for run in plan if run.method == "ours"]
    first, second = (out / "runs" / run.key / "predictions.parquet" for run in ours[:2])
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=r"test the image .* twice"):
        pool_folds(ours, out)
