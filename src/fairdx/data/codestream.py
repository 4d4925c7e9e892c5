"""What a compressed DICOM frame says of itself, compared with its data set before anything is decoded.

A codestream of a few bytes can claim 60,000 x 60,000 pixels; decoders believe it, for minutes and gigabytes.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from fairdx.core.errors import InputError
from fairdx.data.form import MAX_PIXELS

_J2K: Final = b"\xff\x4f\xff\x51"
_WITHIN: Final = 4096
"""How far into a file the codestream of JPEG 2000 may begin."""
_SIZES: Final = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG and JPEG-LS after which the size stands."""
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xD8)))
"""Markers without a length."""
_MOST_BYTES: Final = 10 * MAX_PIXELS
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_CHUNK: Final = 1 << 24


def check_codestream(dataset: Any, frame: int, frames: int) -> None:
    """Refuse a frame whose codestream is of another size than its data set says.

    Args:
        dataset: A `pydicom.Dataset`.
        frame: Which frame, from 0.
        frames: How many there are.

    Raises:
        InputError: The two contradict each other.
    """
    from pydicom.encaps import get_frame

    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    data = get_frame(dataset.PixelData, frame, number_of_frames=frames, extended_offsets=offsets)
    said = (int(dataset.Columns), int(dataset.Rows), int(dataset.SamplesPerPixel))
    found = _size(bytes(data))
    if found is not None and found != said:
        raise InputError(
            "is damaged (its codestream has {} x {} pixels of {} samples, not {} x {} of {})".format(
                *found, *said
            )
        )


def _size(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and samples of a codestream, null where it is of another kind or does not say."""
    start = data[:_WITHIN].find(_J2K)
    if start >= 0:
        size = data[start + 4 :]
        x, y, left, top = (int.from_bytes(size[at : at + 4], "big") for at in (4, 8, 12, 16))
        return x - left, y - top, int.from_bytes(size[36:38], "big")
    return _jpeg_size(data) if data.startswith(b"\xff\xd8") else None


def _jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _SIZES:
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            return width, height, data[place + 9]
        filler = marker == 0xFF
        length = 0 if filler or marker in _ALONE else int.from_bytes(data[place + 2 : place + 4], "big")
        place += 1 if filler else 2 + length
    return None


def check_deflated(data: bytes) -> None:
    """Refuse a deflated data set that is too large when it is inflated.

    Args:
        data: The content of a DICOM file.

    Raises:
        InputError: It is too large.
    """
    if data[132:140] != b"\x02\0\0\0UL\4\0":
        return
    start = 144 + int.from_bytes(data[140:144], "little")
    if _DEFLATED not in data[144:start]:
        return
    inflater, rest, total = zlib.decompressobj(-zlib.MAX_WBITS), data[start:], 0
    while rest and total <= _MOST_BYTES:
        total += len(inflater.decompress(rest, _CHUNK))
        rest = inflater.unconsumed_tail
    if total > _MOST_BYTES:
        raise InputError(f"is too large (more than {_MOST_BYTES:,} bytes)")
