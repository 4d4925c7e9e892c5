"""Tables as people keep them: CSV, TSV, Excel, Parquet; every cell as the text it is, no row lost.

A stray quotation mark makes a CSV parser swallow rows, and a stray comma moves cells into the next column.
The lines of a file are therefore counted apart from the parser that reads its cells. Rows that lack cells at
their end are taken, for Excel leaves out blank ones, and warned of; a last line that breaks off is refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import re
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.checks import nearest, require_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_GZIP, _ZIP, _BOM = b"\x1f\x8b", b"PK\x03\x04", b"\xef\xbb\xbf"
WORKBOOKS: Final = (".xlsx", ".xls")
PARQUET: Final = (".parquet", ".pq")
_NAMELESS: Final = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name in Parquet."""
_ERRORS: Final = ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!")
"""What a workbook holds where a formula has no value."""
SHORT_ROWS: Final = "rows_with_too_few_cells"
"""In `attrs` of a table: how many rows had fewer cells than the header, where some had."""


@dataclass(frozen=True)
class _Text:
    """The content of a delimited file: UTF-8, unpacked, lines ending in a line feed alone."""

    path: Path
    data: bytes
    first: int
    """Number of lines before the header."""
    separator: str

    @property
    def quoting(self) -> int:
        """Tab-separated tables of the GDC hold quotation marks that mean inches or nothing."""
        return csv.QUOTE_NONE if self.separator == "\t" else csv.QUOTE_MINIMAL

    @property
    def quoted(self) -> bool:
        """Whether a quotation mark may join lines or cells."""
        return self.quoting == csv.QUOTE_MINIMAL and b'"' in self.data

    def records(self) -> Iterable[list[str]]:
        """The cells of the header and of each record, by a parser that refuses broken quotes."""
        lines = io.TextIOWrapper(io.BytesIO(self.data), encoding="utf-8", newline="\n")
        for _ in range(self.first):
            lines.readline()
        return csv.reader(lines, delimiter=self.separator, quoting=self.quoting, strict=True)  # type: ignore[arg-type]

    def wrong(self, problem: str) -> InputError:
        """The error that says what is wrong with the file."""
        return InputError(f"{self.path} cannot be read as a table: {problem}")


def read_text_table(
    path: Path,
    columns: Iterable[str] = (),
    *,
    separator: str = ",",
    only: Callable[[str], bool] | None = None,
    skip: int = 0,
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Read a delimited text file with every cell as the text it is.

    Args:
        path: A CSV or TSV file, compressed by gzip or not, whatever its name ends in.
        columns: Columns it must have.
        separator: What stands between cells; between tabs a quotation mark is a character like any other.
        only: Which columns to read, by their name; all by default.
        skip: How many lines stand before the header.
        encoding: What the text is written in.

    Returns:
        The table; cells without anything but blanks are null, lines without anything are passed over. Its
        index counts the rows of the file, for `row_of`. Rows that lack cells at their end are counted in
        `attrs` under `SHORT_ROWS`, and warned of.

    Raises:
        InputError: The file is missing, not text, not a table, has a column twice or lacks one, has a row
            with more cells than columns, ends within a row, or has a quotation mark that joins rows.
    """
    text = _load(path, separator, skip, encoding)
    try:
        names = _names(next(iter(text.records()), []), path)
        require_columns(pd.DataFrame(columns=names), columns, path)
        blank, short, last = _check_lines(text, len(names))
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.BytesIO(text.data),
                sep=separator,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                encoding="utf-8",
                skiprows=text.first,
                skip_blank_lines=False,
                quoting=text.quoting,  # type: ignore[call-overload]
                usecols=None if only is None else [i for i, name in enumerate(names) if only(name)],
            )
    except UnicodeDecodeError:
        raise _not_text(path, encoding) from None
    except InputError:
        raise
    except (csv.Error, ValueError, pd.errors.ParserWarning) as error:
        raise text.wrong(str(error).strip()) from error
    table.columns = pd.Index(names if only is None else filter(only, names))
    table.index += text.first  # so that errors name the row as an editor shows it
    table = table.drop(index=[text.first + record for record in blank])
    if text.quoting == csv.QUOTE_NONE and b'"' in text.data:
        table = table.apply(_without_quotes)
    table = pd.DataFrame({name: _stripped(cells) for name, cells in table.items()})
    _warn_of_short(table, text, short, last, len(names))
    return table


def _warn_of_short(table: pd.DataFrame, text: _Text, short: Sequence[int], last: int, width: int) -> None:
    """Say where rows lack cells; refuse a file that breaks off within a row."""
    if not short:
        return
    if short[-1] == last and not text.data.endswith(b"\n"):
        raise text.wrong(f"it breaks off in line {last}, before the last of {width} cells: get it again")
    table.attrs[SHORT_ROWS] = len(short)
    log.warning(
        "%s: %s rows have fewer cells than the %d of the header, the first is line %d; what they lack is "
        "taken as blank",
        text.path,
        f"{len(short):,}",
        width,
        short[0],
    )


def _load(path: Path, separator: str, skip: int, encoding: str) -> _Text:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    if data.startswith(_ZIP):
        raise InputError(f"{path} is an archive or a workbook, not text: unpack it, or export it as CSV")
    data = _utf8(data, path, encoding).removeprefix(_BOM)
    if b"\0" in data:
        raise InputError(f"{path} holds null bytes: it is damaged, or not in {encoding.upper()}")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = io.BytesIO(data)
    for _ in range(skip):
        lines.readline()
    while (line := lines.readline()) and not line.strip():
        skip += 1
    if not line:
        raise InputError(f"{path} cannot be read as a table: it is empty")
    return _Text(path, data, skip, separator)


def _utf8(data: bytes, path: Path, encoding: str) -> bytes:
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        return data
    try:
        return data.decode(encoding).encode()
    except LookupError:
        raise InputError(f"encoding={encoding!r} is not known: give one as latin-1 or utf-16") from None
    except UnicodeDecodeError:
        raise _not_text(path, encoding) from None


def _not_text(path: Path, encoding: str) -> InputError:
    return InputError(f"{path} is not text in {encoding.upper()}: export it again")


def _names(header: Sequence[str], path: Path) -> list[str]:
    """The names of the columns; those without one are numbered."""
    names = [_bare(str(name).strip()) or f"Unnamed: {place}" for place, name in enumerate(header)]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"{path} has two columns {name!r}: rename one of them or take it out")
    return names


def _bare(cell: str) -> str:
    """A cell without the quotation marks around it."""
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _without_quotes(cells: pd.Series[str]) -> pd.Series[str]:
    around = cells.str.strip().str.fullmatch(r'".*"').fillna(False)
    return cells.mask(around, cells.str.strip().str[1:-1].str.replace('""', '"', regex=False))


def _check_lines(text: _Text, width: int) -> tuple[list[int], list[int], int]:
    """Check the number of cells in each line.

    Returns:
        Which records after the header have nothing in them; the lines, from 1, of those that have something
        and lack cells; and the line of the last record.
    """
    if text.quoted:
        return _check_quoted(text, width)
    data = np.frombuffer(text.data if text.data.endswith(b"\n") else text.data + b"\n", np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    separators = np.flatnonzero(data == ord(text.separator))
    cells = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    for line in np.flatnonzero(cells[text.first :] > width)[:1] + text.first:
        raise _too_many(text, int(line) + 1, int(cells[line]), width)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lone = np.flatnonzero(cells == 1)
    blank = [line for line in lone.tolist() if not text.data[starts[line] : ends[line]].strip()]
    few = cells < width
    few[blank] = False
    short = [line + 1 for line in np.flatnonzero(few).tolist() if line > text.first]
    return [line - text.first - 1 for line in blank if line > text.first], short, len(ends)


def _check_quoted(text: _Text, width: int) -> tuple[list[int], list[int], int]:
    """The same where quotation marks join cells and lines; rows that they join are refused."""
    reader = text.records()
    lines: list[bytes] | None = None
    blank: list[int] = []
    short: list[int] = []
    before = line = text.first
    try:
        for number, cells in enumerate(reader):
            before, line = line, text.first + int(reader.line_num)  # type: ignore[attr-defined]
            if len(cells) > width:
                raise _too_many(text, before + 1, len(cells), width)
            if not any(cells) and len(cells) < 2:
                blank.append(number - 1)
            elif len(cells) < width:
                short.append(before + 1)
            if line - before > 1:
                lines = lines or text.data.split(b"\n")
                if all(one.count(text.separator.encode()) == width - 1 for one in lines[before:line]):
                    raise text.wrong(
                        f"a quotation mark in line {before + 1} joins it with the rows up to line {line}: "
                        "take the mark out, or double it within a quoted cell"
                    )
    except csv.Error as error:
        raise text.wrong(f"the quotation marks from line {line + 1} on do not fit ({error})") from error
    return blank, short, before + 1


def _too_many(text: _Text, line: int, cells: int, width: int) -> InputError:
    return text.wrong(f"line {line} has {cells} cells, more than the {width} of the header")


def read_any_table(
    path: Path, columns: Iterable[str] = (), *, encoding: str = "utf-8", sheet: str | None = None
) -> pd.DataFrame:
    """Read a table of any kind, every cell as text: `1`, `1.0` and `True` keep what they were written as.

    Args:
        path: Parquet, an Excel workbook, or text between commas, semicolons or tabs, compressed or not.
        columns: Columns it must have.
        encoding: What text is written in.
        sheet: Which sheet of a workbook; by default the first that has the columns.

    Returns:
        The table; cells without anything but blanks are null.

    Raises:
        InputError: As for `read_text_table`, or a package is missing.
    """
    ending = path.suffix.lower()
    if ending in WORKBOOKS:
        return _read_workbook(path, tuple(columns), sheet)
    if sheet is not None:
        raise InputError(f"{path} is not a workbook, and has no sheet {sheet!r}")
    if ending in PARQUET:
        return _read_parquet(path, columns)
    return read_text_table(path, columns, separator=_separator(path, encoding), encoding=encoding)


def _separator(path: Path, encoding: str) -> str:
    """Tabs or semicolons where the header has more of them than commas."""
    text = _load(path, ",", 0, encoding)
    header = text.data.split(b"\n", text.first + 1)[text.first]
    return max(",\t;", key=lambda mark: header.count(mark.encode()))


def _read_parquet(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    from pyarrow import ArrowException, parquet

    try:
        # As it is stored: whole numbers stay whole beside blanks, and an index with a name is a column.
        data = parquet.read_table(path).to_pandas(integer_object_nulls=True, ignore_metadata=True)
    except (OSError, ValueError, ArrowException) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    data = data.drop(columns=[name for name in data if _NAMELESS.fullmatch(str(name))])
    data.columns = pd.Index(_names([str(name) for name in data.columns], path))
    require_columns(data, columns, path)
    words = ((name, cells.astype(str).where(cells.notna())) for name, cells in data.items())
    return pd.DataFrame({name: _stripped(cells) for name, cells in words})


def _stripped(cells: pd.Series[str]) -> pd.Series[str]:
    """The cells without blanks around them, null where nothing is left."""
    return cells.str.strip().replace("", None)


def _read_workbook(path: Path, columns: tuple[str, ...], sheet: str | None) -> pd.DataFrame:
    sheets = read_sheets(path)
    if sheet is not None and sheet not in sheets:
        raise InputError(f"{path} has no sheet {sheet!r} ({nearest(sheet, sheets)})")
    chosen = sheets if sheet is None else {sheet: sheets[sheet]}
    fitting = [table for table in chosen.values() if set(columns) <= set(table.columns)]
    table = fitting[0] if fitting else next(iter(chosen.values()))
    require_columns(table, columns, path)
    return table


def read_sheets(path: Path) -> dict[str, pd.DataFrame]:
    """Read all sheets of a workbook that are not empty.

    Args:
        path: An Excel workbook.

    Returns:
        The tables by the names of their sheets, every cell as text; the first row that is not blank is
        the header.

    Raises:
        InputError: It cannot be read, all of it is empty, a sheet has a column twice, or openpyxl is missing.
    """
    try:
        # As in text, a word such as None or NA is a word: what it means, the column's rules say.
        raw = pd.read_excel(
            path, sheet_name=None, header=None, dtype=str, keep_default_na=False, na_values=["", *_ERRORS]
        )
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except ImportError:
        raise InputError(f"{path} needs the package openpyxl: pip install 'fairdx[excel]'") from None
    except Exception as error:  # a damaged workbook raises whatever its parser does
        raise InputError(f"{path} cannot be read as a workbook: {error}") from error
    sheets = {}
    for name, cells in raw.items():
        rows = cells.dropna(how="all")
        if rows.empty:
            continue
        table = rows.iloc[1:].set_axis(_names(rows.iloc[0].fillna("").tolist(), path), axis=1)
        table.index -= 1  # the header is row 1 where nothing stands above it
        sheets[str(name)] = pd.DataFrame({column: _stripped(values) for column, values in table.items()})
    if not sheets:
        raise InputError(f"{path} cannot be read as a table: it is empty")
    return sheets
