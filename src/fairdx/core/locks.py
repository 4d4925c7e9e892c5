"""A folder that one process holds against others; the lock goes with the process, however that ends."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK: Final = ".lock"


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder against other processes.

    Args:
        folder: An existing folder.
        wait: Whether to wait for another process that holds it.

    Raises:
        InputError: Another process holds it, or the system has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        raise InputError(
            "preparing a data set, or a study of many runs, needs Linux or macOS, or on Windows its Linux "
            "subsystem (WSL): a prepared data set can then be read anywhere"
        ) from None
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            # Not flock: a killed parent's workers would inherit that lock and hold it a moment longer.
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise InputError(
                f"{folder} is being written by process {file.read().strip() or 'unknown'}: "
                "wait for it to end or choose another output"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
