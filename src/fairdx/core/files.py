"""Files that are there in full or not at all, and files that grow block by block beside a journal.

A power cut may keep a rename and lose what was in the file, or keep a file and lose its name. So content is
brought to the disk before the rename, and the folder after it: what a program has been told is written is
there when the machine comes back, and nothing that was written later can be there without it.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

from fairdx.core.errors import FULL, InputError, room_in

if TYPE_CHECKING:
    from pathlib import Path

SEAL: Final = ".sha256"
"""Ending of the file beside a sealed one that holds its hash."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that its name never shows half of it, not even after a power cut.

    Args:
        path: Where; replaced if it exists. Where it cannot be written, the old file is still there.
        data: Its content.

    Raises:
        DiskError: There is no room for it.
        OSError: It cannot be written for another reason.
    """
    partial = path.with_name(f"{path.name}.partial")
    with room_in(path.parent):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)  # half a file would take the room that others need
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can.

    Args:
        folder: An existing folder.
    """
    try:
        place = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(place)
    except OSError as error:
        if error.errno in FULL:
            raise
    finally:
        os.close(place)


def write_sealed(path: Path, data: bytes) -> None:
    """Write a file whole, with its hash beside it.

    The hash is written first, beside that of the file that is replaced: at any moment the file is one of two
    that are known.

    Args:
        path: Where; replaced if it exists.
        data: Its content.
    """
    seal = path.with_name(path.name + SEAL)
    before = _sealed(seal)[-1:] if path.exists() else []
    write_whole(seal, "".join(f"{one}\n" for one in [*before, _hash(data)]).encode())
    write_whole(path, data)


def read_sealed(path: Path) -> bytes:
    """Read a file that was written with its hash.

    Args:
        path: The file. One without a hash beside it, of an earlier version, is taken as it is.

    Returns:
        Its content.

    Raises:
        InputError: It cannot be read, or is not the file that was written.
    """
    try:
        data = path.read_bytes()
        seal = path.with_name(path.name + SEAL)
        known, sealed = _sealed(seal), seal.exists()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if sealed and _hash(data) not in known:
        raise InputError(f"{path} is damaged: its hash is not the one that was written with it")
    return data


def set_aside(path: Path) -> Path:
    """Give a damaged file another name, so that it is in nobody's way and can be looked at.

    Args:
        path: The file; another process may have set it aside.

    Returns:
        Its new name; an earlier one of that name is replaced.
    """
    aside = path.with_name(f"{path.name}.broken")
    with suppress(FileNotFoundError):
        path.replace(aside)
    path.with_name(path.name + SEAL).unlink(missing_ok=True)
    sync_folder(path.parent)
    return aside


def _sealed(seal: Path) -> list[str]:
    return seal.read_text(encoding="ascii", errors="replace").split() if seal.exists() else []


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parse_json(data: bytes | str) -> Any:
    """Read the content of a file as JSON.

    Args:
        data: The content.

    Returns:
        Plain values.

    Raises:
        ValueError: It is no JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


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
