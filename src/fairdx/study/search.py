"""`fairdx tune`: a search for settings with a high AUROC and a low ADF, both on validation images.

ADF is averaged over operating points, as where epochs are chosen (`fairdx.training.fit.unfairness`).

Test images are measured for every point, as in any run, but nothing here looks at those figures: they are
reported for the chosen point and for vanilla alone.
"""

import json
import math
import os
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from fairdx.core.errors import InputError
from fairdx.core.files import write_whole
from fairdx.metrics.scores import auroc
from fairdx.models.runtime import derive_seed
from fairdx.runs.files import PREDICTIONS
from fairdx.study.crew import RUNS, Crew
from fairdx.study.execute import TABLE, Announcer, Outcome, turn, write_frame
from fairdx.study.front import pareto_front
from fairdx.study.plan import Entry, PlannedRun, entries, point_runs
from fairdx.study.rows import rows_frame, run_row
from fairdx.study.settings import Choices, StudySettings, TuneSettings
from fairdx.study.storage import FAILURE, RunFailedError, Trials
from fairdx.training.choice import unfairness

TRIALS: Final = "trials.parquet"
CHOSEN: Final = "chosen.json"
RETRY: Final = "retry_of"
"""Attribute of a trial: the number of the interrupted one that it repeats."""
SPACE: Final = "space"
"""Attribute of the study: what is searched, to tell it from another."""


@dataclass(frozen=True)
class Score:
    """How a model does on validation images: AUROC and `training.unfairness`, means over seeds."""

    auroc: float
    unfairness: float


@dataclass(frozen=True)
class Choice:
    """The point that was chosen.

    Attributes:
        number: Of its trial.
        point: Dotted setting -> value.
        score: Its own.
        vanilla: Vanilla's score.
        within: Whether it keeps to the budget; otherwise no point does, and it is the one of highest AUROC.
    """

    number: int
    point: dict[str, Any]
    score: Score
    vanilla: Score
    within: bool


def validation_score(run: PlannedRun, results: dict[str, Any], folder: Path) -> Score:
    """Scores a finished run on its validation images.

    Raises:
        RunFailedError: It has none, or a figure is not defined.
    """
    table = pd.read_parquet(folder / RUNS / run.key / PREDICTIONS)
    rows = table[(table["split"] == "validation") & (table["method"] == run.settings.method_name)]
    if rows.empty:
        raise RunFailedError("there are no validation images to tune on; prepare the data set with some")
    data = results["data"]
    columns = "score" if "score" in rows else [f"score_{name}" for name in data["classes"]]
    ranking = rows[columns].to_numpy()
    score = Score(
        float(auroc(rows["label"], ranking)),
        unfairness(rows["label"], ranking, rows[data["attribute"]]),
    )
    if not (math.isfinite(score.auroc) and math.isfinite(score.unfairness)):
        raise RunFailedError("AUC or ADF is not defined on the validation images")
    return score


class Search:
    """Tries points until there are enough, and chooses one.

    Args:
        study: The study; it has one method, one data set and `[tune]`.
        path: Its file, for errors.
        folder: Where to write.
        trials: The database.
        crew: Who does the runs.

    Raises:
        InputError: A setting cannot be tuned, or the database holds another search of that name.
    """

    def __init__(
        self, study: StudySettings, path: Path, folder: Path, trials: Trials, crew: Crew | None = None
    ) -> None:
        self.settings, self.entry, self.vanilla = check_search(study, path)
        self.study, self.folder, self.trials, self.crew = study, folder, trials, crew or Crew()
        self.announcer = Announcer(self.settings.trials, self.crew.size, "point")
        self._check_same(path)

    def _check_same(self, path: Path) -> None:
        space = self.settings.model_dump(mode="json", exclude={"trials", "budget"})
        # What is in a run's key is all that a run depends on.
        asked = json.dumps([space, [run.key for run in self.vanilla], self.entry.values], default=str)
        known = self.trials.study.user_attrs.setdefault(SPACE, asked)
        self.trials.study.set_user_attr(SPACE, known)
        if known != asked:
            raise InputError(
                f"{self.folder} holds a search of other settings than {path} (only `trials` and `budget` can "
                "change): give another --out, or with --storage another `study.name`"
            )

    def work(self, *, retry: bool = False) -> Outcome:
        """Tries points until there are enough.

        Args:
            retry: Whether points that failed earlier are tried again.

        Raises:
            RunFailedError: Vanilla cannot be trained.
        """
        self.announcer.console.print("vanilla, for the budget")
        try:
            self.crew.do_all(self.vanilla, self.folder)
        except RunFailedError as error:
            raise RunFailedError(f"vanilla failed, and without it there is no budget: {error}") from error
        if retry:
            self._repeat(failed=True)
        self.crew.work(self._work)
        return self._write(self._mean(self.vanilla))

    def _work(self) -> None:
        while True:
            self.trials.give_back()
            self._repeat(failed=False)
            begun = self._begun()
            waiting = self.trials.all(TrialState.WAITING)
            if not waiting and begun >= self.settings.trials:
                return
            self.announcer.done = begun - len(waiting)
            self.trials.study.sampler = self._sampler(begun)
            self.trials.work(self._objective)

    def _begun(self) -> int:
        """Points that were begun, a repeated one once."""
        return sum(RETRY not in trial.user_attrs for trial in self.trials.all())

    def _sampler(self, index: int) -> BaseSampler:
        # Seeded for each point, so that a search that was interrupted goes on as if it had not been. Workers
        # who search together must not all propose the same.
        worker = (socket.gethostname(), os.getpid()) if self.trials.shared else ()
        seed = derive_seed(self.settings.seed, index, *worker) % 2**32
        return TPESampler(seed=seed) if self.settings.sampler == "tpe" else NSGAIISampler(seed=seed)

    def _repeat(self, *, failed: bool) -> None:
        """Puts interrupted points in the queue, each once."""
        repeated = self._repeated()
        for trial in self.trials.all():
            lost = trial.state == TrialState.FAIL and (failed or FAILURE not in trial.user_attrs)
            if lost and trial.number not in repeated:
                # One that was interrupted before it had a point leaves the choice to the sampler.
                self.trials.study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number})

    def _repeated(self) -> set[int]:
        """Numbers of the trials that were put in the queue again."""
        return {trial.user_attrs[RETRY] for trial in self.trials.all() if RETRY in trial.user_attrs}

    def _objective(self, trial: Trial) -> tuple[float, float]:
        point = {key: _suggest(trial, key, span) for key, span in self.settings.space.items()}
        start = time.monotonic()
        try:
            runs = point_runs(self.study, self.entry, point)
        except InputError as error:
            raise RunFailedError(str(error)) from error
        self.announcer.begin(", ".join(f"{key}={_short(value)}" for key, value in point.items()))
        score = self._mean(runs)
        self.announcer.end(time.monotonic() - start)
        return score.auroc, score.unfairness

    def _mean(self, runs: Sequence[PlannedRun]) -> Score:
        scores = [validation_score(run, self.crew.do(run, self.folder), self.folder) for run in runs]
        return Score(
            float(np.mean([score.auroc for score in scores])),
            float(np.mean([score.unfairness for score in scores])),
        )

    def _write(self, vanilla: Score) -> Outcome:
        done = self.trials.all(TrialState.COMPLETE)
        repeated = self._repeated()
        failures = [
            (str(trial.params), trial.user_attrs[FAILURE])
            for trial in self.trials.all(TrialState.FAIL)
            if FAILURE in trial.user_attrs and trial.number not in repeated
        ]
        if not done:
            return Outcome(rows_frame([]), failures)
        front = pareto_front([trial.values for trial in done])
        chosen = choose(done, front, vanilla, self.settings.budget)
        listed = pd.DataFrame(
            {
                "number": trial.number,
                **trial.params,
                "auroc": trial.values[0],
                "unfairness": trial.values[1],
                "on_front": bool(on),
                "chosen": trial.number == chosen.number,
            }
            for trial, on in zip(done, front, strict=True)
        )
        runs = [*self.vanilla, *point_runs(self.study, self.entry, chosen.point)]
        self.crew.do_all(runs, self.folder)  # another worker may have done them, on another disk
        frame = rows_frame([run_row(run, self.crew.do(run, self.folder)) for run in runs])
        write_frame(listed, self.folder / TRIALS)
        write_frame(frame, self.folder / TABLE)
        with turn(self.folder):
            write_whole(self.folder / CHOSEN, json.dumps(_described(chosen, runs), indent=2).encode())
        return Outcome(frame, failures, len(self.trials.all(TrialState.RUNNING)))


def check_search(study: StudySettings, path: Path) -> tuple[TuneSettings, Entry, list[PlannedRun]]:
    """Checks a search before it starts: both ends of every range have to be possible settings.

    Returns:
        The search, the method and data set, and vanilla's runs.

    Raises:
        InputError: They are not, or there are several methods or data sets.
    """
    found = entries(study, path)
    if len(found) != 1 or study.tune is None:
        raise InputError(f"{path}: a search is of one method on one data set, not of {len(found)}")
    entry = found[0]
    for end in (0, -1):
        point = {
            key: span.choices[end] if isinstance(span, Choices) else (span.low, span.high)[end]
            for key, span in study.tune.space.items()
        }
        point_runs(study, entry, point)
    plain = {"name": "vanilla"}
    vanilla = Entry(entry.data, "vanilla", {**entry.values, "method": plain}, {}, entry.where)
    return study.tune, entry, point_runs(study, vanilla, {})


def choose(done: Sequence[FrozenTrial], front: Iterable[bool], vanilla: Score, budget: float) -> Choice:
    """Chooses the lowest ADF on the front whose AUROC is at most `budget` below vanilla's.

    Args:
        done: Finished trials; their values are AUROC and ADF.
        front: Whether each is on the Pareto front.
        vanilla: Vanilla's score.
        budget: AUROC that may be lost.
    """
    ahead = [trial for trial, on in zip(done, front, strict=True) if on]
    within = [trial for trial in ahead if trial.values[0] >= vanilla.auroc - budget]
    best = min(within, key=lambda t: t.values[1]) if within else max(ahead, key=lambda t: t.values[0])
    return Choice(best.number, dict(best.params), Score(*best.values), vanilla, bool(within))


def _described(chosen: Choice, runs: Sequence[PlannedRun]) -> dict[str, Any]:
    return {
        "trial": chosen.number,
        "settings": chosen.point,
        "within_budget": chosen.within,
        "validation": vars(chosen.score),
        "vanilla_validation": vars(chosen.vanilla),
        "runs": [run.key for run in runs if run.method != "vanilla"],
    }


def _suggest(trial: Trial, key: str, span: Any) -> Any:
    if isinstance(span, Choices):
        return trial.suggest_categorical(key, span.choices)
    if isinstance(span.low, int) and isinstance(span.high, int):
        return trial.suggest_int(key, span.low, span.high, log=span.log)
    return trial.suggest_float(key, span.low, span.high, log=span.log)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
