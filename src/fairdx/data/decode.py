"""Image files to arrays of one form: read strictly, scaled with antialiasing, never guessed.

A file is either decoded whole or refused with its path; what kind it is, its content says, not its name.
"""

from __future__ import annotations

import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fairdx.core.errors import InputError
from fairdx.data.dicom import decode_dicom, is_dicom
from fairdx.data.form import MAX_PIXELS, Form, Geometry, ImageWarning, Picture, shape
from fairdx.data.nifti import decode_nifti, is_nifti
from fairdx.data.raster import decode_raster, raster_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "MAX_PIXELS",
    "Decoded",
    "Form",
    "Geometry",
    "ImageWarning",
    "decode_bytes",
    "decode_file",
    "decode_files",
]


_LONGEST: Final = 120
_warned: set[str] = set()


@dataclass(frozen=True)
class Decoded:
    """Several images, as far as they could be read."""

    images: NDArray[np.uint8]
    """Those that could, of shape (up to k, channels, size, size)."""
    failures: list[tuple[int, str]]
    """The place of each other file, and what is wrong with it, in words that follow its path."""
    notes: list[tuple[int, str]]
    """The place of each file that was read with a warning, and the warning, in words that follow its path."""


def decode_file(path: Path, form: Form) -> NDArray[np.uint8]:
    """Read an image file.

    Args:
        path: PNG, JPEG, TIFF or WebP (8 or 16 bits, grey or RGB), DICOM or NIfTI.
        form: What to bring it to.

    Returns:
        uint8 of shape (channels, size, size).

    Raises:
        InputError: The file is missing, empty, damaged or of another kind; the message names it.
    """
    try:
        image, notes = _read(path, form)
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    _warn(notes)
    return image


def decode_bytes(data: bytes, form: Form) -> NDArray[np.uint8]:
    """Decode the content of an image file.

    Args:
        data: As for `decode_file`.
        form: What to bring it to.

    Returns:
        uint8 of shape (channels, size, size).

    Raises:
        InputError: Empty, damaged or of another kind; the message lacks the file's name.
    """
    image, notes = _decode(data, form)
    _warn(notes)
    return image


def decode_files(paths: Sequence[str], form: Form) -> Decoded:
    """Read several image files, going on after those that cannot be used.

    Args:
        paths: k image files.
        form: What to bring them to.

    Returns:
        The images, and which files could not be read or were read with a warning.
    """
    images: list[NDArray[np.uint8]] = []
    failures: list[tuple[int, str]] = []
    notes: list[tuple[int, str]] = []
    for number, path in enumerate(paths):
        try:
            image, found = _read(Path(path), form)
        except InputError as error:
            failures.append((number, str(error)))
        else:
            images.append(image)
            notes += [(number, note) for note in found]
    empty = (len(images), form.channels, form.size, form.size)
    return Decoded(np.array(images, dtype=np.uint8).reshape(empty), failures, notes)


def _warn(notes: Sequence[str]) -> None:
    """Pass warnings on to the caller of our caller, the first of each kind: one for all images.

    Python's own memory of what it has shown ends with every `warnings.catch_warnings`.
    """
    for note in notes:
        kind = note.partition(" (")[0]
        if kind not in _warned:
            _warned.add(kind)
            warnings.warn(f"an image {note}", ImageWarning, stacklevel=3)


def _read(path: Path, form: Form) -> tuple[NDArray[np.uint8], list[str]]:
    """Read a file: the image and what is to be warned of, in messages that lack the path."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to read a pipe could take for ever
            raise InputError("is not a file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError("does not exist") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    return _decode(data, form)


def _decode(data: bytes, form: Form) -> tuple[NDArray[np.uint8], list[str]]:
    if not data:
        raise InputError("is empty (0 bytes)")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # the libraries speak of much that is not used here
        try:
            image = _image(_picture(data, form), form)
        except (InputError, ImportError):  # a missing library is not the image's fault
            raise
        except Exception as error:  # damaged bytes make the decoders raise almost anything
            raise InputError(f"is damaged ({_reason(error)})") from error
    notes = [str(each.message) for each in caught if issubclass(each.category, ImageWarning)]
    return image, list(dict.fromkeys(notes))


def _reason(error: Exception) -> str:
    """What a decoder says, in one short line: some of them repeat the bytes that they stumbled over."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ..."


def _picture(data: bytes, form: Form) -> Picture:
    kind = raster_kind(data)
    if kind in ("JPEG", "PNG"):  # by far the most
        return decode_raster(data, kind, form)
    if is_dicom(data):  # its first 128 bytes may be those of a TIFF
        return decode_dicom(data, form)
    if kind is not None:
        return decode_raster(data, kind, form)
    if is_nifti(data):
        return decode_nifti(data, form)
    raise InputError("is not PNG, JPEG, TIFF, WebP, DICOM or NIfTI")


def _image(picture: Picture, form: Form) -> NDArray[np.uint8]:
    """Bring a picture to its form, grey to colour or colour to grey."""
    if picture.pixels.mode == "RGB" and form.channels == 1:
        picture = picture._replace(pixels=picture.pixels.convert("L"))
    planes = shape(picture, form)
    return np.repeat(planes, form.channels // len(planes), axis=0)
