"""Read a table from any CSV or Parquet file, find its columns and rows, or say in one sentence why not."""

import csv
import io
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairdx.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: Path) -> "pd.DataFrame":
    """Read a table.

    Args:
        path: `.parquet` and `.pq` are read as Parquet; all else as CSV, separated by commas, semicolons (with
            decimal commas) or tabs, in UTF-8, UTF-16 with a byte-order mark, or Latin-1.

    Returns:
        The table, with at least one row.

    Raises:
        InputError: There is no such file, it is no table, or it has no rows.
    """
    import pandas as pd

    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as Parquet: {error}.") from error
    else:
        frame = _read_csv(path)
    if frame.empty:
        raise InputError(f"{path}: the table has no rows.")
    return frame.reset_index(drop=frame.index.names == [None])  # Parquet may keep a column as the index


def _read_csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    text = _decode(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    separator = _separator(text)
    try:
        with warnings.catch_warnings():
            # More fields than names in every row: pandas would drop the last, or take the first for an index.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.StringIO(text),
                sep=separator,
                decimal="," if separator == ";" else ".",
                dtype_backend="numpy_nullable",
                index_col=False,
            )
    except pd.errors.ParserWarning as warning:
        raise InputError(
            f"{path} is no regular table: its rows have more fields than its header."
        ) from warning
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).splitlines()[0].removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{path} is no regular table: {reason}.") from error


def _decode(path: Path) -> str:
    """Decode by byte-order mark, else as UTF-8, else as Latin-1 (which cannot fail)."""
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return raw.decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} starts like UTF-16 but is not: {error.reason}.") from error
    if b"\0" in raw[:1000]:
        raise InputError(f"{path} is no text file; give CSV, or Parquet with the ending .parquet.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _separator(text: str) -> str:
    """The separator that cuts the header into most fields."""
    header = text.lstrip().splitlines()[0]
    return max(",;\t", key=lambda s: len(next(csv.reader([header], delimiter=s))))


def require(frame: "pd.DataFrame", column: str, path: Path) -> None:
    """Check that a column is there, once.

    Raises:
        InputError: It is not; the message has the nearest name, or those that there are.
    """
    if column in frame.columns:
        if list(frame.columns).count(column) > 1:
            raise InputError(f"{path} has more than one column {column!r}; rename one.")
        return
    names = [str(c) for c in frame.columns]
    near = get_close_matches(column.lower(), [n.lower() for n in names], n=1)
    hint = next((n for n in names if near and n.lower() == near[0]), None)
    did = f"did you mean {hint!r}?" if hint else f"it has {', '.join(map(repr, names[:12]))}."
    raise InputError(f"{path} has no column {column!r}; {did}")


def rows(frame: "pd.DataFrame | pd.Series[Any]", bad: "pd.Series[Any] | np.ndarray[Any, Any]") -> str:
    """How many rows are bad and which is the first, counted as in a text editor (the header is row 1)."""
    where = np.flatnonzero(np.asarray(bad, dtype=bool))
    return f"{len(where)} row{'s' * (len(where) > 1)} (first: row {frame.index[where[0]] + 2})"


def as_text(value: Any) -> str:
    """Text of a value, the same for 1, 1.0 and "1": a column with holes reads whole numbers as decimals."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def texts(column: "pd.Series[Any]", missing: str = "") -> np.ndarray[Any, Any]:
    """The values of a column as text, shape (n,); each distinct value is converted once."""
    import pandas as pd

    codes, distinct = pd.factorize(column, use_na_sentinel=True)
    names = np.array([*(as_text(v) for v in distinct), missing], dtype=object)
    found: np.ndarray[Any, Any] = names[codes]
    return found


def select(frame: "pd.DataFrame", where: Mapping[str, str], path: Path, notes: list[str]) -> "pd.DataFrame":
    """Keep the rows that have certain values.

    Args:
        frame: The table.
        where: Value by column, both as text.
        path: For messages.
        notes: Gets a sentence with the number of rows kept.

    Returns:
        The rows, with the index they had.

    Raises:
        InputError: There is no such column or value, or no row has all of them.
    """
    kept = frame
    for column, value in where.items():
        require(frame, column, path)
        names, chosen = texts(frame[column]), as_text(value)
        if chosen not in names:
            known = sorted({n for n in names if n})[:12]
            raise InputError(f"{path}: no row has {column} = {value}; there is {', '.join(known)}.")
        kept = kept.loc[names[kept.index] == chosen]
        if kept.empty:
            wanted = " and ".join(f"{c} = {v}" for c, v in where.items())
            raise InputError(f"{path}: no row has {wanted} at the same time.")
    if where:
        wanted = " and ".join(f"{c} = {v}" for c, v in where.items())
        notes.append(f"{len(kept):,} of {len(frame):,} rows have {wanted}; only these are audited.")
    return kept
