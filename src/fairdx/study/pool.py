"""Cross-validated studies: the test predictions of all folds together, every image once.

Decisions are pooled as they were made, each at the threshold of its own fold. Scores of two folds are on
different scales; for the AUROC each is shifted, as log odds, so that its fold's threshold sits at 1/2:
expit(logit(score) - logit(threshold)). The pooled AUROC is that of the shifted scores. Probabilities of more
than two classes have no threshold and are pooled as they are.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdx.auditing.evaluate import evaluate
from fairdx.core.errors import InputError
from fairdx.inference.uncertainty import Estimate
from fairdx.runs.files import PREDICTIONS, RESULTS
from fairdx.runs.folder import read_predictions
from fairdx.study.plan import PlannedRun
from fairdx.study.rows import metric_columns, rows_frame, run_row

EDGE = 1e-9
"""Scores and thresholds are kept this far from 0 and 1, whose log odds are infinite."""


def shifted(scores: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Shifts scores, as log odds, so that `threshold` becomes 1/2.

    Args:
        scores: In [0, 1].
        threshold: In [0, 1].
    """
    from scipy.special import expit, logit

    odds = logit(np.clip(scores, EDGE, 1 - EDGE)) - logit(np.clip(threshold, EDGE, 1 - EDGE))
    moved: NDArray[np.float64] = expit(odds)
    return moved


def pool_folds(plan: Sequence[PlannedRun], folder: Path) -> pd.DataFrame:
    """Evaluates the pooled folds of each method and setting whose folds are all done, in this folder.

    Args:
        plan: All runs of a cross-validated study.
        folder: The study's folder.

    Returns:
        Rows as in the table of runs, with neither seed nor fold.

    Raises:
        InputError: Two folds of a method test the same image.
    """
    groups: dict[tuple[Any, ...], list[PlannedRun]] = {}
    for run in plan:
        groups.setdefault((run.data, run.method, *map(str, run.varied.values())), []).append(run)
    pooled = []
    for runs in groups.values():
        places = [folder / "runs" / run.key for run in runs]
        if all((place / RESULTS).exists() for place in places):
            pooled.append(_pooled_row(runs, places))
    return rows_frame(pooled)


def _pooled_row(runs: Sequence[PlannedRun], places: Sequence[Path]) -> dict[str, Any]:
    results = [json.loads((place / RESULTS).read_text()) for place in places]
    row = run_row(runs[0], None) | {"seed": None, "folder": None}
    row["key"] = "+".join(run.key for run in runs)
    row["fold"] = None
    row["seconds"] = sum(result["seconds"] for result in results)
    estimates = _evaluated(runs, results, _tables(runs, places))
    return row | metric_columns({name: _plain(value) for name, value in estimates.items()})


def _tables(runs: Sequence[PlannedRun], places: Sequence[Path]) -> list[pd.DataFrame]:
    tables = []
    for run, place in zip(runs, places, strict=True):
        table = read_predictions(place / PREDICTIONS)
        chosen = (table["split"] == "test") & (table["method"] == run.settings.method_name)
        tables.append(table[chosen])
    images = pd.concat([table["image"] for table in tables])
    if images.duplicated().any():
        raise InputError(
            f"the folds of {runs[0].method} test the image {images[images.duplicated()].iloc[0]} twice"
        )
    return tables


def _evaluated(
    runs: Sequence[PlannedRun], results: Sequence[dict[str, Any]], tables: Sequence[pd.DataFrame]
) -> dict[str, Estimate]:
    settings, data = runs[0].settings, results[0]["data"]
    table = pd.concat(tables, ignore_index=True)
    given: dict[str, Any] = {
        "sensitive_features": table[data["attribute"]].to_numpy(),
        "patients": table["patient"].to_numpy(),
        "n_replicates": settings.evaluation.replicates,
        "seed": settings.seed,
        "reference": data["reference"],
        "level": settings.evaluation.level,
    }
    label = table["label"].to_numpy()
    if "score" not in table:
        scores = table[[f"score_{name}" for name in data["classes"]]].to_numpy()
        return evaluate(label, scores, **given)
    found = evaluate(label, table["decision"].to_numpy(float), **given)
    thresholds = [
        result["methods"][run.settings.method_name]["threshold"]
        for run, result in zip(runs, results, strict=True)
    ]
    scores = np.concatenate(
        [shifted(part["score"].to_numpy(float), at) for part, at in zip(tables, thresholds, strict=True)]
    )
    return {**found, "auroc": evaluate(label, scores, **given)["auroc"]}


def _plain(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
