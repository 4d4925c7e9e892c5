"""DICOM files to grey or colour values as a viewer shows them (the extra `dicom`: pydicom and pylibjpeg)."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PREAMBLE, MAGIC = 128, b"DICM"
"""Where the mark of a DICOM file stands, and what it is."""


def is_dicom(data: bytes) -> bool:
    """Tell whether the content of a file is DICOM.

    Args:
        data: The content, or its first 132 bytes.

    Returns:
        Whether it has the mark of DICOM.
    """
    return data[PREAMBLE : PREAMBLE + 4] == MAGIC


def read_header(path: Path, attributes: Sequence[str]) -> Any:
    """Read a DICOM file without its pixels.

    Args:
        path: The file.
        attributes: The keywords of those wanted.

    Returns:
        These attributes, a `pydicom.Dataset`.

    Raises:
        InputError: The file is missing or not DICOM, or pydicom is not installed.
    """
    pydicom = require_pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(attributes))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except Exception as error:  # damaged bytes make the parser raise almost anything
        raise InputError(f"{path} cannot be read as DICOM ({error})") from error


def dicom_values(data: bytes, window: tuple[float, float] | None) -> NDArray[np.float32]:
    """Decode a DICOM image to the brightness that a viewer shows.

    Rescale slope and intercept are applied, then the window; without one given, the file's own window or VOI
    table; without either, the range of values in the image. MONOCHROME1 is inverted.

    Args:
        data: The content of the file.
        window: Centre and width, in rescaled units (Hounsfield units in CT), or null for the file's own.

    Returns:
        Brightness from 0 to 255, of shape (H, W), or (H, W, 3) for colour images.

    Raises:
        InputError: Several frames, no pixels, damaged, or of a kind that has no one way to be shown.
    """
    pydicom = require_pydicom()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom speaks of odd values in attributes that are not used here
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset:
            raise InputError("has no pixels")
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames != 1:
            raise InputError(f"has several frames ({frames}): cut it into one file each")
        return _shown(dataset, window)


def _shown(dataset: Any, window: tuple[float, float] | None) -> NDArray[np.float32]:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    photometric = str(dataset.PhotometricInterpretation)
    stored = dataset.pixel_array
    if stored.ndim == 3 and stored.dtype == np.uint8:
        return np.asarray(stored, dtype=np.float32)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"has unusual colours ({photometric})")
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if window is not None:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    elif "VOILUTSequence" in dataset or "WindowCenter" in dataset:
        values = np.asarray(apply_voi_lut(values, dataset, prefer_lut=True), dtype=np.float64)
        low, high = _voi_range(dataset)
    else:
        low, high = float(values.min()), float(values.max())
    bright = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1) * 255
    return np.asarray(255 - bright if photometric == "MONOCHROME1" else bright, dtype=np.float32)


def _voi_range(dataset: Any) -> tuple[float, float]:
    """The values that a VOI table or window maps black and white to."""
    if "VOILUTSequence" in dataset:
        return 0.0, float(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    if "ModalityLUTSequence" in dataset:
        return 0.0, float(2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    stored = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(s * slope + intercept for s in stored), max(s * slope + intercept for s in stored)


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
