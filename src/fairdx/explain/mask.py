"""What the mask adds to images: how much, where, how fine, and how much of it is its own."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from fairdx.explain.regions import blurred
from fairdx.metrics.inputs import Floats

LEVELS: Final = 255
BANDS: Final = ("coarse", "middle", "fine")
"""Of the spectrum: below 1/8, 1/8 to 1/4, and above 1/4 of a cycle per pixel."""
_EDGES: Final = (1 / 8, 1 / 4)
_REACHES: Final = (1, 2, 4, 8)
"""Blurs of the image, in pixels, out of which the mask is explained."""


@dataclass(frozen=True)
class MaskOf:
    """What the mask does to each image.

    Attributes:
        mean: Mean size of the change, in grey levels of 255, shape (n,).
        largest: Largest size of the change, in grey levels, shape (n,).
        bands: Share of its energy by band of the spectrum, shape (n,) each; nan where nothing is changed.
        on_lesion: Share of the sum of its size in the lesion, shape (n,); nan without a lesion.
    """

    mean: Floats
    largest: Floats
    bands: dict[str, Floats]
    on_lesion: Floats


def measure_mask(change: Tensor, lesion: Tensor | None) -> MaskOf:
    """Measures a batch of masks.

    Args:
        change: Masked less original images, shape (n, C, H, W), in units of the full range.
        lesion: Where the lesion lies, boolean (n, H, W), if known.
    """
    size = change.abs().double() * LEVELS
    energy = torch.fft.fft2(change.double()).abs().square().sum(1)
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in change.shape[-2:])
    cycles = (rows[:, None].square() + columns[None].square()).sqrt()
    total = energy.sum((1, 2))
    place = (cycles >= _EDGES[0]).long() + (cycles >= _EDGES[1]).long()
    shares = [_ratio((energy * (place == band)).sum((1, 2)), total) for band in range(len(BANDS))]
    on_lesion = np.full(len(change), np.nan)
    if lesion is not None:
        inside = _ratio((size.sum(1) * lesion).sum((1, 2)), size.sum((1, 2, 3)))
        on_lesion = np.where(lesion.flatten(1).any(1).numpy(), inside, np.nan)
    return MaskOf(
        size.mean((1, 2, 3)).numpy(),
        size.flatten(1).amax(1).numpy(),
        dict(zip(BANDS, shares, strict=True)),
        on_lesion,
    )


def _ratio(part: Tensor, total: Tensor) -> Floats:
    found: Floats = torch.where(total > 0, part / total.clamp_min(1e-300), torch.nan).numpy()
    return found


class Pattern:
    """How much of all masks together is one picture, how much follows the image, and how much is their own.

    It adds up batch by batch and keeps sums alone. The energy of the masks is split in three: that of their
    mean picture; of the rest what a linear combination of the image and its blurs explains, the same
    everywhere; and what is left, the mask's own pattern.
    """

    def __init__(self) -> None:
        self.count = 0
        self.energy = 0.0
        self._mean: Tensor | None = None
        self._mean_features: Tensor | None = None
        self._gram = torch.zeros(len(_REACHES) + 1, len(_REACHES) + 1, dtype=torch.float64)
        self._cross = torch.zeros(len(_REACHES) + 1, dtype=torch.float64)

    def add(self, image: Tensor, change: Tensor) -> None:
        """Counts a batch.

        Args:
            image: Original images, shape (n, C, H, W).
            change: What the mask added, the same shape.
        """
        image, change = image.double(), change.double()
        features = torch.stack([image, *(blurred(image, reach) for reach in _REACHES)])  # (F, n, C, H, W)
        self.count += len(image)
        self.energy += float(change.square().sum())
        self._mean = change.sum(0) if self._mean is None else self._mean + change.sum(0)
        sums = features.sum(1)
        self._mean_features = sums if self._mean_features is None else self._mean_features + sums
        flat = features.flatten(1)
        self._gram += flat @ flat.T
        self._cross += flat @ change.flatten()

    def shares(self) -> dict[str, float]:
        """Returns the shares of the energy: `common`, `of_the_image`, `own`; nan without any mask."""
        if self._mean is None or self._mean_features is None or self.energy == 0:
            return dict.fromkeys(("common", "of_the_image", "own"), float("nan"))
        common = float(self._mean.square().sum()) / self.count
        # The mean over images is taken off pixel by pixel, of the masks and of what explains them alike.
        flat = self._mean_features.flatten(1)
        gram = self._gram - flat @ flat.T / self.count
        cross = self._cross - flat @ self._mean.flatten() / self.count
        explained = float(cross @ torch.linalg.lstsq(gram, cross[:, None]).solution[:, 0])
        explained = min(max(explained, 0.0), self.energy - common)
        rest = self.energy - common - explained
        return {
            "common": common / self.energy,
            "of_the_image": explained / self.energy,
            "own": rest / self.energy,
        }
