"""Rows of the same images: in a second file, or of another model in the same one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.columns import alike, complete
from fairdx.auditing.table import Table, Text
from fairdx.core.errors import InputError

_ONE_MODEL = "Choose the rows of one model with --where, or name the column of models with --model."


def unique(table: Table, column: str, cure: str = _ONE_MODEL) -> None:
    """Check that a column names each row once.

    Args:
        table: The table.
        column: The column.
        cure: What to do if it does not.

    Raises:
        InputError: It repeats, or is missing somewhere.
    """
    codes = complete(table, column, "identifier")
    first = np.zeros(len(codes), dtype=bool)
    first[np.unique(codes.codes, return_index=True)[1]] = True
    if not first.all():
        example = codes.names[codes.codes[~first][0]]
        raise InputError(
            f"{table.name}: column {column!r} repeats identifiers in {table.rows(~first)}, such as "
            f"{example!r}; each image must occur once. {cure}"
        )


def split_models(
    table: Table, model: str, base: str | None, identifier: str | None
) -> tuple[str, Table, dict[str, Table]]:
    """Take apart a table with rows of several models.

    Args:
        table: The table.
        model: Column that says whose prediction a row is.
        base: The model that the others are compared with; that of the first row if None.
        identifier: Column that names the image.

    Returns:
        The name of `base`, its rows, and those of each of the others.

    Raises:
        InputError: No column names the image, a row names no model, or there is no such model.
    """
    if identifier is None:
        raise InputError(f"to audit each {model}, name the column that identifies an image with --id.")
    found = table.text(model)
    if found.missing.any():
        raise InputError(f"{table.name}: {model!r} is empty in {table.rows(found.missing)}; remove them.")
    base = base or found.names[found.codes[0]]
    if base not in found.names:
        known = ", ".join(found.names[:12])
        raise InputError(f"{table.name}: no row has {model} = {base}; there is {known}.")
    parts = {
        name: replace(table.take(found.codes == k), name=f"{table.name} ({model} = {name})")
        for k, name in enumerate(found.names)
    }
    return base, parts.pop(base), parts


def same_images(
    table: Table, second: Table, identifier: str, labels: Sequence[str], notes: list[str]
) -> Table:
    """The rows of another table that are of the same images, in their order.

    Args:
        table: The images.
        second: The other table, with the identifier and perhaps some of the labels.
        identifier: Column that names the image.
        labels: Columns that must be the same in both.
        notes: Gets a sentence if the other table has more images.

    Returns:
        One row for each image.

    Raises:
        InputError: The other table lacks an image, has one twice, or labels one otherwise.
    """
    import pandas as pd

    unique(second, identifier)
    wanted = table.text(identifier).array()
    place = pd.Index(second.text(identifier).array()).get_indexer(wanted)
    absent = place < 0
    if absent.any():
        raise InputError(
            f"{second.name} lacks {int(absent.sum()):,} of the {len(wanted):,} images of {table.name}, "
            "such as "
            f"{wanted[absent][0]!r}; compare tables of the same images."
        )
    if len(second) > len(wanted):
        notes.append(f"{len(second) - len(wanted):,} rows of {second.name} are not among the images audited.")
    second = second.take(place)
    for name in [name for name in labels if name in second.data.column_names]:
        differ = _differ(second.text(name, "label"), table.text(name, "label"))
        if differ.any():
            raise InputError(
                f"{second.name}: column {name!r} differs from that of {table.name} for "
                f"{int(differ.sum()):,} images, such as {wanted[differ][0]!r}; the identifiers do not name "
                "the "
                "same images."
            )
    return second


def _differ(one: Text, other: Text) -> NDArray[np.bool_]:
    """Where two columns of labels say something else; 1 and 1.0 are the same, and a blank says nothing."""
    place = {key: k for k, key in enumerate({alike(name) for name in (*one.names, *other.names)})}
    first, second = (
        np.array([*(place[alike(name)] for name in text.names), -1])[text.codes] for text in (one, other)
    )
    return np.asarray((first != second) & (first >= 0) & (second >= 0))
