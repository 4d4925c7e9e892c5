"""Exit statuses: of gates, of Ctrl-C, of the SIGTERM of a batch system, with how to go on."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer

from fairdx.core.signals import Terminated

GATE: Final = 3
"""Exit status where a condition of `--fail-if` is true: no failure of a command has it, bad input has 2, a
crash has 1."""
GOES_ON: Final = "the same command goes on"
NOTHING: Final = "nothing was written"
STATUS: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""As shells have it: 128 and the number of the signal."""


_SAID: Final[list[KeyboardInterrupt]] = []


@contextmanager
def interruptible(then: str) -> Iterator[None]:
    """Says what becomes of work that is interrupted.

    Args:
        then: What to do next, as `GOES_ON`.

    Raises:
        typer.Exit: With the status of the signal.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise typer.Exit(say_stopped(stop, then)) from None
    except EOFError as error:  # Click would take it for somebody who closed the input, and say "Aborted"
        raise RuntimeError(f"a file ends too early: {error}") from error


def unsaid(ended: SystemExit) -> KeyboardInterrupt | None:
    """The interruption that ended a command where nobody said so: during imports, between two steps."""
    error: BaseException | None = ended
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return None if error is None or error in _SAID else error


def _speaks() -> bool:
    """Whether this is the first of the processes that train together; before they met, as far as it knows."""
    distributed: Any = sys.modules.get("torch.distributed")
    if getattr(distributed, "is_initialized", bool)():  # which it lacks while it is being imported
        return bool(distributed.get_rank() == 0)
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def say_stopped(stop: KeyboardInterrupt, then: str) -> int:
    """Says on stderr that work was stopped.

    Args:
        stop: By what.
        then: What to do next.

    Returns:
        The exit status.
    """
    ended = isinstance(stop, Terminated)
    _SAID.append(stop)
    if _speaks():
        sys.stderr.write(f"{'stopped by SIGTERM' if ended else 'interrupted'}; {then}\n")
    return STATUS[signal.SIGTERM if ended else signal.SIGINT]
