"""Axial slices of NIfTI volumes (the extra `nifti`: nibabel), shown as radiologists see them."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.form import MAX_PIXELS, Form, Picture, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GZIP: Final = b"\x1f\x8b"
_SIZES: Final = {348: (344, (b"n+1\0",)), 540: (4, (b"n+2\0",))}
"""Length of the header, which is its first number, and where which mark stands."""
_MOST_BYTES: Final = 10 * MAX_PIXELS


def is_nifti(data: bytes) -> bool:
    """Tell whether the content of a file is a NIfTI volume, compressed or not.

    Args:
        data: The content.

    Returns:
        Whether it has the mark of one.
    """
    head = data[:600]
    if head.startswith(_GZIP):
        try:
            with gzip.open(io.BytesIO(data)) as file:
                head = file.read(600)
        except (OSError, EOFError):
            return False
    for order in ("little", "big"):
        place, marks = _SIZES.get(int.from_bytes(head[:4], order), (0, ()))
        if head[place : place + 4] in marks:
            return True
    return False


def decode_nifti(data: bytes, form: Form) -> Picture:
    """Decode an axial slice of a volume.

    Args:
        data: The content of the file.
        form: Its frame is the slice, from the feet; its window is used in place of the range of the slice.

    Returns:
        Brightness; pixels that are not square are counted by their spacing.

    Raises:
        InputError: No slice was chosen, several volumes, too large, or nibabel is not installed.
    """
    try:
        import nibabel
    except ImportError:
        raise InputError("needs the package nibabel: pip install 'fairdx[nifti]'") from None
    unpacked: Any = _open(nibabel, _unpacked(data))
    volume = nibabel.as_closest_canonical(unpacked)  # type: ignore[no-untyped-call]  # right, front, head
    shape = tuple(size for size in volume.shape[3:] if size > 1)
    if shape or len(volume.shape) < 3:
        raise InputError(f"is not one volume of three dimensions ({' x '.join(map(str, volume.shape))})")
    if volume.get_data_dtype().kind not in "iuf":
        raise InputError(f"has values that are not plain numbers ({volume.get_data_dtype()})")
    slices = volume.shape[2]
    place = form.chosen_frame(slices, "slices")
    values = np.asarray(volume.dataobj[:, :, place], dtype=np.float64).reshape(volume.shape[:2])
    if not np.isfinite(values).all():
        raise InputError("has values that are not finite")
    low, high = values.min(), values.max()
    if form.window is not None:
        low, high = form.window[0] - form.window[1] / 2, form.window[0] + form.window[1] / 2
    bright: NDArray[np.float64] = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1) * 255
    across, down = volume.header.get_zooms()[:2]
    # Rows from the front to the back, columns from the right of the patient to the left.
    shown = Image.fromarray(np.ascontiguousarray(bright.T[::-1, ::-1], dtype=np.float32))
    return whole(shown, aspect=float(down / across) if across > 0 and down > 0 else 1.0)


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(_GZIP):
        return data
    with gzip.open(io.BytesIO(data)) as file:
        unpacked = file.read(_MOST_BYTES + 1)
    if len(unpacked) > _MOST_BYTES:
        raise InputError(f"is too large (more than {_MOST_BYTES:,} bytes)")
    return unpacked


def _open(nibabel: Any, data: bytes) -> Any:
    second = int.from_bytes(data[:4], "little") == 540 or int.from_bytes(data[:4], "big") == 540
    return (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(data)
