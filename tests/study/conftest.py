"""Invented tables of runs, as a study writes them, and studies whose runs are made up in a moment."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdx.runs import run as experiment
from fairdx.training.fit import TrainingError

INSTANT = Path(__file__).with_name("instant.toml")

METRICS = {
    "auroc": (0.95, 0.002),
    "accuracy": (0.88, 0.004),
    "equal_opportunity_difference": (0.08, 0.01),
    "demographic_parity_difference": (0.15, 0.01),
    "approximate_diagnosis_fairness": (0.008, 0.001),
    "approximate_diagnosis_fairness_corrected": (0.0079, 0.001),
    "direct_effect": (0.08, 0.01),
    "true_direct_effect": (0.085, 0.01),
}


def make_row(method, seed, *, data="phantom", fold=None, needs_group=False, settings=None, **metrics):
    """One run; each metric as a value, or as (value, low, high)."""
    row = {"key": f"{method}-{seed}-{fold}-{settings}", "data": data, "method": method, "seed": seed}
    row |= {"fold": fold, **(settings or {}), "needs_group": needs_group, "seconds": 1.0}
    for name, value in metrics.items():
        ends = value if isinstance(value, tuple) else (value, value - 0.01, value + 0.01)
        row |= dict(zip((name, f"{name}/low", f"{name}/high"), ends, strict=True))
    return row


def make_study(methods, *, seeds=5, data=("phantom",), key=None):
    """Runs of methods given as {label: (values of the setting, factor on unfairness, loss of AUC)}."""
    rng = np.random.default_rng(1)
    rows = []
    for name in data:
        for label, (values, factor, lost) in methods.items():
            for place, value in enumerate(values):
                for seed in range(seeds):
                    strength = place / max(1, len(values) - 1)
                    metrics = {}
                    for metric, (centre, spread) in METRICS.items():
                        middle = (
                            centre - lost * (1 + strength)
                            if metric in ("auroc", "accuracy")
                            else max(centre * factor * (1 - 0.7 * strength), 3e-4)
                        )
                        metrics[metric] = middle + rng.normal(0, spread) * min(1.0, factor + 0.1)
                    rows.append(
                        make_row(
                            label,
                            seed,
                            data=name,
                            needs_group=label == "threshold_optimizer",
                            settings={key: value} if key else None,
                            **metrics,
                        )
                    )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def row_maker():
    return make_row


@pytest.fixture(scope="session")
def study_maker():
    return make_study


class InstantRuns:
    """Stands in for `experiment.run`: counts runs, and fails or is interrupted where it is told to."""

    def __init__(self):
        self.done = []
        self.fails = lambda settings: False
        self.interrupt_at = None

    def __call__(self, settings, folder, *, resume, stages, phantoms, beside_vanilla, hold):
        assert resume
        assert not beside_vanilla
        if self.interrupt_at == len(self.done):
            self.interrupt_at = None
            raise KeyboardInterrupt
        self.done.append(settings)
        if self.fails(settings):
            raise TrainingError("the loss is no longer finite")
        name = settings.method_name
        fair = getattr(settings.method, "eta", 0.0)
        table = predictions(settings, fair)
        table.to_parquet(folder / "predictions.parquet")
        value = {"value": 0.9 - fair / 10 + settings.seed / 1000, "low": 0.8, "high": 0.95}
        results = {
            "seconds": 1.5,
            "kept_epochs": {"pretrain": 1},
            "data": {
                "attribute": "sex",
                "reference": "male",
                "classes": ["no", "yes"],
                "groups": ["female", "male"],
            },
            "methods": {
                name: {
                    "auroc": value,
                    "accuracy": {**value, "value": None},
                    "approximate_diagnosis_fairness": {"value": 0.01, "low": 0.0, "high": 0.02},
                    "threshold": 0.5,
                }
            },
        }
        (folder / "results.json").write_text(json.dumps(results))
        return results


def predictions(settings, fair):
    """Scores of 60 images: the more `fair`, the less they say about the label, and about the group."""
    rng = np.random.default_rng(7)
    label, sex = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    score = 0.5 + (0.25 - fair / 2) * (2 * label - 1) + (0.2 - fair) * (2 * sex - 1) + rng.normal(0, 0.3, 60)
    score = np.clip(score, 0.01, 0.99)
    return pd.DataFrame(
        {
            "image": [f"{settings.data.fold}-{i}" for i in range(60)],
            "patient": [f"{settings.data.fold}-{i // 2}" for i in range(60)],
            "split": ["validation"] * 30 + ["test"] * 30,
            "method": settings.method_name,
            "label": label,
            "sex": np.where(sex, "male", "female"),
            "score": score,
            "decision": (score >= 0.5).astype(int),
        }
    )


@pytest.fixture
def runs(monkeypatch):
    instant = InstantRuns()
    monkeypatch.setattr(experiment, "run", instant)
    return instant


@pytest.fixture
def study_file(tmp_path):
    def write(text=None, name="study.toml"):
        path = tmp_path / name
        path.write_text(text or INSTANT.read_text())
        return path

    return write
