"""Work spread over processes, with the results in order and never many of them in memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cpus() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int, apart: bool = False
) -> Iterator[Result]:
    """Apply a function to jobs in other processes.

    Args:
        function: Can be pickled, as can its argument and its result.
        jobs: Taken only a little ahead of the results.
        workers: Number of processes; with 1 the work is done in this one.
        apart: Whether a single worker is a process of its own, too, beside which this one does other work.

    Yields:
        The results, in the order of the jobs.

    Raises:
        RuntimeError: A process was killed.
    """
    if workers <= 1 and not apart:
        yield from map(function, jobs)
        return
    # Fresh processes: a fork would copy the locks of whatever threads the caller runs.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of {workers} processes was killed, most often for want of memory: "
            "run the same command again with fewer workers, it goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Leave when the parent was killed: a worker would wait for its next job for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
