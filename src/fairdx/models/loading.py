"""Batches of a prepared data set: read ahead in the background, in an order that seed and epoch determine."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairdx.data.base import Batch, PreparedDataset
from fairdx.data.task import Task


@dataclass(frozen=True)
class TaskImages:
    """The images of one task.

    Attributes:
        dataset: Where the pixels are.
        task: Label and group of each image.
    """

    dataset: PreparedDataset
    task: Task

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Batch:
        """Returns the images `indices` with their labels and groups on `device`."""
        return self._to_device(indices, self.dataset.read(indices), device)

    def batches(self, indices: NDArray[np.int64], batch_size: int, device: torch.device) -> Iterator[Batch]:
        """Yields `indices` in batches, reading one ahead; a last, smaller batch is left out.

        BatchNorm and the shuffled pairs of the mutual-information term need batches of full size; the order
        changes with the epoch, so that the images left out do too.
        """
        starts = range(0, len(indices) - batch_size + 1, batch_size)
        parts = [indices[start : start + batch_size] for start in starts]
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self.dataset.read, part) for part in parts[:2]]
            for number, part in enumerate(parts):
                pixels = ahead.pop(0).result()
                if number + 2 < len(parts):
                    ahead.append(reader.submit(self.dataset.read, parts[number + 2]))
                yield self._to_device(part, pixels, device)

    def _to_device(
        self, indices: NDArray[np.int64], pixels: NDArray[np.uint8], device: torch.device
    ) -> Batch:
        return Batch(
            to_unit_range(pixels, device),
            torch.from_numpy(self.task.label[indices]).to(device),
            torch.from_numpy(self.task.group[indices]).to(device),
            torch.from_numpy(indices).to(device),
        )


def to_unit_range(pixels: NDArray[np.uint8 | np.floating], device: torch.device) -> Tensor:
    """Returns images as the networks take them: float32 in [0, 1], channels last, on `device`.

    Args:
        pixels: uint8 of shape (N, C, H, W), or floats that are in [0, 1] already.
        device: Where to.
    """
    image = torch.from_numpy(pixels).to(device, non_blocking=True)
    whole = image.to(torch.float32, memory_format=torch.channels_last)
    return whole if image.is_floating_point() else whole.div_(255)
