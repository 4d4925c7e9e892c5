"""Parts of a table of scores to the whole one, without loss: the same bytes as from a single run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fairdx.core.errors import InputError, writing_to
from fairdx.core.locks import locked
from fairdx.deploy.inputs import part_of
from fairdx.deploy.record import Record, Settings, difference, errors_of, read_record, record_of
from fairdx.deploy.writer import ERROR_COLUMNS, Batch, ScoreWriter, csv_lines, finished
from fairdx.models.card import file_hash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NO_STAMP: Final = "0"
"""Of a part that an earlier version wrote."""
_ANEW: Final = "anew"
"""Matches no batch: an interrupted join, which takes seconds, starts again."""


def join(parts: Sequence[Path], out: Path) -> Record:
    """Join the parts that `predict` wrote.

    Args:
        parts: All parts, in any order; lists of errors among them, as `scores.part*` finds them, are left
            out, since each part brings its own.
        out: The table to write.

    Returns:
        The record of the whole.

    Raises:
        InputError: A part is missing, given twice, not finished, changed, or of another run; or the output
            is of something else.
    """
    lists = {errors_of(part) for part in parts} | {record_of(part) for part in parts}
    found = _checked([part for part in parts if part not in lists])
    settings = found[0][1].settings.model_copy(update={"part": None})
    with writing_to(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out, clear=True):
            return finished(out, settings) or _write(found, out, settings)


def _checked(parts: Sequence[Path]) -> list[tuple[Path, Record]]:
    """The parts in order, if they are all the parts of one run."""
    records = [(part, read_record(part)) for part in parts]
    if not records:
        raise InputError("give the parts to join, such as scores.part*.csv")
    first, one = records[0]
    numbers: dict[int, Path] = {}
    for part, record in records:
        other = difference(one.settings, record.settings, leave=("part",))
        if other:
            raise InputError(f"{part} was written {other} than {first}: these are not parts of one run")
        number, count = record.settings.part or (0, 0)
        if not number or count != (one.settings.part or (0, 0))[1]:
            raise InputError(
                f"{part} is {_name(record)}, and {first} is {_name(one)}: they do not fit together"
            )
        if number in numbers:
            raise InputError(f"{part} and {numbers[number]} are both {_name(record)}: give each part once")
        numbers[number] = part
        _check_content(part, record)
    missing = [str(number) for number in range(1, count + 1) if number not in numbers]
    if missing:
        raise InputError(f"of {count} parts there is no {', '.join(missing)}: give all of them")
    return sorted(records, key=lambda found: found[1].settings.part or (0, 0))


def _name(record: Record) -> str:
    part = record.settings.part
    return f"part {part[0]}/{part[1]}" if part else "no part but a whole run"


def _check_content(part: Path, record: Record) -> None:
    for file, digest in ((part, record.scores_sha256), (errors_of(part), record.errors_sha256)):
        if not file.is_file():
            raise InputError(f"{file} does not exist: without it the part {part} is not whole")
        if file_hash(file) != digest:
            raise InputError(f"{file} was changed after it was written: score that part again")


def _write(found: list[tuple[Path, Record]], out: Path, settings: Settings) -> Record:
    with ScoreWriter(out, settings, lambda *_: _ANEW) as writer:
        for part, record in found:
            files = len(part_of(settings.files, record.settings.part))
            writer.add(_batch(part, record, files))
        return writer.finish(stamped=all(record.stamp for _, record in found))


def _batch(part: Path, record: Record, files: int) -> Batch:
    counts = {name: getattr(record, name) for name in ("scored", "broken", "reports", "noted")}
    counts |= {f"caution: {words}": number for words, number in record.cautions.items()}
    rows, errors = (file.read_bytes() for file in (part, errors_of(part)))
    headers = (csv_lines([record.settings.columns]), csv_lines([ERROR_COLUMNS]))
    return Batch(
        files,
        record.stamp or NO_STAMP,
        rows.removeprefix(headers[0]),
        errors.removeprefix(headers[1]),
        counts,
    )
