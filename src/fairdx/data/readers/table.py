"""Any CSV or Parquet file with one row per image: paths, patients, labels and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.checks import require_columns
from fairdx.data.files import (
    age_groups,
    find_file,
    parse_codes,
    parse_groups,
    parse_numbers,
    read_text_table,
    row_of,
    source_folder,
)
from fairdx.data.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SPLIT_WORDS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "validate", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What the published data sets call their splits."""


def read_table(
    root: str | Path,
    *,
    label: Sequence[str],
    attribute: Sequence[str],
    table: str | None = None,
    image: str = "image",
    patient: str = "patient",
    split: str | None = None,
    channels: int = 1,
) -> Source:
    """Read any table (CSV or Parquet) with one row for each image: paths, patients, labels, attributes.

    Example: `fairdx prepare table --root scans --label ill --attribute sex --out prepared/scans`

    Args:
        root: Folder that the paths start from, and the table lies in.
        label: Label columns, the main one first: `name` for a column of 0 and 1, or `name:benign|malignant`
            to list the values that are the classes, in the order of their codes.
        attribute: Attribute columns, the main one first: `name`, every value being a group, or
            `name:male|female` to list the groups, or `age@40,60` to divide numbers into groups at these.
        table: Name of the CSV or Parquet file; the only one in the folder if left out.
        image: Column of paths, relative to the root.
        patient: Column of patients.
        split: Column with a split to use (train, validation, test); made by patient if left out.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        The labels and attributes that were named, with all other columns of the table kept.

    Raises:
        InputError: A missing file or column, or a value that means nothing; the message names the row.
    """
    folder = source_folder(root)
    file = folder / table if table else find_file(folder, "*.csv", "*.parquet")
    data = _read(file)
    label_names = [spec.partition(":")[0] for spec in label]
    attribute_names = [spec.partition(":")[0].partition("@")[0] for spec in attribute]
    needed = [image, patient, *([split] if split else []), *label_names, *attribute_names]
    require_columns(data, needed, file)
    blank = data[image].isna()
    if blank.any():
        raise InputError(f"{file} row {row_of(data, blank)}: {image!r} is blank")
    out = pd.DataFrame({"image": data[image], "path": data[image], "patient": data[patient]})
    labels, attributes = {}, {}
    for spec in label:
        name, out_column, classes = _label(data, spec, file)
        out[name], labels[name] = out_column, classes
    for spec in attribute:
        name, groups, names = _attribute(data, spec, file)
        out[name], attributes[name] = groups, names
    if split:
        lowered = data.assign(**{split: data[split].str.lower().fillna("(blank)")})
        out["split"] = parse_groups(lowered, split, SPLIT_WORDS, file)
    others = data.drop(
        columns=[column for column in data if column in out or column in (image, patient, split)]
    )
    return Source(
        name="table",
        table=pd.concat([out, others], axis=1),
        labels=labels,
        attributes=attributes,
        root=folder,
        policies={"table": file.name, "label": list(label), "attribute": list(attribute)},
        channels=channels,
    )


def _read(file: Path) -> pd.DataFrame:
    """Read CSV or Parquet, every cell as text: `1`, `1.0` and `True` keep what they were written as."""
    if file.suffix != ".parquet":
        return read_text_table(file)
    try:
        data = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as a table: {error}") from error
    data = data.reset_index(drop=True)
    return pd.DataFrame({name: cells.astype(str).where(cells.notna()) for name, cells in data.items()})


def _label(data: pd.DataFrame, spec: str, file: Path) -> tuple[str, pd.Series[int], tuple[str, ...]]:
    name, _, listed = spec.partition(":")
    if listed:
        classes = tuple(listed.split("|"))
        _require_each(data, name, "class", classes, file)
        return name, parse_codes(data, name, {word: code for code, word in enumerate(classes)}, file), classes
    words = {"0": 0, "0.0": 0, "False": 0, "1": 1, "1.0": 1, "True": 1}
    return name, parse_codes(data, name, words, file), ("0", "1")


def _attribute(data: pd.DataFrame, spec: str, file: Path) -> tuple[str, pd.Series[str], tuple[str, ...]]:
    name, _, edges = spec.partition("@")
    if edges:
        try:
            bins = [float(edge) for edge in edges.split(",")]
        except ValueError:
            raise InputError(f"attribute {spec!r} does not end in numbers, as age@40,60 does") from None
        groups, names = age_groups(parse_numbers(data, name, file), bins)
        return f"{name}_group", groups, names
    name, _, listed = spec.partition(":")
    names = tuple(listed.split("|")) if listed else tuple(sorted(data[name].dropna().unique()))
    _require_each(data, name, "group", names, file)
    return name, parse_groups(data, name, {word: word for word in names}, file), names


def _require_each(data: pd.DataFrame, column: str, kind: str, names: Iterable[str], file: Path) -> None:
    """Refuse a class or group that was listed and is nowhere: a typing error, most often."""
    present = set(data[column])
    for name in names:
        if name not in present:
            raise InputError(f"{file} has no row with the {kind} {name!r} of {column!r}")
