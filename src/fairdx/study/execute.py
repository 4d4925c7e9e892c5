"""Does the runs of a study and writes what came out after each of them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import Trial, TrialState
from rich.console import Console

from fairdx.core.console import PlainConsole
from fairdx.core.errors import InputError
from fairdx.core.files import write_whole
from fairdx.core.locks import locked
from fairdx.study.crew import RUNS, Crew, is_done, read_results, results_of
from fairdx.study.plan import PlannedRun
from fairdx.study.rows import rows_frame, run_row
from fairdx.study.storage import FAILURE, KEY, ROW, Trials

TABLE = "study.parquet"


@dataclass(frozen=True)
class Outcome:
    """How a study stands.

    Attributes:
        rows: One for each run that was finished or has failed.
        failures: Title and message of each failed run.
        open: Runs that other workers are still at.
    """

    rows: pd.DataFrame
    failures: list[tuple[str, str]]
    open: int = 0


@dataclass
class Announcer:
    """Says on stderr which run (or point) begins, and how long the rest may take.

    Attributes:
        total: How many there are.
        at_once: How many are done at a time.
        unit: What is counted.
        done: How many were begun before the next.
        times: Seconds of those that were done.
        console: Where to say it.
    """

    total: int
    at_once: int = 1
    unit: str = "run"
    done: int = 0
    times: list[float] = field(default_factory=list)
    console: Console = field(default_factory=lambda: PlainConsole(stderr=True))

    def begin(self, title: str) -> None:
        """Announces a run."""
        left = ""
        if self.times:
            minutes = (self.total - self.done) * sum(self.times) / len(self.times) / 60 / self.at_once
            left = f", about {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left"
        self.console.print(f"{self.unit} {self.done + 1} of {self.total}: {title}{left}", soft_wrap=True)

    def end(self, seconds: float) -> None:
        """Counts a run that is over."""
        self.times.append(seconds)


class GridWorker:
    """Works on the runs of a plan until none is left in the queue.

    Args:
        plan: All runs.
        folder: Where to write.
        trials: The queue.
        crew: Who does them.
    """

    def __init__(
        self, plan: Sequence[PlannedRun], folder: Path, trials: Trials, crew: Crew | None = None
    ) -> None:
        self.plan = {run.key: run for run in plan}
        self.folder, self.trials, self.crew = folder, trials, crew or Crew()
        self.announcer = Announcer(len(plan), self.crew.size)
        self._check_plan()

    def _check_plan(self) -> None:
        """Other runs than these mean another study; fewer, that it is extended."""
        others = {
            trial.user_attrs.get(KEY) for trial in self.trials.all() if trial.state != TrialState.PRUNED
        } - {None, *self.plan}  # a worker who finds the queue empty makes one without a key
        if others:
            raise InputError(
                f"the study of that name in {self.folder} has {len(others)} runs that this file does not ask "
                "for (a study can be extended, not changed): give another --out, or with --storage another "
                "`study.name`"
            )

    def work(self, *, retry: bool = False) -> Outcome:
        """Does all runs that nobody else does.

        Args:
            retry: Whether runs that failed earlier are to be done again.
        """
        done = [run for run in self.plan.values() if is_done(run, self.folder)]
        # The database knows that these were done; their figures are needed all the same.
        self.crew.do_all(
            [run for run in done if read_results(results_of(run, self.folder)) is None], self.folder
        )
        if retry:
            self.trials.enqueue(self.plan, again=True)
        self.crew.work(self._work)
        return self._write()

    def _work(self) -> None:
        while True:
            self.trials.give_back()
            self.trials.enqueue(self.plan)
            waiting = self.trials.all(TrialState.WAITING)
            if not any(trial.user_attrs.get(KEY) in self.plan for trial in waiting):
                return
            self.announcer.done = len(self.plan) - len({trial.user_attrs[KEY] for trial in waiting})
            self.trials.work(self._objective)
            self._write()

    def _objective(self, trial: Trial) -> float:
        run = self.plan.get(trial.user_attrs.get(KEY, ""))
        if run is None or self.trials.is_double(trial):
            raise optuna.TrialPruned
        found = is_done(run, self.folder)  # it takes no time, and says nothing of how long others take
        if not found:
            self.announcer.begin(run.title)
        start = time.monotonic()
        row = run_row(run, self.crew.do(run, self.folder))
        trial.set_user_attr(ROW, row)
        if not found:
            self.announcer.end(time.monotonic() - start)
        return float(row["seconds"])

    def _write(self) -> Outcome:
        """Writes the table of runs as it is now."""
        rows: dict[str, dict[str, Any]] = {}
        failures: dict[str, str] = {}
        for trial in self.trials.all(TrialState.COMPLETE, TrialState.FAIL):
            key, attributes = trial.user_attrs.get(KEY, ""), trial.user_attrs
            if ROW in attributes:
                rows[key] = attributes[ROW]
            elif FAILURE in attributes:
                failures[key] = attributes[FAILURE]
        listed = []
        for key, run in self.plan.items():
            if key in rows:
                listed.append(rows[key])
            elif key in failures:
                listed.append(run_row(run, None) | {"failure": failures[key]})
        frame = rows_frame(listed)
        write_frame(frame, self.folder / TABLE)
        failed = [
            (run.title, failures[key])
            for key, run in self.plan.items()
            if key in failures and key not in rows
        ]
        return Outcome(frame, failed, len(self.plan) - len(listed))


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Waits until no other worker writes tables to a study's folder; must not be nested."""
    place = folder / RUNS
    place.mkdir(parents=True, exist_ok=True)
    with locked(place, wait=True):
        yield


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table when no other worker writes to the folder."""
    with turn(path.parent):
        write_whole(path, frame.to_parquet(index=False))
