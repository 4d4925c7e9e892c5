"""An images.npy that grows on disk and survives `kill -9`.

Images are appended to a file under a temporary name; after each block a line in a journal says how many rows
of the source it covers, which of them failed, the checksum of its bytes and the stamp of its files (sizes and
times of change). A writer that finds such a pair verifies it block by block, cuts off what was not finished
or was made from files that have changed since, and goes on: the result is bit-identical.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Self

import numpy as np

from fairdx.core.errors import InputError
from fairdx.core.files import journal_line, read_journal, write_all
from fairdx.data.base import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

PARTIAL: Final = f"{IMAGES}.partial"
JOURNAL: Final = "progress.jsonl"


@dataclass(frozen=True)
class Block:
    """Images of consecutive rows of a source, as far as their files could be used."""

    rows: int
    """How many rows of the source it covers."""
    images: NDArray[np.uint8]
    """Those that could be used, of shape (rows - len(failures), C, H, W)."""
    failures: Sequence[tuple[int, str]] = ()
    """Place in the block and what is wrong, for each of the others."""
    notes: Sequence[tuple[int, str]] = ()
    """Place in the block and what is to be warned of, for some of the images."""
    stamp: str = ""
    """Of the files that it was made from, before they were read."""


class ImageWriter:
    """Appends blocks of images to a folder's unfinished images.npy, from where an earlier run stopped."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        shape: tuple[int, int, int],
        stamp: Callable[[int, int], str],
    ) -> None:
        self._stamp = stamp
        self._folder = folder
        self._shape = shape
        self._stride = int(np.prod(shape))
        self._images: IO[bytes]
        self._journal: IO[bytes]
        self.rows = 0
        """Rows of the source that are done, those that failed included."""
        self.kept = 0
        """Images written."""
        self.failures: list[tuple[int, str]] = []
        """Row of the source and what is wrong with it, for each image that could not be used."""
        self.notes: list[tuple[int, str]] = []
        """Row of the source and what is to be warned of, for some of the images."""
        self.digest = hashlib.sha256()
        """Of the pixels written."""
        self._header = _header(0, shape)
        self._open(fingerprint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._images.close()
        self._journal.close()

    def _open(self, fingerprint: str) -> None:
        partial, journal = self._folder / PARTIAL, self._folder / JOURNAL
        first, *lines = read_journal(journal)
        if first is not None and first.get("fingerprint") != fingerprint:
            raise InputError(
                f"{self._folder} holds an unfinished data set made from another source, with other options "
                f"or by another version: delete it or choose another output"
            )
        if (self._folder / IMAGES).exists():
            if first is None or partial.exists():
                raise InputError(f"{self._folder} holds an {IMAGES} of something else: choose another output")
            (self._folder / IMAGES).rename(partial)  # stopped just before meta.json
        self._images = partial.open("r+b" if partial.exists() else "w+b", buffering=0)
        self._journal = journal.open("r+b" if journal.exists() else "w+b", buffering=0)
        self._images.seek(len(self._header))
        write_all(self._journal, journal_line({"fingerprint": fingerprint}))
        for line in lines:
            if line is None or not _is_entry(line) or not self._verified(line):
                break
        self._journal.truncate()
        self._images.seek(len(self._header) + self.kept * self._stride)
        self._images.truncate()
        if self.rows:
            log.info("%s: going on after %d images", self._folder, self.rows)

    def _verified(self, line: dict[str, Any]) -> bool:
        """Take over a block of an earlier run if its bytes and its files are what the journal says."""
        if line["stamp"] != self._stamp(self.rows, self.rows + line["rows"]):
            return False
        data = self._images.read(line["kept"] * self._stride)
        if zlib.crc32(data) != line["crc"] or len(data) != line["kept"] * self._stride:
            return False
        write_all(self._journal, journal_line(line))
        self._count(line, data)
        return True

    def _count(self, line: dict[str, Any], data: bytes) -> None:
        self.failures += [(self.rows + place, message) for place, message in line["failed"]]
        self.notes += [(self.rows + place, message) for place, message in line["notes"]]
        self.rows += line["rows"]
        self.kept += line["kept"]
        self.digest.update(data)

    def add(self, block: Block) -> None:
        """Append a block.

        Args:
            block: The next rows of the source.
        """
        images = block.images
        if images.shape != (block.rows - len(block.failures), *self._shape) or images.dtype != np.uint8:
            raise RuntimeError(f"a block of {block.rows} rows came as {images.dtype} of shape {images.shape}")
        data = images.tobytes()
        line = {
            "rows": block.rows,
            "kept": len(images),
            "crc": zlib.crc32(data),
            "failed": [list(failure) for failure in block.failures],
            "notes": [list(note) for note in block.notes],
            "stamp": block.stamp,
        }
        write_all(self._images, data)
        write_all(self._journal, journal_line(line))
        self._count(line, data)

    def finish(self) -> None:
        """Give the file its header and its name."""
        self._images.seek(0)
        write_all(self._images, _header(self.kept, self._shape))
        os.fsync(self._images.fileno())
        (self._folder / PARTIAL).replace(self._folder / IMAGES)


def _is_entry(line: dict[str, Any]) -> bool:
    """Whether a line of the journal is of a block, and not of something else or damaged."""
    numbers = all(isinstance(line.get(key), int) for key in ("rows", "kept", "crc"))
    lists = all(isinstance(line.get(key), list) for key in ("failed", "notes"))
    return numbers and lists and isinstance(line.get("stamp"), str)


def _header(images: int, shape: tuple[int, int, int]) -> bytes:
    """The header of an .npy file; NumPy leaves room in it for the first axis to grow."""
    from io import BytesIO

    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (images, *shape)}
    )
    return buffer.getvalue()
