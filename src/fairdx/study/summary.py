"""A study's runs summed up: one line for each method and setting, with its mean and interval over seeds.

The table of runs has one row for each run: `key`, `data`, `method`, `seed`, `fold`, a column for each varied
setting, `needs_group`, and for each metric the columns `NAME`, `NAME/low` and `NAME/high`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan, sqrt
from numbers import Number
from typing import Any, Literal

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError

VANILLA = "vanilla"
"""The method that the others are compared with."""
LEVEL = 0.95
"""Nominal coverage of the intervals over seeds."""

Source = Literal["seeds", "folds", "run", "pooled"]
"""What an interval is of: repeated runs (Student's t), one run (its own bootstrap), or pooled folds (the
same)."""


@dataclass(frozen=True)
class Mean:
    """A mean with its interval.

    Attributes:
        value: The mean; nan if there is none.
        low: Lower end of the interval; nan if there is none.
        high: Upper end of the interval; nan if there is none.
        n: Runs it is of.
    """

    value: float
    low: float
    high: float
    n: int


NO_MEAN = Mean(nan, nan, nan, 0)


def t_mean(values: Sequence[float]) -> Mean:
    """The mean of independent runs with Student's interval; runs without a value do not count.

    Args:
        values: One per run; nan where it has none.

    Returns:
        The mean; without an interval if there are fewer than two values.
    """
    from scipy.special import stdtrit

    known = np.asarray([value for value in values if isfinite(value)], dtype=float)
    if len(known) < 2:
        return Mean(float(known[0]), nan, nan, 1) if len(known) else NO_MEAN
    mean = float(known.mean())
    half = float(stdtrit(len(known) - 1, (1 + LEVEL) / 2) * known.std(ddof=1) / sqrt(len(known)))
    return Mean(mean, mean - half, mean + half, len(known))


@dataclass(frozen=True)
class Line:
    """One method at one setting on one data set.

    Attributes:
        data: Name of the data set.
        method: Label of the method.
        values: The varied settings' values, None where the method has no such setting.
        needs_group: Whether the method uses S at test time.
        runs: Finished runs, or pooled folds.
        expected: Runs that there should be.
        source: What the intervals are of.
        estimates: By metric.
        differences: The same less vanilla's of the same seed and fold; empty where there is no vanilla.
        table: The runs that count, indexed by (seed, fold).
    """

    data: str
    method: str
    values: tuple[Any, ...]
    needs_group: bool
    runs: int
    expected: int
    source: Source
    estimates: Mapping[str, Mean]
    differences: Mapping[str, Mean]
    table: pd.DataFrame

    @property
    def complete(self) -> bool:
        """Whether no run is missing."""
        return self.runs >= self.expected

    @property
    def count(self) -> str:
        """How many runs it is of, as text: a missing one is said."""
        unit = "fold" if self.source in ("folds", "pooled") else "seed"
        plural = "" if self.expected == 1 else "s"
        number = f"{self.runs}" if self.complete else f"{self.runs} of {self.expected}"
        return f"{number} {unit}{plural}{' pooled' if self.source == 'pooled' else ''}"


class Summary:
    """All lines of a study.

    Args:
        rows: The table of runs.
        varied: Columns of the varied settings.
        seeds: The seeds that were planned; those found in `rows` if empty.

    Raises:
        InputError: A column is missing, or two runs of one line have the same seed and fold.
    """

    def __init__(self, rows: pd.DataFrame, varied: Sequence[str] = (), seeds: Sequence[int] = ()) -> None:
        needed = ("data", "method", "seed", *varied)
        missing = [name for name in needed if name not in rows]
        if missing:
            raise InputError(f"the table of runs has no column `{missing[0]}`")
        self.varied = tuple(varied)
        self.metrics = tuple(
            str(name).removesuffix("/low") for name in rows.columns if str(name).endswith("/low")
        )
        self._planned = {_code(seed) for seed in seeds}
        self._rows = self._prepared(rows)

    def _prepared(self, rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.copy()
        for name in ("fold", "needs_group"):
            if name not in rows:
                rows[name] = None
        for name in self.varied:
            rows[name] = pd.Series([plain(value) for value in rows[name]], index=rows.index, dtype=object)
        for name in self.metrics:
            for column in (name, f"{name}/low", f"{name}/high"):
                rows[column] = pd.to_numeric(rows[column], errors="coerce").astype(float)
        rows["data"], rows["method"] = rows["data"].astype(str), rows["method"].astype(str)
        rows["_finished"] = rows[list(self.metrics)].notna().any(axis=1) if self.metrics else False
        rows["_unit"] = pd.Series(
            [(_code(s), _code(f)) for s, f in zip(rows["seed"], rows["fold"], strict=True)],
            index=rows.index,
            dtype=object,
        )
        return rows

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """One for each data set, method and setting: in the order of first runs, vanilla first."""
        found: dict[tuple[Any, ...], pd.DataFrame] = {}
        keys = zip(*(self._rows[name] for name in ("data", "method", *self.varied)), strict=True)
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        for key, own in places.items():
            found[key] = self._rows.iloc[own]
        orders = [_ranks([key[i] for key in found], i) for i in range(2 + len(self.varied))]
        ordered = sorted(found, key=lambda key: tuple(order[v] for order, v in zip(orders, key, strict=True)))
        return tuple(self._line(key, found) for key in ordered)

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the data sets, in order."""
        return tuple(dict.fromkeys(line.data for line in self.lines))

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels of the methods, in order."""
        return tuple(dict.fromkeys(line.method for line in self.lines))

    def of(self, data: str) -> list[Line]:
        """The lines of a data set."""
        return [line for line in self.lines if line.data == data]

    def _line(self, key: tuple[Any, ...], found: Mapping[tuple[Any, ...], pd.DataFrame]) -> Line:
        every = found[key]
        counted, source = _counted(every)
        vanilla = self._vanilla(key, found)
        runs, expected = self._numbers(key[0], every, counted, source)
        return Line(
            data=key[0],
            method=key[1],
            values=key[2:],
            needs_group=bool(every["needs_group"].fillna(False).astype(bool).any()),
            runs=runs,
            expected=expected,
            source=source,
            estimates={name: _estimate(counted, name, source) for name in self.metrics},
            differences={}
            if vanilla is None
            else {name: paired(counted[name], vanilla[name]) for name in self.metrics},
            table=counted,
        )

    def _numbers(
        self, data: str, every: pd.DataFrame, counted: pd.DataFrame, source: Source
    ) -> tuple[int, int]:
        """Finished runs, and how many there should be: as many as anywhere on this data set."""
        rows = self._rows[self._rows["data"] == data]
        if source == "pooled":
            folds = {unit[1] for unit in rows["_unit"] if unit[0] is not None}
            own = {unit[1] for unit in every.loc[every["_finished"], "_unit"] if unit[0] is not None}
            return (len(own), len(folds)) if folds else (1, 1)
        units = {unit for unit in rows["_unit"] if unit[0] is not None}
        folds = {unit[1] for unit in units}
        planned = {(seed, fold) for seed in self._planned for fold in folds or {None}}
        return len(counted), len(units | planned)

    def _vanilla(
        self, key: tuple[Any, ...], found: Mapping[tuple[Any, ...], pd.DataFrame]
    ) -> pd.DataFrame | None:
        """Vanilla's runs on the same data, at the same values of those settings that vanilla has."""
        if key[1].casefold() == VANILLA:
            return None
        fitting = [
            other
            for other in found
            if other[0] == key[0]
            and other[1].casefold() == VANILLA
            and all(theirs is None or theirs == own for theirs, own in zip(other[2:], key[2:], strict=True))
        ]
        if not fitting:
            return None
        return _counted(found[max(fitting, key=lambda other: sum(v is not None for v in other[2:]))])[0]


def _counted(rows: pd.DataFrame) -> tuple[pd.DataFrame, Source]:
    """The runs that a line's figures are of, indexed by seed and fold: pooled folds where there are any."""
    finished = rows[rows["_finished"]]
    pooled = finished[[unit[0] is None for unit in finished["_unit"]]]
    source: Source = "seeds"
    if len(pooled):
        finished, source = pooled, "pooled"
    elif len(finished) == 1:
        source = "run"
    elif len({unit[1] for unit in finished["_unit"]}) > 1:
        source = "folds"
    index = pd.Index(list(finished["_unit"]), tupleize_cols=False, dtype=object)
    if index.has_duplicates:
        seed, fold = index[index.duplicated()][0]
        raise InputError(
            f"two runs of {finished['method'].iloc[0]} on {finished['data'].iloc[0]} have seed {seed}"
            f"{'' if fold is None else f', fold {fold}'}: `varied` leaves a setting out that they differ in"
        )
    return finished.set_axis(index), source


def _estimate(counted: pd.DataFrame, name: str, source: Source) -> Mean:
    if source in ("run", "pooled") and len(counted) == 1:
        value, low, high = (float(counted[c].iloc[0]) for c in (name, f"{name}/low", f"{name}/high"))
        return Mean(value, low, high, 1) if isfinite(value) else NO_MEAN
    return t_mean(counted[name].tolist())


def paired(own: "pd.Series[float]", other: "pd.Series[float]") -> Mean:
    """The mean difference `own` - `other` over the runs that both have, with Student's interval."""
    values = dict(zip(other.index, other, strict=True))
    return t_mean([a - values[unit] for unit, a in zip(own.index, own, strict=True) if unit in values])


def _ranks(values: Sequence[Any], place: int) -> dict[Any, Any]:
    """Order of a column's values: numbers by size, others by appearance; vanilla and "none" come first."""
    distinct = list(dict.fromkeys(values))
    known = [value for value in distinct if value is not None]
    if place > 1 and all(isinstance(value, Number) for value in known):
        known = sorted(known)
    if place == 1:
        known = sorted(known, key=lambda value: value.casefold() != VANILLA)
    return {None: -1, **{value: rank for rank, value in enumerate(known)}}


def plain(value: Any) -> Hashable:
    """A setting's value as something that can be compared and shown; None for a missing one."""
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(str(part) for part in value)
    if value is None or pd.isna(value):
        return None
    item: Hashable = value.item() if isinstance(value, np.generic) else value
    return item


def _code(value: Any) -> Hashable:
    """A seed or fold; None where there is none."""
    known = plain(value)
    return int(known) if isinstance(known, float) else known


def short(setting: str) -> str:
    """The last part of a dotted key: what a table calls the setting."""
    return setting.rpartition(".")[2].replace("_", " ")


def shown(value: Any) -> str:
    """A setting's value as text."""
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
