"""A few figures of each image, to find those that are unlike an image or unlike the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

DARK: Final = 32
"""Images whose brightest pixel is below this are called dark: often 12 bits read as 16."""
PALE: Final = 255 - DARK
"""Images whose mean is above this are called nearly white: often a table or window read wrongly."""
FLAT: Final = 4
"""Images whose standard deviation is below this are called flat."""
SMALL: Final = 0.3
"""Share of the square that is not black border, below which an image is called small: padding, most often."""
FAR: Final = 8
"""Robust score above which an image is called far from the others; of a normal spread none is."""
_BLACK: Final = 8
_FEWEST: Final = 20
"""Fewer images than this have no spread to speak of."""


def look_at(images: NDArray[np.uint8]) -> pd.DataFrame:
    """Sum up each image in a few figures.

    Args:
        images: uint8 of shape (n, C, H, W).

    Returns:
        n rows: `low` and `high` (the darkest and brightest value), `mean`, `spread` (standard deviation),
        `sharpness` (mean absolute step between neighbours) and `shown` (share of the square within the
        outermost rows and columns that are not black, from 0 to 1).
    """
    values = images.mean(axis=1)
    bright = images.max(axis=1) > _BLACK
    shown = np.stack([_extent(bright.any(axis=2)), _extent(bright.any(axis=1))]).prod(axis=0)
    steps = (
        np.abs(np.diff(values, axis=2)).mean(axis=(1, 2)) if values.shape[2] > 1 else np.zeros(len(values))
    )
    return pd.DataFrame(
        {
            "low": images.min(axis=(1, 2, 3)),
            "high": images.max(axis=(1, 2, 3)),
            "mean": values.mean(axis=(1, 2)),
            "spread": values.std(axis=(1, 2)),
            "sharpness": steps,
            "shown": shown,
        }
    )


def _extent(lit: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of a line from the first to the last place that is lit: (n, length) to (n,)."""
    length = lit.shape[1]
    first, last = lit.argmax(axis=1), length - lit[:, ::-1].argmax(axis=1)
    extent: NDArray[np.float64] = np.where(lit.any(axis=1), last - first, 0) / length
    return extent


def strangeness(look: pd.DataFrame) -> pd.Series[float]:
    """How far each image is from the others.

    Args:
        look: What `look_at` returned for all images of a source.

    Returns:
        The largest distance from the median in mean, spread or sharpness, in robust standard deviations
        (1.4826 times the median absolute deviation); 0 where there are fewer than 20 images.
    """
    figures = look[["mean", "spread", "sharpness"]]
    distance = (figures - figures.median()).abs()
    scale = 1.4826 * distance.median()
    if len(look) < _FEWEST:
        return pd.Series(0.0, index=look.index)
    return (distance / scale.where(scale > 0)).max(axis=1).fillna(0.0)
