"""Count what is true of many simulated data sets, shared over processes, and keep what was counted.

A module of simulations has `outcomes(name, number, **options)`, which draws data set `number` of a kind from
a seed of its own and says what was true of it. So the counts are the same whatever the number of processes.
"""

import argparse
import csv
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from fairdx.data.pool import ordered_map

ROOT = Path(__file__).resolve().parents[1]
Rows = dict[tuple[str, str], dict[str, str]]


@cache
def load(path: Path) -> ModuleType:
    """A module of the tests."""
    import sys

    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Task:
    """One data set of a kind."""

    module: Path
    name: str
    number: int
    options: dict[str, Any]


def outcomes(task: Task) -> tuple[str, dict[str, bool]]:
    """The kind of a data set, and what was true of it."""
    return task.name, load(task.module).outcomes(task.name, task.number, **task.options)


@dataclass
class Found:
    """Counts of one kind."""

    data_sets: int = 0
    defined: Counter[str] = field(default_factory=Counter)
    true: Counter[str] = field(default_factory=Counter)

    def add(self, outcomes: dict[str, bool]) -> None:
        """One more data set; what is undefined in it is not among its outcomes."""
        self.data_sets += 1
        self.defined.update(outcomes.keys())
        self.true.update({figure: int(value) for figure, value in outcomes.items()})


@dataclass(frozen=True)
class Table:
    """The file that keeps the counts.

    Attributes:
        path: A CSV file; rows that it has already are kept unless they are counted again.
        fields: Names of its columns: kind, figure, share, number of data sets.
    """

    path: Path
    fields: tuple[str, str, str, str]

    def read(self) -> Rows:
        """What was counted before, by kind and figure."""
        if not self.path.exists():
            return {}
        with self.path.open(encoding="utf-8", newline="") as file:
            return {(row[self.fields[0]], row[self.fields[1]]): row for row in csv.DictReader(file)}

    def add(self, rows: Rows) -> None:
        """Write rows among those of before; a kind that was counted again loses what it no longer has."""
        again = {kind for kind, _ in rows}
        kept = {key: row for key, row in self.read().items() if key in rows or key[0] not in again}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows({**kept, **rows}.values())

    def rows(self, name: str, found: Found) -> Rows:
        """The counts of a kind as rows."""
        rows: Rows = {}
        for figure, number in found.defined.items():
            share = f"{found.true[figure] / number:.4f}".rstrip("0").rstrip(".")
            rows[name, figure] = dict(zip(self.fields, (name, figure, share, str(number)), strict=True))
        return rows


def parser(about: str | None, what: str, out: Path) -> argparse.ArgumentParser:
    """The options that all counts share."""
    made = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    made.add_argument("names", nargs="*", metavar=what, help=f"names of {what}s; all of them unless given")
    made.add_argument("--draws", type=int, default=1000, help=f"simulated data sets for each {what}")
    made.add_argument("--processes", type=int, default=1, help="processes that share the work")
    made.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no data set after so many minutes"
    )
    made.add_argument("--out", type=Path, default=out, help="CSV file that what is found is added to")
    made.add_argument("--merge", type=Path, help="count nothing; take over the rows of this CSV file")
    return made


def run(asked: argparse.Namespace, table: Table, module: Path, names: list[str], **options: Any) -> None:
    """Count, and write after every kind and twice a minute in between."""
    if asked.merge is not None:
        table.add(Table(asked.merge, table.fields).read())
        return
    found: dict[str, Found] = {}
    written = time.monotonic()
    for name, one in ordered_map(outcomes, _tasks(asked, module, names, options), workers=asked.processes):
        counts = found.setdefault(name, Found())
        counts.add(one)
        if counts.data_sets == asked.draws or time.monotonic() > written + 30:
            table.add(table.rows(name, counts))
            written = time.monotonic()
    for name, counts in found.items():
        table.add(table.rows(name, counts))
        _show(name, counts)


def _tasks(
    asked: argparse.Namespace, module: Path, names: list[str], options: dict[str, Any]
) -> Iterator[Task]:
    end = time.monotonic() + 60 * asked.minutes
    for name in names:
        for number in range(asked.draws):
            if time.monotonic() > end:
                return
            yield Task(module, name, number, options)


def _show(name: str, found: Found) -> None:
    for figure, number in found.defined.items():
        share = f"{found.true[figure] / number:.3f} of {number}"
        print(f"{name:45} {figure:55} {share}", flush=True)
