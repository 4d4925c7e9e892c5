"""Cells of the tables that we write as CSV: text stays text, even in a spreadsheet."""

from __future__ import annotations

from typing import Any, Final

FORMULA: Final = ("=", "+", "-", "@", "\t")
"""How a cell begins that a spreadsheet takes for a formula."""


def as_text(cell: Any) -> Any:
    """Keeps a cell from being run as a formula.

    Names of files, groups and patients come from others, and a spreadsheet runs `=HYPERLINK(...)` of a CSV.

    Args:
        cell: Of any kind; numbers stay as they are, also those that are written as text.

    Returns:
        Text that begins like a formula has an apostrophe before it, as spreadsheets themselves mark text.

    Example:
        >>> [as_text(cell) for cell in ("=1+1", "-0.5", "-x", 3)]
        ["'=1+1", '-0.5', "'-x", 3]
    """
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r", " ")  # some writers leave it bare, and it would end the row
    if not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell if cell == cell.strip() else f"'{cell}"
