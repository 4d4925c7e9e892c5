"""Signals that ask a process to end: Ctrl-C, and the SIGTERM of batch systems.

Both stop the work by an exception, and a second one ends the process at once. While work is between two
points at which it could go on later, signals can be kept back until it has come to one.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

ENDING: Final = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a process to end."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated as Ctrl-C wherever work is stopped in good order."""


def heed() -> None:
    """Let both signals stop the process by an exception, where it is ours to say so.

    One that is ignored stays ignored: a shell starts work in the background like that.
    """
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


class KeptBack:
    """The signals that came while they were kept back.

    Attributes:
        asked: Number of the signal that asks the process to end; 0 where none does.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}

    def keep(self) -> None:
        """Keep back from now on what would end the process; a second signal ends it at once.

        A signal that is ignored, or that somebody else handles, is left to them.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # no other thread may say so, and none is interrupted
        for number in ENDING:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler, _end):
                self._before[number] = handler
                signal.signal(number, self._note)

    def release(self) -> None:
        """Let signals do again what they did before."""
        while self._before:
            signal.signal(*self._before.popitem())

    def deliver(self, number: int) -> NoReturn:
        """Let a signal do now what it would have done when it came.

        Args:
            number: Of the signal; another process may have had it.

        Raises:
            KeyboardInterrupt: Unless the signal ended the process.
        """
        self.asked = 0
        self.release()
        signal.raise_signal(number)
        raise KeyboardInterrupt

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.asked = number
        for one in self._before:
            signal.signal(one, signal.SIG_DFL)


@contextmanager
def kept_back() -> Iterator[KeptBack]:
    """Keep back signals that ask the process to end, until the end of the block or until they are delivered.

    Returns:
        What came so far.
    """
    found = KeptBack()
    found.keep()
    try:
        yield found
    finally:
        found.release()
    if found.asked:
        found.deliver(found.asked)
