"""What is in a prepared data set: counts by label, group and split, exclusions, and what looks wrong."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from fairdx.data.base import Meta, PreparedDataset, table_bytes
from fairdx.data.split import SPLITS, check_disjoint
from fairdx.errors import InputError
from fairdx.progress import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.table import Table

FEW: Final = 10
"""Fewer test images than this of one group and class make its rates a guess."""
DARK: Final = 32
"""Images whose brightest pixel is below this are called dark: often 12 bits read as 16."""
_AT_ONCE: Final = 256


@dataclass(frozen=True)
class Description:
    """What is in a prepared data set."""

    meta: Meta
    """How it was made."""
    counts: pd.DataFrame
    """Images by `label`, `class`, `attribute` and `group`, with a column for each split; rows whose label or
    group is not known are counted under the class or group "unknown"."""
    patients: dict[str, int]
    """Number of patients in each split."""
    problems: tuple[str, ...]
    """What looks wrong, one sentence each."""


def describe(dataset: PreparedDataset, *, pixels: bool = True) -> Description:
    """Count and check a prepared data set.

    Args:
        dataset: Opened.
        pixels: Whether to read all images too: to check the hash, and to find blank, dark and repeated ones.

    Returns:
        The counts, and the problems that were found.
    """
    table = dataset.table
    counts = _count(dataset)
    problems = [*_split_problems(dataset), *_count_problems(counts, dataset.meta)]
    if pixels:
        problems += _pixel_problems(dataset)
    patients: dict[str, int] = {
        split: int(table.loc[table["split"] == split, "patient"].nunique()) for split in SPLITS
    }
    return Description(dataset.meta, counts, patients, tuple(problems))


def _count(dataset: PreparedDataset) -> pd.DataFrame:
    """Images by label, class, attribute, group and split, in the order of meta.json."""
    meta, table = dataset.meta, dataset.table
    parts = []
    for label, classes in meta.labels.items():
        names = table[label].map(dict(enumerate(classes))).fillna("unknown")
        for attribute, groups in meta.attributes.items():
            cells = pd.crosstab([names, table[attribute].fillna("unknown")], table["split"])
            order = pd.MultiIndex.from_product(
                [_with_unknown(classes, names), _with_unknown(groups, table[attribute])]
            )
            cells = cells.reindex(index=order, columns=list(SPLITS), fill_value=0).reset_index(
                names=["class", "group"]
            )
            cells.insert(0, "label", label)
            cells.insert(2, "attribute", attribute)
            parts.append(cells)
    return pd.concat(parts, ignore_index=True).rename_axis(columns=None)


def _with_unknown(names: list[str], values: pd.Series[str]) -> list[str]:
    unknown = values.isna().any() or (values == "unknown").any()
    return [*names, "unknown"] if unknown and "unknown" not in names else list(names)


def _split_problems(dataset: PreparedDataset) -> Iterator[str]:
    try:
        check_disjoint(dataset.table)
    except InputError as error:
        yield str(error)
    for split in SPLITS:
        if not (dataset.table["split"] == split).any():
            yield f"there is no {split} split"


def _count_problems(counts: pd.DataFrame, meta: Meta) -> Iterator[str]:
    """Too few test images of a group and class of the main label, or no training image."""
    main = counts[(counts["label"] == next(iter(meta.labels))) & (counts["class"] != "unknown")]
    for cell in main[main["group"] != "unknown"].to_dict("records"):
        where = f"{cell['label']} = {cell['class']}, {cell['attribute']} = {cell['group']}"
        if cell["train"] == 0:
            yield f"{where}: no training image"
        if cell["test"] < FEW:
            yield f"{where}: {cell['test']} test images, too few for rates"


def _pixel_problems(dataset: PreparedDataset) -> Iterator[str]:
    """Read every image once: hash, blank, dark, repeated."""
    digest = hashlib.sha256()
    keys = np.empty(len(dataset), dtype="S16")
    low, high = np.empty((2, len(dataset)), dtype=np.uint8)
    with Reporter("checking", len(dataset), unit="images") as bar:
        for start in range(0, len(dataset), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(dataset)))
            images = dataset.read(rows)
            digest.update(images.tobytes())
            low[rows], high[rows] = images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))
            keys[rows] = [hashlib.blake2b(image, digest_size=8).hexdigest() for image in images]
            bar.advance(len(rows))
    digest.update(table_bytes(dataset.table))
    if digest.hexdigest() != dataset.meta.hash:
        yield "the images or the table are not those that were prepared (other hash): prepare the set again"
    names = dataset.table["image"]
    for found, what in (
        (low == high, "blank (one value)"),
        ((high < DARK) & (low < high), f"dark (all below {DARK})"),
    ):
        if found.any():
            yield f"{int(found.sum())} images are {what}, the first is {names[int(found.argmax())]!r}"
    yield from _repeated(dataset.table.assign(key=keys)[low < high])


def _repeated(table: pd.DataFrame) -> Iterator[str]:
    """Pixel-identical images, which leak when they are in different splits."""
    same = table[table["key"].duplicated(keep=False)].groupby("key", sort=False)
    for column, what in (("split", "in different splits"), ("patient", "of different patients")):
        groups = same["image"].agg(list)[same[column].nunique() > 1]
        if len(groups):
            first = " and ".join(repr(name) for name in groups.iloc[0][:2])
            yield f"{len(groups)} pictures occur more than once {what}, the first as {first}"


def render(description: Description) -> RenderableType:
    """Lay a description out for a terminal.

    Args:
        description: What `describe` returned.

    Returns:
        Something that a rich console prints.
    """
    from rich.console import Group

    meta = description.meta
    main = next(iter(meta.labels))
    title = f"{meta.source}: {meta.counts['images']} images of {meta.channels} x {meta.size} x {meta.size}"
    images = _table(title, "", *SPLITS)
    images.add_row("images", *(str(meta.counts[split]) for split in SPLITS))
    images.add_row("patients", *(str(description.patients[split]) for split in SPLITS))
    groups = _table(f"images by {main} and group", *map(str, description.counts.columns[1:]))
    for row in description.counts[description.counts["label"] == main].itertuples(index=False):
        groups.add_row(*map(str, row[1:]))
    labels = _table("images by label", "label", "class", *SPLITS)
    of_one = description.counts[description.counts["attribute"] == next(iter(meta.attributes))]
    sums = of_one.groupby(["label", "class"], sort=False)[list(SPLITS)].sum().reset_index()
    for row in sums.itertuples(index=False):
        labels.add_row(*map(str, row))
    left_out = [f"left out: {count} images, {reason}" for reason, count in meta.exclusions.items()]
    problems = [f"problem: {problem}" for problem in description.problems] or ["no problem found"]
    return Group(images, labels, groups, *left_out, *problems)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in SPLITS else "left")
    return table
