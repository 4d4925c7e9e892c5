"""A progress bar for work of more than two seconds: done, images per second, time left."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE: Final = 2.0  # seconds


@contextmanager
def progress(description: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Show on stderr how far a piece of work is, if it takes longer than two seconds.

    Args:
        description: What is done.
        total: How much there is to do.
        unit: What is counted.

    Yields:
        To be called with how much is done in all.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=total, rate="")
    start = time.monotonic()
    at_start = -1

    def advance(done: int) -> None:
        nonlocal at_start
        at_start = done if at_start < 0 else at_start  # what an earlier run did says nothing of our speed
        elapsed = time.monotonic() - start
        if elapsed > _PATIENCE:
            bar.start()
            bar.update(task, completed=done, rate=f"{(done - at_start) / elapsed:,.0f} {unit}/s")

    try:
        yield advance
    finally:
        bar.stop()
