"""Whether maps lie where they should, on images of which the lesion and the group's trait are known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from fairdx.data.phantom import Regions
from fairdx.explain.maps import as_mass, enlarged, rectified
from fairdx.explain.overlap import TOP
from fairdx.metrics.inputs import Floats, Ints

REGIONS = ("lesion", "trait", "rest")


@dataclass(frozen=True)
class Located:
    """Where a map's mass lies, image by image; nan where the map is empty.

    Attributes:
        share: Of the mass in each region, by name, shape (n,).
        area: Of the image in each region, by name, shape (n,): the share of a map that says nothing.
        hit: Whether the highest pixel is in the lesion, 1 or 0, shape (n,); nan without a lesion.
    """

    share: dict[str, Floats]
    area: dict[str, Floats]
    hit: Floats


def locate(maps: Floats, regions: Regions) -> Located:
    """Measures where maps lie.

    Args:
        maps: Signed, shape (n, h, w); they are rectified, enlarged to the images' size and scaled to a mass
            of one.
        regions: Of the same images.
    """
    size = regions.lesion.shape[1:]
    n = len(maps)
    share = {name: np.full(n, np.nan) for name in REGIONS}
    hit = np.full(n, np.nan)
    for start in range(0, n, 256):
        part = slice(start, start + 256)
        whole = enlarged(rectified(torch.from_numpy(maps[part]).float()), (size[0], size[1]))
        mass, there = as_mass(whole)
        known = there.numpy()
        for name in REGIONS:
            inside = (mass * torch.from_numpy(getattr(regions, name)[part])).sum((1, 2)).double().numpy()
            share[name][part] = np.where(known, inside, np.nan)
        highest = whole.flatten(1).argmax(1).numpy()
        lesion = regions.lesion[part].reshape(len(highest), -1)
        pointed = lesion[np.arange(len(highest)), highest].astype(float)
        hit[part] = np.where(known & lesion.any(1), pointed, np.nan)
    area = {name: getattr(regions, name).mean((1, 2)) for name in REGIONS}
    return Located(share, area, hit)


def top_pixels(maps: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of the highest fifth of signed maps (n, h, w) at the size of the images, (n, H, W)."""
    whole = enlarged(torch.from_numpy(maps).float(), size).flatten(1)
    count = max(1, round(TOP * whole.shape[1]))
    chosen = torch.zeros_like(whole, dtype=torch.bool)
    chosen.scatter_(1, whole.topk(count, dim=1).indices, True)
    found: NDArray[np.bool_] = chosen.view(-1, *size).numpy()
    return found


def deletion(
    score: Callable[[Tensor, Ints], Tensor], images: Tensor, maps: Floats, rows: Ints, partner: Ints
) -> tuple[Floats, Floats]:
    """How far a score falls when a map's top fifth is smoothed away, and when another image's map's is.

    The second is the null: a place of the same form that was not chosen for this image.

    Args:
        score: Scores of images (n, C, H, W), given their row numbers; (n,).
        images: Shape (n, C, H, W), in [0, 1].
        maps: Signed maps of all images, shape (N, h, w).
        rows: Row numbers of `images` among all, shape (n,).
        partner: Row number of another image of the same kind for each image of all, shape (N,).

    Returns:
        The fall with the own map and with the partner's, each of shape (n,).
    """
    size = (images.shape[-2], images.shape[-1])
    smooth = blurred(images, max(1, size[0] // 8))
    with torch.no_grad():
        before = score(images, rows)
        falls = []
        for chosen in (maps[rows], maps[partner[rows]]):
            where = torch.from_numpy(top_pixels(chosen, size)).to(images.device)[:, None]
            falls.append((before - score(torch.where(where, smooth, images), rows)).cpu().double().numpy())
    return falls[0], falls[1]


def blurred(images: Tensor, reach: int) -> Tensor:
    """Images (N, C, H, W) averaged over squares of 2 * reach + 1 pixels, mirrored at the border."""
    reach = min(reach, images.shape[-1] - 1, images.shape[-2] - 1)
    side = 2 * reach + 1
    across = avg_pool2d(pad(images, (reach,) * 4, mode="reflect"), (1, side), stride=1)
    return avg_pool2d(across, (side, 1), stride=1)


def partners(cells: Ints, patients: Ints, *, seed: int) -> Ints:
    """For each image another one of the same kind (group and label) and, where there is one, another patient.

    Args:
        cells: Kind of each image, shape (n,).
        patients: Shape (n,).
        seed: Of the draw.

    Returns:
        Row numbers, shape (n,); an image that is the only one of its kind is its own partner.
    """
    rng = np.random.default_rng(seed)
    found = np.arange(len(cells))
    for cell in np.unique(cells):
        rows = rng.permutation(np.flatnonzero(cells == cell))
        shift = np.roll(rows, 1)
        for step in range(2, min(len(rows), 8)):
            same = patients[rows] == patients[shift]
            shift[same] = np.roll(rows, step)[same]
        found[rows] = shift
    return found
