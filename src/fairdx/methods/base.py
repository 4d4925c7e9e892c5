"""What a method is: stages, and in each stage players that learn, each on its own loss.

A method says who is trained when and on which loss; `fairdx.training.fit.fit`, the only loop, does the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from fairdx.core.config import Config
from fairdx.core.registry import Registry
from fairdx.data.base import Batch
from fairdx.models.networks import Diagnoser, Encoder
from fairdx.models.runtime import derive_seed, isolated_rng

Losses = dict[str, Tensor]
"""Named scalar terms of a loss; `total` is the one that is minimised."""

Gradients = list[Tensor | None]
"""One gradient for each parameter that learns; None where a loss does not depend on it."""

Schedule = Literal["constant", "step", "cosine"]

Scores = NDArray[np.float64]
"""Class probabilities, shape (n, classes)."""

Rule = Callable[[Scores, NDArray[np.int64]], Scores]
"""Maps scores and groups, codes of shape (n,), to other scores."""


class Spec(NamedTuple):
    """What a method must know of the data."""

    channels: int
    """Channels of the images, 1 or 3."""
    size: int
    """Height and width in pixels."""
    classes: int
    """Classes of the label Y."""
    groups: int
    """Groups of the sensitive attribute S."""
    counts: tuple[tuple[int, ...], ...] = ()
    """Training images by class (rows) and group (columns); empty where they are not known."""


@dataclass(frozen=True)
class Player:
    """Someone who learns in a stage.

    Attributes:
        name: For logs; the loss terms are reported as `name/term`.
        modules: Names of the stage's modules that learn; while they do, everything else is frozen.
        loss: Maps (batch, result of the stage's shared forward pass) to named terms with their `total`.
        learning_rate: Adam's step size at the start.
        weight_decay: Decoupled weight decay.
        updates: Steps for each batch.
        through_shared: Whether the loss is differentiated through the shared forward pass. At most one player
            of a stage can be, and it moves last; the others see the result detached.
        combine: Makes the direction of the step from two gradients, that of `total` and that of a second term
            `opponent`; without it the step follows `total` alone.
    """

    name: str
    modules: tuple[str, ...]
    loss: Callable[[Batch, Any], Losses]
    learning_rate: float
    weight_decay: float = 0.0
    updates: int = 1
    through_shared: bool = False
    combine: Callable[[Gradients, Gradients], Gradients] | None = None


@dataclass(frozen=True)
class Stage:
    """One phase of training, from given weights to the best epoch's weights.

    Attributes:
        name: For logs and folders.
        modules: Every network that the stage touches, learning or frozen, by name.
        players: Who learns, in the order of their moves on each batch.
        epochs: Passes over the training images.
        batch_size: Images in a batch.
        logits: The model whose validation scores choose the best epoch: images to class logits.
        choose: `auroc`: the highest AUROC. `fairness`: the lowest ADF, averaged over operating points and
            judged on training images as well where there are few validation images, among the epochs whose
            AUROC and balanced accuracy are at most `budget` below those before training; of those in which it
            is within chance, the one with the highest AUROC. `last`: the last.
        config: Everything that the result depends on besides data and seed; its hash is the stage's key.
        shared: One forward pass whose result all players use; a NamedTuple of tensors.
        progress: Told before each batch how much of the stage is done, from 0 to below 1; for weights that
            change while it lasts.
        schedule: `step` divides the step size by ten after 60 % and 85 % of the epochs.
        average: Names of the modules that are judged and kept as a moving average of their weights.
        average_decay: Weight of the past in that average, for each step.
        budget: See `choose`; a fraction.
    """

    name: str
    modules: Mapping[str, nn.Module]
    players: tuple[Player, ...]
    epochs: int
    batch_size: int
    logits: Callable[[Tensor], Tensor]
    choose: Literal["auroc", "fairness", "last"]
    config: Mapping[str, Any]
    shared: Callable[[Batch], Any] | None = None
    progress: Callable[[float], None] | None = None
    schedule: Schedule = "cosine"
    average: tuple[str, ...] = ()
    average_decay: float = 0.99
    budget: float = 0.01

    def __post_init__(self) -> None:
        """Checks that the players can be played as described."""
        through = [player.through_shared for player in self.players]
        if sum(through) > 1 or any(through[:-1]):
            raise ValueError(
                f"stage `{self.name}`: only the last player can learn through the shared forward pass"
            )
        for name in (*self.average, *(m for player in self.players for m in player.modules)):
            if name not in self.modules:
                raise ValueError(
                    f"stage `{self.name}` has no module `{name}`, only {', '.join(self.modules)}"
                )


class PretrainingConfig(Config):
    """Stage 1, shared by all methods: the model that is then deployed (Sec. 3.1)."""

    encoder: str = "resnet18"
    """Backbone, by its name in timm."""
    weights: str | None = None
    """`pretrained` for the weights of timm (a download), or the path of a local file of weights."""
    epochs: int = Field(6, ge=0)
    """Not in the paper; enough for the phantom to level off."""
    batch_size: int = Field(128, ge=2)
    """Not in the paper."""
    learning_rate: float = Field(1e-3, gt=0)
    """The paper has 1e-4 (A.1); from random weights on small images that is far from done in a few epochs."""
    weight_decay: float = Field(0.01, ge=0)
    """Not in the paper; AdamW's usual value."""
    mutual_information: float = Field(0.1, ge=0)
    """Weight of the Jensen-Shannon term (Eqs. 5 and 6); not in the paper. 0 leaves the critic out."""
    schedule: Schedule = "cosine"
    """The paper has a step schedule (A.1)."""


class MethodConfig(Config):
    """Settings that every method has."""

    pretraining: PretrainingConfig = PretrainingConfig()
    """Stage 1."""


class Method(ABC):
    """A way of making a fair diagnosis model: networks, and stages in which they learn.

    Subclasses are final, hold their own networks, and register themselves in `METHODS`.

    Attributes:
        config_class: The method's typed configuration.
        presets: Named changes to the defaults, for configuration files.
        needs_group: Whether the finished model has to be told the group S of whoever it diagnoses.
        diagnoser: The diagnosis model; what `pretrain` leaves in it is what `vanilla` reports.
    """

    config_class: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    needs_group: ClassVar[bool] = False
    diagnoser: Diagnoser

    @classmethod
    def build(cls, config: MethodConfig, spec: Spec, *, seed: int) -> Self:
        """Builds the method with weights from the seed alone; the global generator stays as it was.

        Args:
            config: An instance of `config_class`.
            spec: What the data look like.
            seed: Seed of the initial weights.
        """
        with isolated_rng(derive_seed(seed, "weights")):
            return cls(config, spec)

    @abstractmethod
    def __init__(self, config: Any, spec: Spec) -> None:
        """Builds the networks; use `build` for weights that depend on a seed."""

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """Returns the stages in order; the first is that of `fairdx.methods.pretraining`."""

    @abstractmethod
    def logits(self, image: Tensor) -> Tensor:
        """Returns the finished model's class logits (N, classes) for images (N, C, H, W) in [0, 1]."""

    def masked(self, image: Tensor) -> Tensor:
        """Returns what the diagnosis model is shown: the image itself, unless the method masks it."""
        return image

    def adjust(
        self, scores: Scores, label: NDArray[np.int64], group: NDArray[np.int64], *, seed: int
    ) -> Rule | None:
        """Fits a rule that changes the finished model's scores, for methods that work after training.

        Args:
            scores: Of the validation images, shape (n, classes).
            label: Their labels Y, shape (n,).
            group: Their groups S, shape (n,).
            seed: Seed of a rule that draws lots.

        Returns:
            The rule, whose scores have their threshold at 0.5; None where scores stay as they are.
        """
        del scores, label, group, seed
        return None


METHODS: Registry[type[Method]] = Registry("method")


def build_diagnoser(config: PretrainingConfig, spec: Spec) -> Diagnoser:
    """Builds encoder and head of stage 1."""
    encoder = Encoder(config.encoder, channels=spec.channels, size=spec.size, weights=config.weights)
    return Diagnoser(encoder, spec.classes)
