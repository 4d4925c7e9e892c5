"""What the methods have in common that train the diagnosis model anew, from stage 1's first weights.

Stage 1 is run all the same: what it leaves is `vanilla`, beside which every method is measured.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import MethodConfig, Player, Schedule, Spec, Stage
from fairdx.methods.pretraining import Pretrained

Choice = Literal["auroc", "last"]
"""The epoch that is kept: the one with the highest validation AUROC, as in stage 1, or the last."""


class RetrainingConfig(MethodConfig):
    """Settings of a second training; what is left out is as in stage 1, so that models differ in one thing.

    The loss has no mutual-information term: none of these methods' papers has one.
    """

    epochs: int | None = Field(None, ge=0)
    """Passes over the training images."""
    batch_size: int | None = Field(None, ge=2)
    """Images in a batch."""
    learning_rate: float | None = Field(None, gt=0)
    """Of the diagnosis model."""
    weight_decay: float | None = Field(None, ge=0)
    """Of the diagnosis model."""
    schedule: Schedule | None = None
    """Of all step sizes."""
    choose: Choice = "auroc"
    """The epoch that is kept."""


class Diagnosed(NamedTuple):
    """What the model that is trained anew makes of a batch; one forward pass serves both players."""

    embedding: Tensor
    """E, shape (N, D)."""
    logit: Tensor
    """Y^ before the softmax, shape (N, classes)."""


class Retraining(Pretrained):
    """A method with a stage 1 for `vanilla` and a stage of its own for the model it delivers.

    Args:
        config: Settings.
        spec: What the data look like.

    Attributes:
        retrained: The model that is delivered; its first weights are those of `diagnoser`.
    """

    config: RetrainingConfig

    def __init__(self, config: RetrainingConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.retrained = deepcopy(self.diagnoser)

    def logits(self, image: Tensor) -> Tensor:
        """Returns the class logits (N, classes) of the model that was trained anew."""
        result: Tensor = self.retrained(image).logit
        return result

    def forward(self, batch: Batch) -> Diagnosed:
        """Diagnoses a batch, once for both players."""
        return Diagnosed(*self.retrained(batch.image))

    def _learner(self, **changes: Any) -> Player:
        """The player who trains the diagnosis model anew, with the step size of the settings."""
        config, first = self.config, self.config.pretraining
        rate = first.learning_rate if config.learning_rate is None else config.learning_rate
        decay = first.weight_decay if config.weight_decay is None else config.weight_decay
        return Player("retrained", ("retrained",), learning_rate=rate, weight_decay=decay, **changes)

    def _stage(
        self, name: str, players: tuple[Player, ...], modules: Mapping[str, nn.Module], **changes: Any
    ) -> Stage:
        """The method's own stage; its name is the method's, so that no two methods share a stage."""
        config, first = self.config, self.config.pretraining
        return Stage(
            name=name,
            modules=modules,
            players=players,
            epochs=first.epochs if config.epochs is None else config.epochs,
            batch_size=first.batch_size if config.batch_size is None else config.batch_size,
            logits=self.logits,
            choose=config.choose,
            config=config.model_dump(mode="json"),
            schedule=config.schedule or first.schedule,
            **changes,
        )

    def _duel(self, name: str, opponent: Player, learner: Player, network: nn.Module) -> Stage:
        """The method's own stage, played against an opponent who sees the model's output."""
        modules = {"retrained": self.retrained, opponent.name: network}
        return self._stage(name, (opponent, learner), modules, shared=self.forward)


def require_all_cells(method: str, spec: Spec) -> None:
    """Checks that there are training images of every class in every group.

    Args:
        method: Name of the method, for the message.
        spec: What the data look like.

    Raises:
        InputError: The counts are missing, or a cell is empty.
    """
    if not spec.counts:
        raise InputError(f"method `{method}` needs the numbers of training images by class and group")
    for label, row in enumerate(spec.counts):
        for group, count in enumerate(row):
            if count == 0:
                raise InputError(
                    f"method `{method}` needs training images of every class in every group, and there are "
                    f"none of class {label} in group {group} (counted from 0, in the order of the data set)"
                )
