"""DICOM files by the series that their headers name, wherever they lie and whatever they are called."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.dicom import read_header

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDING: Final = ".dcm"
_HEADER: Final = (
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "Modality",
    "PatientID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)


@dataclass(frozen=True)
class SliceFile:
    """What the header of a file says."""

    path: Path
    series: str
    """Its series, "" where it names none."""
    modality: str
    """CT, PT, RTSTRUCT, ...; "" where it is not said."""
    patient: str
    instance: str
    """What is the same in copies of one slice."""
    height: float | None
    """Where it lies between feet and head, in mm; null where it is no axial slice."""


@dataclass(frozen=True)
class SeriesFiles:
    """All DICOM files below a folder."""

    by_series: dict[str, list[SliceFile]] = field(default_factory=dict)
    """The files of each series, in the order of their paths."""
    damaged: dict[Path, list[Path]] = field(default_factory=dict)
    """By folder, the files that are called DICOM and cannot be read as such."""

    def damaged_beside(self, files: list[SliceFile]) -> list[Path]:
        """The damaged files in the folders of a series, each of them once.

        Args:
            files: Of the series.

        Returns:
            The files, which are then taken as handed out.
        """
        folders = sorted({file.path.parent for file in files})
        return [path for folder in folders for path in self.damaged.pop(folder, [])]


def find_series(root: Path) -> SeriesFiles:
    """Read the header of every DICOM file below a folder.

    Args:
        root: The folder. Files that are not DICOM are passed over, unless they are called so.

    Returns:
        The files by their series.

    Raises:
        InputError: A folder cannot be read.
    """
    found = SeriesFiles()
    paths = sorted(_files(root))
    with Reporter("reading headers", len(paths), unit="files") as bar:
        for path in paths:
            bar.advance()
            try:
                file = _read(path)
            except InputError:
                if path.name.lower().endswith(_ENDING):
                    found.damaged.setdefault(path.parent, []).append(path)
                continue
            found.by_series.setdefault(file.series, []).append(file)
    return found


def _files(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error

    for folder, _, names in os.walk(root, onerror=refuse):
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def _read(path: Path) -> SliceFile:
    header = read_header(path, _HEADER)
    try:
        height = _height(header.get("ImageOrientationPatient"), header.get("ImagePositionPatient"))
        return SliceFile(
            path,
            series=str(header.get("SeriesInstanceUID", "")),
            modality=str(header.get("Modality", "")),
            patient=str(header.get("PatientID", "")),
            instance=str(header.get("SOPInstanceUID", "")),
            height=None if "LOCALIZER" in (header.get("ImageType") or ()) else height,
        )
    except Exception as error:  # a value of another kind than its name says
        raise InputError(f"{path} cannot be read as DICOM ({error})") from error


def _height(orientation: object, position: object) -> float | None:
    """Where a slice lies, null where it is not said or the slice lies in another plane."""
    if not orientation or not position:
        return None
    along = np.array(orientation, float)
    normal = np.cross(along[:3], along[3:])
    return float(np.array(position, float)[2]) if abs(normal[2]) >= 0.9 else None  # cosine
