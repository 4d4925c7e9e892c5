"""Pictures for pages: images, changes and heat maps as pixels, and sheets of them as PNG."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

_ENDS = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], dtype=np.float64)
"""Blue, white, red: a diverging scale that the common colour blindnesses tell apart (ColorBrewer RdBu)."""
_HEAT = np.array([[255, 255, 178], [253, 141, 60], [189, 0, 38]], dtype=np.float64)
"""Yellow, orange, red: a scale that gets darker from end to end (ColorBrewer YlOrRd)."""
_COVER = 0.75
"""How much of the image the highest value of a heat map covers."""


def to_pixels(image: Floats) -> Pixels:
    """(C, H, W) in [0, 1] to RGB (H, W, 3); one channel becomes grey."""
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    rgb: Pixels = np.moveaxis(np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels[:3], 0, -1)
    return rgb


def diverging(change: Floats, scale: float) -> Pixels:
    """(H, W) to RGB: blue at -scale, white at 0, red at +scale."""
    place = np.clip(change / scale if scale else np.zeros_like(change), -1, 1) + 1
    return _coloured(place / 2, _ENDS).round().astype(np.uint8)


def heated(image: Floats, heat: Floats) -> Pixels:
    """An image with a heat map laid over it.

    Args:
        image: (C, H, W) in [0, 1].
        heat: (H, W), not negative; 0 shows the image, the map's own highest value covers it most. A map of
            zeros leaves the image as it is.

    Returns:
        RGB (H, W, 3).
    """
    most = float(heat.max())
    place = heat / most if most > 0 else np.zeros_like(heat)
    cover = _COVER * place[..., None]
    mixed: Pixels = (
        ((1 - cover) * to_pixels(image) + cover * _coloured(place, _HEAT)).round().astype(np.uint8)
    )
    return mixed


def _coloured(place: Floats, ends: Floats) -> Floats:
    """Colours of places in [0, 1] on a scale of three."""
    channels = [np.interp(place, [0, 0.5, 1], ends[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1)


def to_png(pixels: Pixels) -> bytes:
    """RGB (H, W, 3) as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return file.getvalue()


def sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Pixels]]], *, side: int = 160) -> Pixels:
    """Pictures in rows and columns with their names, on white.

    Args:
        columns: Names of the columns, of one or two lines.
        rows: Name of each row, its parts in lines of their own where it has commas, and its pictures.
        side: Height and width at which pictures are shown.
    """
    gap, top, left = 6, 46, 190
    page = Image.new("RGB", (left + len(columns) * (side + gap), top + len(rows) * (side + gap)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for column, name in enumerate(columns):
        lines = name.count("\n") + 1
        pen.text((left + column * (side + gap), top - 4 - 18 * lines), name, fill="black", font=font)
    for row, (name, pictures) in enumerate(rows):
        y = top + row * (side + gap)
        for line, words in enumerate(name.split(", ")):
            pen.text((8, y + 8 + 18 * line), words[:26], fill="black", font=font)
        for column, pixels in enumerate(pictures):
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
            page.paste(picture, (left + column * (side + gap), y))
    return np.asarray(page)
