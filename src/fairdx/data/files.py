"""The folders of a source: the one table, the images on disk, what no table mentions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.source import exclude

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg")
"""How the names of image files end, in lower case."""
NAMED_ENDINGS: Final = (*IMAGE_ENDINGS, ".tif", ".tiff", ".webp", ".dcm", ".nii")
"""What may be left out of the name of an image."""


def source_folder(root: str | Path) -> Path:
    """Check that the root of a source is a folder.

    Args:
        root: What was given.

    Returns:
        The root as a path.

    Raises:
        InputError: It is not a folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the data set")
    return folder


def find_file(root: Path, *patterns: str) -> Path:
    """Find the one file of a source that has one of several names; folders and hidden files are passed over.

    Args:
        root: Folder of the source.
        patterns: Names with wildcards, the preferred one first.

    Returns:
        The only file of the first pattern that any file has.

    Raises:
        InputError: There is none, or the pattern has several.
    """
    for pattern in patterns:
        files = sorted(path for path in root.glob(pattern) if path.is_file() and not _hidden(path.name))
        if len(files) > 1:
            raise InputError(
                f"{root} has both {files[0].name} and {files[1].name}: move away the one that is not meant"
            )
        if files:
            return files[0]
    raise InputError(f"{root} has no {' or '.join(patterns)}: is it the folder of this data set?")


def found_in(
    values: pd.Series[str] | pd.Index[str], known: pd.Series[str] | pd.Index[str]
) -> NDArray[np.bool_]:
    """Tell which of many values are among many others, by a hash table.

    The `isin` of pandas takes seconds for texts by the hundred thousand.

    Args:
        values: n values.
        known: What they are looked up in, repeated or not.

    Returns:
        Whether each is there, of shape (n,).
    """
    return np.asarray(pd.Index(known.unique()).get_indexer(pd.Index(values)) >= 0)


def unlisted_files(
    root: Path, folders: Iterable[str], listed: Iterable[str], endings: tuple[str, ...] = IMAGE_ENDINGS
) -> pd.DataFrame:
    """List the image files on disk that no table mentions.

    Every folder is visited: about a second for each 10,000 of them on a local disk, more on slow storage.

    Args:
        root: Folder of the source.
        folders: Where to look, relative to the root; those that are not there are passed over.
        listed: Paths that the tables mention, relative to the root.
        endings: How the names of image files end, in lower case.

    Returns:
        The columns of exclusions, sorted by path.

    Raises:
        InputError: A folder cannot be read.
    """
    known, found = set(listed), []
    with Reporter("looking for further files", len(known), unit="files") as bar:
        for top in folders:
            if not (root / top).is_dir():
                continue
            for place, _, names in os.walk(root / top, onerror=_cannot_be_read):
                below = "" if place == str(root) else f"{os.path.relpath(place, root)}/".replace(os.sep, "/")
                paths = [f"{below}{name}" for name in names if name.lower().endswith(endings)]
                found += [path for path in paths if path not in known]
                bar.advance(len(paths))
    return exclude(pd.Series(sorted(found), dtype=str), "not in the table")


def _cannot_be_read(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error


def _hidden(name: str) -> bool:
    """Files such as `._scan.png`, which macOS leaves beside each file of an archive."""
    return name.startswith(".")


def images_in(
    root: Path, patterns: Iterable[str], endings: tuple[str, ...] = IMAGE_ENDINGS, *, stem: bool = False
) -> dict[str, str]:
    """Find image files by their name, wherever among several folders they are.

    Args:
        root: Folder of the source.
        patterns: Folders to look in, relative to the root, with wildcards; whatever else is there, as the
            archives that they were unpacked from, is passed over.
        endings: How the names of image files end, in lower case.
        stem: Whether to go by the name without its ending.

    Returns:
        The path of each, relative to the root, by its name.

    Raises:
        InputError: A folder cannot be read, or holds an image that another has too.
    """
    paths: dict[str, str] = {}
    for folder in dict.fromkeys(path for pattern in patterns for path in sorted(root.glob(pattern))):
        if not folder.is_dir():
            continue
        try:
            with os.scandir(folder) as entries:
                names = sorted(e.name for e in entries if e.name.lower().endswith(endings))
        except OSError as error:
            raise InputError(f"{folder} cannot be read: {error.strerror}") from error
        for name in names:
            path = f"{folder.relative_to(root).as_posix()}/{name}"
            key = name.rpartition(".")[0] if stem else name
            if paths.setdefault(key, path) != path:
                raise InputError(f"{root} holds image {key!r} twice: as {paths[key]} and as {path}")
    return paths


def locate_images(root: Path, names: pd.Series[str]) -> tuple[pd.Series[str], int]:
    """Find the files of images that a table names by a path, or by a name alone.

    Args:
        root: Folder of the source.
        names: Paths relative to the root, or names of files anywhere below it, with their ending or without.

    Returns:
        The path of each, as it was where no file of that name is found; and how many were found by name.

    Raises:
        InputError: Several files have the name, or a folder cannot be read.
    """
    sought = [place for place, name in enumerate(names) if not _exists(root / name)]
    if not sought:
        return names.copy(), 0
    files = _files_by_name(root)
    paths, found = names.tolist(), 0
    for place in sought:
        name = paths[place].replace("\\", "/")
        candidates = [name] if _exists(root / name) else files.get(name, [])
        if len(candidates) > 1:
            raise InputError(
                f"{root} holds image {name!r} twice: as {candidates[0]} and as {candidates[1]}; give its path"
            )
        if candidates:
            paths[place], found = candidates[0], found + 1
    return pd.Series(paths, index=names.index, dtype=names.dtype), found


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null character
        return False


def _files_by_name(root: Path) -> dict[str, list[str]]:
    """The paths of all images below a folder, by their name and by their name without its ending."""
    files: dict[str, list[str]] = {}
    with Reporter("looking for the images", 0, unit="folders") as bar:
        for place, folders, names in os.walk(root, onerror=_cannot_be_read):
            folders.sort()
            below = os.path.relpath(place, root).replace(os.sep, "/")
            for name in sorted(name for name in names if not _hidden(name)):
                path = name if below == "." else f"{below}/{name}"
                stem, _, ending = name.rpartition(".")
                files.setdefault(name, []).append(path)
                if f".{ending.lower()}" in NAMED_ENDINGS:
                    files.setdefault(stem, []).append(path)
            bar.advance()
    return files
