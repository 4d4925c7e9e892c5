"""The one form that all images of a data set are brought to: placed by their full size, then resized."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.checks import require_choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

Geometry = Literal["pad", "crop", "stretch"]

MAX_PIXELS: Final = 100_000_000
"""Larger images are refused before they are decoded; the largest radiographs have some 30 million."""


class ImageWarning(UserWarning):
    """Something about an image that is right in spite of its file, or that its file leaves open."""


@dataclass(frozen=True)
class Form:
    """The one form that all images of a prepared data set are brought to."""

    size: int = 224
    """Height and width, in pixels."""
    channels: int = 1
    """1 (grey, by ITU-R 601 luma) or 3 (RGB; grey is repeated)."""
    geometry: Geometry = "pad"
    """What becomes of images that are not square: black bars, the centre alone, or stretched."""
    bits: int = 16
    """Significant bits of 16-bit grey images: 12 where a scanner's values were stored as they came."""
    window: tuple[float, float] | None = None
    """Centre and width of the window for DICOM and NIfTI, in rescaled units (CT: Hounsfield); the file's, or
    the range of the image, by default."""
    frame: int | None = None
    """Which frame of files with several (or slice of a volume), from 1; by default these are refused."""
    lenient: bool = False
    """Whether a JPEG with odd bytes behind its last pixel is taken, with a warning: all pixels are whole."""

    def __post_init__(self) -> None:
        require_choice("geometry", self.geometry, get_args(Geometry))
        for option, value, low, high in (("size", self.size, 8, 4096), ("bits", self.bits, 9, 16)):
            if not low <= value <= high:
                raise InputError(f"{option}={value} is not possible: give {low} to {high}")
        if self.channels not in (1, 3):
            raise InputError(f"channels={self.channels} is not possible: give 1 (grey) or 3 (RGB)")
        if self.window and not self.window[1] > 0:
            raise InputError(f"window={self.window} is not possible: give its centre and a width above 0")
        if self.frame is not None and self.frame < 1:
            raise InputError(f"frame={self.frame} is not possible: the first is 1")

    def chosen_frame(self, frames: int, what: str = "frames") -> int:
        """Choose a frame of a file.

        Args:
            frames: How many it has.
            what: What they are called.

        Returns:
            Its place, from 0; the only one, whatever is asked for.

        Raises:
            InputError: There are several and none was asked for, or there are fewer.
        """
        if frames == 1:
            return 0
        if self.frame is None:
            raise InputError(f"has several {what} ({frames}): choose one (frame), or cut it into files")
        if self.frame > frames:
            raise InputError(f"has {frames} {what}, not {self.frame}")
        return self.frame - 1


class Picture(NamedTuple):
    """An image as it was decoded, perhaps at a reduced scale."""

    pixels: Image.Image
    """Of mode L, RGB or F (brightness from 0 to 255)."""
    full: tuple[float, float]
    """Width and height of the whole image, in square pixels."""
    covered: tuple[float, float]
    """Width and height of what `pixels` shows of it, in its own pixels: the last of a reduced JPEG reach
    beyond the image."""


def whole(pixels: Image.Image, *, aspect: float = 1.0) -> Picture:
    """A picture at its full size.

    Args:
        pixels: The image.
        aspect: Height of a pixel, where its width is 1.

    Returns:
        The picture.
    """
    return Picture(pixels, (pixels.width, pixels.height * aspect), pixels.size)


def place(width: float, height: float, form: Form) -> tuple[int, int]:
    """Width and height that a whole image takes at the scale of the form.

    Args:
        width: Of the whole image.
        height: Of the whole image.
        form: What it is brought to.

    Returns:
        Whole pixels, at least 1.
    """
    if form.geometry == "stretch":
        return form.size, form.size
    side = max(width, height) if form.geometry == "pad" else min(width, height)
    return max(1, math.floor(width * form.size / side + 0.5)), max(
        1, math.floor(height * form.size / side + 0.5)
    )


def shape(picture: Picture, form: Form) -> NDArray[np.uint8]:
    """Resize with antialiasing, then pad with black.

    Args:
        picture: As decoded.
        form: What to bring it to; its channels are those of the picture.

    Returns:
        uint8 of shape (channels of the picture, size, size).
    """
    covered = picture.covered
    box = (0.0, 0.0, *covered)
    width, height = (form.size, form.size) if form.geometry == "crop" else place(*picture.full, form)
    if form.geometry == "crop":
        side = min(picture.full)
        across, down = (side / whole * have for whole, have in zip(picture.full, covered, strict=True))
        left, top = (covered[0] - across) / 2, (covered[1] - down) / 2
        box = (left, top, left + across, top + down)
    resized = np.asarray(picture.pixels.resize((width, height), Image.Resampling.BILINEAR, box=box))
    if resized.dtype != np.uint8:
        resized = np.floor(resized + 0.5).astype(np.uint8)
    planes = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    out = np.zeros((len(planes), form.size, form.size), dtype=np.uint8)
    x, y = (form.size - width) // 2, (form.size - height) // 2
    out[:, y : y + height, x : x + width] = planes
    return out
