"""Which files to score: from paths, folders and lists, in an order that is the same every time."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from fairdx.core.cells import FORMULA
from fairdx.core.errors import InputError
from fairdx.data.files import NAMED_ENDINGS
from fairdx.data.source import file_stamp
from fairdx.deploy.decoding import starts_as_dicom

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

ENDINGS: Final = (*NAMED_ENDINGS, ".dicom", ".nii.gz")
"""How the names of images in folders end. A file of another ending is one if it has the mark of DICOM."""
INDEX: Final = "DICOMDIR"
"""The table of contents of a DICOM disc: DICOM, but no image."""


@dataclass(frozen=True)
class Inputs:
    """The files to score."""

    files: tuple[str, ...]
    """Their paths as given, or below the folders given; each once."""
    passed_over: int
    """Files in the folders that are no images."""
    repeated: int
    """How often a file was given that had been given before."""

    @property
    def digest(self) -> str:
        """sha256 of all paths, in order."""
        return hashlib.sha256(b"".join(os.fsencode(file) + b"\0" for file in self.files)).hexdigest()


def find_inputs(paths: Sequence[str], listed: Iterable[str] = ()) -> Inputs:
    """Find the files of paths and lists.

    Args:
        paths: Files and folders, which must exist; folders are searched with all that is in them.
        listed: Further ones; a file among these may be missing, and is then reported as broken.

    Returns:
        The files: in the order given, those of a folder in the order of their paths.

    Raises:
        InputError: A path does not exist, a folder cannot be read, or there is no file at all.
    """
    for path in paths:
        if not os.path.exists(path):
            raise InputError(f"{path} does not exist")
    found: dict[str, str] = {}
    passed_over = repeated = 0
    for given in (*paths, *listed):
        for file, is_image in _expand(given):
            place = os.path.abspath(file)
            passed_over += not is_image
            repeated += is_image and place in found
            if is_image:
                # The same file, under a name that no spreadsheet takes for a formula.
                found.setdefault(place, f"./{file}" if file.startswith(FORMULA) else file)
    if not found:
        raise InputError(
            f"there is no image file in what was given ({passed_over:,} files of other kinds): images are "
            "PNG, JPEG, TIFF, WebP, DICOM or NIfTI"
        )
    return Inputs(tuple(found.values()), passed_over, repeated)


def part_of(count: int, part: tuple[int, int] | None) -> range:
    """Cut a list into parts of nearly equal length.

    Args:
        count: Length of the list.
        part: Number of the part, from 1, and of all parts; None for the whole list.

    Returns:
        The places of the part.

    Example:
        >>> [list(part_of(5, (k, 2))) for k in (1, 2)]
        [[0, 1], [2, 3, 4]]
    """
    number, parts = part or (1, 1)
    return range(count * (number - 1) // parts, count * number // parts)


def stamp_of(files: Iterable[str]) -> str:
    """Sum up which files these are, how large, and when they were changed, to see later what was replaced.

    Args:
        files: Paths; missing files count as such.

    Returns:
        32 hexadecimal digits: those of files in parts are the sum of the parts' (`added`).
    """
    each = (blake2b(os.fsencode(f) + file_stamp((f,)).encode(), digest_size=16).hexdigest() for f in files)
    return added(each)


def added(stamps: Iterable[str]) -> str:
    """Add stamps.

    Args:
        stamps: As `stamp_of` returns them.

    Returns:
        The stamp of all their files.
    """
    return f"{sum(int(stamp, 16) for stamp in stamps) % 2**128:032x}"


def read_list(path: Path) -> list[str]:
    """Read a list of paths.

    Args:
        path: A text file with one path in each line, or `-` for the standard input.

    Returns:
        The paths; empty lines are left out.

    Raises:
        InputError: The file cannot be read.
    """
    if str(path) == "-" and sys.stdin is None:
        raise InputError("the list is to come from the standard input, which is closed")
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InputError(f"the list {path} cannot be read: {error.strerror}") from error
    if b"\0" in data:
        raise InputError(f"the list {path} is not text: it holds a zero byte")
    lines = [line.removesuffix(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    return [os.fsdecode(line) for line in lines if line.strip()]


def _expand(given: str) -> Iterator[tuple[str, bool]]:
    """A file itself, or the files in a folder: path and whether it is an image."""
    if not os.path.isdir(given):
        yield given, True
        return
    seen = {os.path.realpath(given)}  # links may lead back to where we came from
    for place, folders, names in os.walk(given, followlinks=True, onerror=_refuse):
        below = {name: os.path.realpath(os.path.join(place, name)) for name in sorted(folders)}
        folders[:] = [name for name, real in below.items() if real not in seen]
        seen.update(below.values())
        for name in sorted(names):
            file = os.path.join(place, name)
            yield file, _is_image(file, name)


def _is_image(file: str, name: str) -> bool:
    if name.lower().endswith(ENDINGS):
        return True
    return name != INDEX and starts_as_dicom(file)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
