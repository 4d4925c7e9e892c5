"""What the methods have in common that train the diagnosis model anew, from stage 1's first weights.

Stage 1 is run all the same: what it leaves is `vanilla`, beside which every method is measured.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import Field
from torch import nn

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import Method, MethodConfig, Player, Schedule, Spec, Stage
from fairdx.methods.pretraining import PretrainingConfig
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.fair import FairModel
from fairdx.models.networks import Diagnoser

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
    accumulate_grad_batches: int | None = Field(None, ge=1)
    """Batches that make one step."""
    learning_rate: float | None = Field(None, gt=0)
    """Of the diagnosis model."""
    weight_decay: float | None = Field(None, ge=0)
    """Of the diagnosis model."""
    schedule: Schedule | None = None
    """Of all step sizes."""
    head_learning_rate: float | None = Field(None, gt=0)
    """Of the head."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Each earlier layer's step size, in units of the next one's."""
    choose: Choice = "auroc"
    """The epoch that is kept."""

    def resolved(self, pretraining: PretrainingConfig) -> Self:
        """Returns the settings with what is left out as in stage 1."""
        names = (
            *("epochs", "batch_size", "learning_rate", "weight_decay", "schedule"),
            *("accumulate_grad_batches", "head_learning_rate", "layer_decay"),
        )
        missing = {name: getattr(pretraining, name) for name in names if getattr(self, name) is None}
        return self.model_copy(update=missing)


class Retraining(Method):
    """A method that delivers a model which it trained itself.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The diagnosis model as it is.

    Attributes:
        retrained: The model that is delivered. It starts from the first weights of `model`, where they are
            known, and otherwise from its present ones.
    """

    config: RetrainingConfig
    retrains: ClassVar = True

    def __init__(self, config: RetrainingConfig, spec: Spec, model: DiagnosisModel) -> None:
        del spec
        self.config, self.model = config.resolved(PretrainingConfig()), model
        self.retrained = deepcopy(model) if model.renew is None else model.renew()
        self.fair = FairModel(self.retrained)

    def forward(self, batch: Batch) -> Diagnosis:
        """Diagnoses a batch, once for both players."""
        found: Diagnosis = self.retrained(batch.image)
        return found

    def _learner(self, **changes: Any) -> Player:
        """The player who trains the diagnosis model anew, with the step size of the settings."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        assert rate is not None
        assert decay is not None
        return Player(
            "retrained",
            ("retrained",),
            learning_rate=rate,
            weight_decay=decay,
            rates=self._rates(),
            **changes,
        )

    def _rates(self) -> Callable[[], list[dict[str, Any]]] | None:
        """The step sizes of the layers, of a model that is ours."""
        config, model = self.config, self.retrained
        layered = config.head_learning_rate is not None or (config.layer_decay or 1) < 1
        if not layered or not isinstance(model, Diagnoser):
            return None
        return lambda: model.rates(
            cast(float, config.learning_rate),
            cast(float, config.weight_decay),
            head=config.head_learning_rate,
            decay=config.layer_decay or 1.0,
        )

    def _stage(
        self, name: str, players: tuple[Player, ...], modules: Mapping[str, nn.Module], **changes: Any
    ) -> Stage:
        """The method's own stage; its name is the method's, so that no two methods share a stage."""
        config = self.config
        assert config.epochs is not None
        assert config.batch_size is not None
        assert config.schedule is not None
        assert config.accumulate_grad_batches is not None
        return Stage(
            name=name,
            modules=modules,
            players=players,
            epochs=config.epochs,
            batch_size=config.batch_size,
            accumulate_grad_batches=config.accumulate_grad_batches,
            logits=self.logits,
            choose=config.choose,
            config=config.model_dump(mode="json"),
            schedule=config.schedule,
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
