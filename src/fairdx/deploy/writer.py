"""A table of scores that grows on disk and survives `kill -9`.

Rows are appended under temporary names; then a line in a journal says how many files a batch covers, how many
bytes of each table, and their checksum. Everything is on the disk before the journal says so. A writer that
finds an unfinished table verifies it batch by batch, cuts off what is torn or was made from files that have
changed since, and goes on: the result is the same, byte by byte.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import time
import zlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, Self

from fairdx.core.cells import as_text
from fairdx.core.errors import InputError
from fairdx.core.files import journal_line, read_journal, write_all, write_whole
from fairdx.deploy.inputs import added
from fairdx.deploy.record import Record, Settings, difference, errors_of, read_record, record_of, settings_of
from fairdx.models.card import file_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SECONDS: Final = 1.0
"""How much work a kill may cost: the disk is waited for that often, not after each batch."""
ERROR_COLUMNS: Final = ("path", "reason")


@dataclass(frozen=True)
class Batch:
    """Rows of some files."""

    files: int
    """How many files they cover."""
    stamp: str
    """Sizes and times of change of these files before they were read."""
    rows: bytes
    """Lines of the table of scores."""
    errors: bytes
    """Lines of the list of errors."""
    counts: dict[str, int] = field(default_factory=dict)
    """What is counted, by name: `scored`, `broken`, `reports`, `caution: darker`, ..."""


def csv_lines(rows: Iterable[Iterable[Any]]) -> bytes:
    r"""Write rows as CSV in UTF-8; bytes of a file's name that are no text become `\udcNN`.

    Text that a spreadsheet would take for a formula has an apostrophe before it.

    Args:
        rows: Cells.

    Returns:
        A line for each row.
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([as_text(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def partial_of(path: Path) -> Path:
    """Returns the name that a file has until it is finished."""
    return path.with_name(f"{path.name}.partial")


def journal_of(out: Path) -> Path:
    """Returns where the journal of an unfinished table stands."""
    return out.with_name(f"{out.name}.progress.jsonl")


def finished(out: Path, settings: Settings, stamp: Callable[[], str] | None = None) -> Record | None:
    """Find what the same call finished earlier.

    Args:
        out: The table of scores.
        settings: What it is to be made with.
        stamp: What the record's `stamp` would be of the files as they are now; not compared if left out.

    Returns:
        Its record; None where it is not finished.

    Raises:
        InputError: It was made with other settings, or of files that have changed since, or a table is gone
            or was changed.
    """
    if not record_of(out).exists():
        return None
    record = read_record(out)
    other = difference(record.settings, settings)
    if other:
        raise InputError(f"{out} was written {other}: delete it or choose another output")
    for file, digest in ((out, record.scores_sha256), (errors_of(out), record.errors_sha256)):
        if not file.exists():
            raise InputError(f"{record_of(out)} has lost its {file.name}: delete it to start again")
        if file_hash(file) != digest:
            raise InputError(
                f"{file} was changed after it was written: delete {out.name}* to score the files again, or "
                "choose another output"
            )
    if stamp is not None and record.stamp and stamp() != record.stamp:
        raise InputError(
            f"files have changed since {out} was written of them: delete {out.name}* to score them again, or "
            "choose another output"
        )
    journal_of(out).unlink(missing_ok=True)
    return record


class ScoreWriter:
    """Appends batches to an unfinished table of scores, from where an earlier run stopped.

    Args:
        out: The table.
        settings: What it is made with.
        stamp: Sizes and times of change now of the files from one place in the list to another.

    Raises:
        InputError: There is an unfinished table of other settings, or something else of these names.
    """

    def __init__(self, out: Path, settings: Settings, stamp: Callable[[int, int], str]) -> None:
        self._out, self._settings, self._stamp = out, settings, stamp
        self._finals = (out, errors_of(out))
        self._waiting: list[Batch] = []
        self._written = time.monotonic()
        self.done = 0
        """Files that are done, broken ones included."""
        self.counts: Counter[str] = Counter()
        """Of all that is done."""
        self._stamp_of_all = added(())
        lines = self._check()
        with ExitStack() as opened:
            self._tables = [opened.enter_context(_open(partial_of(path))) for path in self._finals]
            self._journal = opened.enter_context(_open(journal_of(out)))
            self._start(lines)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:  # what is done is done, whatever stops us
                self._flush()
        finally:
            self._opened.close()

    def add(self, batch: Batch) -> None:
        """Append a batch.

        Args:
            batch: The rows of the next files.
        """
        self._waiting.append(batch)
        if time.monotonic() - self._written > SECONDS:
            self._flush()

    def finish(self, *, stamped: bool = True) -> Record:
        """Give the tables their names and write the record.

        Args:
            stamped: Whether every batch has a stamp.

        Returns:
            What was written.
        """
        self._flush()
        digests = []
        for final, file in zip(self._finals, self._tables, strict=True):
            file.seek(0)
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]
            partial_of(final).replace(final)
        cautions = {
            name.partition(": ")[2]: n for name, n in self.counts.items() if name.startswith("caution")
        }
        record = Record(
            settings=self._settings,
            scored=self.counts["scored"],
            broken=self.counts["broken"],
            reports=self.counts["reports"],
            cautions=dict(sorted(cautions.items())),
            noted=self.counts["noted"],
            scores_sha256=digests[0],
            errors_sha256=digests[1],
            stamp=self._stamp_of_all if stamped else "",
        )
        write_whole(record_of(self._out), f"{record.model_dump_json(indent=2)}\n".encode())
        journal_of(self._out).unlink()
        return record

    def _check(self) -> list[dict[str, Any] | None]:
        """Refuse what another run left; take back tables that were named just before the record."""
        journal = journal_of(self._out)
        first, *lines = read_journal(journal)
        if first is not None:
            other = difference(settings_of(first, journal), self._settings)
            if other:
                raise InputError(
                    f"{journal} belongs to an unfinished run {other}: give the same again, delete "
                    f"{self._out.name}.* or choose another output"
                )
        for final in self._finals:
            if final.exists() and (first is None or partial_of(final).exists()):
                raise InputError(f"{final} already exists: delete it or choose another output")
            if final.exists():
                final.replace(partial_of(final))
        return lines if first is not None else []

    def _start(self, lines: list[dict[str, Any] | None]) -> None:
        headers = [csv_lines([columns]) for columns in (self._settings.columns, ERROR_COLUMNS)]
        ends = [len(header) for header in headers]
        kept = [journal_line(self._settings.model_dump())]
        if all(file.read(len(header)) == header for file, header in zip(self._tables, headers, strict=True)):
            for line in lines:
                if line is None or not _is_entry(line) or not self._verified(line):
                    break
                ends = [end + line[key] for end, key in zip(ends, ("rows", "errors"), strict=True)]
                kept.append(journal_line(line))
        for file, header, end in zip(self._tables, headers, ends, strict=True):
            file.truncate(end)
            file.seek(0)
            write_all(file, header)
            file.seek(end)
        write_all(self._journal, b"".join(kept))
        self._journal.truncate()
        self._sync(self._tables)
        self._sync([self._journal])

    def _verified(self, line: dict[str, Any]) -> bool:
        """Take over a batch of an earlier run if its bytes and its files are what the journal says."""
        if line["stamp"] != self._stamp(self.done, self.done + line["files"]):
            return False
        data = [file.read(line[key]) for file, key in zip(self._tables, ("rows", "errors"), strict=True)]
        if [len(part) for part in data] != [line["rows"], line["errors"]]:
            return False
        if zlib.crc32(b"".join(data)) != line["crc"]:
            return False
        self._count(line["files"], line["counts"], line["stamp"])
        return True

    def _count(self, files: int, counts: dict[str, int], stamp: str) -> None:
        self.done += files
        self._stamp_of_all = added((self._stamp_of_all, stamp))
        self.counts.update(counts)

    def _flush(self) -> None:
        """Put what waits on the disk: the tables first, then the journal."""
        batches, self._waiting = self._waiting, []
        if batches:
            write_all(self._tables[0], b"".join(batch.rows for batch in batches))
            write_all(self._tables[1], b"".join(batch.errors for batch in batches))
            self._sync(self._tables)
            write_all(self._journal, b"".join(journal_line(_entry(batch)) for batch in batches))
            self._sync([self._journal])
        for batch in batches:
            self._count(batch.files, batch.counts, batch.stamp)
        self._written = time.monotonic()

    def _sync(self, files: list[IO[bytes]]) -> None:
        for file in files:
            os.fsync(file.fileno())


def _open(path: Path) -> IO[bytes]:
    return path.open("r+b" if path.exists() else "w+b", buffering=0)


def _is_entry(line: dict[str, Any]) -> bool:
    """Whether a line of the journal is of a batch, and not of something else or damaged."""
    numbers = all(isinstance(line.get(key), int) for key in ("files", "rows", "errors", "crc"))
    return numbers and isinstance(line.get("counts"), dict) and isinstance(line.get("stamp"), str)


def _entry(batch: Batch) -> dict[str, Any]:
    return {
        "files": batch.files,
        "rows": len(batch.rows),
        "errors": len(batch.errors),
        "crc": zlib.crc32(batch.rows + batch.errors),
        "counts": batch.counts,
        "stamp": batch.stamp,
    }
