"""An output that one process holds against others; the lock goes with the process, however that ends."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK: Final = ".lock"


def lock_of(output: Path) -> Path:
    """Name the lock file of an output.

    Args:
        output: An existing folder, or a file that may not be there yet.

    Returns:
        A hidden file, in the folder or beside the file.
    """
    return output / LOCK if output.is_dir() else output.with_name(f".{output.name}{LOCK}")


@contextmanager
def locked(output: Path, *, wait: bool = False, required: bool = True, clear: bool = False) -> Iterator[None]:
    """Hold a folder or a file against other processes.

    A process must not hold the same output twice: the end of the inner block would release the outer one.

    Args:
        output: An existing folder, or a file that may not be there yet, in an existing folder.
        wait: Whether to wait for another process that holds it.
        required: Whether to refuse to work on a system without such locks.
        clear: Whether to remove the lock's file afterwards, from a folder that users copy.

    Raises:
        InputError: Another process holds it, or the system has no such locks and they are required.
    """
    try:
        import fcntl  # noqa: F401 - not on Windows
    except ImportError:
        if not required:
            yield
            return
        raise InputError(
            "preparing a data set, predicting, or a study of many runs needs Linux or macOS, or on Windows "
            "its Linux subsystem (WSL): what they write can then be read anywhere"
        ) from None
    with _taken(output, wait=wait) as file:
        try:
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield
        finally:
            if clear:
                lock_of(output).unlink(missing_ok=True)


def _taken(output: Path, *, wait: bool) -> TextIO:
    """The file of a lock, open and locked."""
    import fcntl

    while True:
        file = lock_of(output).open("a+", encoding="utf-8")
        try:
            # Not flock: a killed parent's workers would inherit that lock and hold it a moment longer.
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                raise InputError(
                    f"{output} is being written by process {file.read().strip() or 'unknown'}: "
                    "wait for it to end or choose another output"
                ) from None
        except BaseException:
            file.close()
            raise
        if os.fstat(file.fileno()).st_nlink > 0:
            return file
        file.close()  # who held it has removed it: another may hold a new one
