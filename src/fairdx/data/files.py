"""What every reader does with the tables it is given: read as text, parse strictly, name the row at fault."""

from __future__ import annotations

import os
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from fairdx.core.bins import bin_names
from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.checks import nearest, require_columns
from fairdx.data.source import exclude

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

OLDEST: Final = 120
"""Years; tables have ages above 400 and below 0, which are taken as unknown and counted."""
IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg")
"""How the names of image files end, in lower case."""


def source_folder(root: str | Path) -> Path:
    """Check that the root of a source is a folder.

    Args:
        root: What was given.

    Returns:
        The root as a path.

    Raises:
        InputError: It is not a folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the data set")
    return folder


def find_file(root: Path, *patterns: str) -> Path:
    """Find the one file of a source that has one of several names.

    Args:
        root: Folder of the source.
        patterns: Names with wildcards, the preferred one first.

    Returns:
        The only file of the first pattern that any file has.

    Raises:
        InputError: There is none, or the pattern has several.
    """
    for pattern in patterns:
        files = sorted(root.glob(pattern))
        if len(files) > 1:
            raise InputError(
                f"{root} has both {files[0].name} and {files[1].name}: move away the one that is not meant"
            )
        if files:
            return files[0]
    raise InputError(f"{root} has no {' or '.join(patterns)}: is it the folder of this data set?")


def read_text_table(
    path: Path,
    columns: Iterable[str] = (),
    *,
    separator: str = ",",
    only: Callable[[str], bool] | None = None,
    skip: int = 0,
) -> pd.DataFrame:
    """Read a delimited text file with every cell as the text it is.

    Args:
        path: A CSV or TSV file in UTF-8, compressed or not (`.gz`).
        columns: Columns it must have.
        separator: What stands between cells.
        only: Which columns to read, by their name; all by default.
        skip: How many lines stand before the header.

    Returns:
        The table; cells without anything but blanks are null.

    Raises:
        InputError: The file is missing, not text, not a table, or lacks a column.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                encoding="utf-8-sig",
                skiprows=skip,
                usecols=None if only is None else (lambda name: only(name.strip())),
            )
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8: export it again") from None
    except (OSError, EOFError, ValueError, zlib.error, pd.errors.ParserWarning) as error:
        raise InputError(f"{path} cannot be read as a table: {str(error).strip()}") from error
    table.columns = table.columns.str.strip()
    table.index += skip  # so that errors name the row as an editor shows it
    require_columns(table, columns, path)
    if table.columns.duplicated().any():
        raise InputError(f"{path} has two columns {table.columns[table.columns.duplicated()][0]!r}")
    return pd.DataFrame({name: cells.str.strip().replace("", None) for name, cells in table.items()})


def row_of(table: pd.DataFrame, wrong: pd.Series[bool]) -> str:
    """Name the first row at fault as an editor shows it: the header is row 1.

    Args:
        table: As read, with its first index.
        wrong: Which rows are at fault.

    Returns:
        Its number, as text.
    """
    return str(int(table.index[wrong.to_numpy(bool)][0]) + 2)


def parse_codes(
    table: pd.DataFrame, column: str, codes: Mapping[str, int | None], file: Path
) -> pd.Series[int]:
    """Turn the words of a label column into codes.

    Args:
        table: As read, all text.
        column: The label column.
        codes: What each word means; null for words that say it is unknown.
        file: Where the table came from.

    Returns:
        Codes (Int16), null where the cell is blank or unknown.

    Raises:
        InputError: A cell has another value; the message names its row.
    """
    words = table[column]
    require_words(table, column, codes, file)
    return words.map(codes).astype("Int16")


def parse_groups(
    table: pd.DataFrame, column: str, groups: Mapping[str, str | None], file: Path
) -> pd.Series[str]:
    """Turn the words of an attribute column into group names.

    Args:
        table: As read, all text.
        column: The attribute column.
        groups: The group that each word means; null for words that say it is unknown.
        file: Where the table came from.

    Returns:
        Group names, null where the cell is blank or unknown.

    Raises:
        InputError: A cell has another value; the message names its row.
    """
    require_words(table, column, groups, file)
    return table[column].map(groups).astype(pd.StringDtype(na_value=np.nan))


def require_words(table: pd.DataFrame, column: str, words: Iterable[str], file: Path) -> None:
    """Check that a column has no other values than these, or blanks.

    Args:
        table: As read, all text.
        column: The column.
        words: What it may hold.
        file: Where the table came from.

    Raises:
        InputError: A cell has another value; the message names its row.
    """
    valid = list(words)
    wrong = ~table[column].isin(valid) & table[column].notna()
    if wrong.any():
        value = str(table.loc[wrong, column].iloc[0])
        raise InputError(
            f"{file} row {row_of(table, wrong)}: {column!r} is {value!r} ({nearest(value, valid)})"
        )


def parse_numbers(table: pd.DataFrame, column: str, file: Path) -> pd.Series[float]:
    """Turn a column into numbers.

    Args:
        table: As read, all text.
        column: The column.
        file: Where the table came from.

    Returns:
        float64, NaN where the cell is blank.

    Raises:
        InputError: A cell is no finite number; the message names its row.
    """
    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    wrong = ~numbers.abs().lt(np.inf) & table[column].notna()
    if wrong.any():
        value = table.loc[wrong, column].iloc[0]
        raise InputError(f"{file} row {row_of(table, wrong)}: {column!r} is {value!r}, not a number")
    return numbers


def found_in(
    values: pd.Series[str] | pd.Index[str], known: pd.Series[str] | pd.Index[str]
) -> NDArray[np.bool_]:
    """Tell which of many values are among many others, by a hash table.

    The `isin` of pandas takes seconds for texts by the hundred thousand.

    Args:
        values: n values.
        known: What they are looked up in, repeated or not.

    Returns:
        Whether each is there, of shape (n,).
    """
    return np.asarray(pd.Index(known.unique()).get_indexer(pd.Index(values)) >= 0)


def known_ages(age: pd.Series[float]) -> tuple[pd.Series[float], int]:
    """Take ages that nobody has as unknown.

    Args:
        age: Ages in years, NaN where unknown.

    Returns:
        The ages, NaN also where they are below 0 or above `OLDEST`, and how many of these there are.
    """
    impossible = (age < 0) | (age > OLDEST)
    return age.mask(impossible), int(impossible.sum())


def unlisted_files(
    root: Path, folders: Iterable[str], listed: Iterable[str], endings: tuple[str, ...] = IMAGE_ENDINGS
) -> pd.DataFrame:
    """List the image files on disk that no table mentions.

    Every folder is visited: about a second for each 10,000 of them on a local disk, more on slow storage.

    Args:
        root: Folder of the source.
        folders: Where to look, relative to the root; those that are not there are passed over.
        listed: Paths that the tables mention, relative to the root.
        endings: How the names of image files end, in lower case.

    Returns:
        The columns of exclusions, sorted by path.

    Raises:
        InputError: A folder cannot be read.
    """
    known, found = set(listed), []
    with Reporter("looking for further files", len(known), unit="files") as bar:
        for top in folders:
            if not (root / top).is_dir():
                continue
            for place, _, names in os.walk(root / top, onerror=_cannot_be_read):
                below = "" if place == str(root) else f"{os.path.relpath(place, root)}/".replace(os.sep, "/")
                paths = [f"{below}{name}" for name in names if name.lower().endswith(endings)]
                found += [path for path in paths if path not in known]
                bar.advance(len(paths))
    return exclude(pd.Series(sorted(found), dtype=str), "not in the table")


def _cannot_be_read(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error


def age_groups(age: pd.Series[float], bins: Sequence[float]) -> tuple[pd.Series[str], tuple[str, ...]]:
    """Divide ages into groups.

    Args:
        age: Ages in years, NaN where unknown.
        bins: Ages at which a new group begins, ascending, at least one.

    Returns:
        The group of each age, null where it is unknown, and the names of the groups from young to old.

    Raises:
        InputError: No bin, or not ascending ones.

    Example:
        >>> age_groups(pd.Series([39, 40, 70]), (40, 60))[0].tolist()
        ['under 40', '40 to 59', '60 and over']
    """
    edges = list(bins)
    if not edges or edges != sorted(set(edges)) or edges[0] <= 0:
        raise InputError(f"age bins {edges} are not possible: give ascending ages above 0, such as 40 and 60")
    known = age.dropna()
    names = bin_names(edges, whole=bool((known == known.round()).all()) and all(e == round(e) for e in edges))
    group = np.array([*names, None], dtype=object)[
        np.where(age.isna(), len(names), np.searchsorted(edges, age, side="right"))
    ]
    return pd.Series(group, index=age.index, dtype=pd.StringDtype(na_value=np.nan)), names
