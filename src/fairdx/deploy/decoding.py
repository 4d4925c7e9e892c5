"""Batches of files to images and headers, in processes of their own: few imports, so that they start fast."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdx.core.errors import InputError
from fairdx.data.decode import Form, decode_files
from fairdx.data.dicom import MAGIC, PREAMBLE, is_dicom, read_header, require_pydicom
from fairdx.deploy.groups import HEADER, HeaderGroups

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""What is always kept of a DICOM header."""


@dataclass(frozen=True)
class Job:
    """Files to read, and what is known of them."""

    files: tuple[str, ...]
    """Their paths."""
    stamp: str
    """Their sizes and times of change before they were read."""
    groups: tuple[str | None, ...]
    """The group of each, where a table gives it."""


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    form: Form
    """What images are brought to."""
    header: HeaderGroups | None = None
    """How a header says the group, where it is to be asked."""
    needs_group: bool = False
    """Whether a file without a group is refused."""
    keep_patient_id: bool = False
    """Whether the patient's ID is taken from the header."""


@dataclass(frozen=True)
class ImageFile:
    """A file that could be read."""

    path: str
    """Its path."""
    dicom: bool = False
    """Whether it is DICOM."""
    uids: tuple[str, str, str] = ("", "", "")
    """`UIDS` of a DICOM header."""
    patient: str = ""
    """The patient's ID, if it was asked for."""
    group: str = ""
    """The group, if the model needs it."""
    note: str = ""
    """What was odd in the file, though it could be read."""


@dataclass(frozen=True)
class Decoded:
    """A batch of images."""

    job: Job
    """What was asked for."""
    images: NDArray[np.uint8]
    """Of shape (n, C, H, W)."""
    files: tuple[ImageFile, ...]
    """The n files of the images."""
    broken: tuple[tuple[str, str], ...]
    """Path and what is wrong, for each of the others."""


def starts_as_dicom(path: str) -> bool:
    """Tell whether a file has the mark of DICOM.

    Args:
        path: The file.

    Returns:
        Whether it could be read and has the mark.
    """
    try:
        if not os.path.isfile(path):  # to read a pipe could take for ever
            return False
        with open(path, "rb") as file:
            return is_dicom(file.read(PREAMBLE + len(MAGIC)))
    except OSError:
        return False  # whatever reads the whole file says why


def decode_batch(job: Job, reading: Reading) -> Decoded:
    """Read a batch of files, going on after those that cannot be used.

    Args:
        job: The files.
        reading: How.

    Returns:
        Images and headers.

    Raises:
        InputError: A file is DICOM, and pydicom is not installed.
    """
    images, files, broken = list[NDArray[np.uint8]](), list[ImageFile](), list[tuple[str, str]]()
    for path, group in zip(job.files, job.groups, strict=True):
        dicom = starts_as_dicom(path)
        if dicom:
            _require_pydicom(path)
        read = decode_files([path], reading.form)
        try:
            if read.failures:
                raise InputError(read.failures[0][1])
            described = _describe(path, group, reading, dicom=dicom)
        except InputError as error:
            broken.append((path, str(error).removeprefix(f"{path} ")))
        else:
            images.append(read.images[0])
            files.append(replace(described, note="; ".join(note for _, note in read.notes)))
    shape = (len(images), reading.form.channels, reading.form.size, reading.form.size)
    return Decoded(job, np.array(images, np.uint8).reshape(shape), tuple(files), tuple(broken))


def _require_pydicom(path: str) -> None:
    try:
        require_pydicom()
    except InputError as error:
        raise InputError(f"{path} {error}") from error


def _describe(path: str, group: str | None, reading: Reading, *, dicom: bool) -> ImageFile:
    """What is kept of a file beside its pixels."""
    file = ImageFile(path, dicom=dicom, group=group or "")
    if file.dicom:
        asked = HEADER[reading.header.keyword] if reading.header else ()
        patient = ("PatientID",) if reading.keep_patient_id else ()
        header = read_header(Path(path), (*UIDS, *asked, *patient, "SpecificCharacterSet"))
        study, series, instance = (str(header.get(keyword) or "").strip() for keyword in UIDS)
        file = replace(file, uids=(study, series, instance))
        if reading.keep_patient_id:
            file = replace(file, patient=str(header.get("PatientID") or "").strip())
        if reading.header and not file.group:
            file = replace(file, group=reading.header.find(header) or "")
    if reading.needs_group and not file.group:
        raise InputError("has no group, and the model's rule has to be told it")
    return file
