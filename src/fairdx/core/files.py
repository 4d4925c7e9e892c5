"""Files that are there in full or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that its name never shows half of it.

    Args:
        path: Where; replaced if it exists.
        data: Its content.
    """
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets a function write a file so that its name never shows half of it.

    Args:
        path: Where; replaced if it exists.
        write: Writes the file that it is given the path of.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.touch()
    mode = partial.stat().st_mode  # some libraries write for the owner alone, and a disk may be shared
    write(partial)
    partial.chmod(mode)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
