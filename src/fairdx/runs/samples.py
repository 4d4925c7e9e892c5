"""Sample images, their masks and the masked images: as pictures of a page, and as one PNG."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairdx.report.page import png_uri
from fairdx.report.pictures import Pixels, diverging, sheet, to_pixels, to_png
from fairdx.runs.folder import RunFolder


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
    columns = ("image", f"mask (±{scale:.3f})", "masked image")
    ramp = diverging(np.linspace(-1, 1, 128)[None].repeat(8, axis=0), 1.0)
    return Gallery(cells, scale, png_uri(to_png(ramp)), to_png(sheet(columns, rows)))


def _sample(drawn: tuple[Pixels, Pixels, Pixels], largest: float) -> Sample:
    image, mask, masked = (png_uri(to_png(pixels)) for pixels in drawn)
    return Sample(image, mask, masked, largest)
