"""PNG, JPEG, TIFF and WebP: decoded whole or refused, turned upright, never guessed.

Pillow fills what it cannot decode in a damaged JPEG with grey and says nothing, so the pixels of JPEGs come
from libjpeg-turbo in its strict mode; it also decodes at reduced scale in the DCT domain, which is most of
the speed on large radiographs.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageFile

from fairdx.core.errors import InputError
from fairdx.data.form import MAX_PIXELS, Form, ImageWarning, Picture, place, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

MARGIN: Final = 1.4
"""A JPEG is decoded at no less than this times its final size: at 1, single pictures of skin differ from a
full decode by up to 5 grey levels in the mean, at 1.4 by 1.5 at most, and radiographs of 2500 pixels still
come down to 224 by way of the fastest scale, 1/8."""

_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""
_TRANSPOSED: Final = (5, 6, 7, 8)
_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_SAMPLE_FORMAT: Final = 339
_SIGNED: Final = 2
"""The sample format of a TIFF whose samples can be below 0."""
_SIGNATURES: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_ODD_END: Final = re.compile(r"\b(\d+) extraneous bytes before marker 0xd9")
_NOTES: Final = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
"""Parts of a PNG that say nothing of its pixels; Pillow refuses a file that holds over 1 MiB of them."""
_ORIENTING: Final = (b"XML:com.adobe.xmp", b"Raw profile type exif")


def raster_kind(data: bytes) -> str | None:
    """Tell the kind of an image file by its content.

    Args:
        data: The content, or its first 12 bytes.

    Returns:
        PNG, JPEG, TIFF or WEBP, or null.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for mark, kind in _SIGNATURES.items() if data.startswith(mark)), None)


def decode_raster(data: bytes, kind: str, form: Form) -> Picture:
    """Decode an image file.

    Args:
        data: Its content.
        kind: What `raster_kind` said.
        form: What it will be brought to.

    Returns:
        The picture, grey or RGB as the form asks, but for deep grey ones.

    Raises:
        InputError: It is of a kind that has no one way to be shown.
    """
    return _decode_jpeg(data, form) if kind == "JPEG" else _decode_pillow(data, kind, form)


def _decode_jpeg(data: bytes, form: Form) -> Picture:
    with _open(data, "JPEG") as header:  # only the header: size, colours, orientation
        if header.mode not in ("L", "RGB"):
            raise InputError(f"has the colours {header.mode}, not grey or RGB")
        orientation = _orientation(header)
        full = header.size
    turned = orientation in _TRANSPOSED
    placed = place(*(full[::-1] if turned else full), form)
    least = [math.ceil(MARGIN * side) for side in (placed[::-1] if turned else placed)]
    image = _jpeg_pixels(data, form, least)
    covered = tuple(side * _scale(full, image.size) for side in full)
    if turned:
        full, covered = full[::-1], covered[::-1]
    return Picture(_upright(image, orientation), full, (covered[0], covered[1]))


def _scale(full: tuple[int, int], size: tuple[int, int]) -> float:
    """The scale at which an image was decoded: some eighths, the last pixel being rounded up."""
    eighths = (
        n for n in range(8, 0, -1) if all(math.ceil(a * n / 8) == b for a, b in zip(full, size, strict=True))
    )
    return next(eighths) / 8


def _orientation(image: Image.Image) -> int:
    """How an image is to be turned, by its EXIF or XMP; 1 is not at all."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        warnings.warn("has EXIF that cannot be read: it is taken as upright", ImageWarning, stacklevel=2)
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _jpeg_pixels(data: bytes, form: Form, least: list[int]) -> Image.Image:
    """Decode at the smallest scale that is large enough, strictly."""
    import simplejpeg

    colours = "GRAY" if form.channels == 1 else "RGB"
    try:
        pixels = simplejpeg.decode_jpeg(data, colours, min_width=least[0], min_height=least[1], strict=True)
    except ValueError as error:
        odd = _ODD_END.search(str(error))
        if odd is None:
            raise
        problem = f"has odd bytes behind its last pixel ({odd[1]}), and all its pixels are whole"
        if not form.lenient:
            raise InputError(f"{problem}: on-error warn takes such images, and counts them") from None
        warnings.warn(problem, ImageWarning, stacklevel=2)
        pixels = simplejpeg.decode_jpeg(data, colours, min_width=least[0], min_height=least[1], strict=False)
    return Image.fromarray(pixels[..., 0] if form.channels == 1 else pixels)


def _decode_pillow(data: bytes, kind: str, form: Form) -> Picture:
    if kind == "PNG":
        data = _without_notes(data)
        with _open(data, kind) as image:
            image.verify()  # the checksums, which a plain load passes over
    with _strict(), _open(data, kind) as image:
        image.seek(form.chosen_frame(getattr(image, "n_frames", 1)))
        image.load()
        deep = _deep_colours(image, data, kind)
        upright = _upright(image, _orientation(image))
        if upright.mode.startswith("I;16") or (kind == "PNG" and upright.mode == "I"):
            return _deep(upright, form, image)
        if upright.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
            raise InputError(f"has the colours {upright.mode}, not grey or RGB of 8 or 16 bits")
        if kind == "TIFF" and _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ()):  # type: ignore[attr-defined]
            raise InputError("has values that can be below 0, which have no one way to be shown")
        if form.bits != 16 and deep:
            raise InputError(f"is a 16-bit colour {kind}, for which bits={form.bits} has no meaning")
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            if np.asarray(upright.getchannel("A")).min() < 255:
                raise InputError("has transparent pixels: flatten it onto the background that you want")
        return whole(upright.convert("L" if form.channels == 1 else "RGB"))


def _deep_colours(image: Image.Image, data: bytes, kind: str) -> bool:
    """Whether the samples of colours had 16 bits, which Pillow has brought to 8."""
    if kind == "PNG":
        return data[24] == 16
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return bool(max(bits) > 8)


def _deep(image: Image.Image, form: Form, opened: Image.Image) -> Picture:
    """Scale 16 bits to 8 only in the resize, so that nothing is rounded twice.

    Pillow heeds neither that a TIFF has 12 bits nor, unlike with 8 bits, that its 0 is white.
    """
    tags = getattr(opened, "tag_v2", {})
    bits = min(form.bits, *tags.get(_BITS_PER_SAMPLE, (16,)), 16)
    top = 2**bits - 1
    values = np.asarray(image).astype(np.float32)
    if values.max() > top:
        raise InputError(f"has larger values than bits={form.bits} can hold ({values.max():.0f})")
    bright = values * np.float32(255 / top)
    return whole(Image.fromarray(255 - bright if tags.get(_PHOTOMETRIC) == 0 else bright))


def _without_notes(data: bytes) -> bytes:
    """A PNG without its profiles and texts, but for those that say how it is turned."""
    kept, place_of, found = [data[:8]], 8, False
    while place_of + 12 <= len(data):
        end = place_of + 12 + int.from_bytes(data[place_of : place_of + 4], "big")
        name = data[place_of + 4 : place_of + 8]
        if name in _NOTES and not data[place_of + 8 : end].startswith(_ORIENTING):
            found = True
        else:
            kept.append(data[place_of:end])
        place_of = end
    return b"".join(kept) + data[place_of:] if found else data


@contextmanager
def _open(data: bytes, kind: str) -> Iterator[Image.Image]:
    """Open an image of which only the header has been read, and refuse one that is too large."""
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
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
