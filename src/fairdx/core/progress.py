"""What a person sees while something takes its time."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PATIENCE: Final = 2.0
"""Seconds of work before anything is shown."""
SHOWN: Final = {
    "validation/auroc": "AUC",
    "validation/accuracy": "ACC",
    "validation/approximate_diagnosis_fairness": "ADF",
}
"""Which entries of an epoch's record stand behind the bar, and by what name."""


class Reporter:
    """A progress bar on stderr, for work of more than two seconds: how much is done, how fast, time left.

    Args:
        title: What is being done.
        total: How much there is to do.
        unit: What is counted.
        done: How much an earlier run has done; it says nothing of our speed.
        enabled: Whether to show anything; with several processes only one should.
    """

    def __init__(
        self, title: str, total: int, *, unit: str = "steps", done: int = 0, enabled: bool = True
    ) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from fairdx.core.console import PlainConsole

        self._unit, self._first, self._shown = unit, done, False
        self._done: float = done
        self._start = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}", markup=False),
            console=PlainConsole(stderr=True, wrap=True),
            disable=not enabled,
        )
        self._task = self._progress.add_task(title, total=total, completed=done, rate="", scores="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:  # a bar that was never shown would still leave an empty line
            self._progress.stop()

    def advance(self, amount: float = 1) -> None:
        """Move the bar on.

        Args:
            amount: How much more is done.
        """
        self._done += amount
        elapsed = time.monotonic() - self._start
        if elapsed > PATIENCE:
            rate = (self._done - self._first) / elapsed
            self._shown = True
            self._progress.start()
            self._progress.update(
                self._task, completed=self._done, rate=f"{rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s"
            )

    def describe(self, record: dict[str, Any]) -> None:
        """Show the validation scores of an epoch.

        Args:
            record: The epoch's record.
        """
        scores = (f"{short} {record[name]:.4f}" for name, short in SHOWN.items() if name in record)
        self._progress.update(self._task, scores=" ".join(scores))


_SHARE: ContextVar[float] = ContextVar("share", default=1.0)
_LISTENER: ContextVar[Reporter | None] = ContextVar("listener", default=None)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Let work that knows nothing of who watches it move this reporter on, by `advanced`.

    Args:
        reporter: Shows how much of the work inside the `with` block is done.
    """
    token = _LISTENER.set(reporter)
    try:
        with reporter:
            yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def portion(share: float) -> Iterator[None]:
    """Let work inside the `with` block, which counts as it always does, be only a share of what it counts."""
    token = _SHARE.set(_SHARE.get() * share)
    try:
        yield
    finally:
        _SHARE.reset(token)


def advanced(amount: float) -> None:
    """Say that some work is done, to whoever watches it."""
    reporter = _LISTENER.get()
    if reporter is not None:
        reporter.advance(amount * _SHARE.get())
