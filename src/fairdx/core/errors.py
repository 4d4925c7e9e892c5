"""The exceptions for bad input and full disks: the command line tells them from failures of our own."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system says where there is no room for a file."""
_FULL_WORDS: Final = (
    "no space left",
    "os error 28",
    "os error 27",
    "file too large",
    "disk is full",
    "disk full",
    "disk quota",
)
"""How libraries that hide the system's number say it, in lower case."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that names the file, row or key.

    The command line prints the message to stderr and exits with status 2.
    """


class DiskError(InputError):
    """There is no room for a file. What was there is kept, and the same command goes on when there is."""


@contextmanager
def room_in(folder: Path | None) -> Iterator[None]:
    """Says in one sentence that a disk is full, whichever way a library says it.

    Args:
        folder: What is written to inside the `with` block; None where only the error may know.

    Raises:
        DiskError: There is no room.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        reason = (isinstance(error, OSError) and error.strerror) or "no space left on its disk"
        known = error.filename if isinstance(error, OSError) else None
        place = folder or (Path(known).parent if known else "the disk")
        raise DiskError(
            f"cannot write to {place}: {reason}; what was there is kept: free some space and run the same "
            "command again"
        ) from error


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is a full disk."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    text = str(error).lower()
    return any(word in text for word in _FULL_WORDS) or _is_full(error.__cause__)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turns a failure to write into the `InputError` that names the folder.

    Args:
        folder: What is written to inside the `with` block.

    Raises:
        DiskError: There is no room.
        InputError: It cannot be written to.
    """
    try:
        with room_in(folder):
            yield
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
