"""Read predictions that arrive over time: one table with a column of dates, or one file for each period."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdx.auditing.columns import (
    GroupColumn,
    LabelRules,
    complete,
    parse_group,
    read_groups,
    read_label,
    read_patients,
    read_scores,
)
from fairdx.auditing.matched import unique
from fairdx.auditing.repeats import check_repeats
from fairdx.auditing.so_far import numbered
from fairdx.auditing.source import Source, open_source
from fairdx.auditing.table import Table, read_table
from fairdx.core.errors import InputError
from fairdx.core.missing import BY_PROGRAMS
from fairdx.metrics.inputs import Codes, Floats

if TYPE_CHECKING:
    import pandas as pd

PERIODS: dict[str, str] = {"day": "D", "week": "W", "month": "M", "quarter": "Q", "year": "Y"}
"""How dates are divided, and what pandas calls it."""

_YEAR, _MONTH = r"\d{4}", r"\d{4}(-\d{2})?"
_COARSER = {"day": _MONTH, "week": _MONTH, "month": _YEAR, "quarter": _YEAR, "year": r"\b\B"}
"""Dates that do not say in which period they are; pandas takes them for its first day."""
_ZONE = re.compile(r"([T ]\d\d(:?\d\d){0,2})([.,]\d+)?\s*(Z|UTC|GMT|[+-]\d\d(:?\d\d)?)$", re.IGNORECASE)
"""A time of day and the zone behind it."""
_CHANCE = 10
"""Two files of fewer rows may hold the same ones by chance."""
_ONCE = "Give each file once, and each image in one file."


@dataclass(frozen=True)
class Arrivals:
    """Predictions, checked, as `fairdx.auditing.monitor` takes them.

    Attributes:
        y_true: Truth of two classes, the negative one first.
        y_score: P(Y=1), shape (n,).
        sensitive_features: Groups by attribute.
        looks: Period of each image, in order of time.
        patients: Patient of each image, or None.
        positive_class: Name of the positive class.
        notes: What a reader should know about the tables.
    """

    y_true: Codes
    y_score: Floats
    sensitive_features: dict[str, Codes]
    looks: Codes
    patients: Codes | None
    positive_class: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ArrivalColumns:
    """Which columns mean what.

    Attributes:
        label: Column of the truth.
        score: Column of P(Y=1).
        groups: Sensitive attributes, as `fairdx.auditing.columns.parse_group` reads them.
        time: Column of the date (ISO 8601: 2025-03-31, with or without a time of day); None if each file is a
            period.
        by: One of `PERIODS`.
        patient: Column of the patient.
        identifier: Column that names the image; it must then be unique.
        labels: How labels are read.
        missing: Words that mean missing, besides blank cells.
    """

    label: str
    score: str
    groups: Sequence[str]
    time: str | None = None
    by: str = "month"
    patient: str | None = None
    identifier: str | None = None
    labels: LabelRules = field(default_factory=LabelRules)
    missing: Sequence[str] = BY_PROGRAMS


def read_arrivals(paths: Sequence[str | Path], asked: ArrivalColumns) -> Arrivals:
    """Read predictions over time.

    Args:
        paths: Tables in any form that `fairdx audit` reads. Without a column of dates each is a period, in
            the order given, called after the file.
        asked: Which columns mean what.

    Returns:
        The columns. Images without a known label are left out, which a note counts.

    Raises:
        InputError: One sentence naming the file and the column or row at fault.
    """
    if asked.by not in PERIODS:
        raise InputError(f"`by` is {asked.by!r}; give one of {', '.join(PERIODS)}.")
    sources, notes = [open_source(path) for path in paths], list[str]()
    parts = [_read(source, asked) for source in sources]
    table = _joined(parts)
    notes += [source.remark for source in sources if source.remark]
    notes += check_repeats(table, table.columns, asked.identifier)
    if asked.identifier is not None:
        unique(table, asked.identifier, _ONCE)
    # One file after the other, so that what is wrong is named by its file and row.
    score = np.concatenate([read_scores(part, asked.score) for part in parts])
    looks = _files(parts) if asked.time is None else _periods(parts, asked.time, asked.by)
    truth = read_label(table, asked.label, asked.labels, notes)
    rows = truth.codes >= 0
    notes += _out_of_order(looks.names) if asked.time is None else []
    notes += _lost(looks, rows)
    kept = table if rows.all() else table.take(rows)
    return Arrivals(
        Codes(truth.codes[rows], truth.names, truth.names),
        score[rows],
        {g.column: read_groups(kept, g, notes) for g in _groups(sources[0], asked)},
        looks.take(rows),
        None if asked.patient is None else read_patients(kept, asked.patient, notes),
        truth.names[1],
        tuple(notes),
    )


def _groups(source: Source, asked: ArrivalColumns) -> list[GroupColumn]:
    return [parse_group(text, source.columns) for text in asked.groups]


def _read(source: Source, asked: ArrivalColumns) -> Table:
    single = [c for c in (asked.patient, asked.identifier, asked.time) if c is not None]
    columns = [asked.label, asked.score, *(g.column for g in _groups(source, asked)), *single]
    table = read_table(source, columns, missing=asked.missing)
    if asked.patient is not None:
        read_patients(table, asked.patient, [])
    return table


def _joined(parts: Sequence[Table]) -> Table:
    """Tables one below the other."""
    if len(parts) == 1:
        return replace(parts[0], columns=tuple(parts[0].data.column_names))
    names = [part.name for part in parts]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice; give each file once.")
    _refuse_copies(parts)
    columns = tuple(parts[0].data.column_names)
    texts = [pa.table({c: _as_text(part.data.column(c)) for c in columns}) for part in parts]
    data = pa.concat_tables(texts)
    name = f"{names[0]} and {len(names) - 1} more"
    commas = any(part.decimal_comma for part in parts)
    starts = tuple(np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist())
    places = np.arange(len(data))
    return _Files(name, columns, data, places, commas, parts[0].missing, tuple(names), starts)


@dataclass(frozen=True)
class _Files(Table):
    """Tables one below the other, which names a row by its file.

    Attributes:
        files: Names of the files.
        starts: Place of the first row of each.
    """

    files: tuple[str, ...]
    starts: tuple[int, ...]

    def rows(self, bad: Any) -> str:
        """How many rows are bad, and which is the first in which file."""
        where = np.flatnonzero(np.asarray(bad, dtype=bool))
        first = int(self.places[where[0]])
        file = int(np.searchsorted(self.starts, first, side="right")) - 1
        row = f"row {first - self.starts[file] + 2} of {self.files[file]}"
        return f"{len(where):,} row{'s' * (len(where) > 1)} (first: {row})"


def _refuse_copies(parts: Sequence[Table]) -> None:
    """Refuse a file with the very rows of another: a month that was copied to the name of the next one."""
    for i, part in enumerate(parts):
        for other in parts[:i]:
            if len(part) >= _CHANCE and part.data.equals(other.data):
                raise InputError(f"{part.name} holds the same rows as {other.name}; give each period once.")


def _out_of_order(names: Sequence[str]) -> list[str]:
    """A caution if the numbers in the names of files say another order, as 10 before 2."""
    for first, second in pairwise(names):
        if numbered(first) > numbered(second):
            return [f"Files are periods in the order given, in which {second} comes after {first}."]
    return []


def _lost(looks: Codes, known: NDArray[np.bool_]) -> list[str]:
    """A caution for periods of which no image has a label."""
    left = np.bincount(looks.codes[known], minlength=len(looks.names))
    names = [name for name, count in zip(looks.names, left, strict=True) if not count]
    return [f"No image of {', '.join(names)} has a label: there is no such period."] if names else []


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string())


def _files(parts: Sequence[Table]) -> Codes:
    """Each file is a period, called after it; a single one is the only period."""
    codes = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    names = [Path(part.name).name for part in parts]
    shown = tuple(names if len(set(names)) == len(names) else (part.name for part in parts))
    return Codes(codes, shown, tuple(range(len(parts))))  # numbers: in the order given


def _periods(parts: Sequence[Table], column: str, by: str) -> Codes:
    import pandas as pd

    found = pd.concat([_dates(part, column, by) for part in parts], ignore_index=True).dt.to_period(
        PERIODS[by]
    )
    distinct, first, codes = np.unique(
        found.map(lambda period: period.ordinal).to_numpy(), return_index=True, return_inverse=True
    )
    shown = tuple(str(found[int(i)]).partition("/")[0] for i in first)  # of a week its Monday
    return Codes(codes.reshape(-1).astype(np.int64), shown, tuple(int(k) for k in distinct))


def _dates(table: Table, column: str, by: str) -> "pd.Series[pd.Timestamp]":
    """Dates as the clock showed them where the image was made."""
    import pandas as pd

    when = complete(table, column, "time")
    names = pd.Series(when.names, dtype=object)
    dates = pd.to_datetime(names.str.replace(_ZONE, r"\1", regex=True), format="ISO8601", errors="coerce")
    bad = dates.isna().to_numpy()
    if bad.any():
        raise InputError(
            f"{table.name}: column {column!r} holds {names[bad].iloc[0]!r}, no date, in "
            f"{table.rows(bad[when.codes])}; write dates as 2025-03-31."
        )
    coarse = names.str.fullmatch(_COARSER[by]).to_numpy(bool)
    if coarse.any():
        raise InputError(
            f"{table.name}: column {column!r} holds {names[coarse].iloc[0]!r}, which does not tell the {by}, "
            f"in {table.rows(coarse[when.codes])}; write dates as 2025-03-31, or choose longer periods."
        )
    return dates.iloc[when.codes].reset_index(drop=True)
