"""Whether an exported program does what the model in PyTorch does, measured before it is kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.deploy.program import Content
from fairdx.models.card import ModelCard, Range
from fairdx.models.rules import changed_scores, decided
from fairdx.models.runtime import TrainerSettings, derive_seed, make_fabric
from fairdx.models.scoring import apply
from fairdx.models.store import StoredModel

IMAGES: Final = 256
TOLERANCE: Final = 1e-4
"""Largest difference of a score, or of a masked pixel, with which an export is kept."""
_BATCH: Final = 17
Run = Callable[[Tensor], tuple[Tensor, ...]]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """Images to compare on.

    Attributes:
        images: uint8, shape (n, C, H, W).
        kind: Where they are from.
    """

    images: NDArray[np.uint8]
    kind: Literal["validation", "noise"]


@dataclass(frozen=True)
class Outcome:
    """How a program differs from PyTorch; see `ExportCard`."""

    largest_difference: float
    equal_decisions: float
    equal_to_measured: float | None

    def check(self, what: str) -> None:
        """Refuses a program that is not the model.

        Raises:
            InputError: It differs by more than `TOLERANCE`, or decides otherwise.
        """
        if not self.largest_difference <= TOLERANCE:  # so that NaN is refused, too
            raise InputError(
                f"the {what} export is not kept: it differs from PyTorch by {self.largest_difference:.2g}, "
                f"and at most {TOLERANCE:g} is allowed; try another format or opset"
            )
        if self.equal_decisions < 1:
            raise InputError(
                f"the {what} export is not kept: it decides {1 - self.equal_decisions:.1%} of the images "
                "otherwise than PyTorch; try another format or opset"
            )


def validation_images(dataset: PreparedDataset, count: int = IMAGES) -> Samples:
    """Returns validation images, evenly spaced; of a set without any, of all its images.

    Args:
        dataset: The data set.
        count: How many at most.
    """
    split = dataset.table["split"].to_numpy()
    rows = np.flatnonzero(split == "validation")
    if len(rows) == 0:
        rows = np.arange(len(split))
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(np.int64)]
    return Samples(dataset.read(chosen), "validation")


def noise(card: ModelCard, count: int = IMAGES) -> Samples:
    """Draws images whose mean and spread are those of the training images, always the same.

    Args:
        card: Its `familiar` has the ranges.
        count: How many.
    """
    random = np.random.default_rng(derive_seed("export", card.image.size, card.image.channels))
    image, missing = card.image, Range(low=0.2, high=0.6)
    mean, spread = (
        random.uniform(known.low, known.high, (count, 1, 1, 1))
        for known in (card.familiar.get(name, missing) for name in ("mean", "spread"))
    )
    blocks = -(-image.size // 8)
    coarse = random.normal(size=(count, image.channels, blocks, blocks)).repeat(8, axis=2).repeat(8, axis=3)
    fine = random.normal(size=(count, image.channels, image.size, image.size))
    texture = (coarse[:, :, : image.size, : image.size] + fine) / np.sqrt(2)
    drawn = np.clip(mean + spread * texture, 0, 1)
    return Samples((drawn * 255).round().astype(np.uint8), "noise")


@dataclass(frozen=True)
class Reference:
    """What PyTorch makes of the images, in 32 bits on the CPU.

    Attributes:
        card: The model's card.
        content: What is compared.
        judge: The model behind the mask: masked images to class logits.
        samples: The images.
        outputs: What the program makes of them.
        measured: Decisions in the precision that the model was measured with, where that is another.
    """

    card: ModelCard
    content: Content
    judge: Callable[[Tensor], Tensor]
    samples: Samples
    outputs: tuple[Array, ...]
    measured: NDArray[np.int64] | None

    def compare(self, run: Run, outputs: int) -> Outcome:
        """Compares an exported program.

        Args:
            run: Images (N, C, H, W) to its outputs.
            outputs: How many of the reference's outputs it has.

        Raises:
            InputError: It does not run at this batch size.
        """
        try:
            found = _run(run, self.samples.images, "Compare")
        except Exception as error:  # each runtime has its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InputError(
                f"the exported model does not run on batches of 1 and {_BATCH} images ({reason}): its batch "
                "size is fixed"
            ) from error
        expected = self.outputs[:outputs]
        if [array.shape for array in found] != [array.shape for array in expected]:
            raise InputError("the exported model's outputs have other shapes than PyTorch's")
        difference = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        ours, theirs = self._decisions(expected[0]), self._decisions(found[0])
        return Outcome(
            difference,
            float((ours == theirs).all(0).mean()),
            None if self.measured is None else float((self.measured == theirs).all(0).mean()),
        )

    def _decisions(self, first: Array) -> NDArray[np.int64]:
        scores = first
        if self.content == "mask":  # what the model decides when it is shown these images
            blocks = (torch.from_numpy(part).float() for part in _parts(first))
            with torch.inference_mode():
                scores = torch.cat([self.judge(part).softmax(1) for part in blocks]).double().numpy()
        return _decisions(self.card, scores)


def reference_of(stored: StoredModel, program: Run, content: Content, samples: Samples) -> Reference:
    """Runs the model in PyTorch.

    Args:
        stored: The model, as it was measured; its module is left on the CPU.
        program: What is exported of it.
        content: What that is.
        samples: The images.
    """
    measured = None
    if stored.card.precision != "fp32":
        found = apply(lambda image: (stored.fair(image).softmax(1),), _parts(samples.images), stored.place)
        measured = _decisions(stored.card, found[0])
    stored.fair.cpu().to(memory_format=torch.contiguous_format)
    outputs = _run(program, samples.images, "Score with PyTorch")
    return Reference(stored.card, content, stored.fair.judge, samples, outputs, measured)


def _run(run: Run, images: NDArray[np.uint8], title: str) -> tuple[Array, ...]:
    place = make_fabric(TrainerSettings(device="cpu", precision="fp32"))
    return apply(run, _parts(images), place, title=title, total=1 + -(-(len(images) - 1) // _BATCH))


def _parts(images: NDArray[np.uint8] | Array) -> Iterator[NDArray[np.uint8]]:
    """One image alone, then batches of a size that no exporter has seen."""
    yield images[:1]  # type: ignore[misc]
    for start in range(1, len(images), _BATCH):
        yield images[start : start + _BATCH]  # type: ignore[misc]


def _decisions(card: ModelCard, scores: Array) -> NDArray[np.int64]:
    """Decisions (groups, n): under the card's rule in each group that it has to be told, else one row."""
    rule = card.rule
    if rule is None:
        return decided(card, scores)[None]
    rows = []
    for name in rule.changed:
        changed = changed_scores(rule, scores[:, 1], np.full(len(scores), name, dtype=object))
        rows.append(decided(card, np.stack([1 - changed, changed], axis=1)))
    return np.stack(rows)
