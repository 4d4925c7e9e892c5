"""The only inference loop: images in order, through anything, in batches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairdx.core.progress import Reporter
from fairdx.models.loading import TaskImages, to_unit_range

BATCH: Final = 512
"""Images scored at once. Another number rounds otherwise: scores are equal bit for bit at the same one."""


class Place(Protocol):
    """Where to compute, and how exactly: a `lightning_fabric.Fabric` is one."""

    @property
    def device(self) -> torch.device:
        """Where to compute."""

    def autocast(self) -> AbstractContextManager[None]:
        """Returns the context of its precision."""


def apply(
    function: Callable[[Tensor], tuple[Tensor, ...]],
    blocks: Iterable[NDArray[np.uint8]],
    place: Place,
    *,
    title: str | None = None,
    total: int = 0,
) -> tuple[NDArray[np.float64], ...]:
    """Applies a function of images to blocks of them, in order.

    Args:
        function: Maps images (n, C, H, W) in [0, 1] to tensors with n rows each.
        blocks: uint8 images of shape (n, C, H, W).
        place: Device and precision.
        title: What to call the work where progress is shown.
        total: How many blocks there are, for the progress.

    Returns:
        What the function makes of all images: one array for each of its tensors, none without images.
    """
    parts: list[tuple[Tensor, ...]] = []
    bar = Reporter(title or "", total, enabled=title is not None)
    with bar, torch.inference_mode(), place.autocast():
        for block in blocks:
            made = function(to_unit_range(block, place.device))
            parts.append(tuple(tensor.float().cpu() for tensor in made))
            bar.advance()
    return tuple(torch.cat(column).double().numpy() for column in zip(*parts, strict=True))


def blocks_of(
    images: TaskImages, indices: NDArray[np.int64], size: int = BATCH
) -> Iterator[NDArray[np.uint8]]:
    """Yields images of a data set in blocks.

    Args:
        images: Where they are.
        indices: Which, in order, shape (n,).
        size: Images in a block.
    """
    for start in range(0, len(indices), size):
        yield images.dataset.read(indices[start : start + size])


def predict(
    logits: Callable[[Tensor], Tensor],
    images: TaskImages,
    indices: NDArray[np.int64],
    place: Place,
    *,
    batch_size: int = BATCH,
) -> NDArray[np.float64]:
    """Scores images in order.

    Args:
        logits: Maps images (N, C, H, W) in [0, 1] to class logits (N, classes).
        images: Where the images are.
        indices: Which of them, shape (n,).
        place: Device and precision.
        batch_size: Images scored at once.

    Returns:
        Class probabilities, shape (n, classes).
    """
    found = apply(
        lambda image: (logits(image).float().softmax(1),), blocks_of(images, indices, batch_size), place
    )
    return found[0] if found else np.empty((0, 0))
