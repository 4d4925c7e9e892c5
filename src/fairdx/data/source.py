"""What every reader hands to `prepare`: a table of images and what is known of each, checked."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.core.missing import unknown_attribute
from fairdx.data.cells import each_value_a_group, first_alike, look_of, without_missing
from fairdx.data.checks import nearest
from fairdx.data.split import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray


log = logging.getLogger(__name__)

RESERVED: Final = ("image", "path", "patient", "split")
"""Columns that are the same in every source."""


def no_exclusions() -> pd.DataFrame:
    """An empty list of what was left out: the columns `image`, `reason` and `detail`."""
    return pd.DataFrame({"image": [], "reason": [], "detail": []}, dtype=str)


@dataclass(frozen=True)
class Source:
    """A data set as its owner keeps it, read but not yet decoded."""

    name: str
    """Name of the reader."""
    table: pd.DataFrame
    """One row per image. Columns: `image` (unique), `path` (relative to root; not for rendered sources),
    `patient`, `split` where the source supplies one, a column of codes for each label, a column of
    group names for each attribute (both null where unknown), and whatever else is worth keeping."""
    labels: Mapping[str, Sequence[str]]
    """Class names of each label column, in the order of their codes; the main label first."""
    attributes: Mapping[str, Sequence[str]]
    """Group names of each attribute column, in the order of their codes; the main attribute first."""
    root: Path = Path()
    """Folder that the paths start from."""
    policies: Mapping[str, Any] = field(default_factory=dict)
    """The choices that the reader made or was given."""
    exclusions: pd.DataFrame = field(default_factory=no_exclusions)
    """Images that the reader left out: the columns `image`, `reason` (few, short) and `detail`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else is to be remembered in meta.json."""
    window: tuple[float, float] | None = None
    """Centre and width of the window to show DICOM through, in rescaled units; the files' own by default."""
    channels: int = 1
    """1 (grey) or 3 (RGB) by nature; rendered images speak for themselves."""
    render: Callable[[NDArray[np.int64]], NDArray[np.uint8]] | None = None
    """Makes the images of the given rows, uint8 of shape (k, C, H, W), where there are no files."""


def exclude(image: pd.Series[str], reason: str | pd.Series[str], detail: str = "") -> pd.DataFrame:
    """List images that are left out.

    Args:
        image: Their names.
        reason: A few words, the same for all of them or one for each; they are what is counted.
        detail: More about it.

    Returns:
        The columns `image`, `reason` and `detail`.
    """
    return pd.DataFrame({"image": image.astype(str), "reason": reason, "detail": detail})


def with_attributes(source: Source, columns: Iterable[str]) -> Source:
    """Take further columns of a source's table as sensitive attributes.

    Args:
        source: As the reader made it.
        columns: Their names; every value of a column is a group, in alphabetical order, except for words that
            say that nothing is known, which are counted.

    Returns:
        The same source with these attributes after its own.

    Raises:
        InputError: There is no such column, or it has too many values to be groups.
    """
    table, attributes, settings = source.table.copy(), dict(source.attributes), dict(source.settings)
    known = [str(name) for name in table if name not in (*RESERVED, *source.labels, *attributes)]
    for name in columns:
        if name in attributes:
            continue
        if name not in known:
            raise InputError(
                f"{source.name} has no column {name!r} to take as attribute ({nearest(name, known)})"
            )
        words = table[name].astype(pd.StringDtype(na_value=np.nan))
        table[name], missing = without_missing(words)
        attributes[name] = each_value_a_group(table[name], name, source.name)
        settings |= {f"missing_words_of_{name}": missing} if missing else {}
    return replace(source, table=table, attributes=attributes, settings=settings)


def check_source(source: Source) -> None:
    """Check what a reader read.

    Args:
        source: As the reader made it.

    Raises:
        InputError: No image at all, an image without a name or listed twice, one file under two names, a row
            without a patient, a patient who is nobody or written in two ways, or a label or group that has no
            name.
    """
    table, name = source.table, source.name
    if table.empty:
        left = source.exclusions["reason"].value_counts()
        why = ", ".join(f"{count} left out: {reason}" for reason, count in left.items())
        raise InputError(f"{name}: no image is left to prepare ({why or 'the table is empty'})")
    blank = table["image"].isna()
    if blank.any():
        raise InputError(
            f"{name}: image number {int(blank.to_numpy().argmax()) + 1} of the table has no name"
        )
    twice = table["image"].duplicated()
    if twice.any():
        raise InputError(f"{name}: image {table.loc[twice, 'image'].iloc[0]!r} is listed twice")
    patient = table["patient"]
    nameless = patient.isna() | (patient.astype(str).str.strip() == "")
    if nameless.any():
        raise InputError(f"{name}: image {table.loc[nameless, 'image'].iloc[0]!r} has no patient")
    _check_patients(source)
    _check_files(source)
    _check_names(source)


def _check_patients(source: Source) -> None:
    """Refuse patients who are nobody, and one patient under two names, who could be in two splits."""
    names = [str(name) for name in source.table["patient"].unique()]
    looks = [look_of(name) for name in names]
    for name in sorted(unknown_attribute(names, codes=True)):
        image = source.table.loc[source.table["patient"].astype(str) == name, "image"].iloc[0]
        raise InputError(
            f"{source.name}: image {image!r} has the patient {name!r}, which names nobody: leave such rows "
            "out, or name each patient"
        )
    numbers: dict[str, str] = {}
    for name in (name for name, look in zip(names, looks, strict=True) if look[:1].isdigit()):
        before = numbers.setdefault(_number(name), name)
        if before != name:
            raise InputError(
                f"{source.name}: the patients {before!r} and {name!r} are one number: write it in one way, "
                "or the two could be in different splits"
            )
    if len(set(looks)) < len(looks):
        log.warning(
            "%s: the patients %r and %r differ in case or unseen signs alone, and are taken for two",
            source.name,
            *first_alike(names) or ("", ""),
        )


def _number(name: str) -> str:
    """A whole number in one form, however it is written; other names as they are."""
    text = name.strip()
    whole, _, rest = text.partition(".")
    return whole.lstrip("0") or "0" if whole.isdecimal() and not rest.strip("0") else name


def _check_files(source: Source) -> None:
    """Refuse one file under two names: it would count twice, perhaps in two splits."""
    if "path" not in source.table or source.render is not None:
        return
    paths = [str(path) for path in source.table["path"].tolist()]
    text = "\n".join(paths)
    plain = [os.path.normpath(path) for path in paths] if "./" in text or "//" in text else paths
    if len(set(plain)) < len(plain):
        seen: dict[str, str] = {}
        for path, file in zip(paths, plain, strict=True):
            if file in seen:
                first = seen[file]
                raise InputError(f"{source.name}: {first!r} and {path!r} are one file: list each image once")
            seen[file] = path


def _check_names(source: Source) -> None:
    """Check that every code and group has a name, and every split is one of three."""
    columns = {label: list(range(len(names))) for label, names in source.labels.items()}
    checked: dict[str, list[Any]] = {**columns, **{a: list(names) for a, names in source.attributes.items()}}
    reserved = set(RESERVED) & set(checked)
    if reserved or len(checked) < len(source.labels) + len(source.attributes):
        twice = next(iter(reserved or set(source.labels) & set(source.attributes)))
        raise InputError(f"{source.name}: {twice!r} cannot be the name of a label or attribute, it is taken")
    if "split" in source.table:
        checked["split"] = list(SPLITS)
    for column, valid in checked.items():
        values = source.table[column]
        wrong = ~values.isin(valid) & (values.notna() | (column == "split"))
        if wrong.any():
            row = source.table[wrong].iloc[0]
            raise InputError(
                f"{source.name}: image {row['image']!r} has '{row[column]}' in column {column!r}, not one of "
                f"{', '.join(map(str, valid))}"
            )


class PathFinder:
    """Turns paths of a table into files below a root, and refuses those that lead out of it."""

    def __init__(self, root: Path, *, outside: bool) -> None:
        self._given = root
        self._root = os.path.realpath(root)
        self._outside = outside
        self._folders: dict[str, str] = {}

    def find(self, path: str) -> str:
        """Find the file of a path.

        Args:
            path: Relative to the root, or absolute.

        Returns:
            The absolute path; the file itself may be missing.

        Raises:
            InputError: The path leads, climbs or links out of the root.
        """
        joined = os.path.join(self._root, path)
        if self._outside:
            return joined
        if "\0" in path:
            raise self._refused(path)
        folder, name = os.path.split(joined)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)
        if name in ("", ".", "..") or _is_link(real):
            real = os.path.realpath(real)
        if os.path.commonpath((self._root, real)) != self._root:
            raise self._refused(path)
        return real

    def _refused(self, path: str) -> InputError:
        return InputError(
            f"path {path!r} leads out of {self._given}: correct it, or allow outside paths if it is meant"
        )


def file_stamp(paths: Iterable[str]) -> str:
    """Sum up size and time of change of files, to see later whether one was replaced.

    Args:
        paths: The files; missing ones count as such.

    Returns:
        16 hexadecimal digits.
    """
    digest = blake2b(digest_size=8)
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            digest.update(b"-\n")
        else:
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False
