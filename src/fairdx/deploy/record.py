"""What a table of scores was made with (`scores.csv.json`): runs go on, and parts join, only if they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from fairdx.core.config import Config, validate
from fairdx.core.errors import InputError
from fairdx.core.files import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FORMAT: Final = 1
_WORDS: Final = {
    "fairdx": "by another version of fairdx",
    "model": "with another model",
    "threshold": "with another threshold",
    "batch_size": "with another batch size",
    "device": "on another device",
    "groups": "with another table of groups",
    "keep_patient_id": "with another choice of --keep-patient-id",
    "reports": "with another choice of --dicom-sr",
    "files": "from another list of files",
    "digest": "from another list of files",
    "part": "as another part",
}
"""What differs, by field of `Settings`."""


class Settings(Config):
    """All that the rows depend on."""

    format: Literal[1] = FORMAT
    """Version of this form."""
    fairdx: str
    """Version that wrote the scores."""
    model: str
    """Seal of the model's card."""
    label: str
    """What is predicted."""
    classes: tuple[str, ...]
    """Its classes: the decision 0 is the first."""
    threshold: float | None
    """Positive from this score on."""
    batch_size: int
    """Images at a time."""
    device: str
    """What the model ran on."""
    groups: str | None
    """sha256 of the table of groups."""
    keep_patient_id: bool
    """Whether patients' IDs were kept."""
    reports: bool
    """Whether DICOM reports were written."""
    files: int
    """How many files there are in all parts together."""
    digest: str
    """sha256 of their paths."""
    part: tuple[int, int] | None
    """Which part of the files this is, of how many; null for all of them."""
    columns: tuple[str, ...]
    """Of the table."""


class Record(Config):
    """A finished table of scores: how it was made, and what is in it."""

    settings: Settings
    """What it was made with."""
    scored: int
    """Rows."""
    broken: int
    """Rows of the list of errors."""
    reports: int
    """DICOM reports."""
    cautions: dict[str, int]
    """How many images differ from the training images, in what; `any` in anything."""
    noted: int = 0
    """Files with something odd that could be read."""
    scores_sha256: str
    """Of the table."""
    errors_sha256: str
    """Of the list of errors."""
    stamp: str = ""
    """Of the sizes and times of change that the files had before they were read (`stamp_of`); empty in what
    an earlier version wrote."""


def errors_of(out: Path) -> Path:
    """Returns where the list of broken files stands that belongs to a table of scores."""
    return out.with_name(f"{out.name}.errors.csv")


def record_of(out: Path) -> Path:
    """Returns where the record of a table of scores stands."""
    return out.with_name(f"{out.name}.json")


def read_record(out: Path) -> Record:
    """Read the record of a finished table of scores.

    Args:
        out: The table.

    Returns:
        Its record.

    Raises:
        InputError: It has none, or one that cannot be used.
    """
    file = record_of(out)
    try:
        values = parse_json(file.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{out} has no {file.name} beside it: it is not finished, or `fairdx predict` did not write it"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is not the record of a table of scores")
    return validate(Record, values, where=str(file))


def difference(one: Settings, other: Settings, *, leave: Iterable[str] = ()) -> str | None:
    """Say in what two settings differ.

    Args:
        one: Settings.
        other: Others.
        leave: Fields that may differ.

    Returns:
        A few words about the first field that does, or None.
    """
    a, b = (settings.model_dump() for settings in (one, other))
    differ = [key for key in a if a[key] != b[key] and key not in leave]
    return _WORDS.get(differ[0], f"with another `{differ[0]}`") if differ else None


def settings_of(values: dict[str, Any], where: Path) -> Settings:
    """Read settings from the first line of a journal.

    Args:
        values: The line.
        where: The journal.

    Returns:
        The settings.

    Raises:
        InputError: It holds no settings.
    """
    return validate(Settings, values, where=str(where))
