"""Who does the runs of a study: this process one after the other, or several processes at a time."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from fairdx.core.errors import DiskError, InputError
from fairdx.core.files import parse_json, set_aside
from fairdx.core.locks import locked
from fairdx.models.runtime import environment, share
from fairdx.runs import run as experiment
from fairdx.runs.files import LOG, RESULTS
from fairdx.study.plan import PlannedRun
from fairdx.study.storage import RunFailedError

logger = logging.getLogger(__name__)

RUNS, STAGES, DATA = "runs", "stages", "data"


def is_done(run: PlannedRun, folder: Path) -> bool:
    """Whether a study's folder has the results of a run."""
    return results_of(run, folder).exists()


def results_of(run: PlannedRun, folder: Path) -> Path:
    """Where the results of a run are, or will be."""
    return folder / RUNS / run.key / RESULTS


def do_run(run: PlannedRun, folder: Path) -> dict[str, Any]:
    """Does one run, unless it is done, and returns its results.

    Raises:
        RunFailedError: It cannot be finished.
        DiskError: The disk is full.
    """
    place = folder / RUNS / run.key
    place.mkdir(parents=True, exist_ok=True)
    with locked(place, wait=True):
        if is_done(run, folder):
            found = read_results(place / RESULTS)
            if found is not None:
                return found
        try:
            results = experiment.run(
                run.settings,
                place,
                resume=True,
                stages=folder / STAGES,
                phantoms=folder / DATA,
                beside_vanilla=False,
                hold=False,
            )
        except DiskError:  # of all runs, not of this one
            raise
        except (InputError, RuntimeError) as error:  # of torch: out of memory, for one
            raise RunFailedError(str(error) or type(error).__name__) from error
    assert results is not None  # there is one process
    return results


def read_results(path: Path) -> dict[str, Any] | None:
    """Reads the results of a run.

    Args:
        path: An existing file.

    Returns:
        Its content; None where it is damaged, and then it is out of the way.
    """
    try:
        found = parse_json(path.read_bytes())
        if not _holds_results(found):
            raise ValueError("it has no results")
    except ValueError as error:
        logger.warning(
            "%s is damaged (%s): it is set aside as %s, and the run is done again",
            path,
            error,
            set_aside(path).name,
        )
        return None
    return cast(dict[str, Any], found)


def _holds_results(found: Any) -> bool:
    if not isinstance(found, dict) or not {"data", "methods", "seconds"} <= set(found):
        return False
    return isinstance(found["data"], dict) and isinstance(found["methods"], dict) and bool(found["methods"])


class Crew:
    """Does runs, at most `size` at a time.

    More than one at a time are done in processes of their own, each with its share of the machine. The book
    (database, tables, announcements) is kept by one thread for each, and only by the one whose turn it is:
    nothing outside this class has to know that there are several.

    Args:
        size: How many runs at a time; 1 does them in this process.
    """

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self._turn = threading.Lock()
        self._children: dict[int, BaseProcess] = {}  # by the place that each takes
        self._dismissed = False

    def work(self, loop: Callable[[], None]) -> None:
        """Lets every member go through the same loop, which calls `do` for each run that it takes.

        Raises:
            BaseException: What the loop raised; Ctrl-C ends all runs.
        """
        if self.size == 1:
            loop()
            return
        with ThreadPoolExecutor(self.size) as members:
            working = [members.submit(self._take_turns, loop) for _ in range(self.size)]
            try:
                for member in as_completed(working):
                    member.result()
            except BaseException:
                self._dismiss()
                raise

    def do(self, run: PlannedRun, folder: Path) -> dict[str, Any]:
        """Does one run, unless it is done, and returns its results; the others take their turns meanwhile.

        Raises:
            RunFailedError: It cannot be finished.
            KeyboardInterrupt: The study was interrupted.
        """
        if self.size > 1 and not is_done(run, folder):
            self._watch(run, folder)
        return do_run(run, folder)

    def do_all(self, runs: Sequence[PlannedRun], folder: Path) -> None:
        """Does these runs, unless they are done.

        Raises:
            RunFailedError: One cannot be finished.
        """
        waiting = list(runs)

        def loop() -> None:
            while waiting:
                self.do(waiting.pop(0), folder)

        self.work(loop)

    def _take_turns(self, loop: Callable[[], None]) -> None:
        with self._turn:
            if not self._dismissed:
                loop()

    def _dismiss(self) -> None:
        with self._turn:
            self._dismissed = True
            for child in self._children.values():
                child.terminate()

    def _watch(self, run: PlannedRun, folder: Path) -> None:
        """Has a run done by a process of its own."""
        if self._dismissed:
            raise KeyboardInterrupt
        context = multiprocessing.get_context("spawn")
        answer, told = context.Pipe(duplex=False)
        child = context.Process(target=_do_alone, args=(run, folder, told))
        place = min(set(range(self.size)) - set(self._children))
        with answer:
            with told, environment(share(place, self.size)):
                child.start()
            self._children[place] = child
            self._turn.release()
            try:
                child.join()
            finally:
                self._turn.acquire()
                del self._children[place]
            if self._dismissed:
                raise KeyboardInterrupt
            if child.exitcode != 0:
                raise RunFailedError(
                    f"its process ended with status {child.exitcode}; what it printed is in "
                    f"{folder / RUNS / run.key / LOG}; if memory ran out, try fewer --processes"
                )
            error: Exception | None = answer.recv()
            if error is not None:
                raise error


def _do_alone(run: PlannedRun, folder: Path, told: Connection) -> None:
    """Does one run in a process that was started for it, and tells what went wrong, if anything."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study ends its processes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    place = folder / RUNS / run.key
    place.mkdir(parents=True, exist_ok=True)
    with (place / LOG).open("a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        do_run(run, folder)
    except (RunFailedError, DiskError) as error:
        told.send(error)
    else:
        told.send(None)


def _end_with_parent() -> None:
    """Ends this process with the study's, however that ends: nobody would wait for what it does."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
