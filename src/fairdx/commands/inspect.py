"""What `fairdx inspect` prints, and its page: counts, problems, a contact sheet of the strangest images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from fairdx.core.console import plain
from fairdx.core.errors import InputError
from fairdx.data.base import EXCLUSIONS, WARNINGS
from fairdx.data.checks import nearest
from fairdx.data.split import SPLITS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping
    from typing import Any

    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

    from fairdx.data.base import Meta, PreparedDataset
    from fairdx.data.inspect import Description

_NUMERIC: Final = (*SPLITS, "images", "share", "patients")
_SIDE: Final = 224
"""Height and width of an image on the page, in pixels, at most."""


@dataclass
class Listing:
    """A table for a terminal or a page."""

    title: str
    """What it shows."""
    columns: tuple[str, ...]
    """Names of its columns."""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    """Its cells."""
    faint: set[int] = field(default_factory=set)
    """Rows of what is not known."""
    ends: set[int] = field(default_factory=set)
    """Rows that end a section."""

    def add(self, *cells: str, faint: bool = False, ends: bool = False) -> None:
        """Add a row."""
        self.faint |= {len(self.rows)} if faint else set()
        self.ends |= {len(self.rows)} if ends else set()
        self.rows.append(cells)


def title_of(meta: Meta) -> str:
    """One line about a prepared data set."""
    colours = "grey" if meta.channels == 1 else "RGB"
    return (
        f"{meta.source}: {meta.counts['images']:,} images of {meta.counts['patients']:,} patients, "
        f"{meta.size} x {meta.size}, {colours}; prepared {meta.created[:10]} by fairdx {meta.version}"
    )


def counted_label(meta: Meta, label: str | None) -> str:
    """The label to count by group.

    Raises:
        InputError: There is no such label.
    """
    main = label or next(iter(meta.labels))
    if main not in meta.labels:
        raise InputError(f"the data set has no label {main!r} ({nearest(main, meta.labels)})")
    return main


def listings(description: Description, label: str | None = None) -> list[Listing]:
    """All tables of a description.

    Args:
        description: What `describe` returned.
        label: The label to count by group; the main one by default.

    Returns:
        Splits, labels, groups, what was left out or warned of where something was, choices and findings.

    Raises:
        InputError: There is no such label.
    """
    meta = description.meta
    main = counted_label(meta, label)
    found = [_splits(description), _labels(description), _groups(description, main)]
    if meta.exclusions:
        total = meta.counts["images"] + sum(meta.exclusions.values())
        title = f"Left out (each is listed in {EXCLUSIONS})"
        found.append(_by_reason(title, "reason", meta.exclusions, total))
    if meta.warnings:
        title = f"Taken with a warning (each is listed in {WARNINGS})"
        found.append(_by_reason(title, "warning", meta.warnings, meta.counts["images"]))
    return [*found, _choices(meta)]


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

    problems = [plain(f"! {problem}", "yellow") for problem in description.problems]
    return Group(
        plain(title_of(description.meta), "bold"),
        *(_rich(listing) for listing in listings(description, label)),
        *([] if description.meta.exclusions else [plain("No image was left out.")]),
        *(problems or [plain("No problem found.", "green")]),
    )


def inspection_page(dataset: PreparedDataset, description: Description, *, label: str | None = None) -> str:
    """Lay a description out as a page that holds all it shows, images among it.

    Args:
        dataset: The data set.
        description: What `describe` returned of it, with its pixels.
        label: The label to count by group; the main one by default.

    Returns:
        HTML.

    Raises:
        InputError: There is no such label, or the images cannot be read.
    """
    from fairdx import __version__
    from fairdx.report.page import render_page

    return render_page(
        "inspect.html",
        title=f"What is in {dataset.root.name or dataset.root}",
        about=title_of(description.meta),
        problems=description.problems,
        listings=listings(description, label),
        numeric=_NUMERIC,
        strangest=list(_contacts(dataset, description)),
        version=__version__,
    )


def _contacts(dataset: PreparedDataset, description: Description) -> Iterator[tuple[str, str, str, str]]:
    """Address, name, score and looks of each of the strangest images."""
    from PIL import Image

    from fairdx.report.page import png_uri
    from fairdx.report.pictures import to_pixels, to_png

    for one in description.strangest:
        pixels = to_pixels(dataset.read([one.row])[0] / 255)
        if len(pixels) > _SIDE:
            pixels = np.asarray(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX))
        yield png_uri(to_png(pixels)), one.image, f"{one.score:.1f}", "; ".join(one.looks)


def _splits(description: Description) -> Listing:
    """Images and patients of each split."""
    listing = Listing("Splits", ("split", "images", "share", "patients"))
    counts = description.meta.counts
    for split in SPLITS:
        share = _share(counts[split], counts["images"])
        listing.add(split, f"{counts[split]:,}", share, f"{description.patients[split]:,}")
    return listing


def _labels(description: Description) -> Listing:
    """Images of each class; of two classes only the second is shown, the first being the rest."""
    title = "Labels: images, and their share of those whose label is known"
    listing = Listing(title, ("label", "class", *SPLITS))
    attribute = next(iter(description.meta.attributes))
    cells = description.counts[description.counts["attribute"] == attribute]
    for name, classes in description.meta.labels.items():
        sums = cells[cells["label"] == name].groupby("class", sort=False)[list(SPLITS)].sum()
        known = sums[sums.index != "unknown"].sum()
        for row in classes[1:] if len(classes) == 2 else classes:
            listing.add(name, row, *(_counted(sums[s][row], known[s]) for s in SPLITS))
        if "unknown" in sums.index:
            listing.add(name, "unknown", *(f"{sums[s]['unknown']:,}" for s in SPLITS), faint=True)
    return listing


def _groups(description: Description, label: str) -> Listing:
    """Images of each group and class of one label."""
    title = f"Groups by {label}: images, and the share of the class in its group"
    listing = Listing(title, ("attribute", "group", label, *SPLITS))
    cells = description.counts[description.counts["label"] == label]
    for (attribute, group), part in cells.groupby(["attribute", "group"], sort=False):
        known = part.loc[part["class"] != "unknown", list(SPLITS)].sum()
        last = len(part) - 1
        for place, row in enumerate(part.to_dict("records")):
            first = (str(attribute), str(group)) if place == 0 else ("", "")
            faint = "unknown" in (row["class"], group)
            shares = _shares(row, known)
            listing.add(*first, str(row["class"]), *shares, faint=faint, ends=place == last)
    return listing


def _shares(row: Mapping[Hashable, Any], known: pd.Series[int]) -> list[str]:
    if row["class"] == "unknown":
        return [f"{row[split]:,}" for split in SPLITS]
    return [_counted(row[split], known[split]) for split in SPLITS]


def _by_reason(title: str, column: str, counts: Mapping[str, int], total: int) -> Listing:
    """How many images each reason was given for."""
    listing = Listing(title, (column, "images", "share"))
    for reason, count in counts.items():
        listing.add(reason, f"{count:,}", _share(count, total))
    return listing


def _choices(meta: Meta) -> Listing:
    """The policies, and what else the reader wants remembered: join losses, contradictions."""
    listing = Listing("Choices and findings", ("name", "value"))
    for name, value in {**meta.policies, **meta.settings, "seed": meta.seed}.items():
        values = value if isinstance(value, list) else [value]
        text = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        listing.add(name.replace("_", " "), text)
    return listing


def _counted(count: int, total: int) -> str:
    return f"{count:,} ({_share(count, total)})" if total else f"{count:,}"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _rich(listing: Listing) -> Table:
    """A listing for a terminal; what it says is text, whatever brackets it holds."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=plain(listing.title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in listing.columns:
        table.add_column(plain(column), justify="right" if column in _NUMERIC else "left")
    for place, cells in enumerate(listing.rows):
        style = "dim" if place in listing.faint else None
        table.add_row(*map(plain, cells), style=style, end_section=place in listing.ends)
    return table
