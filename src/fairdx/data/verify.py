"""Whether a prepared data set still is what was prepared: pixels, table and codings against its hash."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.base import FILES, META, PreparedDataset, table_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from fairdx.data.base import Meta

CODINGS: Final = 2
"""From this format on the hash covers the names of classes and groups in their order too."""
_AT_ONCE: Final = 256


def content_hash(pixels: hashlib._Hash, table: pd.DataFrame, meta: Meta) -> str:
    """Sum up all that training depends on.

    Args:
        pixels: sha256 of the pixels, in the order of the rows; taken further here.
        table: The table.
        meta: Its format, labels and attributes count.

    Returns:
        64 hexadecimal digits.
    """
    pixels.update(table_bytes(table))
    if meta.format >= CODINGS:
        codings = [list(meta.labels.items()), list(meta.attributes.items())]
        pixels.update(json.dumps(codings, ensure_ascii=False).encode())
    return pixels.hexdigest()


def verified(root: str | Path) -> PreparedDataset:
    """Open a prepared data set whose every byte is what was prepared.

    All of it is read once in a process, at the speed of the disk; after that only if a file has changed.

    Args:
        root: The folder that `prepare` wrote.

    Returns:
        The data set.

    Raises:
        InputError: As for `PreparedDataset.open`, or its content is not what was prepared.
    """
    dataset = PreparedDataset.open(root)
    stamps = []
    for name in FILES:
        file = dataset.root / name
        if file.exists():
            found = file.stat()
            stamps.append((name, found.st_size, found.st_mtime_ns, found.st_ino))
    _verify(str(dataset.root.resolve()), tuple(stamps))
    return dataset


@cache
def _verify(root: str, stamps: tuple[tuple[str, int, int, int], ...]) -> None:
    dataset = PreparedDataset.open(root)
    dataset.check_rows(dataset.meta.labels, dataset.meta.attributes)  # which can name the row at fault
    digest = hashlib.sha256()
    with Reporter("verifying the data", len(dataset), unit="images") as bar:
        for start in range(0, len(dataset), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(dataset)))
            digest.update(dataset.read(rows).tobytes())
            bar.advance(len(rows))
    if content_hash(digest, dataset.table, dataset.meta) != dataset.meta.hash:
        raise InputError(
            f"{root} is not what was prepared: its images, table, classes or groups have another hash than "
            f"{META} says; prepare it again"
        )
