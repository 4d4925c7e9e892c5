"""What is in a prepared data set: counts by label, group and split, exclusions, and what looks wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.base import Meta, PreparedDataset, table_bytes
from fairdx.data.checks import nearest
from fairdx.data.looks import DARK, FAR, FLAT, PALE, SMALL, look_at, strangeness
from fairdx.data.split import SPLITS, check_disjoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import RenderableType
    from rich.table import Table

FEW: Final = 10
"""Fewer test images than this of one group and class make its rates a guess."""
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

    def to_dict(self) -> dict[str, Any]:
        """Give all of it in the types of JSON.

        Returns:
            The keys `meta`, `counts` (a list with one entry for each row), `patients` and `problems`.
        """
        return {
            "meta": self.meta.model_dump(mode="json"),
            "counts": self.counts.to_dict("records"),
            "patients": self.patients,
            "problems": list(self.problems),
        }


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
    for name, cells in main.groupby("class", sort=False)[["train", "validation"]].max().iterrows():
        if cells["train"] and not cells["validation"] and main["validation"].any():
            yield f"{main['label'].iloc[0]} = {name}: no validation image, so that no threshold can be fixed"


def _pixel_problems(dataset: PreparedDataset) -> Iterator[str]:
    """Read every image once: hash, repeated, and what looks unlike an image or unlike the others."""
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
    digest.update(table_bytes(dataset.table))
    if digest.hexdigest() != dataset.meta.hash:
        yield "the images or the table are not those that were prepared (other hash): prepare the set again"
    look = pd.concat(looks, ignore_index=True)
    yield from _odd_looks(look, dataset.table["image"])
    yield from _repeated(dataset.table.assign(key=keys)[(look["low"] < look["high"]).to_numpy()])


def _odd_looks(look: pd.DataFrame, names: pd.Series[str]) -> Iterator[str]:
    """What looks unlike an image, or unlike the others."""
    blank = look["low"] == look["high"]
    far = strangeness(look) > FAR
    for found, what in (
        (blank, "blank (one value)"),
        ((look["high"] < DARK) & ~blank, f"dark (all below {DARK})"),
        ((look["mean"] > PALE) & ~blank, f"nearly white (mean above {PALE})"),
        ((look["spread"] < FLAT) & ~blank, f"flat (standard deviation below {FLAT})"),
        (
            (look["shown"] < SMALL) & ~blank,
            f"small (less than {SMALL:.0%} of the square is not black border)",
        ),
        (far & ~blank, f"far from the others in mean, spread or sharpness (robust score above {FAR})"),
    ):
        if found.any():
            yield f"{int(found.sum())} images are {what}, the first is {names.iloc[int(found.argmax())]!r}"


def _repeated(table: pd.DataFrame) -> Iterator[str]:
    """Pixel-identical images, which leak when they are in different splits."""
    same = table[table["key"].duplicated(keep=False)].groupby("key", sort=False)
    for column, what in (("split", "in different splits"), ("patient", "of different patients")):
        groups = same["image"].agg(list)[same[column].nunique() > 1]
        if len(groups):
            first = " and ".join(repr(name) for name in groups.iloc[0][:2])
            yield f"{len(groups)} pictures occur more than once {what}, the first as {first}"


def write_json(description: Description, path: Path) -> None:
    """Write a description to a file.

    Args:
        description: What `describe` returned.
        path: The file; replaced if it exists.

    Raises:
        InputError: It cannot be written.
    """
    text = json.dumps(description.to_dict(), indent=2, ensure_ascii=False)
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def render(description: Description, *, label: str | None = None) -> RenderableType:
    """Lay a description out for a terminal.

    Args:
        description: What `describe` returned.
        label: The label to count by group; the main one by default.

    Returns:
        Something that a rich console prints.

    Raises:
        InputError: There is no such label.
    """
    from rich.console import Group
    from rich.text import Text

    meta = description.meta
    main = label or next(iter(meta.labels))
    if main not in meta.labels:
        raise InputError(f"the data set has no label {main!r} ({nearest(main, meta.labels)})")
    colours = "grey" if meta.channels == 1 else "RGB"
    title = (
        f"{meta.source}: {meta.counts['images']:,} images of {meta.counts['patients']:,} patients, "
        f"{meta.size} x {meta.size}, {colours}; prepared {meta.created[:10]} by fairdx {meta.version}"
    )
    problems = [Text(f"! {problem}", style="yellow") for problem in description.problems]
    return Group(
        Text(title, style="bold"),
        _split_table(description),
        _label_table(description),
        _group_table(description, main),
        *([_exclusion_table(meta)] if meta.exclusions else [Text("No image was left out.")]),
        *([_warning_table(meta)] if meta.warnings else []),
        _choices(meta),
        *(problems or [Text("No problem found.", style="green")]),
    )


def _split_table(description: Description) -> Table:
    """Images and patients of each split."""
    table = _table("Splits", "split", "images", "share", "patients")
    counts = description.meta.counts
    for split in SPLITS:
        table.add_row(
            split,
            f"{counts[split]:,}",
            _share(counts[split], counts["images"]),
            f"{description.patients[split]:,}",
        )
    return table


def _label_table(description: Description) -> Table:
    """Images of each class; of two classes only the second is shown, the first being the rest."""
    table = _table("Labels: images, and their share of those whose label is known", "label", "class", *SPLITS)
    attribute = next(iter(description.meta.attributes))
    cells = description.counts[description.counts["attribute"] == attribute]
    for name, classes in description.meta.labels.items():
        sums = cells[cells["label"] == name].groupby("class", sort=False)[list(SPLITS)].sum()
        known = sums[sums.index != "unknown"].sum()
        for row in classes[1:] if len(classes) == 2 else classes:
            table.add_row(name, row, *(_counted(sums[s][row], known[s]) for s in SPLITS))
        if "unknown" in sums.index:
            table.add_row(name, "unknown", *(f"{sums[s]['unknown']:,}" for s in SPLITS), style="dim")
    return table


def _group_table(description: Description, label: str) -> Table:
    """Images of each group and class of one label."""
    title = f"Groups by {label}: images, and the share of the class in its group"
    table = _table(title, "attribute", "group", label, *SPLITS)
    cells = description.counts[description.counts["label"] == label]
    for (attribute, group), part in cells.groupby(["attribute", "group"], sort=False):
        known = part.loc[part["class"] != "unknown", list(SPLITS)].sum()
        last = len(part) - 1
        for place, row in enumerate(part.to_dict("records")):
            shares = (
                f"{row[s]:,}" if row["class"] == "unknown" else _counted(row[s], known[s]) for s in SPLITS
            )
            first = (str(attribute), str(group)) if place == 0 else ("", "")
            dim = "dim" if "unknown" in (row["class"], group) else None
            table.add_row(*first, row["class"], *shares, style=dim, end_section=place == last)
    return table


def _exclusion_table(meta: Meta) -> Table:
    """What was left out, by reason, of all images of the source."""
    table = _table("Left out (each is listed in exclusions.csv)", "reason", "images", "share")
    total = meta.counts["images"] + sum(meta.exclusions.values())
    for reason, count in meta.exclusions.items():
        table.add_row(reason, f"{count:,}", _share(count, total))
    return table


def _warning_table(meta: Meta) -> Table:
    """What was taken with a warning."""
    table = _table("Taken with a warning (each is listed in warnings.csv)", "warning", "images", "share")
    for reason, count in meta.warnings.items():
        table.add_row(reason, f"{count:,}", _share(count, meta.counts["images"]))
    return table


def _choices(meta: Meta) -> Table:
    """The policies, and what else the reader wants remembered: join losses, contradictions."""
    table = _table("Choices and findings", "name", "value")
    for name, value in {**meta.policies, **meta.settings, "seed": meta.seed}.items():
        values = value if isinstance(value, list) else [value]
        text = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        table.add_row(name.replace("_", " "), text)
    return table


def _counted(count: int, total: int) -> str:
    return f"{count:,} ({_share(count, total)})" if total else f"{count:,}"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        table.add_column(
            column, justify="right" if column in (*SPLITS, "images", "share", "patients") else "left"
        )
    return table
