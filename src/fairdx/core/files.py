"""Files that are there in full or not at all, and files that grow block by block beside a journal."""

from __future__ import annotations

import json
import os
from typing import IO, TYPE_CHECKING, Any

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


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write all of it: an unbuffered write may stop half-way when the disk fills.

    Args:
        file: An open file.
        data: What to append to it.
    """
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def journal_line(content: dict[str, Any]) -> bytes:
    """Write one entry of a journal.

    Args:
        content: The entry.

    Returns:
        A line of JSON.
    """
    return json.dumps(content).encode() + b"\n"


def read_journal(path: Path) -> list[dict[str, Any] | None]:
    """Read a journal; None stands for what cannot be read, at the latest at the end.

    Args:
        path: The file; it may be missing.

    Returns:
        Its entries, in order.
    """
    lines: list[dict[str, Any] | None] = []
    for text in (path.read_bytes() if path.exists() else b"").split(b"\n"):
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        lines.append(content if isinstance(content, dict) else None)
    return lines


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
