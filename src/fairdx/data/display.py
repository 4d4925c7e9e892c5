"""From the stored values of a DICOM frame to what a viewer shows (DICOM Part 3, C.11, and Part 14).

Modality table or rescale; then a window, a VOI table, or the range of the image; padding is black and counts
for nothing; MONOCHROME1 is inverted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from fairdx.core.errors import InputError
from fairdx.data.form import ImageWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray

GREY: Final = ("MONOCHROME1", "MONOCHROME2")
_TABLE_BITS: Final = (
    "has a VOI table whose entries have not the bits that it says: it is shown by the range of its entries"
)


def show(
    dataset: Any, frame: int | None, window: tuple[float, float] | None
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Bring a frame to what a viewer shows.

    Args:
        dataset: A `pydicom.Dataset` without empty elements.
        frame: Which frame, from 0; null for the only one.
        window: Centre and width, in rescaled units (Hounsfield units in CT), or null for the file's own: the
            table of its first VOI LUT item, or its first window, or the range of the values in the image.

    Returns:
        Brightness from 0 to 255, float32 of shape (H, W), or colours, uint8 of shape (H, W, 3).

    Raises:
        InputError: Of a kind that has no one way to be shown.
    """
    photometric = str(dataset.PhotometricInterpretation)
    stored = _pixels(dataset, frame)
    if photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        return _eight_bits(apply_color_lut(stored, dataset)[..., :3])
    if stored.ndim == 3 and stored.shape[-1] == 3:
        return _eight_bits(stored, int(dataset.BitsStored))
    if photometric not in GREY or stored.ndim != 2:
        raise InputError(f"has unusual colours ({photometric})")
    padding = _padding(dataset, stored, frame)
    values = _modality(dataset, stored)
    if window is None:
        bright = _own_window(dataset, values, padding)
    else:
        bright = _scaled(values, window[0] - window[1] / 2, window[0] + window[1] / 2)
    if photometric == "MONOCHROME1":
        bright = np.subtract(1, bright, out=bright)
    if padding is not None:
        bright[padding] = 0
    bright *= 255
    return np.asarray(bright, dtype=np.float32)


def _pixels(dataset: Any, frame: int | None, **options: Any) -> NDArray[Any]:
    """Decode one frame; colours come as RGB."""
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import RLELossless

    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        options["decoding_plugin"] = "pydicom"  # the faster one ends the process's thread on damaged bytes
    bits, high = int(dataset.BitsStored), int(dataset.get("HighBit", dataset.BitsStored - 1))
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or not bits <= high < dataset.BitsAllocated:
        return np.asarray(pixel_array(dataset, index=frame, **options))
    # As older devices wrote it: the bits that count are not the lowest ones.
    raw = np.asarray(pixel_array(dataset, index=frame, correct_unused_bits=False))
    allocated = 8 * raw.dtype.itemsize
    return np.asarray((raw << (allocated - 1 - high)) >> (allocated - bits))


def _eight_bits(colours: NDArray[Any], bits: int | None = None) -> NDArray[np.uint8]:
    top = 2 ** (bits or 8 * colours.itemsize) - 1
    if top == 255 and colours.dtype == np.uint8:
        return np.asarray(colours)
    return np.asarray(np.clip(np.floor(colours * (255 / top) + 0.5), 0, 255), dtype=np.uint8)


def _numbers(dataset: Any, keyword: str) -> list[float]:
    """All parts of an element, not finite where they are no numbers; none where it is absent."""
    value = dataset.get(keyword)
    if value is None:
        return []
    parts = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
    numbers = []
    for part in parts:
        try:
            numbers.append(float(part))
        except (TypeError, ValueError):
            numbers.append(np.nan)
    return numbers


def _padding(dataset: Any, stored: NDArray[Any], frame: int | None) -> NDArray[np.bool_] | None:
    """Which pixels are no part of the image; null where none is said to be.

    The padding value is written now as signed and now as unsigned, whatever the pixels are, and may use bits
    that the pixels must not.
    """
    ends = [
        int(number)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        for number in _numbers(dataset, keyword)[:1]
        if np.isfinite(number)
    ]
    if not ends or stored.dtype.kind not in "iu" or "PixelPaddingValue" not in dataset:
        return None
    bits, signed = int(dataset.BitsStored), stored.dtype.kind == "i"
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    allocated = 8 * stored.dtype.itemsize
    wrapped = [_wrap(end, allocated, signed=signed) for end in ends]
    if not all(low <= end <= high for end in wrapped):
        stored = _pixels(dataset, frame, correct_unused_bits=False)
    return np.asarray((stored >= min(wrapped)) & (stored <= max(wrapped)))


def _wrap(value: int, bits: int, *, signed: bool) -> int:
    """The number that has the same bits where it is stored."""
    size = 1 << bits
    unsigned = value % size
    return unsigned - size if signed and unsigned >= size // 2 else unsigned


def _modality(dataset: Any, stored: NDArray[Any]) -> NDArray[Any]:
    """Stored values to rescaled units."""
    table = _Table.of(dataset, "ModalityLUTSequence", signed=stored.dtype.kind == "i")
    if table is not None:
        return table.look_up(stored)
    slope = next(iter(_numbers(dataset, "RescaleSlope")), 1.0)
    intercept = next(iter(_numbers(dataset, "RescaleIntercept")), 0.0)
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise InputError(f"has a rescale that is no number ({slope} x + {intercept})")
    values: NDArray[Any] = stored.astype(np.float32 if stored.dtype.itemsize <= 2 else np.float64)
    if slope not in (0.0, 1.0):  # a slope of 0 would make any image flat: it stands for none
        np.multiply(values, slope, out=values)
    if intercept:
        np.add(values, intercept, out=values)
    return values


def _own_window(dataset: Any, values: NDArray[Any], padding: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Brightness from 0 to 1 by the file's VOI table or window, else by the range of the values."""
    signed = dataset.PixelRepresentation == 1 or min(_numbers(dataset, "RescaleIntercept"), default=0) < 0
    table = _Table.of(dataset, "VOILUTSequence", signed=signed)
    if table is not None:
        return _scaled(table.look_up(values), *table.range())
    for centre, width in zip(
        _numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth"), strict=False
    ):
        if np.isfinite(centre) and np.isfinite(width) and width > 0:
            return _windowed(values, centre, width, str(dataset.get("VOILUTFunction", "LINEAR")))
    seen = values if padding is None else values[~padding]
    return _scaled(values, float(seen.min()), float(seen.max())) if seen.size else np.zeros_like(values)


def _windowed(values: NDArray[Any], centre: float, width: float, function: str) -> NDArray[Any]:
    """Brightness from 0 to 1 through a window (C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT" or width < 1:  # narrower than LINEAR may be
        return _scaled(values, centre - width / 2, centre + width / 2)
    return _scaled(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """From `low` to `high` to 0 to 1, in place: a frame may be large."""
    values -= low
    values /= max(high - low, float(np.finfo(np.float32).tiny))
    return np.clip(values, 0, 1, out=values)


@dataclass(frozen=True)
class _Table:
    """A modality or VOI table."""

    first: int
    """The value that the first entry is for."""
    entries: NDArray[Any]
    """One for each further value; those below and above take the first and the last."""
    bits: int
    """How many bits the entries are said to have."""

    @classmethod
    def of(cls, dataset: Any, keyword: str, *, signed: bool) -> Self | None:
        """The first whole table of a sequence, null where there is none.

        Args:
            dataset: Whose sequence.
            keyword: The sequence.
            signed: Whether what will be looked up can be below 0.
        """
        for item in dataset.get(keyword, ()):
            described = _numbers(item, "LUTDescriptor")
            if len(described) == 3 and "LUTData" in item and np.isfinite(described).all():
                count, first, bits = (int(number) for number in described)
                entries = _entries(item.LUTData, count or 2**16, little=_is_little(dataset))
                if signed and first >= 2**15:  # written as unsigned
                    first -= 2**16
                return cls(first, entries, bits)
        return None

    def look_up(self, values: NDArray[Any]) -> NDArray[Any]:
        """The entry of each value."""
        place = np.floor(values).astype(np.int64) - self.first  # unsigned values would wrap below the first
        return np.asarray(self.entries[np.clip(place, 0, len(self.entries) - 1)])

    def range(self) -> tuple[float, float]:
        """What is black and what is white: what the bits hold, or the entries where they contradict that."""
        top = float(self.entries.max())
        if int(top).bit_length() == self.bits:
            return 0.0, float(2**self.bits - 1)
        warnings.warn(_TABLE_BITS, ImageWarning, stacklevel=2)
        return float(self.entries.min()), top


def _entries(data: Any, count: int, *, little: bool) -> NDArray[Any]:
    """The entries of a table: numbers, or bytes of one or two for each."""
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        numbers = np.frombuffer(
            data[: 2 * count if wide else count], f"{'<' if little else '>'}u2" if wide else "u1"
        )
    else:
        numbers = np.atleast_1d(np.asarray(data, dtype=np.int64))[:count]
        if 2 * len(numbers) == count:  # two entries of 8 bits in a word
            numbers = np.stack([numbers & 0xFF, numbers >> 8], axis=1).ravel()
    return numbers.astype(np.float32)


def _is_little(dataset: Any) -> bool:
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)
