"""The only inference loop: images in order, through anything, in batches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairdx.core.progress import Reporter
from fairdx.models.diagnosis import Diagnosis
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


class Seen(NamedTuple):
    """What a diagnosis model makes of images, kept to be looked at again."""

    embedding: NDArray[np.float32] | None
    """E, shape (n, D); None where the model shows none."""
    logit: NDArray[np.float32]
    """Class logits, shape (n, classes)."""


def diagnose(
    diagnosis: Callable[[Tensor], Diagnosis], images: TaskImages, indices: NDArray[np.int64], place: Place
) -> Seen:
    """Diagnoses images in order.

    Args:
        diagnosis: Maps images (N, C, H, W) in [0, 1] to embedding and logits.
        images: Where the images are.
        indices: Which of them, shape (n,); at least one.
        place: Device and precision.
    """

    def columns(image: Tensor) -> tuple[Tensor, ...]:
        found = diagnosis(image)
        return (found.logit,) if found.embedding is None else (found.logit, found.embedding)

    logit, *rest = apply(columns, blocks_of(images, indices), place)
    return Seen(rest[0].astype(np.float32) if rest else None, logit.astype(np.float32))


def predict_seen(corrected: Callable[[Diagnosis], Tensor], seen: Seen, place: Place) -> NDArray[np.float64]:
    """Scores images by what a model made of them: the scores of `predict`, bit for bit.

    Args:
        corrected: Maps embedding and logits to class logits (N, classes).
        seen: What the model made of the images.
        place: Device and precision.

    Returns:
        Class probabilities, shape (n, classes).
    """

    def tensor(values: NDArray[np.float32], start: int) -> Tensor:
        return torch.from_numpy(values[start : start + BATCH]).to(place.device)

    parts = []
    with torch.inference_mode(), place.autocast():
        for start in range(0, len(seen.logit), BATCH):
            embedding = None if seen.embedding is None else tensor(seen.embedding, start)
            logit = corrected(Diagnosis(embedding, tensor(seen.logit, start)))
            parts.append(logit.float().softmax(1).cpu())
    return torch.cat(parts).double().numpy()


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
