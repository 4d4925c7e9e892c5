"""DICOM files: what is one, its header, its one frame (the extra `dicom`: pydicom and pylibjpeg).

Attributes that are there without a value are common, and mean what their absence means. So a data set loses
them before anything is read from it.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.codestream import check_codestream, check_deflated
from fairdx.data.display import show
from fairdx.data.form import MAX_PIXELS, Form, ImageWarning, Picture, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


PREAMBLE, MAGIC = 128, b"DICM"
"""Where the mark of a DICOM file stands, and what it is."""
_FIRST_GROUPS: Final = (2, 8)
_LONGEST_FIRST: Final = 256
"""Bytes of the first value of a file without the mark: a length, a version, an image type or a UID."""
_VRS: Final = (b"AE", b"CS", b"DA", b"IS", b"LO", b"OB", b"SH", b"TM", b"UI", b"UL", b"UN", b"US", b"UT")
_MACROS: Final = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PixelMeasuresSequence",
)
"""Where files of several frames keep what others keep at their top."""
_SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
_READ: Final = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "PixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *_SPACINGS),
    *(
        f"{segmented}{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
)
"""All that the display of an image depends on; nothing else is parsed."""
_SEXES: Final = {"M": "male", "F": "female"}
"""O is other, and says nothing of the two."""
_AGE = re.compile(r"\d{1,4}[YMWD]?")
_STARTS: Final = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0c")
"""How a frame in JPEG, JPEG-LS or JPEG 2000 begins."""


def is_dicom(data: bytes) -> bool:
    """Tell whether the content of a file is DICOM.

    Args:
        data: The content, or its first 132 bytes.

    Returns:
        Whether it has the mark of DICOM, or begins with an element of a data set without one.
    """
    if data[PREAMBLE : PREAMBLE + 4] == MAGIC:
        return True
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        group = int.from_bytes(data[:2], order)
        element = int.from_bytes(data[2:4], order)
        if len(data) > 8 and group in _FIRST_GROUPS and element <= 0x18:
            explicit = data[4:6] in _VRS
            length = int.from_bytes(data[6:8] if explicit else data[4:8], order)
            return (explicit or order == "little") and length <= _LONGEST_FIRST
    return False


def read_header(path: Path, attributes: Sequence[str]) -> Any:
    """Read a DICOM file without its pixels.

    Args:
        path: The file.
        attributes: The keywords of those wanted.

    Returns:
        These attributes as far as they have a value, a `pydicom.Dataset`.

    Raises:
        InputError: The file is missing or not DICOM, or pydicom is not installed.
    """
    pydicom = require_pydicom()
    try:
        with path.open("rb") as file, _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not is_dicom(file.read(PREAMBLE + 4)):
                raise InputError(f"{path} is not DICOM")
            file.seek(0)
            header = pydicom.dcmread(
                file, stop_before_pixels=True, specific_tags=list(attributes), force=True
            )
            return _without_empty(header)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except InputError:
        raise
    except Exception as error:  # damaged bytes make the parser raise almost anything
        raise InputError(f"{path} cannot be read as DICOM ({error})") from error


def read_demographics(path: Path) -> tuple[str | None, str | None]:
    """Read sex and age from the header of a DICOM file.

    Args:
        path: Any file.

    Returns:
        `male` or `female`, and the age as DICOM writes it (`058Y`); null where the header does not say it so,
        or the file is missing or not DICOM.
    """
    try:
        header = read_header(path, ("PatientSex", "PatientAge"))
    except InputError:
        return None, None
    age = str(header.get("PatientAge", "")).strip()
    return _SEXES.get(str(header.get("PatientSex", "")).strip()), age if _AGE.fullmatch(age) else None


def decode_dicom(data: bytes, form: Form) -> Picture:
    """Decode a DICOM image to the brightness or the colours that a viewer shows.

    Args:
        data: The content of the file.
        form: Its window is used in place of the file's own, and its frame where there are several.

    Returns:
        Brightness or colours; pixels that are not square are counted by their spacing.

    Raises:
        InputError: Several frames and none chosen, no pixels, or of a kind that has no one way to be shown.
    """
    with _quiet():
        return _decode(data, form)


def _decode(data: bytes, form: Form) -> Picture:
    pydicom = require_pydicom()
    check_deflated(data)
    dataset = _without_empty(pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(_READ)))
    if "PixelData" not in dataset:
        raise InputError("has no pixels")
    _complete(dataset)
    if dataset.Rows * dataset.Columns > MAX_PIXELS:
        raise InputError(
            f"is too large ({dataset.Columns} x {dataset.Rows}, more than {MAX_PIXELS:,} pixels)"
        )
    frames = _count_frames(dataset)
    dataset.NumberOfFrames = frames
    frame = form.chosen_frame(frames)
    check_codestream(dataset, frame, frames)
    _warn_of_rest(dataset, frames)
    _take_macros(dataset, frame)
    shown = show(dataset, frame if frames > 1 else None, form.window)
    return whole(Image.fromarray(shown), aspect=_aspect(dataset))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom from logging a line for each odd attribute of each of many files."""
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _without_empty(dataset: Any) -> Any:
    """Take out all elements without a value, in sequences too."""
    for tag in list(dataset.keys()):
        if dataset.get_item(tag, keep_deferred=True).value in (None, b""):  # the parser may stumble over it
            del dataset[tag]
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:
            continue
        if element.VR == "SQ":
            items = [item for item in element.value if len(_without_empty(item))]
            if not items:
                del dataset[element.tag]
            elif len(items) < len(element.value):
                element.value = items
        elif element.is_empty or _is_blank(element.value):
            del dataset[element.tag]
    return dataset


def _is_blank(value: Any) -> bool:
    """Whether all of a value's parts are blank, as in a multiple value that is nothing but backslashes."""
    if isinstance(value, bytes | str):
        return not value.strip() if isinstance(value, str) else not value
    return isinstance(value, list) and all(part is None or str(part).strip() == "" for part in value)


def _complete(dataset: Any) -> None:
    """Fill in what pydicom asks for and what has but one sensible value."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = dataset.file_meta
    if not meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        if keyword not in dataset:
            raise InputError(f"is damaged (it has no {keyword})")
    samples = int(dataset.get("SamplesPerPixel", 1))
    defaults = {
        "SamplesPerPixel": samples,
        "PixelRepresentation": 0,
        "BitsStored": dataset.BitsAllocated,
        "PhotometricInterpretation": "MONOCHROME2" if samples == 1 else "RGB",
        "PlanarConfiguration": 0,
    }
    for keyword, value in defaults.items():
        if keyword not in dataset:
            setattr(dataset, keyword, value)


def _warn_of_rest(dataset: Any, frames: int) -> None:
    """Warn where a file holds more than its rows and columns: one of the two may be wrong."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    rest = len(dataset.PixelData) - -(-int(bits) * frames // 8)
    if rest > 1:  # one byte makes the length even
        text = f"has bytes behind its last pixel ({rest} of {len(dataset.PixelData)}; is the size right?)"
        warnings.warn(text, ImageWarning, stacklevel=2)


def _count_frames(dataset: Any) -> int:
    """Number of frames: what the file says, or more where it holds more."""
    said = int(dataset.get("NumberOfFrames", 1))
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
        if dataset.PhotometricInterpretation == "YBR_FULL_422":
            bits = bits * 2 // 3
        return max(1, said, len(dataset.PixelData) * 8 // max(int(bits), 1))
    return max(1, said, _count_compressed(dataset))


def _count_compressed(dataset: Any) -> int:
    """Number of frames by the table of their offsets, else by the fragments that begin one."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets
    from pydicom.uid import RLELossless

    if "ExtendedOffsetTable" in dataset:
        return len(dataset.ExtendedOffsetTable) // 8
    data = io.BytesIO(dataset.PixelData)
    offsets = parse_basic_offsets(data)
    if offsets:
        return len(offsets)
    every = dataset.file_meta.TransferSyntaxUID == RLELossless
    return sum(every or part.startswith(_STARTS) for part in generate_fragments(data))


def _take_macros(dataset: Any, frame: int) -> None:
    """Bring to the top what a file of several frames says of all of them, or of this one."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence", ()))[:1]
    each = list(dataset.get("PerFrameFunctionalGroupsSequence", ()))[frame : frame + 1]
    for groups in (*each, *shared):
        for macro in _MACROS:
            for item in groups.get(macro, ()):
                for element in item:
                    if element.tag not in dataset:
                        dataset.add(element)


def _aspect(dataset: Any) -> float:
    """Height of a pixel, where its width is 1."""
    for keyword in _SPACINGS:
        spacing = dataset.get(keyword)
        try:
            down, across = (float(part) for part in spacing)
        except (TypeError, ValueError):  # absent, or not two numbers
            continue
        if down > 0 and across > 0 and np.isfinite(ratio := down / across):
            return ratio
    return 1.0


def require_pydicom() -> Any:
    """Import pydicom.

    Returns:
        The module.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise InputError("needs the package pydicom: pip install 'fairdx[dicom]'") from None
    return pydicom
