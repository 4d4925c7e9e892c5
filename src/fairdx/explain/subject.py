"""A model that is looked at: what it is shown, what it answers, and what is asked of it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fairdx.explain.probe import Probe, dealt_groups, fit_probes
from fairdx.metrics.inputs import Floats, Ints
from fairdx.models.capture import as_found
from fairdx.models.diagnosis import Diagnosis
from fairdx.models.fair import FairModel
from fairdx.models.loading import TaskImages, to_unit_range
from fairdx.models.networks import Discriminator

DIAGNOSIS, GROUP, ADVERSARY = "diagnosis", "group", "adversary"
"""Maps: of Y^; of S^ by the probe; of S^ by the method's own d_Y."""
LOT: Final = "lot "
"""Before the number of a dealt group, in the name of its map."""
BATCH: Final = 64


@dataclass(frozen=True)
class Subject:
    """A model with what it was trained against.

    Attributes:
        name: Name of the method.
        fair: The model.
        discriminator: Its d_Y, if it has one.
        threshold: Positive from this probability on; None: the most probable class.
    """

    name: str
    fair: FairModel
    discriminator: Discriminator | None = None
    threshold: float | None = None

    @cached_property
    def behind(self) -> FairModel:
        """The model without its mask: what takes masked images."""
        fair = self.fair
        return FairModel(
            fair.model,
            correction=None if fair.realisation else fair.correction,
            temperature=fair.temperature,
            views=fair.views,
        )

    def guess(self, image: Tensor, diagnosis: Diagnosis, label: Tensor) -> Tensor:
        """Returns logits of the group by d_Y, (N, groups), for masked images."""
        assert self.discriminator is not None
        known = label if self.discriminator.classes > 1 else torch.zeros_like(label)
        guess: Tensor = self.discriminator(image, diagnosis, known)
        return guess.float()

    def as_found(self) -> AbstractContextManager[None]:
        """Evaluates model and d_Y inside the `with` block and gives back their modes and the random state."""
        return as_found(self.fair, *([] if self.discriminator is None else [self.discriminator]))

    @property
    def adversary_network(self) -> nn.Module | None:
        """Where d_Y's map is made: on the encoder where d_Y sees what that makes, else in d_Y itself."""
        if self.discriminator is None:
            return None
        views = set(self.discriminator.views)
        return self.behind if views & {"embedding", "logit"} else self.discriminator


@dataclass(frozen=True)
class Answers:
    """What a model answers on a set of images.

    Attributes:
        logit: Class logits, shape (n, classes).
        decision: Y^, shape (n,).
        group_logit: S^ by the probe, out of fold, shape (n, groups).
        probe: The probe.
        probe_sees: Whether it looks at the embedding or, of a model that shows none, at the logits.
        dealt: The same of groups that were dealt by lot.
    """

    logit: Floats
    decision: Ints
    group_logit: Floats
    probe: Probe
    probe_sees: str
    dealt: tuple["Lot", ...] = ()

    def asked_of(self, name: str) -> tuple[Probe, Ints]:
        """The probe behind the map `group`, or of a dealt group, and what it guesses, shape (n,)."""
        if name == GROUP:
            return self.probe, self.group_logit.argmax(1)
        found = self.dealt[int(name.removeprefix(LOT))]
        return found.probe, found.guess


@dataclass(frozen=True)
class Lot:
    """Groups that were dealt by lot, and what is found of them.

    Attributes:
        group: Codes, shape (n,).
        probe: The probe of these groups.
        guess: What it guesses out of fold, shape (n,).
    """

    group: Ints
    probe: Probe
    guess: Ints


@dataclass(frozen=True)
class Asked:
    """The images that are explained.

    Attributes:
        images: Where they are.
        indices: Which, shape (n,).
        patients: Code of the patient of each, shape (n,).
        seed: Of folds, partners and choices.
        device: Where to compute.
    """

    images: TaskImages
    indices: Ints
    patients: Ints
    seed: int
    device: torch.device

    @property
    def label(self) -> Ints:
        """Y, shape (n,)."""
        return self.images.task.label[self.indices]

    @property
    def group(self) -> Ints:
        """S, shape (n,)."""
        return self.images.task.group[self.indices]

    @property
    def cells(self) -> Ints:
        """Code of group and label, shape (n,)."""
        return self.group * len(self.images.task.class_names) + self.label

    def batch(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """Returns images (N, C, H, W) in [0, 1] and labels (N,) of some of the rows."""
        image = to_images(self.images.dataset.read(self.indices[rows]), self.device)
        return image, torch.from_numpy(self.label[rows]).to(self.device)

    def rows(self) -> list[Ints]:
        """Returns the row numbers in batches."""
        n = len(self.indices)
        return [np.arange(start, min(start + BATCH, n)) for start in range(0, n, BATCH)]


def to_images(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Returns images in [0, 1] as explaining takes them: on a CPU row by row, as `row_by_row` has weights."""
    image = to_unit_range(pixels, device)
    # By way of one row: of a single channel both orders look alike, and `contiguous` alone changes nothing.
    return image.contiguous().view(-1).view(image.shape) if device.type == "cpu" else image


def row_by_row(module: nn.Module) -> None:
    """Lays weights out row by row where the module is on a CPU: gradients then take half the time.

    Training and loading have channels last. The values are the same, results are so up to rounding.
    """
    for parameter in module.parameters():
        if parameter.device.type == "cpu":
            parameter.data = parameter.data.contiguous()


@torch.no_grad()
def answer(
    subject: Subject,
    asked: Asked,
    advance: Callable[[int], None],
    *,
    probe: Probe | None = None,
    deals: int = 0,
    look: Callable[[Ints, Tensor, Tensor], None] | None = None,
) -> Answers:
    """Diagnoses the images, and fits the probe.

    Args:
        subject: The model.
        asked: The images.
        advance: Told how many images are done.
        probe: One that is fitted already, with the folds of these images.
        deals: How often groups are dealt by lot.
        look: Shown the row numbers of each batch, its images, and what the model is shown instead.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    sees = "embedding"
    with subject.as_found():
        for rows in asked.rows():
            image, _ = asked.batch(rows)
            masked = subject.fair.masked(image)
            if look is not None:
                look(rows, image, masked)
            found = subject.behind.diagnose(masked)
            sees = "logit" if found.embedding is None else "embedding"
            seen = found.logit if found.embedding is None else found.embedding
            parts.append((found.logit.float().cpu(), seen.float().cpu()))
            advance(len(rows))
    logit, seen = (torch.cat(column) for column in zip(*parts, strict=True))
    seen, dealt = seen.double(), []
    if probe is None:
        groups = dealt_groups(asked.label, asked.group, asked.patients, count=deals, seed=asked.seed)
        probe, *others = _probes(asked, seen, [asked.group, *groups])
        dealt = [
            Lot(group, one, _guesses(asked, seen, one).argmax(1))
            for group, one in zip(groups, others, strict=True)
        ]
    return Answers(
        logit.double().numpy(),
        decide(logit, subject.threshold),
        _guesses(asked, seen, probe),
        probe,
        sees,
        tuple(dealt),
    )


def _probes(asked: Asked, seen: Tensor, groupings: Sequence[Ints]) -> list[Probe]:
    task = asked.images.task
    return fit_probes(
        seen.numpy(),
        asked.label,
        groupings,
        asked.patients,
        classes=len(task.class_names),
        groups=len(task.group_names),
        seed=asked.seed,
    )


def _guesses(asked: Asked, seen: Tensor, probe: Probe) -> Floats:
    """Logits of the group, out of fold, shape (n, groups)."""
    found = probe.logits(seen, torch.from_numpy(asked.label), torch.from_numpy(probe.fold))
    return np.asarray(found.numpy())


def decide(logit: Tensor, threshold: float | None) -> Ints:
    """Returns Y^ of class logits (N, classes), shape (N,)."""
    score = logit.float().softmax(1)
    chosen = score.argmax(1) if threshold is None else (score[:, 1] >= threshold).long()
    return np.asarray(chosen.cpu().numpy(), dtype=np.int64)
