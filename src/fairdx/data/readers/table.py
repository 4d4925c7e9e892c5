"""Any table with one row per image, or with several images a row: paths, patients, labels and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.cells import parse_groups, row_of
from fairdx.data.checks import require_choice, require_columns
from fairdx.data.dicom import read_demographics, require_pydicom
from fairdx.data.files import find_file, locate_images, source_folder
from fairdx.data.readers.specs import OTHERS, Spec, find_classes, find_groups, parse_spec
from fairdx.data.source import RESERVED, Source
from fairdx.data.split import SPLITS
from fairdx.data.tabular import SHORT_ROWS, read_any_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SPLIT_WORDS: Final = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val"),
    "test": ("test", "testing"),
}
"""What the published data sets call their splits."""
_ASKED = ("sex", "age")
"""What a header may be asked for, and the columns for it."""
_PATTERNS = ("*.csv", "*.parquet", "*.tsv", "*.csv.gz", "*.tsv.gz", "*.xlsx")


def read_table(  # noqa: PLR0913 - one argument for each column that can be named
    root: str | Path,
    *,
    label: Sequence[str],
    attribute: Sequence[str],
    table: str | None = None,
    image: Sequence[str] = ("image",),
    patient: str = "patient",
    split: str | None = None,
    missing: Sequence[str] = (),
    ask_headers: bool = False,
    channels: int = 1,
    encoding: str = "utf-8",
    sheet: str | None = None,
) -> Source:
    """Read any table (CSV, TSV, Excel, Parquet) of images: paths, patients, labels, attributes.

    Example: `fairdx prepare table --root scans --label ill --attribute sex --out prepared/scans`

    Args:
        root: Folder that the paths start from, and the table lies in.
        label: Label columns, the main one first: `name` for a column of 0 and 1, `name:benign|malignant` for
            the values that are the classes, in the order of their codes, `name:benign=nv|malignant=mel,bcc`
            to merge values, `name:malignant=mel,bcc` against all others, or `name=MEL+NV+BCC` for a class in
            each of several columns of 0 and 1.
        attribute: Attribute columns, the main one first: `name`, each value being a group, `name:male|female`
            to list the groups, `name:light=1,2|dark=5,6` to merge values (`*` for all others), `age@40,60` to
            divide numbers into groups at these, or `race=white+black` for a group in each of several columns.
        table: Name of the table's file; the only one in the folder if left out.
        image: Column of paths, relative to the root, or of names of images anywhere below it, with an ending
            or without; repeated, several images a row, as of the left and the right eye.
        patient: Column of patients; that of the images where there are no patients.
        split: Column with a split to use (train, validation, test), or `name:train=0,1,2|validation=3|test=4`
            for one in other words; made by patient if left out.
        missing: A further word that says that a value is not known, besides blanks and, in attributes, those
            that always do (unknown, nan, n/a, -1, prefer not to say, ...); it is counted.
        ask_headers: Whether to take `sex` (male, female) and `age` from the headers of DICOM files where the
            table has no such column or a blank in it; they are counted.
        channels: 1 (grey) or 3 (RGB).
        encoding: What the text is written in, as latin-1.
        sheet: Which sheet of a workbook; by default the first that has the columns.

    Returns:
        The labels and attributes that were named, with all other columns of the table kept.

    Raises:
        InputError: A missing file or column, or a value that means nothing; the message names the row.
    """
    folder = source_folder(root)
    file = folder / table if table else find_file(folder, *_PATTERNS)
    images = [image] if isinstance(image, str) else list(image)
    data = read_any_table(file, (*images, patient), encoding=encoding, sheet=sheet)
    out, settings = _images(data, images, patient, file)
    out["path"], by_name = locate_images(folder, out["image"])
    settings |= {"images_found_by_name": by_name} if by_name else {}
    settings |= {name: count for name, count in data.attrs.items() if name == SHORT_ROWS}
    if ask_headers:
        data, asked = _with_headers(data, out, folder)
        settings |= asked
    columns: dict[str, Any] = {}
    labels, attributes = _specs(label, data, file), _specs(attribute, data, file)
    classes: dict[str, tuple[str, ...]] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for spec in labels:
        columns[spec.name], found = find_classes(data, spec, file, missing)
        classes[spec.name] = found.names
        settings |= found.counts
    for spec in attributes:
        found = find_groups(data, spec, file, missing)
        columns[_attribute_name(spec)], groups[_attribute_name(spec)] = found.values, found.names
        settings |= found.counts
    if split:
        columns["split"] = _split(data, split, file)
    rows = pd.concat(
        [
            pd.DataFrame(columns, index=data.index),
            _others(data, [*images, patient, *(s.name for s in (*labels, *attributes) if s.plain)], columns),
        ],
        axis=1,
    )
    return Source(
        name="table",
        table=out.join(rows, on="row").drop(columns="row"),
        labels=classes,
        attributes=groups,
        root=folder,
        policies={
            "table": file.name,
            "label": list(label),
            "attribute": list(attribute),
            "missing": list(missing),
            "ask_headers": ask_headers,
        },
        settings=settings,
        channels=channels,
    )


def _images(
    data: pd.DataFrame, images: Sequence[str], patient: str, file: Path
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Image, patient and row of the table of each image; which column it is from, where there are several."""
    parts = []
    for column in images:
        part = pd.DataFrame({"image": data[column], "patient": data[patient], "row": data.index})
        parts.append(part.assign(image_column=column) if len(images) > 1 else part)
    out = pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)
    blank = out["image"].isna()
    nowhere = data[list(images)].isna().all(axis=1)
    if nowhere.any():
        raise InputError(f"{file} row {row_of(data, nowhere)}: {' and '.join(map(repr, images))} is blank")
    settings = {"images_missing_of_a_row": int(blank.sum())} if blank.any() else {}
    return out[~blank].reset_index(drop=True), settings


def _with_headers(
    data: pd.DataFrame, images: pd.DataFrame, root: Path
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Sex and age of each row by the header of its first image, where the table does not say them."""
    require_pydicom()
    first = images.drop_duplicates("row").set_index("row")["path"]
    known = {
        name: data[name] if name in data else pd.Series(None, data.index, dtype=object) for name in _ASKED
    }
    lacking = [row for row in first.index if any(pd.isna(cells[row]) for cells in known.values())]
    with Reporter("reading headers", len(lacking), unit="files") as bar:
        said = {}
        for row in lacking:
            said[row] = dict(zip(_ASKED, read_demographics(root / first[row]), strict=True))
            bar.advance()
    filled, counts = data.copy(), {}
    for name, cells in known.items():
        found = pd.Series({row: values[name] for row, values in said.items()}, dtype=object).dropna()
        found = found[cells[found.index].isna()]
        filled[name] = cells.astype(object).where(cells.notna(), found.reindex(data.index))
        filled[name] = filled[name].astype(pd.StringDtype(na_value=float("nan")))
        counts[f"{name}_taken_from_headers"] = len(found)
    return filled, counts


def _specs(texts: Sequence[str], data: pd.DataFrame, file: Path) -> list[Spec]:
    """The labels or attributes that were named, none of them twice."""
    specs = [parse_spec(text, data.columns) for text in texts]
    require_columns(data, [column for spec in specs for column in spec.columns], file)
    names = [_attribute_name(spec) for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name!r} is named twice: give each label and each attribute once")
    return specs


def _attribute_name(spec: Spec) -> str:
    return f"{spec.name}_group" if spec.edges else spec.name


def _others(data: pd.DataFrame, used: Sequence[str], made: Iterable[str]) -> pd.DataFrame:
    """All further columns of the table; one whose name is taken gets another."""
    others = data.drop(columns=list(dict.fromkeys(used)))
    taken = {*made, *RESERVED}
    return others.rename(columns={name: f"{name}_in_table" for name in others if name in taken})


def _split(data: pd.DataFrame, text: str, file: Path) -> pd.Series[str]:
    """The split that a column says, in the words of the published data sets or in those given."""
    spec = parse_spec(text, data.columns)
    column = spec.columns[0]
    require_columns(data, [column], file)
    lowered = data.assign(**{column: data[column].str.lower().fillna("(blank)")})
    words: dict[str, str | None] = {}
    for side, named in (spec.words or SPLIT_WORDS).items():
        require_choice("split", side, SPLITS)
        words |= dict.fromkeys((word.lower() for word in named), side)
    if OTHERS in words:
        words |= dict.fromkeys(set(lowered[column]) - set(words), words.pop(OTHERS))
    return parse_groups(lowered, column, words, file)
