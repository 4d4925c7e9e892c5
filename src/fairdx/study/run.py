"""A whole study: from its file to its tables and figures."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from fairdx.core.errors import room_in, writing_to
from fairdx.core.files import write_whole
from fairdx.study.crew import Crew
from fairdx.study.execute import GridWorker, Outcome, turn, write_frame
from fairdx.study.figures import write_figures
from fairdx.study.page import write_page
from fairdx.study.plan import plan_runs, varied_settings
from fairdx.study.pool import pool_folds
from fairdx.study.search import Search, check_search
from fairdx.study.settings import Command, StudySettings, load_study
from fairdx.study.storage import Direction, Trials
from fairdx.study.tables import write_tables
from fairdx.study.within import write_within

FILE: Final = "study.toml"
POOLED: Final = "pooled.parquet"


@dataclass(frozen=True)
class StudyRequest:
    """What a command line asks for.

    Attributes:
        path: The study file.
        command: compare, ablate or tune.
        assignments: Changes of the file, as `key=value`.
        out: Folder to write to; `studies/NAME` by default.
        storage: Database that several workers share.
        retry: Whether runs that failed earlier are done again.
        processes: How many runs are done at a time, each in a process of its own if more than one.
    """

    path: Path
    command: Command
    assignments: tuple[str, ...] = ()
    out: Path | None = None
    storage: str | None = None
    retry: bool = False
    processes: int = 1


def run_study(request: StudyRequest) -> tuple[Path, Outcome]:
    """Does what is left of a study and writes its tables and figures.

    Args:
        request: What to do.

    Returns:
        The study's folder and how it stands.

    Raises:
        InputError: A setting cannot be used (found before the first run), or the folder or database cannot
            be used or holds another study.
    """
    study = load_study(request.path, request.command, request.assignments)
    folder = request.out or Path("studies") / study.study.name
    plan = () if study.tune else plan_runs(study, request.path)
    if study.tune:
        check_search(study, request.path)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    directions: tuple[Direction, ...] = ("maximize", "minimize") if study.tune else ("minimize",)
    with (
        room_in(folder),
        closing(Trials(study.study.name, folder, request.storage, directions)) as trials,
        trials.hold(folder),
    ):
        crew = Crew(request.processes)
        worker = (
            Search(study, request.path, folder, trials, crew)
            if study.tune
            else GridWorker(plan, folder, trials, crew)
        )
        with turn(folder):
            write_whole(folder / FILE, _file(request).encode())
        outcome = worker.work(retry=request.retry)
        rows = outcome.rows
        if study.study.folds and not study.tune:
            pooled = pool_folds(plan, folder)
            write_frame(pooled, folder / POOLED)
            rows = pd.concat([rows, pooled], ignore_index=True)
        if len(rows):
            with turn(folder):
                _write(outcome, rows, folder, study)
                if plan:
                    write_within(plan, folder)
    return folder, outcome


def _write(outcome: Outcome, rows: pd.DataFrame, folder: Path, study: StudySettings) -> None:
    varied = tuple(study.tune.space) if study.tune else varied_settings(study)
    seeds, mirrors = study.study.seeds, study.study.mirrors
    write_tables(rows, folder, varied=varied, mirrors=mirrors, seeds=seeds)
    write_figures(rows, folder, varied=varied, seeds=seeds)
    failures = [f"{title}: {message}" for title, message in outcome.failures]
    write_page(
        rows,
        folder,
        title=study.study.name,
        varied=varied,
        mirrors=mirrors,
        seeds=seeds,
        failures=failures,
    )


def _file(request: StudyRequest) -> str:
    """The study file as it was, and what the command line changed."""
    changes = "".join(f"# changed by --set {assignment}\n" for assignment in request.assignments)
    return changes + request.path.read_text(encoding="utf-8")
