"""The same patient otherwise: what a model answers when something changes that should not matter.

On the phantom the group itself is changed, along the direct path alone: a counterfactual. On real images
nobody can do that; what can be changed is something that goes with the group and says nothing of the disease
(lightness of the skin, contrast and sharpness of an X-ray). That is a test of sensitivity and is called so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from fairdx.metrics.inputs import Floats, Ints

Scores = Callable[[NDArray[np.uint8]], Floats]
"""Maps uint8 images (n, C, H, W) to P(Y = 1), shape (n,)."""

SHIFT: Final = 10.0
"""Change of lightness, in units of CIE L* (0 to 100)."""
CONTRAST: Final = 0.2
"""Change of contrast about the image's mean, as a share."""
BLUR: Final = 1 / 64
"""Standard deviation of the blur, as a share of the image's side."""


@dataclass(frozen=True)
class Pairs:
    """Scores of the same patients as either of two groups, everything else being equal.

    Attributes:
        reference: P(Y = 1) as the reference group, shape (n,).
        comparison: P(Y = 1) as the other group, shape (n,).
    """

    reference: Floats
    comparison: Floats

    @property
    def change(self) -> Floats:
        """What the group does to the score, shape (n,)."""
        return self.comparison - self.reference

    def flips(self, threshold: float) -> Floats:
        """Whether the decision depends on the group, 1 or 0, shape (n,)."""
        flipped: Floats = ((self.reference >= threshold) != (self.comparison >= threshold)).astype(float)
        return flipped


def counterfactual_pairs(
    render: Callable[[Ints, int], NDArray[np.uint8]],
    models: Sequence[Scores],
    index: Ints,
    *,
    reference: int,
    comparison: int,
    advance: Callable[[int], None],
    batch: int = 256,
) -> list[Pairs]:
    """Scores the same patients under both values of S, drawn along the direct path alone.

    Each picture is drawn once for all models, and none is kept.

    Args:
        render: Draws images, given their numbers and the group; `Phantom.render` with `do_direct`.
        models: The models.
        index: Numbers of the images, shape (n,).
        reference: Code of the reference group.
        comparison: Code of the other group.
        advance: Told how many patients are done, counted once for each model.
        batch: Patients at once.

    Returns:
        What each model answers.
    """
    found = np.empty((len(models), 2, len(index)))
    for start in range(0, len(index), batch):
        part = index[start : start + batch]
        for world, group in enumerate((reference, comparison)):
            pictures = render(part, group)
            for of_model, scores in zip(found, models, strict=True):
                of_model[world, start : start + len(part)] = scores(pictures)
        advance(len(part) * len(models))
    return [Pairs(reference, comparison) for reference, comparison in found]


def label_preserving(channels: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Changes that go with a group in such images and leave the diagnosis as it is.

    Args:
        channels: 3 (photographs: lightness in CIE LAB) or 1 (X-rays: contrast and sharpness).

    Returns:
        Functions of images (N, C, H, W) in [0, 1], by name.
    """
    if channels == 3:
        return {
            f"lightness {sign:+.0f} L*": lambda image, shift=sign: lightened(image, shift)  # type: ignore[misc]
            for sign in (-SHIFT, SHIFT)
        }
    return {
        f"contrast {1 - CONTRAST:.1f}": lambda image: contrasted(image, 1 - CONTRAST),
        f"contrast {1 + CONTRAST:.1f}": lambda image: contrasted(image, 1 + CONTRAST),
        "blur": softened,
    }


def contrasted(image: Tensor, factor: float) -> Tensor:
    """Images with their contrast about their own mean changed by a factor, clipped to [0, 1]."""
    mean = image.mean((1, 2, 3), keepdim=True)
    return (mean + factor * (image - mean)).clamp(0, 1)


def softened(image: Tensor) -> Tensor:
    """Images blurred by a Gaussian of `BLUR` of their side."""
    sigma = BLUR * image.shape[-1]
    blurred: Tensor = gaussian_blur(image, [2 * max(1, round(3 * sigma)) + 1] * 2, [sigma, sigma])
    return blurred


_TO_XYZ: Final = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE: Final = (0.95047, 1.0, 1.08883)
_CORNER: Final = 6 / 29


def to_lab(image: Tensor) -> Tensor:
    """SRGB (N, 3, H, W) in [0, 1] to CIE LAB (D65): L* from 0 to 100, a* and b*."""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    matrix, white = _constants(image)
    t = torch.einsum("ij,njhw->nihw", matrix, linear) / white
    f = torch.where(t > _CORNER**3, t.clamp_min(0) ** (1 / 3), t / (3 * _CORNER**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def from_lab(lab: Tensor) -> Tensor:
    """CIE LAB (N, 3, H, W) to sRGB, clipped to [0, 1]: the inverse of `to_lab` where sRGB has the colour."""
    y = (lab[:, 0] + 16) / 116
    f = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], dim=1)
    matrix, white = _constants(lab)
    t = torch.where(f > _CORNER, f**3, 3 * _CORNER**2 * (f - 4 / 29)) * white
    linear = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), t).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).clamp(0, 1)


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.tensor(_TO_XYZ).to(like), torch.tensor(_WHITE).view(1, 3, 1, 1).to(like)


def lightened(image: Tensor, shift: float) -> Tensor:
    """Images (N, 3, H, W) with L* shifted and colour kept, as far as sRGB has such colours."""
    lab = to_lab(image)
    return from_lab(torch.cat([(lab[:, :1] + shift).clamp(0, 100), lab[:, 1:]], dim=1))
