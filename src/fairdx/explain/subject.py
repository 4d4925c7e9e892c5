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

from fairdx.explain.capture import as_found
from fairdx.explain.layers import SpatialLayer, choose_layer
from fairdx.explain.maps import grad_cam, occlusion
from fairdx.explain.probe import Probe, dealt_groups, fit_probes
from fairdx.methods.fair_diagnosis import log_odds
from fairdx.metrics.inputs import Floats, Ints
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


@dataclass(frozen=True)
class Maps:
    """Signed maps of one question on all images.

    Attributes:
        name: `diagnosis`, `group`, `adversary`, or `lot` and the number of a dealt group.
        values: Shape (n, h, w), float32.
        layer: Where they were made, in words.
    """

    name: str
    values: Floats
    layer: str


def gradient_maps(
    subject: Subject,
    asked: Asked,
    answers: Answers,
    *,
    layer: str | None,
    smallest: int,
    advance: Callable[[int], None],
    names: Sequence[str] | None = None,
) -> dict[str, Maps]:
    """Grad-CAM of Y^ and of S^ at the last spatial layer, on what the model is shown.

    What is explained is the log-odds of the class that the model decides for, and of the group that the probe
    or d_Y guesses, as in the paper's figure.

    Args:
        subject: The model.
        asked: The images.
        answers: From `answer`.
        layer: Name of the layer; the last spatial one by default.
        smallest: Cells along a side that the layer needs.
        advance: Told how many images are done.
        names: Which maps; by default all but those of dealt groups.

    Raises:
        InputError: No layer is spatial.
    """
    with subject.as_found(), torch.no_grad():  # gradients begin at the layer
        return _gradient_maps(subject, asked, answers, layer, smallest, advance, names or _questions(subject))


def _gradient_maps(
    subject: Subject,
    asked: Asked,
    answers: Answers,
    layer: str | None,
    smallest: int,
    advance: Callable[[int], None],
    names: Sequence[str],
) -> dict[str, Maps]:
    sample = asked.batch(_spread(len(asked.indices)))
    masked = subject.fair.masked(sample[0])
    network = subject.behind
    at = choose_layer(network, network, masked, name=layer, smallest=smallest)
    places: dict[str, tuple[nn.Module, SpatialLayer]]
    places = dict.fromkeys(names, (network, at))
    other = subject.adversary_network
    if ADVERSARY in places and other is not None and other is not network:
        places[ADVERSARY] = (other, _own_layer(subject, masked, sample[1], smallest))
    questions = Questions(subject, answers, asked)
    parts: dict[str, list[Tensor]] = {name: [] for name in places}
    for rows in asked.rows():
        image, label = asked.batch(rows)
        masked = subject.fair.masked(image)
        for name, found in _in_passes(places, questions, rows, masked, label):
            parts[name].append(found.cpu())
        advance(len(rows))
    return {
        name: Maps(name, torch.cat(found).numpy(), places[name][1].describe())
        for name, found in parts.items()
    }


def _questions(subject: Subject) -> list[str]:
    return [DIAGNOSIS, GROUP] + ([] if subject.discriminator is None else [ADVERSARY])


def _in_passes(
    places: dict[str, tuple[nn.Module, SpatialLayer]],
    questions: "Questions",
    rows: Ints,
    masked: Tensor,
    label: Tensor,
) -> Sequence[tuple[str, Tensor]]:
    """The maps of a batch; questions that are asked at the same layer share a forward pass."""
    made: list[tuple[str, Tensor]] = []
    for network, layer in {id(pair[0]): pair for pair in places.values()}.values():
        names = [name for name, pair in places.items() if pair[0] is network]
        scores = questions.scores(names, rows, label)
        made += zip(names, grad_cam(network, layer, scores, masked), strict=True)
    return made


def occlusion_maps(
    subject: Subject,
    asked: Asked,
    answers: Answers,
    *,
    cells: int,
    advance: Callable[[int], None],
    deals: int = 0,
) -> dict[str, Maps]:
    """Occlusion of the same questions, without any gradient or layer: the second opinion.

    Args:
        subject: The model.
        asked: The images.
        answers: From `answer`.
        cells: Squares along a side.
        advance: Told how many images are done.
        deals: Of how many dealt groups there are to be maps as well.
    """
    names = _questions(subject) + [f"{LOT}{i}" for i in range(deals)]
    questions = Questions(subject, answers, asked)
    parts: list[tuple[Tensor, ...]] = []
    with subject.as_found(), torch.no_grad():
        for rows in asked.rows():
            image, label = asked.batch(rows)
            masked = subject.fair.masked(image)
            scores = questions.scores(names, rows, label)
            parts.append(tuple(f.cpu() for f in occlusion(subject.behind, scores, masked, cells=cells)))
            advance(len(rows))
    where = f"squares of the image, {cells} x {cells}"
    columns = zip(*parts, strict=True)
    return {name: Maps(name, torch.cat(c).numpy(), where) for name, c in zip(names, columns, strict=True)}


@dataclass(frozen=True)
class Questions:
    """The scores that are explained, as functions of masked images.

    Attributes:
        subject: The model.
        answers: What it answers.
        asked: The images.
    """

    subject: Subject
    answers: Answers
    asked: Asked

    def scores(self, names: Sequence[str], rows: Ints, label: Tensor) -> Callable[[Tensor], Sequence[Tensor]]:
        """Returns the function for a batch.

        Args:
            names: What is asked.
            rows: Row numbers of the batch.
            label: Their labels.
        """
        device = label.device
        decision = torch.from_numpy(self.answers.decision[rows]).to(device)
        fold = torch.from_numpy(self.answers.probe.fold[rows]).to(device)
        groups = {name: self.answers.asked_of(name) for name in names if name not in (DIAGNOSIS, ADVERSARY)}
        guessed = {name: torch.from_numpy(guess[rows]).to(device) for name, (_, guess) in groups.items()}
        first: list[Tensor] = []  # what d_Y guesses of the images as they are

        def ask(image: Tensor) -> list[Tensor]:
            found = self.subject.behind.diagnose(image)
            seen = found.logit if found.embedding is None else found.embedding
            made = []
            for name in names:
                if name == DIAGNOSIS:
                    made.append(odds_of(found.logit.float(), decision))
                elif name in groups:
                    of_group = groups[name][0].logits(seen.float(), label, fold)
                    made.append(odds_of(of_group, guessed[name]))
                else:
                    guess = self.subject.guess(image, found, label)
                    first.append(guess.detach().argmax(1))
                    made.append(odds_of(guess, first[0]))
            return made

        return ask


def odds_of(logit: Tensor, chosen: Tensor) -> Tensor:
    """Log-odds of each row's chosen class, shape (N,), of logits (N, classes)."""
    every = torch.stack([log_odds(logit, c) for c in range(logit.shape[1])], dim=1)
    return every.gather(1, chosen[:, None])[:, 0]


def _own_layer(subject: Subject, masked: Tensor, label: Tensor, smallest: int) -> SpatialLayer:
    """The last spatial layer of a d_Y that sees images alone."""
    assert subject.discriminator is not None
    with torch.no_grad():
        diagnosis = subject.behind.diagnose(masked)
    return choose_layer(
        subject.discriminator,
        lambda image: subject.guess(image, diagnosis, label),
        masked,
        smallest=smallest,
    )


def _spread(n: int) -> Ints:
    """A few rows from all over, to find the layer with."""
    return np.unique(np.linspace(0, n - 1, 4).astype(np.int64))
