"""The group of whoever is scored, for the rules that have to be told it: from a table or a DICOM header."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fairdx.core.errors import InputError
from fairdx.core.missing import OLDEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SEX, AGE = "PatientSex", "PatientAge"
HEADER: Final = {SEX: (SEX,), AGE: (AGE, "PatientBirthDate", "StudyDate")}
"""What of a DICOM header is read to know sex and age."""
_SEXES: Final = {
    "m": "M", "male": "M", "man": "M", "men": "M",
    "f": "F", "female": "F", "woman": "F", "women": "F",
    "o": "O", "other": "O",
}  # fmt: skip
_UNITS: Final = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
"""How many of a unit of the DICOM value AS make a year."""
_BANDS: Final = (
    (r"(?:under|below|<) ?(\d+)", lambda a: (-math.inf, a)),
    (r"(\d+) ?(?:to|-|–) ?(\d+)", lambda a, b: (a, b + 1)),
    (r"(\d+) ?(?:and over|and above|\+)", lambda a: (a, math.inf)),
    (r"(?:over|from|>=|≥) ?(\d+)", lambda a: (a, math.inf)),
)
"""How groups of age are named, and from which age to below which each goes."""


@dataclass(frozen=True)
class HeaderGroups:
    """How a DICOM header says which group somebody belongs to."""

    keyword: str
    """`PatientSex` or `PatientAge`."""
    sexes: tuple[tuple[str, str], ...] = ()
    """Value of the header and name of the group."""
    bands: tuple[tuple[float, float, str], ...] = ()
    """From which age to below which, in years, and the name of the group."""

    def find(self, header: Any) -> str | None:
        """Look the group up.

        Args:
            header: A `pydicom.Dataset` with the attributes of `HEADER`.

        Returns:
            The group, or None where the header does not say it.
        """
        if self.keyword == SEX:
            return dict(self.sexes).get(str(header.get(SEX) or "").strip().upper())
        age = _age(header)
        if age is None or not 0 <= age <= OLDEST:  # one that nobody has says nothing
            return None
        return next((name for low, high, name in self.bands if low <= age < high), None)


def header_groups(attribute: str, groups: Sequence[str]) -> HeaderGroups | None:
    """Find out whether a DICOM header holds an attribute.

    Args:
        attribute: Name of the attribute.
        groups: Names of its groups.

    Returns:
        How to read it; None where it is neither sex nor bands of age.

    Example:
        >>> header_groups("age_group", ["under 60", "60 and over"]).bands
        ((-inf, 60.0, 'under 60'), (60.0, inf, '60 and over'))
    """
    words = re.split(r"[\W_]+", attribute.casefold())
    sexes = [(_SEXES.get(name.casefold().strip(), ""), name) for name in groups]
    if ("sex" in words or "gender" in words) and all(value for value, _ in sexes):
        return HeaderGroups(SEX, sexes=tuple(sexes))
    bands = [_band(name) for name in groups]
    if "age" in words and all(bands):
        return HeaderGroups(AGE, bands=tuple(band for band in bands if band))
    return None


def _band(name: str) -> tuple[float, float, str] | None:
    for pattern, bounds in _BANDS:
        found = re.fullmatch(pattern, name.strip().casefold())
        if found:
            low, high = bounds(*map(float, found.groups()))
            return low, high, name
    return None


def _age(header: Any) -> float | None:
    """Age in years, from itself or from the dates of birth and study."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", str(header.get(AGE) or "").strip().upper())
    if found:
        return int(found[1]) / _UNITS[found[2]]
    try:
        born, seen = (
            datetime.strptime(str(header.get(keyword) or ""), "%Y%m%d")
            for keyword in ("PatientBirthDate", "StudyDate")
        )
    except ValueError:
        return None
    return seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))


class FileGroups:
    """Groups from a table, looked up by path or by name of the file.

    Args:
        path: A CSV file with the columns `path` (a path or the name of a file) and `group`.
        groups: The groups that there are.
        files: The files to score.

    Raises:
        InputError: The table cannot be used, has another group, names a file twice, or names by its name
            alone a file of which there are several.
    """

    def __init__(self, path: Path, groups: Sequence[str], files: Sequence[str]) -> None:
        from fairdx.data.cells import parse_groups
        from fairdx.data.tabular import read_text_table

        table = read_text_table(path, ("path", "group"))
        parsed = parse_groups(table, "group", {name: name for name in groups}, path)
        self._groups: dict[str, str] = {}
        for name, group in zip(table["path"], parsed, strict=True):
            if not isinstance(name, str) or not isinstance(group, str):
                continue  # a file without a group is listed when its turn comes
            if self._groups.setdefault(name, group) != group:
                raise InputError(f"{path} gives {name!r} two groups, {self._groups[name]} and {group}")
        self._refuse_ambiguous(path, files)

    def _refuse_ambiguous(self, path: Path, files: Sequence[str]) -> None:
        unnamed = (file for file in files if file not in self._groups)
        counts: Mapping[str, int] = Counter(os.path.basename(file) for file in unnamed)
        for name, number in counts.items():
            if number > 1 and name in self._groups:
                raise InputError(
                    f"{path} names {name!r}, and {number} of the files have that name: give their paths"
                )

    def find(self, file: str) -> str | None:
        """Look a file's group up.

        Args:
            file: Its path.

        Returns:
            The group, or None where the table has none for it.
        """
        return self._groups.get(file) or self._groups.get(os.path.basename(file))
