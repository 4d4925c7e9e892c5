"""Maps of what a score depends on: Grad-CAM at a layer, occlusion and integrated gradients at the image.

The functions return *raw, signed* maps at their own resolution. Rectifying, scaling to a mass of one, and
enlarging are steps of their own, since each throws something away.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fairdx.core.errors import InputError
from fairdx.models.capture import as_found, gradients_at
from fairdx.models.layers import SpatialLayer

Score = Callable[[Tensor], Tensor]
"""Maps images (N, C, H, W) in [0, 1] to one score each, (N,)."""
Scores = Callable[[Tensor], Sequence[Tensor]]
"""Maps images to several scores each, from one forward pass."""


def grad_cam(network: nn.Module, layer: SpatialLayer, scores: Scores, images: Tensor) -> tuple[Tensor, ...]:
    """Grad-CAM (Selvaraju et al., ICCV 2017): sum over channels of (mean of the gradient) x activation.

    Args:
        network: What is run, frozen or not; left as found.
        layer: Part of it.
        scores: The scores to explain.
        images: Shape (N, C, H, W), in [0, 1].

    Returns:
        For each score a signed map (N, height, width) of the layer's grid: positive where the activation
        raises the score.
    """
    with as_found(network):
        activation, gradients = gradients_at(layer.module, lambda: scores(images.clone()))
    grid = layer.reading.grid(activation).float()
    return tuple(
        (layer.reading.grid(found).float().mean((2, 3), keepdim=True) * grid).sum(1) for found in gradients
    )


@torch.no_grad()
def occlusion(network: nn.Module, scores: Scores, images: Tensor, *, cells: int = 8) -> tuple[Tensor, ...]:
    """How far a score falls when a square of the image gets the image's mean (Zeiler & Fergus, ECCV 2014).

    Needs no gradient, so that it works for any function of images.

    Args:
        network: What is run; left as found.
        scores: The scores to explain.
        images: Shape (N, C, H, W), in [0, 1].
        cells: Squares along a side.

    Returns:
        For each score a signed map (N, cells, cells): positive where the square raises the score.

    Raises:
        InputError: There are more squares than pixels along a side.
    """
    if cells > min(images.shape[-2:]):
        raise InputError(
            f"{cells} squares along a side are more than its {min(images.shape[-2:])} pixels: give fewer"
        )
    fill = images.mean((2, 3), keepdim=True)
    edges = [[round(i * side / cells) for i in range(cells + 1)] for side in images.shape[-2:]]
    with as_found(network):
        before = [score.float() for score in scores(images)]
        maps = [score.new_zeros(len(images), cells, cells) for score in before]
        for row in range(cells):
            for column in range(cells):
                covered = images.clone()
                rows = slice(edges[0][row], edges[0][row + 1])
                covered[:, :, rows, edges[1][column] : edges[1][column + 1]] = fill
                for found, old, new in zip(maps, before, scores(covered), strict=True):
                    found[:, row, column] = old - new.float()
    return tuple(maps)


def integrated_gradients(
    network: nn.Module, scores: Scores, images: Tensor, *, baseline: Tensor, steps: int = 32
) -> tuple[Tensor, ...]:
    """Integrated gradients (Sundararajan et al., ICML 2017), by the midpoint rule.

    The map of an image adds up to its score less the baseline's, up to the error of the sum.

    Args:
        network: What is run; left as found.
        scores: The scores to explain.
        images: Shape (N, C, H, W), in [0, 1].
        baseline: Where the path begins, in a shape that broadcasts to that of the images.
        steps: Points of the path.

    Returns:
        For each score a signed map (N, H, W), added up over channels.
    """
    way = images - baseline
    totals: list[Tensor] = []
    with as_found(network), torch.inference_mode(False), torch.enable_grad():
        for step in range(steps):
            point = (baseline + (step + 0.5) / steps * way).detach().clone().requires_grad_(True)
            found = [
                torch.autograd.grad(score.sum(), point, retain_graph=True)[0].float()
                for score in scores(point)
            ]
            totals = found if not totals else [a + b for a, b in zip(totals, found, strict=True)]
    return tuple((way * total / steps).sum(1).detach() for total in totals)


def rectified(maps: Tensor) -> Tensor:
    """Returns what speaks for the score: maps with their negative part set to 0."""
    return maps.clamp_min(0)


def as_mass(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Scales non-negative maps to a sum of one.

    Args:
        maps: Shape (N, h, w), not negative.

    Returns:
        The maps, and which of them have any mass, boolean (N,); those without stay 0.
    """
    total = maps.sum((1, 2), keepdim=True)
    there = total.flatten() > 0
    return torch.where(total > 0, maps / total.clamp_min(torch.finfo(maps.dtype).tiny), 0.0), there


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns maps (N, h, w) at another resolution, bilinear between the centres of their cells."""
    return interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
