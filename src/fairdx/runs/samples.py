"""Sample images, their masks and the masked images: as pictures of a page, and as one PNG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fairdx.report.page import png_uri
from fairdx.runs.folder import RunFolder

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

_ENDS = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], dtype=np.float64)
"""Blue, white, red: a diverging scale that the common colour blindnesses tell apart (ColorBrewer RdBu)."""

_COLUMNS = ("image", "mask", "masked image")


@dataclass(frozen=True)
class Sample:
    """One test image.

    Attributes:
        image: What the camera saw, as the address of a PNG.
        mask: What was added, in colour.
        masked: What the model is shown.
        largest: Largest change of a pixel, as a share of the range of pixel values.
    """

    image: str
    mask: str
    masked: str
    largest: float


@dataclass(frozen=True)
class Cell:
    """Sample images of one group and label."""

    group: str
    label: str
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Gallery:
    """All sample images.

    Attributes:
        cells: By group and label.
        scale: Change of a pixel at the ends of the colour scale, as a share of the range; 0 without any mask.
        ramp: The colour scale as the address of a PNG.
        sheet: Everything as one PNG.
    """

    cells: Sequence[Cell]
    scale: float
    ramp: str
    sheet: bytes


def gallery(run: RunFolder) -> Gallery:
    """Pictures of the sample images of a run.

    The colour scale is the same for all and ends at the 99.9th percentile of |change|.
    """
    stored = run.samples
    images, masked = (np.asarray(stored[k], dtype=np.float64) for k in ("image", "masked"))
    change = (masked - images).mean(axis=1)
    scale = float(np.quantile(np.abs(change), 0.999)) if change.size else 0.0
    drawn = [
        (to_pixels(a), diverging(c, scale), to_pixels(b))
        for a, b, c in zip(images, masked, change, strict=True)
    ]
    cells, rows = [], []
    for group, label in sorted(
        {(int(g), int(y)) for g, y in zip(stored["group"], stored["label"], strict=True)}
    ):
        where = np.flatnonzero((stored["group"] == group) & (stored["label"] == label))
        names = run.data["groups"][group], f"{run.data['label']}: {run.data['classes'][label]}"
        samples = [_sample(drawn[i], float(np.abs(masked[i] - images[i]).max())) for i in where]
        cells.append(Cell(*names, samples))
        rows += [(f"{names[0]}, {names[1]}", drawn[i]) for i in where]
    ramp = diverging(np.linspace(-1, 1, 128)[None].repeat(8, axis=0), 1.0)
    return Gallery(cells, scale, png_uri(to_png(ramp)), to_png(_sheet(rows, scale)))


def _sample(drawn: tuple[Pixels, Pixels, Pixels], largest: float) -> Sample:
    image, mask, masked = (png_uri(to_png(pixels)) for pixels in drawn)
    return Sample(image, mask, masked, largest)


def to_pixels(image: Floats) -> Pixels:
    """(C, H, W) in [0, 1] to RGB (H, W, 3); one channel becomes grey."""
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    rgb: Pixels = np.moveaxis(np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels[:3], 0, -1)
    return rgb


def diverging(change: Floats, scale: float) -> Pixels:
    """(H, W) to RGB: blue at -scale, white at 0, red at +scale."""
    place = np.clip(change / scale if scale else np.zeros_like(change), -1, 1) + 1
    channels = [np.interp(place, [0, 1, 2], _ENDS[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def to_png(pixels: Pixels) -> bytes:
    """RGB (H, W, 3) as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _sheet(rows: Sequence[tuple[str, tuple[Pixels, Pixels, Pixels]]], scale: float) -> Pixels:
    side, gap, top, left = 160, 6, 46, 190
    size = (left + 3 * (side + gap), top + len(rows) * (side + gap))
    page = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for column, name in enumerate(_COLUMNS):
        text = f"{name} (±{scale:.3f})" if name == "mask" else name
        pen.text((left + column * (side + gap), top - 22), text, fill="black", font=font)
    for row, (name, pictures) in enumerate(rows):
        y = top + row * (side + gap)
        for line, words in enumerate(name.split(", ", 1)):
            pen.text((8, y + 8 + 18 * line), words[:26], fill="black", font=font)
        for column, pixels in enumerate(pictures):
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
            page.paste(picture, (left + column * (side + gap), y))
    return np.asarray(page)
