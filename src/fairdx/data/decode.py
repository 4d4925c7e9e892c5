"""Image files to arrays of one form: read strictly, scaled with antialiasing, never guessed.

A file is either decoded whole or refused with its path. Pillow fills what it cannot decode in a damaged JPEG
with grey and says nothing, so the pixels of JPEGs come from libjpeg-turbo in its strict mode; it also decodes
at reduced scale in the DCT domain, which is most of the speed on large radiographs.
"""

from __future__ import annotations

import io
import math
import stat
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from PIL import Image, ImageFile, ImageOps

from fairdx.core.errors import InputError
from fairdx.data.checks import require_choice
from fairdx.data.dicom import dicom_values, is_dicom

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

Geometry = Literal["pad", "crop", "stretch"]

MAX_PIXELS: Final = 100_000_000
"""Larger images are refused before they are decoded; the largest radiographs have some 30 million."""

MARGIN: Final = 1.4
"""A JPEG is decoded at no less than this times its final size: at 1, single pictures of skin differ from a
full decode by up to 5 grey levels in the mean, at 1.4 by 1.5 at most, and radiographs of 2500 pixels still
come down to 224 by way of the fastest scale, 1/8."""

_ORIENTATION: Final = 0x0112
_TRANSPOSED: Final = (5, 6, 7, 8)
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


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
    """Significant bits of 16-bit grey PNGs: 12 where a scanner's values were stored as they came."""
    window: tuple[float, float] | None = None
    """Centre and width of the window for DICOM, in rescaled units (CT: Hounsfield); the file's by default."""

    def __post_init__(self) -> None:
        require_choice("geometry", self.geometry, get_args(Geometry))
        for option, value, low, high in (("size", self.size, 8, 4096), ("bits", self.bits, 9, 16)):
            if not low <= value <= high:
                raise InputError(f"{option}={value} is not possible: give {low} to {high}")
        if self.channels not in (1, 3):
            raise InputError(f"channels={self.channels} is not possible: give 1 (grey) or 3 (RGB)")
        if self.window and not self.window[1] > 0:
            raise InputError(f"window={self.window} is not possible: give its centre and a width above 0")


def decode_file(path: Path, form: Form) -> NDArray[np.uint8]:
    """Read an image file.

    Args:
        path: A PNG (8 or 16 bit) or JPEG file, grey or RGB, or a DICOM file of one frame.
        form: What to bring it to.

    Returns:
        uint8 of shape (channels, size, size).

    Raises:
        InputError: The file is missing, empty, damaged or of another kind; the message names it.
    """
    try:
        return _read(path, form)
    except InputError as error:
        raise InputError(f"{path} {error}") from error


def _read(path: Path, form: Form) -> NDArray[np.uint8]:
    """As `decode_file`, with messages that lack the path."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to read a pipe could take for ever
            raise InputError("is not a file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError("does not exist") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    return decode_bytes(data, form)


def decode_bytes(data: bytes, form: Form) -> NDArray[np.uint8]:
    """Decode the content of an image file.

    Args:
        data: A PNG (8 or 16 bit) or JPEG, grey or RGB, or DICOM of one frame.
        form: What to bring it to.

    Returns:
        uint8 of shape (channels, size, size).

    Raises:
        InputError: Empty, damaged or of another kind; the message lacks the file's name.
    """
    if not data:
        raise InputError("is empty (0 bytes)")
    if data.startswith(_JPEG):
        decode = _decode_jpeg
    elif data.startswith(_PNG):
        decode = _decode_png
    elif is_dicom(data):
        decode = _decode_dicom
    else:
        raise InputError("is not PNG, JPEG or DICOM")
    try:
        return decode(data, form)
    except InputError:
        raise
    except Exception as error:  # damaged bytes make the decoders raise almost anything
        raise InputError(f"is damaged ({error})") from error


def _decode_jpeg(data: bytes, form: Form) -> NDArray[np.uint8]:
    import simplejpeg

    with _open(data, "JPEG") as header:  # only the header: size, colours, orientation
        if header.mode not in ("L", "RGB"):
            raise InputError(f"has the colours {header.mode}, not grey or RGB")
        orientation = header.getexif().get(_ORIENTATION, 1)
        width, height = header.size
    placed = _place(*((height, width) if orientation in _TRANSPOSED else (width, height)), form)
    least = [math.ceil(MARGIN * side) for side in (placed[::-1] if orientation in _TRANSPOSED else placed)]
    pixels = simplejpeg.decode_jpeg(
        data, "GRAY" if form.channels == 1 else "RGB", min_width=least[0], min_height=least[1], strict=True
    )
    image = Image.fromarray(pixels[..., 0] if form.channels == 1 else pixels)
    if orientation != 1:
        image.getexif()[_ORIENTATION] = orientation
        image = ImageOps.exif_transpose(image)
    return _shape(image, form)


def _decode_png(data: bytes, form: Form) -> NDArray[np.uint8]:
    with _open(data, "PNG") as image:
        image.verify()  # the checksums, which a plain load passes over
    with _strict(), _open(data, "PNG") as image:
        image.load()
        if image.mode.startswith("I"):
            return _decode_deep(image, form)
        if form.bits != 16 and data[24] == 16:
            raise InputError(f"is a 16-bit colour PNG, for which bits={form.bits} has no meaning")
        if image.has_transparency_data:
            image = image.convert("RGBA")  # noqa: PLW2901
            if np.asarray(image.getchannel("A")).min() < 255:
                raise InputError("has transparent pixels: flatten it onto the background that you want")
        return _shape(image.convert("L" if form.channels == 1 else "RGB"), form)


def _decode_dicom(data: bytes, form: Form) -> NDArray[np.uint8]:
    values = dicom_values(data, form.window)
    if values.ndim == 3:
        colours = Image.fromarray(values.astype(np.uint8))
        return _shape(colours.convert("L" if form.channels == 1 else "RGB"), form)
    return np.repeat(_shape(Image.fromarray(values), form), form.channels, axis=0)


def _decode_deep(image: Image.Image, form: Form) -> NDArray[np.uint8]:
    """Scale 16 bits to 8 only after the resize, so that nothing is rounded twice."""
    top = 2**form.bits - 1
    values = np.asarray(image).astype(np.float32)
    if values.max() > top:
        raise InputError(f"has larger values than bits={form.bits} can hold ({values.max():.0f})")
    grey = _shape(Image.fromarray(values * np.float32(255 / top)), form)
    return np.repeat(grey, form.channels, axis=0)


@contextmanager
def _open(data: bytes, kind: str) -> Iterator[Image.Image]:
    """Open an image of which only the header has been read, and refuse one that is too large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
        image = Image.open(io.BytesIO(data), formats=[kind])
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise InputError(
                f"is too large ({image.width} x {image.height}, more than {MAX_PIXELS:,} pixels)"
            )
        yield image


@contextmanager
def _strict() -> Iterator[None]:
    """Make Pillow refuse truncated data even where a program has told it not to."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _place(width: int, height: int, form: Form) -> tuple[int, int]:
    """Width and height that the whole image takes at the scale of the form."""
    if form.geometry == "stretch":
        return form.size, form.size
    side = max(width, height) if form.geometry == "pad" else min(width, height)
    return max(1, math.floor(width * form.size / side + 0.5)), max(
        1, math.floor(height * form.size / side + 0.5)
    )


def _shape(image: Image.Image, form: Form) -> NDArray[np.uint8]:
    """Resize with antialiasing, then pad with black: (channels, size, size)."""
    box: tuple[float, float, float, float] | None = None
    if form.geometry == "crop":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
    width, height = (form.size, form.size) if box else _place(*image.size, form)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
    if resized.dtype != np.uint8:
        resized = np.floor(resized + 0.5).astype(np.uint8)
    planes = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    out = np.zeros((len(planes), form.size, form.size), dtype=np.uint8)
    left, top = (form.size - width) // 2, (form.size - height) // 2
    out[:, top : top + height, left : left + width] = planes
    return out


def decode_files(paths: Sequence[str], form: Form) -> tuple[NDArray[np.uint8], list[tuple[int, str]]]:
    """Read several image files, going on after those that cannot be used.

    Args:
        paths: k image files.
        form: What to bring them to.

    Returns:
        The images that could be read, uint8 of shape (up to k, channels, size, size), and for each of the
        others its place in `paths` and what is wrong with it, in words that follow its path.
    """
    images, failures = [], []
    for place, path in enumerate(paths):
        try:
            images.append(_read(Path(path), form))
        except InputError as error:
            failures.append((place, str(error)))
    shape = (len(images), form.channels, form.size, form.size)
    return np.array(images, dtype=np.uint8).reshape(shape), failures
