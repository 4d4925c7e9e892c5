"""The prepared data set: the hinge between the readers, which write it, and everything that learns or audits.

A folder with `images.npy` (uint8, one row per image), `table.parquet` (one row per image, in the same order),
`exclusions.csv` (what was left out, and why), `warnings.csv` where images were taken with a warning, and
`meta.json` (where it came from and how it was made). The last is written last: a folder without it is
unfinished.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from fairdx.core.errors import InputError
from fairdx.data.checks import nearest, require_columns
from fairdx.data.split import SPLITS, check_disjoint
from fairdx.data.task import Task, check_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    import torch
    from numpy.typing import ArrayLike, NDArray

FORMAT: Final = 2
"""Version of the folder's format; raised when an older fairdx could misread a newer folder.
2: the hash covers the names of classes and groups too."""

IMAGES, TABLE, EXCLUSIONS, META = "images.npy", "table.parquet", "exclusions.csv", "meta.json"
WARNINGS: Final = "warnings.csv"
FILES: Final = (IMAGES, TABLE, EXCLUSIONS, WARNINGS, META)
"""All that a prepared data set may hold."""


class Batch(NamedTuple):
    """What a method trains on."""

    image: torch.Tensor
    """float32 in [0, 1], of shape (N, C, H, W)."""
    label: torch.Tensor
    """int64 codes of the label Y, of shape (N,)."""
    group: torch.Tensor
    """int64 codes of the sensitive group S, of shape (N,)."""
    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks a batch for
    """int64 rows of the prepared data set, of shape (N,)."""


class Meta(BaseModel):
    """Where a prepared data set came from and how it was made (`meta.json`).

    The codings of labels and groups are written here and nowhere else: the code of a name is its place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    """Version of the folder's format."""
    source: str
    """Name of the reader."""
    version: str
    """Version of fairdx that wrote it."""
    created: str
    """UTC time at which it was finished, ISO 8601."""
    size: int
    """Height and width of the images, in pixels."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    labels: dict[str, list[str]]
    """For each label column its class names, in the order of their codes."""
    attributes: dict[str, list[str]]
    """For each attribute column its group names, in the order of their codes."""
    policies: dict[str, Any]
    """Every choice made on the way (uncertain labels, age bins, geometry, ...)."""
    counts: dict[str, int]
    """Number of images, of patients, and of images in each split."""
    exclusions: dict[str, int]
    """Number of images left out, by reason."""
    warnings: dict[str, int] = {}
    """Number of images taken with a warning, by what it says."""
    seed: int
    """Seed of the split."""
    settings: dict[str, Any]
    """What the source wants remembered (the phantom's settings)."""
    fingerprint: str
    """sha256 of the source's table and of all options: the same again means the same command."""
    hash: str
    """sha256 of the pixels, of the table's content, and of the codings of labels and attributes."""
    seal: str = ""
    """sha256 of everything above as it is written: how images were made decides how new ones are made. Empty
    in what an earlier version wrote."""


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set on disk; nothing is read before it is asked for."""

    root: Path
    """The folder."""
    meta: Meta
    """Content of `meta.json`."""

    @classmethod
    def open(cls, root: str | Path) -> Self:
        """Open a finished prepared data set.

        Args:
            root: The folder that `prepare` wrote.

        Returns:
            The data set, checked for its files to belong together.

        Raises:
            InputError: The folder is missing or unfinished, or its files contradict each other.
        """
        folder = Path(root)
        dataset = cls(folder, _read_meta(folder))
        rows = dataset.meta.counts.get("images", -1)
        if rows < 0:
            raise InputError(f"{folder / META} does not say how many images there are: prepare it again")
        dataset._check_images()
        if len(dataset.table) != rows:
            raise InputError(
                f"{folder / TABLE} has {len(dataset.table)} rows for {rows} images: prepare it again"
            )
        return dataset

    def __len__(self) -> int:
        """Number of images."""
        return self.meta.counts["images"]

    def _check_images(self) -> None:
        """Check form and length of the file of images: a byte too many would shift every one of them."""
        images, path = self.images, self.root / IMAGES
        if images.shape != (len(self), self.meta.channels, self.meta.size, self.meta.size):
            raise InputError(f"{path} has the shape {images.shape}, not that of {META}: prepare it again")
        if images.dtype != np.uint8 or not images.flags.c_contiguous:
            raise InputError(
                f"{path} holds {images.dtype} in another order of axes or another kind than uint8, row by "
                "row: prepare it again"
            )
        more = path.stat().st_size - images.offset - images.nbytes
        if more:
            raise InputError(f"{path} has {more} bytes behind its last image: prepare it again")

    @cached_property
    def images(self) -> np.memmap[Any, np.dtype[np.uint8]]:
        """All images, memory-mapped read-only: uint8 of shape (n, C, H, W)."""
        path = self.root / IMAGES
        try:
            mapped: np.memmap[Any, np.dtype[np.uint8]] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} cannot be read as images ({error}): prepare it again") from error
        return mapped

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per image, in the order of the images.

        Columns: `image`, `patient`, `split`, an Int16 column of codes for each label, a column of group names
        for each attribute (both null where unknown), and whatever else the source knows (age, view, ...).
        """
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.root / TABLE
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a table ({error}): prepare it again") from error
        needed = ("image", "patient", "split", *self.meta.labels, *self.meta.attributes)
        require_columns(table, needed, path)
        for field in pq.read_schema(path):
            if field.name in needed and pa.types.is_nested(field.type):
                raise InputError(
                    f"{path}: the column {field.name!r} holds lists, not values: prepare it again"
                )
        return table

    def read(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """Copy images into memory.

        Unlike an access through `images`, this leaves no page mapped into the process: resident memory stays
        flat however large the data set is. The file is opened anew at each call, so that the data set can be
        sent to other processes.

        Args:
            indices: Rows, in any order, of shape (k,).

        Returns:
            uint8 of shape (k, C, H, W).

        Raises:
            InputError: A row does not exist, or the file is gone or too short.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise InputError(
                f"{self.root} has the images 0 to {len(self) - 1}, not {rows.min()} to {rows.max()}"
            )
        images = np.empty((len(rows), *self.images.shape[1:]), dtype=np.uint8)
        if not images.size:
            return images
        offset, stride = self._layout
        path = self.root / IMAGES
        try:
            with path.open("rb", buffering=0) as file:
                for row, image in zip(rows.tolist(), images, strict=True):
                    file.seek(offset + row * stride)
                    if file.readinto(memoryview(image).cast("B")) != stride:
                        raise InputError(f"{path} ends before image {row}: prepare it again")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        return images

    @cached_property
    def _layout(self) -> tuple[int, int]:
        """Where the first image begins in the file, and how many bytes one takes."""
        return self.images.offset, int(np.prod(self.images.shape[1:]))

    def task(self, label: str | None = None, attribute: str | None = None) -> Task:
        """Choose the label to predict and the attribute to be fair to.

        Args:
            label: A label of `meta.labels`; the first by default.
            attribute: An attribute of `meta.attributes`, the first by default, or several joined by " & ":
                their intersections, of which those with images are the groups.

        Returns:
            The codes of every row, with their names.

        Raises:
            InputError: An unknown name, a class or group without a single usable image, a code or split that
                means nothing, or a patient in two splits.
        """
        label_name = _choose("label", label, self.meta.labels, self.root)
        group_names, group = self._groups(attribute)
        self.check_rows([label_name])
        task = Task(
            label_name=label_name,
            class_names=tuple(self.meta.labels[label_name]),
            attribute_name=attribute or next(iter(self.meta.attributes)),
            group_names=group_names,
            label=np.asarray(self.table[label_name].astype("Int64").fillna(-1), dtype=np.int64),
            group=group,
            patient=self.table["patient"].to_numpy(object),
            split=self.table["split"].to_numpy(object),
        )
        check_task(task, self.root)
        return task

    def check_rows(self, labels: Iterable[str], attributes: Iterable[str] = ()) -> None:
        """Check the table, for one that somebody edited must not teach another class.

        Args:
            labels: Whose codes to check.
            attributes: Whose groups to check.

        Raises:
            InputError: A code, group or split that means nothing, or a patient in two splits.
        """
        wrong = ~self.table["split"].isin(SPLITS)
        if wrong.any():
            row = self.table[wrong].iloc[0]
            raise InputError(f"{self.root / TABLE}: image {row['image']!r} has the split {row['split']!r}")
        for label in labels:
            codes = self.table[label]
            wrong = ~codes.isin(range(len(self.meta.labels[label]))) & codes.notna()
            if wrong.any():
                row = self.table[wrong].iloc[0]
                what = f"the code {row[label]} of {label!r}, not in {META}"
                raise InputError(f"{self.root / TABLE}: image {row['image']!r} has {what}")
        for attribute in attributes:
            self._codes(attribute)
        try:
            check_disjoint(self.table)
        except InputError as error:
            raise InputError(f"{self.root / TABLE}: {error}") from None

    def _groups(self, attribute: str | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Names and codes of the groups of an attribute, or of an intersection of several."""
        parts: list[str | None] = (
            [None] if attribute is None else [part.strip() for part in attribute.split("&")]
        )
        names = [_choose("attribute", part, self.meta.attributes, self.root) for part in parts]
        if len(set(names)) < len(names):
            raise InputError(f"the intersection {attribute!r} names an attribute twice")
        codes = np.stack([self._codes(name) for name in names])
        groups = [self.meta.attributes[name] for name in names]
        if len(names) == 1:
            return tuple(groups[0]), codes[0]
        cells = list(product(*(range(len(group)) for group in groups)))
        kept = [cell for cell in cells if (codes == np.array(cell)[:, None]).all(axis=0).any()]
        code = np.full(codes.shape[1], -1, dtype=np.int64)
        for position, cell in enumerate(kept):
            code[(codes == np.array(cell)[:, None]).all(axis=0)] = position
        return tuple(" & ".join(g[c] for g, c in zip(groups, cell, strict=True)) for cell in kept), code

    def _codes(self, attribute: str) -> NDArray[np.int64]:
        """Code of each row's group, -1 where unknown."""
        import pandas as pd

        values, names = self.table[attribute], self.meta.attributes[attribute]
        codes = np.asarray(pd.Index(names).get_indexer(pd.Index(values)), np.int64)
        strange = values[(codes < 0) & values.notna().to_numpy()]
        if not strange.empty:
            raise InputError(
                f"{self.root / TABLE} has the group {strange.iloc[0]!r} of {attribute!r}, not in {META}"
            )
        return codes


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Seal the content of `meta.json`.

    Args:
        values: The content.

    Returns:
        The same with its `seal`.
    """
    text = json.dumps({key: value for key, value in values.items() if key != "seal"}, sort_keys=True)
    return {**values, "seal": hashlib.sha256(text.encode()).hexdigest()}


def table_bytes(table: pd.DataFrame) -> bytes:
    """Write the content of a table in one canonical form, for hashing.

    Args:
        table: Any table.

    Returns:
        Its columns and rows as CSV, without the index.
    """
    return table.to_csv(index=False, lineterminator="\n").encode()


def _read_meta(folder: Path) -> Meta:
    path = folder / META
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that `fairdx prepare` wrote")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no {META}: it is not a prepared data set, or `fairdx prepare` has not finished it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    try:
        meta = Meta.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise InputError(f"{path} is not valid at {key}: {first['msg']}") from error
    if meta.format > FORMAT:
        raise InputError(f"{path} has format {meta.format}, newer than {FORMAT}: install a newer fairdx")
    if meta.seal and sealed(json.loads(text))["seal"] != meta.seal:
        raise InputError(f"{path} was edited or damaged after it was written: prepare it again")
    return meta


def _choose(kind: str, name: str | None, known: Mapping[str, Any], root: Path) -> str:
    """Find a label or attribute by name, the first where none is given."""
    if not known:
        raise InputError(f"{root} has no {kind}: prepare it again with one")
    if name is None:
        return next(iter(known))
    if name not in known:
        raise InputError(f"{root} has no {kind} {name!r} ({nearest(name, known)})")
    return name
