"""Open a table in whatever it is kept: CSV, Excel or Parquet, packed or not, in a file or on standard input.

What a file is, its first bytes say, so that standard input and unusual endings are read like any other file.
Only the columns that are asked for are read, and a cell of text stays the text that it is.
"""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import math
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fairdx.core.errors import InputError

STANDARD_INPUT = "-"

_PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}
_ABOVE = re.compile(rb"(\xef\xbb\xbf)?([ \t]*(\r\n|\r|\n))*")
"""A byte-order mark and the blank lines above the header."""
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"


@dataclass(frozen=True)
class Source:
    """A table that can be read column by column.

    Attributes:
        name: What messages call it.
        columns: Names of its columns.
        read: Reads some of the columns, each of which occurs once; text as text.
        decimal_comma: Whether 0,5 in it is a number.
        remark: What a reader of the audit should know about it, or "".
    """

    name: str
    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], pa.Table]
    decimal_comma: bool = False
    remark: str = ""


def open_source(path: str | Path) -> Source:
    """Find out what a file is and which columns it has.

    Args:
        path: CSV (separated by commas, semicolons, tabs or bars; UTF-8, UTF-16 with a byte-order mark, or
            Latin-1), Excel (.xlsx, its first sheet) or Parquet; any of them in gzip, bzip2, xz or a zip with
            a single file; "-" for standard input.

    Returns:
        The source.

    Raises:
        InputError: There is no such file, it cannot be unpacked, or it is no table.
    """
    if str(path) == STANDARD_INPUT:
        return _open("standard input", pa.py_buffer(sys.stdin.buffer.read()), "")
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size:
            data = pa.memory_map(str(path)).read_buffer()
        else:  # a pipe, or nothing
            data = pa.py_buffer(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _open(str(path), data, path.suffix.lower())


def _open(name: str, data: pa.Buffer, ending: str) -> Source:
    head = data[:8].to_pybytes()
    for magic, unpack in _PACKED.items():
        if head.startswith(magic):
            inner = Path(Path(name).stem).suffix.lower()
            return _open(name, pa.py_buffer(_unpacked(name, unpack, data)), inner)
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(name, data)
    if head.startswith(b"PAR1") or ending in (".parquet", ".pq"):
        return _open_parquet(name, data)
    if head.startswith(_OLD_EXCEL):
        raise InputError(f"{name} is an old Excel file, or one with a password; save it as .xlsx or CSV.")
    return _open_text(name, data)


def _unpacked(name: str, unpack: Callable[[bytes], bytes], data: pa.Buffer) -> bytes:
    try:
        return unpack(data.to_pybytes())
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{name} cannot be unpacked: {error}.") from error


def _open_zip(name: str, data: pa.Buffer) -> Source:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        names = archive.namelist()
        if "[Content_Types].xml" in names:
            return _open_excel(name, data)
        files = [n for n in names if not n.endswith("/") and not re.search(r"(^|/)(\.|__MACOSX/)", n)]
        if len(files) != 1:
            told = ", ".join(files[:5]) or "none"
            raise InputError(f"{name} holds {len(files)} files ({told}); give a zip with a single table.")
        inner = archive.read(files[0])
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error) as error:
        raise InputError(f"{name} cannot be unpacked: {error}.") from error
    return _open(name, pa.py_buffer(inner), Path(files[0]).suffix.lower())


def _open_parquet(name: str, data: pa.Buffer) -> Source:
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as Parquet: {error}.") from error

    def read(columns: Sequence[str]) -> pa.Table:
        try:
            return file.read(columns=list(columns))
        except (OSError, ValueError) as error:
            raise InputError(f"{name} cannot be read as Parquet: {error}.") from error

    return Source(name, tuple(file.schema_arrow.names), read)


def _open_excel(name: str, data: pa.Buffer) -> Source:
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"{name} is an Excel file; install fairdx[excel] to read it, or save it as CSV."
        ) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write a size that would cut rows and columns off, or none
        lines = [list(row) for row in sheet.iter_rows(values_only=True)]
    except Exception as error:  # a damaged workbook raises whatever its parser does
        raise InputError(f"{name} cannot be read as Excel: {error}.") from error
    lines = [row for row in lines if any(cell is not None for cell in row)]
    header = [as_text(cell).strip() for cell in lines[0]] if lines else []
    while header and not header[-1]:
        header.pop()
    body = [[*row, *[None] * len(header)][: len(header)] for row in lines[1:]]

    def read(columns: Sequence[str]) -> pa.Table:
        cells = {c: [as_text(row[header.index(c)]) for row in body] for c in columns}
        return pa.table({c: pa.array(values, pa.string()) for c, values in cells.items()})

    others = len(book.worksheets) - 1
    remark = f"{name}: the sheet {sheet.title!r} is read, and not the {others} others." if others else ""
    return Source(name, tuple(header), read, remark=remark)


def as_text(value: Any) -> str:
    """The text of a cell that is not text: as CSV would have it, "" for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    text = str(value)
    return text.removesuffix(" 00:00:00") if hasattr(value, "isoformat") else text  # a date without a time


def _open_text(name: str, data: pa.Buffer) -> Source:
    data = _as_utf8(name, data)
    if not data.size or not data[:4096].to_pybytes().strip():
        raise InputError(f"{name}: the file is empty.")
    data = data[_ABOVE.match(data[:4096].to_pybytes()).end() :]  # type: ignore[union-attr]  # matches nothing too
    start = data[: 1 << 20].to_pybytes().decode("utf-8", errors="ignore")
    said = re.match(r'"?sep=(.)"?\r?\n', start)  # what Excel writes and reads before the header
    if said:
        data = data[data[:100].to_pybytes().index(b"\n") + 1 :]
        start = start[said.end() :]
    separator = said[1] if said else _separator(start)
    header = next(csv.reader(io.StringIO(start, newline=""), delimiter=separator))
    place = {column.strip(): column for column in header}

    def read(columns: Sequence[str]) -> pa.Table:
        found = _read_text(name, data, separator, [place[c] for c in columns])
        _check_quotes(name, data, separator, len(found))
        return found.rename_columns(list(columns))

    return Source(name, tuple(column.strip() for column in header), read, separator != ",")


def _as_utf8(name: str, data: pa.Buffer) -> pa.Buffer:
    """Decode by byte-order mark, else as UTF-8, as Windows' Latin-1, or as Latin-1, which cannot fail."""
    head = data[:1000].to_pybytes()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return pa.py_buffer(data.to_pybytes().decode("utf-16").encode())
        except UnicodeDecodeError as error:
            raise InputError(f"{name} starts like UTF-16 but is not: {error.reason}.") from error
    if b"\0" in head:
        raise InputError(f"{name} is no text file; give CSV, Excel (.xlsx) or Parquet, packed or not.")
    decoder = codecs.getincrementaldecoder("utf-8")()
    view, step = memoryview(data), 1 << 24
    try:
        for start in range(0, len(view), step):
            decoder.decode(view[start : start + step], final=start + step >= len(view))
    except UnicodeDecodeError:
        raw = data.to_pybytes()
        try:
            return pa.py_buffer(raw.decode("cp1252").encode())
        except UnicodeDecodeError:
            return pa.py_buffer(raw.decode("latin-1").encode())
    return data


def _separator(text: str) -> str:
    """The separator that cuts the header into most fields."""
    header = text.splitlines()[0]
    return max(",;\t|", key=lambda s: len(next(csv.reader([header], delimiter=s))))


def _read_text(name: str, data: pa.Buffer, separator: str, columns: list[str]) -> pa.Table:
    from pyarrow import csv as arrow_csv

    def read(*, threads: bool) -> pa.Table:
        return arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(use_threads=threads),
            parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=False,
            ),
        )

    try:
        return read(threads=True)
    except pa.ArrowInvalid:
        pass
    try:
        return read(threads=False)  # which says in which row
    except pa.ArrowInvalid as error:
        raise InputError(f"{name} is no regular table: {_what_is_wrong(str(error))}.") from error


def _check_quotes(name: str, data: pa.Buffer, separator: str, n_rows: int) -> None:
    """Refuse a quotation mark that nobody closes, as in `"5 inch`: its cell would swallow rows.

    Lines in one cell may be a text of several lines. They are rows if each has as many cells as the header.
    """
    step = 1 << 24  # not all of a large file at once
    parts = (data[at : at + step].to_pybytes() for at in range(0, data.size, step))
    found = [(b'"' in part, part.count(b"\n")) for part in parts]
    n_lines = sum(n for _, n in found) + (data[-1:].to_pybytes() != b"\n")
    if not any(quoted for quoted, _ in found) or n_lines == n_rows + 1:
        return
    lines = data.to_pybytes().decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    reader = csv.reader(io.StringIO("\n".join(lines), newline="\n"), delimiter=separator)
    width, end = 0, 0
    try:
        for cells in reader:
            width, start, end = width or len(cells), end, reader.line_num
            joined = [line for line in lines[start:end] if line.strip()]
            if end - start > 1 and all(_cells(line, separator, width) for line in joined):
                raise InputError(
                    f"{name}: a quotation mark in line {start + 1} joins it with the rows up to line {end}; "
                    "take the mark out, or double it within a quoted cell."
                )
    except csv.Error as error:
        raise InputError(
            f"{name}: the quotation marks from line {end + 1} on do not fit ({error})."
        ) from error


def _cells(line: str, separator: str, width: int) -> bool:
    """Whether a line by itself is a row, with or without a heed to its quotation marks."""
    return line.count(separator) == width - 1 or len(next(csv.reader([line], delimiter=separator))) == width


def _what_is_wrong(error: str) -> str:
    found = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", error)
    if found is None:
        return error.splitlines()[0].removeprefix("CSV parse error: ").rstrip(".")
    return "row {0} has {2} fields and the header {1}".format(*found.groups())
