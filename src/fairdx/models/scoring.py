"""The only inference loop: images in order, through anything, in batches."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.models.diagnosis import Diagnosis
from fairdx.models.loading import TaskImages, to_unit_range
from fairdx.models.processes import count, in_turn, whole_batch

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


def blocks_of(indices: NDArray[np.int64], size: int = BATCH) -> list[NDArray[np.int64]]:
    """Returns indices of images in blocks, in order.

    Args:
        indices: Shape (n,).
        size: Images in a block.
    """
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def apply_to(
    function: Callable[[Tensor], tuple[Tensor, ...]],
    images: TaskImages,
    indices: NDArray[np.int64],
    place: Place,
    *,
    size: int = BATCH,
    title: str | None = None,
) -> tuple[NDArray[np.float64], ...]:
    """Applies a function to images of a data set, in order; every process has to call it.

    Processes take blocks in turn, and each gets what all made. A block holds the same images as it would in
    one process: so do the results, bit for bit.

    Args:
        function: Maps images (n, C, H, W) in [0, 1] to tensors with n rows each.
        images: Where the images are.
        indices: Which of them, shape (n,).
        place: Device and precision.
        size: Images in a block.
        title: What to call the work where progress is shown.

    Returns:
        As `apply`.
    """
    blocks = in_turn(blocks_of(indices, size))

    def shared(image: Tensor) -> tuple[Tensor, ...]:
        # Processes exchange the same number of rows: those that are missing of the last block are cut below.
        rows = (tensor.float() for tensor in function(image))
        return tuple(whole_batch(_filled(own, size) if count() > 1 else own) for own in rows)

    made = apply(shared, map(images.dataset.read, blocks), place, title=title, total=len(blocks))
    return tuple(column[: len(indices)] for column in made)


def _filled(rows: Tensor, size: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])


class Seen(NamedTuple):
    """What a diagnosis model makes of images, kept to be looked at again."""

    embedding: NDArray[np.float32] | None
    """E, shape (n, D); None where the model shows none."""
    logit: NDArray[np.float32]
    """Class logits, shape (n, classes)."""
    statistics: NDArray[np.float32] | None = None
    """Of the maps of layers on the way, shape (n, M); None where nobody watched them."""


def diagnose(
    diagnosis: Callable[[Tensor], Diagnosis], images: TaskImages, indices: NDArray[np.int64], place: Place
) -> Seen:
    """Diagnoses images in order; every process has to call it.

    Args:
        diagnosis: Maps images (N, C, H, W) in [0, 1] to a diagnosis.
        images: Where the images are.
        indices: Which of them, shape (n,); at least one.
        place: Device and precision.
    """
    shown: list[str] = []

    def columns(image: Tensor) -> tuple[Tensor, ...]:
        parts = diagnosis(image).parts()
        shown[:] = parts
        return tuple(parts.values())

    found = apply_to(columns, images, indices, place)
    made = {name: column.astype(np.float32) for name, column in zip(shown, found, strict=True)}
    return Seen(made.get("embedding"), made["logit"], made.get("statistics"))


def check_numbers(
    rows: NDArray[Any], images: TaskImages, indices: NDArray[np.int64], *, whose: str, what: str, kind: str
) -> None:
    """Refuses what a model makes of images where it is no number.

    Args:
        rows: What it makes of them, shape (n, columns).
        images: Where the images are.
        indices: Which of them, shape (n,).
        whose: Who asked, for the message.
        what: What the numbers are.
        kind: Which images these are.

    Raises:
        InputError: A number is missing or infinite; the message names the first image.
    """
    lost = ~np.isfinite(rows).all(axis=1)
    if lost.any():
        image = images.dataset.table["image"].iloc[indices[int(lost.argmax())]]
        raise InputError(
            f"`{whose}`: the model gives no number as its {what} for {lost.sum()} of {len(rows)} {kind} "
            f"images, the first {image}: look at it and at the model's `contract`, or leave such images out "
            "when the data are prepared"
        )


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
            shown = {name: tensor(rows, start) for name, rows in seen._asdict().items() if rows is not None}
            logit = corrected(Diagnosis.of(shown))
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
    """Scores images in order; every process has to call it.

    Args:
        logits: Maps images (N, C, H, W) in [0, 1] to class logits (N, classes).
        images: Where the images are.
        indices: Which of them, shape (n,).
        place: Device and precision.
        batch_size: Images scored at once.

    Returns:
        Class probabilities, shape (n, classes).
    """
    found = apply_to(
        lambda image: (logits(image).float().softmax(1),), images, indices, place, size=batch_size
    )
    return found[0] if found else np.empty((0, 0))
