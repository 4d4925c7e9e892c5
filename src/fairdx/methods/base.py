"""What a method is: stages, and in each stage players that learn, each on its own loss.

A method says who is trained when and on which loss; `fairdx.training.fit.fit`, the only loop, does the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fairdx.core.config import Config
from fairdx.core.errors import InputError
from fairdx.core.registry import Registry
from fairdx.data.base import Batch
from fairdx.models.card import RuleCard
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.fair import FairModel
from fairdx.models.networks import Discriminator
from fairdx.models.runtime import derive_seed, isolated_rng
from fairdx.models.views import Views

Losses = dict[str, Tensor]
"""Named scalar terms of a loss; `total` is the one that is minimised."""

Gradients = list[Tensor | None]
"""One gradient for each parameter that learns; None where a loss does not depend on it."""

Schedule = Literal["constant", "step", "cosine"]

Scores = NDArray[np.float64]
"""Class probabilities, shape (n, classes)."""


class Rule(Protocol):
    """Maps finished scores to other scores, for methods that work after training."""

    @property
    def threshold(self) -> float | None:
        """Where its scores decide; None leaves the choice to validation images, as for every other method."""

    @property
    def card(self) -> RuleCard | None:
        """The rule as numbers, for a model folder; None where it cannot be written down: a draw of lots."""

    def __call__(self, scores: Scores, group: NDArray[np.int64]) -> Scores:
        """Returns the changed scores, shape of `scores`, for groups given as codes of shape (n,)."""


class Features(NamedTuple):
    """What a diagnosis model makes of a split, for stages that are fitted in closed form."""

    embedding: NDArray[np.float64] | None
    """E, shape (n, D), and beside it the statistics of the maps that the method watches, (n, M); None where
    the model shows neither."""
    logit: NDArray[np.float64]
    """Class logits, shape (n, classes)."""
    label: NDArray[np.int64]
    """Y, shape (n,)."""
    group: NDArray[np.int64]
    """S, shape (n,)."""
    patient: NDArray[np.int64] | None = None
    """Whose image it is, as codes of shape (n,); None where every image is of another patient."""


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
    group_names: tuple[str, ...] = ()
    """Names of the groups, in the order of their codes; empty where they are not known."""


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
        rates: All parameters of `modules` in groups for the optimizer, each with `params` and what differs
            from the player's own `lr` and `weight_decay`; without it there is one group.
    """

    name: str
    modules: tuple[str, ...]
    loss: Callable[[Batch, Any], Losses]
    learning_rate: float
    weight_decay: float = 0.0
    updates: int = 1
    through_shared: bool = False
    combine: Callable[[Gradients, Gradients], Gradients] | None = None
    rates: Callable[[], list[dict[str, Any]]] | None = None


@dataclass(frozen=True)
class Stage:
    """One phase of training, from given weights to the best epoch's weights.

    Attributes:
        name: For logs and folders.
        modules: Every network that the stage touches, learning or frozen, by name.
        players: Who learns, in the order of their moves on each batch; none in a stage that is solved.
        epochs: Passes over the training images.
        batch_size: Images in a batch.
        accumulate_grad_batches: Batches that make one step, in each process; needs `shared`, and no batch
            norm that learns in it.
        logits: The model whose validation scores choose the best epoch: images to class logits.
        choose: `auroc`: the highest AUROC. `fairness`: the lowest ADF, averaged over operating points and
            judged on training images as well where there are few validation images, among the epochs whose
            AUROC and balanced accuracy are at most `budget` below those before training; of those in which it
            is within chance, the one with the highest AUROC. `last`: the last.
        config: Everything that the result depends on besides data and seed; its hash is the stage's key.
        shared: One forward pass whose result all players use; a NamedTuple of tensors with a row for each
            image. With several processes, losses get the rows of all of them, and the whole batch; without
            it each process has its own part alone, and gradients are averaged.
        looks_at_images: Whether losses look at images themselves, in the batch or in what is shared.
        progress: Told before each batch how much of the stage is done, from 0 to below 1; for weights that
            change while it lasts.
        schedule: `step` divides the step size by ten after 60 % and 85 % of the epochs.
        average: Names of the modules that are judged and kept as a moving average of their weights.
        average_decay: Weight of the past in that average, for each step.
        budget: See `choose`; a fraction.
        solve: Fits the modules to what the diagnosis model makes of the training and of the validation
            images, and may return what is to be recorded; for stages without players and epochs.
        features: Makes what `solve` sees of images.
        corrected: Makes logits of the same, where the modules change nothing that lies before it: images are
            then not diagnosed again to judge them.
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
    looks_at_images: bool = False
    progress: Callable[[float], None] | None = None
    schedule: Schedule = "cosine"
    average: tuple[str, ...] = ()
    average_decay: float = 0.99
    accumulate_grad_batches: int = 1
    budget: float = 0.01
    solve: Callable[[Features, Features], Mapping[str, Any] | None] | None = None
    features: Callable[[Tensor], Diagnosis] | None = None
    corrected: Callable[[Diagnosis], Tensor] | None = None

    def __post_init__(self) -> None:
        """Checks that the players can be played as described."""
        through = [player.through_shared for player in self.players]
        if sum(through) > 1 or any(through[:-1]):
            raise ValueError(
                f"stage `{self.name}`: only the last player can learn through the shared forward pass"
            )
        if bool(self.players) == (self.solve is not None) or (self.solve is None) != (self.features is None):
            raise ValueError(f"stage `{self.name}` has either players, or `solve` with `features`")
        for name in (*self.average, *(m for player in self.players for m in player.modules)):
            if name not in self.modules:
                raise ValueError(
                    f"stage `{self.name}` has no module `{name}`, only {', '.join(self.modules)}"
                )

    @property
    def learning(self) -> tuple[str, ...]:
        """Names of the modules that learn; in a stage that is solved all of them."""
        if not self.players:
            return tuple(self.modules)
        return tuple(dict.fromkeys(name for player in self.players for name in player.modules))


class MethodConfig(Config):
    """Settings that all methods have; each has its own beside them."""

    views: Views = "none"
    """Over which views of an image the finished model averages embedding and logits: `none`, `mirror` (it and
    its mirror image) or `turns` (all eight, for images without an upright). A score costs as many passes."""

    def resolved(self, pretraining: Any) -> Self:
        """Returns the settings with what is left out filled in from those of stage 1.

        Args:
            pretraining: `PretrainingConfig` of stage 1; its defaults for a model that was trained elsewhere.
        """
        del pretraining
        return self


class Method(ABC):
    """A way of making a fair model of a diagnosis model: networks, and stages in which they learn.

    Subclasses are final, hold their own networks, and register themselves in `METHODS`.

    Attributes:
        config_class: The method's typed configuration.
        presets: Named changes to the defaults, for configuration files; under `model` those of stage 1.
        needs_group: Whether the finished model has to be told the group S of whoever it diagnoses.
        retrains: Whether it trains the diagnosis model anew, instead of leaving it as it is.
        model: The diagnosis model that it is given; what `vanilla` reports.
        fair: What it delivers.
        discriminator: d_Y, who looked for the group while it was trained; None where nobody did.
    """

    config_class: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    needs_group: ClassVar[bool] = False
    retrains: ClassVar[bool] = False
    model: DiagnosisModel
    fair: FairModel
    discriminator: Discriminator | None = None

    @classmethod
    def build(cls, config: MethodConfig, spec: Spec, model: DiagnosisModel, *, seed: int) -> Self:
        """Builds the method with weights from the seed alone; the global generator stays as it was.

        Args:
            config: An instance of `config_class`.
            spec: What the data look like.
            model: The diagnosis model.
            seed: Seed of the initial weights.

        Raises:
            InputError: The method trains the model anew, and this one cannot be trained.
        """
        if cls.retrains and not model.trainable:
            raise InputError(
                "this method trains the diagnosis model anew, and a model from an exported file cannot be "
                "trained; take one that leaves it as it is: " + ", ".join(sorted(_keeping()))
            )
        with isolated_rng(derive_seed(seed, "method")):
            built = cls(config, spec, model)
        built.fair.views = config.views
        return built

    @abstractmethod
    def __init__(self, config: Any, spec: Spec, model: DiagnosisModel) -> None:
        """Builds the networks; use `build` for weights that depend on a seed."""

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """Returns the method's own stages in order; none where there is nothing to learn."""

    def logits(self, image: Tensor) -> Tensor:
        """Returns the finished model's class logits (N, classes) for images (N, C, H, W) in [0, 1]."""
        result: Tensor = self.fair(image)
        return result

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
            The rule; None where scores stay as they are.
        """
        del scores, label, group, seed
        return None


METHODS: Registry[type[Method]] = Registry("method")


def _keeping() -> list[str]:
    """Names of the methods that leave the diagnosis model as it is."""
    return [name for name, method in METHODS.items() if not method.retrains and name != "vanilla"]
