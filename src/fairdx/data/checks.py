"""Checks and wordings that every reader shares: unknown names, missing columns, cells that mean nothing."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which valid name was probably meant.

    Args:
        name: The name that is not valid.
        valid: The names that are.

    Returns:
        A clause for the end of an error: the closest valid name where one is close, else all of them.

    Example:
        >>> nearest("Pneumonai", ["Pneumonia", "Edema"])
        "did you mean 'Pneumonia'?"
        >>> nearest("sex", ["race", "insurance"])
        "known: 'race', 'insurance'"
    """
    names = list(valid)
    folded = {item.casefold(): item for item in names}
    close = get_close_matches(name.casefold(), folded, n=1)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return "known: " + ", ".join(repr(item) for item in names)


def require_columns(table: pd.DataFrame, columns: Iterable[str], file: Path) -> None:
    """Check that a table read from a file has the columns that its reader needs.

    Args:
        table: The table as read.
        columns: The names it must have.
        file: Where it came from, for the message.

    Raises:
        InputError: A column is missing; the message names it and the nearest one present.
    """
    present = [str(name) for name in table.columns]
    for column in columns:
        if column not in present:
            raise InputError(f"{file} has no column {column!r} ({nearest(column, present)})")


def require_choice(option: str, value: str, valid: Iterable[str]) -> None:
    """Check an option that is one of a few words.

    Args:
        option: The option's name, for the message.
        value: What was given.
        valid: What may be given.

    Raises:
        InputError: The value is not one of them.
    """
    names = list(valid)
    if value not in names:
        raise InputError(f"{option}={value!r} is not possible ({nearest(str(value), names)})")
