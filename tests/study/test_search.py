"""The search looks at validation images alone, keeps to the budget, and goes on after an interruption."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from fairdx.core.errors import InputError
from fairdx.study.crew import Crew
from fairdx.study.front import pareto_front
from fairdx.study.run import StudyRequest, run_study
from fairdx.study.search import Score, choose
from fairdx.study.storage import RunFailedError

FILE = """
[study]
name = "search"
seeds = [0, 1]
[run]
method.name = "fair_diagnosis"
[tune]
trials = 6
budget = 0.05
[tune.space]
"method.eta" = { low = 0.01, high = 0.4 }
"method.steps" = { low = 1, high = 2 }
"method.schedule" = { choices = ["cosine", "step"] }
"""


def tune(path, out, *assignments, **options):
    return run_study(StudyRequest(path, "tune", assignments, out, **options))[1]


def test_a_search_reports_its_chosen_point_beside_vanilla(runs, study_file, tmp_path):
    out = tmp_path / "out"
    outcome = tune(study_file(FILE), out)
    trials = pd.read_parquet(out / "trials.parquet")
    assert len(trials) == 6
    assert len(runs.done) == 2 * (1 + 6)
    assert trials["method.eta"].between(0.01, 0.4).all()
    assert set(trials["method.steps"]) <= {1, 2}
    points = trials[["auroc", "unfairness"]].to_numpy()
    np.testing.assert_array_equal(trials["on_front"], pareto_front(points))
    chosen = json.loads((out / "chosen.json").read_text())
    row = trials[trials["chosen"]].iloc[0]
    assert row["on_front"]
    assert chosen["settings"]["method.eta"] == row["method.eta"]
    allowed = trials[trials["auroc"] >= chosen["vanilla_validation"]["auroc"] - 0.05]
    assert chosen["within_budget"] == (len(allowed) > 0)
    assert row["unfairness"] == allowed["unfairness"].min()
    assert outcome.rows["method"].tolist() == ["vanilla"] * 2 + ["fair_diagnosis"] * 2
    assert outcome.rows["key"].tolist()[2:] == chosen["runs"]


def test_two_members_of_a_crew_search_together(runs, study_file, tmp_path, monkeypatch):
    at_once = []

    def wait(crew, run, folder):
        """What the processes change for the book: the others have their turn meanwhile."""
        at_once.append(run)
        crew._turn.release()
        time.sleep(0.05)
        crew._turn.acquire()
        seen.append(len(at_once))
        at_once.remove(run)

    seen = []
    monkeypatch.setattr(Crew, "_watch", wait)
    outcome = tune(study_file(FILE), tmp_path / "out", processes=2)
    trials = pd.read_parquet(tmp_path / "out" / "trials.parquet")
    assert max(seen) == 2
    assert (len(trials), trials["chosen"].sum(), outcome.failures) == (6, 1, [])
    assert len(runs.done) == 2 * (1 + 6)


def test_the_search_does_not_look_at_test_images(runs, study_file, tmp_path, monkeypatch):
    tune(study_file(FILE), tmp_path / "a")
    before = pd.read_parquet(tmp_path / "a" / "trials.parquet")

    def without_test(settings, folder, **options):
        results = runs(settings, folder, **options)
        table = pd.read_parquet(folder / "predictions.parquet")
        table.loc[table["split"] == "test", ["score", "decision"]] = 0
        table.to_parquet(folder / "predictions.parquet")
        for figures in results["methods"].values():
            figures["auroc"] = {"value": 0.1, "low": 0.0, "high": 0.2}
        return results

    monkeypatch.setattr("fairdx.runs.run.run", without_test)
    tune(study_file(FILE), tmp_path / "b")
    pd.testing.assert_frame_equal(before, pd.read_parquet(tmp_path / "b" / "trials.parquet"))


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_an_interrupted_search_ends_as_an_undisturbed_one(runs, study_file, tmp_path, sampler):
    path, change = study_file(FILE), f"tune.sampler={sampler}"
    tune(path, tmp_path / "whole", change)
    points = ["method.eta", "method.steps", "method.schedule", "auroc", "unfairness"]
    whole = pd.read_parquet(tmp_path / "whole" / "trials.parquet")[points]
    runs.done.clear()
    runs.interrupt_at = 7
    with pytest.raises(KeyboardInterrupt):
        tune(path, tmp_path / "cut", change)
    tune(path, tmp_path / "cut", change)
    assert len(runs.done) == 2 * (1 + 6)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "cut" / "trials.parquet")[points], whole)
    tune(path, tmp_path / "cut", change, "tune.trials=8")
    assert len(pd.read_parquet(tmp_path / "cut" / "trials.parquet")) == 8


def test_another_search_is_refused(runs, study_file, tmp_path):
    tune(study_file(FILE), tmp_path / "out", "tune.trials=1")
    with pytest.raises(InputError, match="search of other settings"):
        tune(study_file(FILE.replace("high = 0.4", "high = 0.3")), tmp_path / "out")
    with pytest.raises(InputError, match="search of other settings"):
        tune(study_file(FILE), tmp_path / "out", "run.trainer.flip=true")


def test_a_point_that_fails_is_listed(runs, study_file, tmp_path):
    runs.fails = lambda settings: getattr(settings.method, "steps", 0) == 2
    outcome = tune(study_file(FILE), tmp_path / "out")
    failed = 6 - len(pd.read_parquet(tmp_path / "out" / "trials.parquet"))
    assert 0 < failed == len(outcome.failures) < 6
    assert all(message == "the loss is no longer finite" for _, message in outcome.failures)
    runs.fails = lambda settings: False
    outcome = tune(study_file(FILE), tmp_path / "out", retry=True)
    assert outcome.failures == []
    assert len(pd.read_parquet(tmp_path / "out" / "trials.parquet")) == 6


def test_a_vanilla_that_fails_is_named(runs, study_file, tmp_path):
    runs.fails = lambda settings: settings.method_name == "vanilla"
    with pytest.raises(RunFailedError, match=r"vanilla failed, .* no budget: the loss is no longer finite"):
        tune(study_file(FILE), tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace("high = 0.4", "high = 4"), "eta"),
        (FILE.replace("method.eta", "method.etta"), "did you mean `eta`"),
        (
            FILE.replace("[tune]", '[[data]]\nname = "a"\n[[data]]\nname = "b"\n[tune]'),
            "one method on one data",
        ),
        (FILE.replace("trials = 6", "trials = 0"), "tune.trials"),
    ],
)
def test_mistakes_are_found_before_the_first_run(runs, study_file, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        tune(study_file(text), tmp_path / "out")
    assert runs.done == []


def finished(number: int, auroc: float, adf: float) -> FrozenTrial:
    trial = create_trial(state=TrialState.COMPLETE, values=[auroc, adf])
    trial.number = number
    return trial


def test_the_choice_is_the_fairest_within_the_budget_or_the_best_model_without_one():
    done = [finished(i, *values) for i, values in enumerate([(0.9, 0.01), (0.89, 0.004), (0.8, 0.001)])]
    front, vanilla = [True] * 3, Score(0.895, 0.02)
    assert [choose(done, front, vanilla, b).number for b in (0.0, 0.005, 0.0949, 0.2)] == [0, 1, 1, 2]
    missed = choose(done, front, Score(0.95, 0.02), 0.01)
    assert (missed.number, missed.within) == (0, False)
