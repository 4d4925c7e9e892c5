"""What is in a prepared data set: counts by label, group and split, exclusions, and what looks wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.base import Meta, PreparedDataset
from fairdx.data.looks import DARK, FAR, FLAT, PALE, SMALL, look_at, strangeness
from fairdx.data.split import SPLITS, check_disjoint
from fairdx.data.verify import content_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

FEW: Final = 10
"""Fewer test images than this of one group and class make its rates a guess."""
STRANGEST: Final = 20
"""How many of the images that are least like the others are named."""
_AT_ONCE: Final = 256


@dataclass(frozen=True)
class Strange:
    """An image that is unlike the others."""

    row: int
    """Its row of the data set."""
    image: str
    """Its name."""
    score: float
    """How far it is from the others in mean, spread or sharpness, in robust standard deviations."""
    looks: tuple[str, ...]
    """What it looks like, where that has a name: blank, dark, ..."""


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
    strangest: tuple[Strange, ...] = ()
    """The images least like the others, the strangest first; none where no pixels were read."""

    def to_dict(self) -> dict[str, Any]:
        """Give all of it in the types of JSON.

        Returns:
            The keys `meta`, `counts` (a list with one entry for each row), `patients`, `problems` and
            `strangest`.
        """
        return {
            "meta": self.meta.model_dump(mode="json"),
            "counts": self.counts.to_dict("records"),
            "patients": self.patients,
            "problems": list(self.problems),
            "strangest": [asdict(one) for one in self.strangest],
        }

    def to_json(self) -> str:
        """Give all of it as JSON, indented."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
    strangest: tuple[Strange, ...] = ()
    if pixels:
        look, found = _read_pixels(dataset)
        problems += [*found, *_odd_looks(look, table["image"])]
        strangest = _strangest(look, table["image"])
    patients: dict[str, int] = {
        split: int(table.loc[table["split"] == split, "patient"].nunique()) for split in SPLITS
    }
    return Description(dataset.meta, counts, patients, tuple(problems), strangest)


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
    tested = dataset.table.loc[dataset.table["split"] == "test", "patient"]
    if FEW > tested.nunique() > 0:
        patients = f"{tested.nunique()} patient{'s' * (tested.nunique() != 1)}"
        yield f"the {len(tested)} test images are of {patients}, too few for intervals"


def _count_problems(counts: pd.DataFrame, meta: Meta) -> Iterator[str]:
    """Too few test images of a group and class of the main label, or no training image."""
    main = counts[(counts["label"] == next(iter(meta.labels))) & (counts["class"] != "unknown")]
    for cell in main[main["group"] != "unknown"].to_dict("records"):
        where = f"{cell['label']} = {cell['class']}, {cell['attribute']} = {cell['group']}"
        if cell["train"] == 0:
            yield f"{where}: no training image"
        if cell["test"] < FEW:
            images = f"{cell['test']} test image{'s' * (cell['test'] != 1)}"
            yield f"{where}: {images}, too few for rates"
    for name, cells in main.groupby("class", sort=False)[["train", "validation"]].max().iterrows():
        if cells["train"] and not cells["validation"] and main["validation"].any():
            yield f"{main['label'].iloc[0]} = {name}: no validation image, so that no threshold can be fixed"


def _read_pixels(dataset: PreparedDataset) -> tuple[pd.DataFrame, list[str]]:
    """Read every image once: what each looks like, and what is wrong with the hash or repeated."""
    digest = hashlib.sha256()
    keys = np.empty(len(dataset), dtype="S16")
    looks: list[pd.DataFrame] = []
    with Reporter("checking", len(dataset), unit="images") as bar:
        for start in range(0, len(dataset), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(dataset)))
            images = dataset.read(rows)
            digest.update(images.tobytes())
            looks.append(look_at(images))
            keys[rows] = [hashlib.blake2b(image, digest_size=8).hexdigest() for image in images]
            bar.advance(len(rows))
    problems = []
    if content_hash(digest, dataset.table, dataset.meta) != dataset.meta.hash:
        problems.append(
            "the images, the table, or the names of classes and groups are not those that were prepared "
            "(other hash): prepare the set again"
        )
    look = pd.concat(looks, ignore_index=True)
    problems += _repeated(dataset.table.assign(key=keys)[(look["low"] < look["high"]).to_numpy()])
    return look, problems


def _kinds(look: pd.DataFrame) -> dict[str, pd.Series[bool]]:
    """Which images are unlike an image, or unlike the others, by what is said of them."""
    blank = look["low"] == look["high"]
    return {
        "blank (one value)": blank,
        f"dark (all below {DARK})": (look["high"] < DARK) & ~blank,
        f"nearly white (mean above {PALE})": (look["mean"] > PALE) & ~blank,
        f"flat (standard deviation below {FLAT})": (look["spread"] < FLAT) & ~blank,
        f"small (less than {SMALL:.0%} of the square is not black border)": (look["shown"] < SMALL) & ~blank,
        f"far from the others in mean, spread or sharpness (robust score above {FAR})": (
            strangeness(look) > FAR
        )
        & ~blank,
    }


def _odd_looks(look: pd.DataFrame, names: pd.Series[str]) -> Iterator[str]:
    """What looks unlike an image, or unlike the others."""
    for what, found in _kinds(look).items():
        if found.any():
            yield f"{int(found.sum())} images are {what}, the first is {names.iloc[int(found.argmax())]!r}"


def _strangest(look: pd.DataFrame, names: pd.Series[str]) -> tuple[Strange, ...]:
    """The images of which something is said, then the others, by their score."""
    kinds, score = _kinds(look), strangeness(look)
    said = np.any([found.to_numpy(bool) for found in kinds.values()], axis=0)
    order = np.lexsort((np.arange(len(look)), -score.to_numpy(float), ~said))[:STRANGEST]
    return tuple(
        Strange(
            row=row,
            image=str(names.iloc[row]),
            score=round(float(score.iloc[row]), 2),
            looks=tuple(what for what, found in kinds.items() if found.iloc[row]),
        )
        for row in order.tolist()
    )


def _repeated(table: pd.DataFrame) -> Iterator[str]:
    """Pixel-identical images, which leak when they are in different splits."""
    same = table[table["key"].duplicated(keep=False)].groupby("key", sort=False)
    for column, what in (("split", "in different splits"), ("patient", "of different patients")):
        groups = same["image"].agg(list)[same[column].nunique() > 1]
        if len(groups):
            first = " and ".join(repr(name) for name in groups.iloc[0][:2])
            yield f"{len(groups)} pictures occur more than once {what}, the first as {first}"
