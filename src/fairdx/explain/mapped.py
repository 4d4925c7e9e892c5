"""Maps of what a model answers, for many images: by gradients, and by covering."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fairdx.explain.maps import grad_cam, occlusion
from fairdx.explain.subject import ADVERSARY, DIAGNOSIS, GROUP, LOT, Answers, Asked, Subject
from fairdx.methods.fair_diagnosis import log_odds
from fairdx.metrics.inputs import Floats, Ints
from fairdx.models.layers import SpatialLayer, choose_layer


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
        sample = asked.batch(_spread(len(asked.indices)))
        masked = subject.fair.masked(sample[0])
        network = subject.behind
        at = choose_layer(network, network, masked, name=layer, smallest=smallest)
        places: dict[str, tuple[nn.Module, SpatialLayer]]
        places = dict.fromkeys(names or _questions(subject), (network, at))
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
