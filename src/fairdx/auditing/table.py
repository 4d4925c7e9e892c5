"""The columns of a table as text or numbers, exactly as they are written, and its rows by their values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairdx.auditing.source import Source, as_text, open_source
from fairdx.core.errors import InputError
from fairdx.core.missing import BY_PROGRAMS, unknown_attribute, unknown_label
from fairdx.metrics.inputs import Floats, Ints

Kind = Literal["plain", "attribute", "label"]
"""What a column holds: it decides which words mean missing (`fairdx.core.missing`)."""


@dataclass(frozen=True)
class Text:
    """A column as text.

    Attributes:
        codes: Place of each row's text in `names`, -1 where it is missing, shape (n,).
        names: The texts that occur, exactly as they are written.
        ordered: Whether the order of `names` means something, as that of an ordered category in Parquet.
        words: The texts that were taken for missing, but for the blank one.
    """

    codes: Ints
    names: tuple[str, ...]
    ordered: bool = False
    words: tuple[str, ...] = ()

    @cached_property
    def missing(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each row's value is missing, (n,)."""
        return np.asarray(self.codes < 0)

    def array(self, missing: str = "") -> np.ndarray[Any, Any]:
        """The text of each row, (n,)."""
        found: np.ndarray[Any, Any] = np.array([*self.names, missing], dtype=object)[self.codes]
        return found


@dataclass(frozen=True)
class Table:
    """Some of the columns of a table.

    Attributes:
        name: What messages call it.
        columns: Names of all its columns, read or not.
        data: Those that were read.
        places: Place of each row in the file, from 0, shape (n,).
        decimal_comma: Whether 0,5 in it is a number.
        missing: Words that mean missing in any column; in an attribute those that people write do too, unless
            words were named.
    """

    name: str
    columns: tuple[str, ...]
    data: pa.Table
    places: Ints
    decimal_comma: bool
    missing: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.places)

    def text(self, column: str, kind: Kind = "plain") -> Text:
        """A column as text; in attributes of a person and in labels "unknown" and the like are missing."""
        values = self.data.column(column)
        try:
            coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
            whole = coded.unify_dictionaries().combine_chunks()
        except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
            raise InputError(
                f"{self.name}: column {column!r} holds {values.type}, not one value per row."
            ) from None
        if isinstance(whole, pa.ChunkedArray):  # an empty one, or more text than one array can hold
            whole = pa.concat_arrays(whole.chunks)
        names = [as_text(v) for v in whole.dictionary.to_pylist()]
        codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        absent = self._absent(names, kind)
        return _without_missing(codes, names, [name in absent for name in names], ordered=whole.type.ordered)

    def _absent(self, names: Sequence[str], kind: Kind) -> set[str]:
        """The values that mean missing."""
        absent = {name for name in names if not name.strip() or name.strip() in self.missing}
        if kind == "plain" or self.missing != BY_PROGRAMS:
            return absent
        return absent | (unknown_attribute(names) if kind == "attribute" else unknown_label(names))

    def numbers(self, column: str, kind: Kind = "plain") -> Floats:
        """A column as numbers, nan where it is missing, as for `text`; an error names what is no number."""
        values = self.data.column(column)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return self._typed_numbers(values, column)
        values = pc.utf8_trim_whitespace(values)
        words = ["", *self.missing]
        if kind != "plain":
            words += self._absent([v for v in pc.unique(values).to_pylist() if v is not None], kind)
        values = pc.if_else(pc.is_in(values, pa.array(words)), None, values)
        if self.decimal_comma:
            values = pc.replace_substring(values, ",", ".")
        try:
            return _floats(values.cast(pa.float64()))
        except pa.ArrowInvalid:
            wrong = np.isnan(_lenient(values)) & pc.is_valid(values).to_numpy()
        example = self.data.column(column)[int(np.flatnonzero(wrong)[0])].as_py() if wrong.any() else None
        if example is None:
            return _lenient(values)
        raise InputError(
            f"{self.name}: column {column!r} holds {example!r}, no number, in {self.rows(wrong)}."
        )

    def _typed_numbers(self, values: pa.ChunkedArray, column: str) -> Floats:
        try:
            return _floats(values.cast(pa.float64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError(
                f"{self.name}: column {column!r} holds {values.type}, which are no numbers."
            ) from None

    def inexact(self, column: str) -> bool:
        """Whether a column has floating-point numbers so large that whole numbers coincide in them."""
        values = self.data.column(column)
        if not pa.types.is_floating(values.type):
            return False
        largest = pc.max(pc.abs(values)).as_py()
        return largest is not None and largest >= 2.0 ** (53 if values.type == pa.float64() else 24)

    def rows(self, bad: Any) -> str:
        """How many rows are bad and which is the first, as in a text editor: the header is row 1."""
        where = np.flatnonzero(np.asarray(bad, dtype=bool))
        return f"{len(where):,} row{'s' * (len(where) > 1)} (first: row {self.places[where[0]] + 2})"

    def take(self, rows: Any) -> "Table":
        """Some of the rows, by place or by a mask."""
        chosen = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        return replace(self, data=self.data.take(pa.array(chosen)), places=self.places[chosen])


def _without_missing(codes: Ints, names: list[str], absent: list[bool], *, ordered: bool) -> Text:
    """Codes of the distinct names that occur and mean something."""
    occurs = np.bincount(codes[codes >= 0], minlength=len(names)) > 0
    kept = list(dict.fromkeys(n for n, a, o in zip(names, absent, occurs, strict=True) if o and not a))
    kept = kept if ordered else sorted(kept)
    place = {name: k for k, name in enumerate(kept)}
    recode = np.array([*(-1 if a else place.get(n, -1) for n, a in zip(names, absent, strict=True)), -1])
    words = {n.strip() for n, a, o in zip(names, absent, occurs, strict=True) if a and o and n.strip()}
    return Text(recode[codes], tuple(kept), ordered, tuple(sorted(words)))


def _floats(values: Any) -> Floats:
    found: Floats = values.to_numpy().astype(np.float64)
    return found


def _lenient(values: Any) -> Floats:
    """Numbers in all the ways that pandas reads, as +0.5; nan where there is none."""
    import pandas as pd

    return np.asarray(pd.to_numeric(pd.Series(values.to_pylist()), errors="coerce"), dtype=np.float64)


def read_table(
    source: Source | str | Path,
    columns: Sequence[str] | None = None,
    *,
    missing: Sequence[str] = BY_PROGRAMS,
) -> Table:
    """Read columns of a table.

    Args:
        source: From `open_source`, or what it opens.
        columns: Which columns; all if None.
        missing: Words that mean missing, besides blank cells.

    Returns:
        The table, with at least one row.

    Raises:
        InputError: A column is not there, or there twice; or the table cannot be read or has no rows.
    """
    source = source if isinstance(source, Source) else open_source(source)
    wanted = list(dict.fromkeys(source.columns if columns is None else columns))
    for column in wanted:
        require(source, column)
    data = source.read(wanted)
    if not len(data):
        raise InputError(f"{source.name}: the table has no rows.")
    return Table(
        source.name, source.columns, data, np.arange(len(data)), source.decimal_comma, tuple(missing)
    )


def require(source: Source | Table, column: str) -> None:
    """Check that a column is there, once.

    Raises:
        InputError: It is not; the message has the nearest name, or those that there are.
    """
    if column in source.columns:
        if source.columns.count(column) > 1:
            raise InputError(f"{source.name} has more than one column {column!r}; rename one.")
        return
    lowered = [name.lower() for name in source.columns]
    near = get_close_matches(column.lower(), lowered, n=1)
    known = ", ".join(map(repr, source.columns[:12]))
    did = f"did you mean {source.columns[lowered.index(near[0])]!r}?" if near else f"it has {known}."
    raise InputError(f"{source.name} has no column {column!r}; {did}")


def select(table: Table, where: Mapping[str, str], notes: list[str]) -> Table:
    """Keep the rows that have certain values.

    Args:
        table: The table.
        where: Value by column, as text; where no row has this text, numbers that are equal count.
        notes: Gets a sentence with the number of rows kept.

    Returns:
        The rows.

    Raises:
        InputError: There is no such value, or no row has all of them.
    """
    kept = np.ones(len(table), dtype=bool)
    wanted = " and ".join(f"{c} = {v}" for c, v in where.items())
    for column, value in where.items():
        found = table.text(column)
        same = [k for k, name in enumerate(found.names) if name == value]
        same = same or [k for k, name in enumerate(found.names) if _equal(name, value)]
        if not same:
            known = ", ".join(found.names[:12])
            raise InputError(f"{table.name}: no row has {column} = {value}; there is {known}.")
        kept &= np.isin(found.codes, same)
        if not kept.any():
            raise InputError(f"{table.name}: no row has {wanted} at the same time.")
    if where:
        notes.append(f"{kept.sum():,} of {len(table):,} rows have {wanted}; only these are audited.")
    return table.take(kept) if where else table


def _equal(name: str, value: str) -> bool:
    try:
        return name.strip() == value.strip() or float(name) == float(value)
    except ValueError:
        return False
