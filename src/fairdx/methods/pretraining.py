"""Stage 1 of every method: encoder and head learn the diagnosis (Sec. 3.1)."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairdx.data.base import Batch
from fairdx.methods.base import (
    Losses,
    Method,
    MethodConfig,
    Player,
    PretrainingConfig,
    Spec,
    Stage,
    build_diagnoser,
)
from fairdx.models.information import JensenShannonCritic, jensen_shannon_score
from fairdx.models.networks import Diagnoser


def pretraining_stage(diagnoser: Diagnoser, config: PretrainingConfig, spec: Spec) -> Stage:
    """Returns the stage in which encoder, head and critic learn together.

    Args:
        diagnoser: Encoder f_theta and head f_h.
        config: Settings of the stage.
        spec: What the data look like.
    """
    modules: dict[str, nn.Module] = {"diagnoser": diagnoser}
    critic = None
    if config.mutual_information > 0:
        critic = modules["critic"] = JensenShannonCritic(spec.channels, diagnoser.encoder.features)

    def loss(batch: Batch, shared: Any) -> Losses:
        del shared
        diagnosis = diagnoser(batch.image)
        losses = {"cross_entropy": cross_entropy(diagnosis.logit, batch.label)}
        losses["total"] = losses["cross_entropy"]
        if critic is not None:
            # Before there is a mask, X~ is X; theta and omega both climb the bound (Eq. 6).
            score = jensen_shannon_score(critic, batch.image, diagnosis.embedding)
            losses["mutual_information"] = score
            losses["total"] = losses["total"] - config.mutual_information * score
        return losses

    def logits(image: Tensor) -> Tensor:
        result: Tensor = diagnoser(image).logit
        return result

    player = Player("diagnoser", tuple(modules), loss, config.learning_rate, config.weight_decay)
    return Stage(
        name="pretrain",
        modules=modules,
        players=(player,),
        epochs=config.epochs,
        batch_size=config.batch_size,
        logits=logits,
        choose="auroc",
        config=config.model_dump(mode="json"),
        schedule=config.schedule,
    )


class Pretrained(Method):
    """What all methods have in common: stage 1. By itself it does nothing more.

    Args:
        config: Settings.
        spec: What the data look like.
    """

    config: MethodConfig

    def __init__(self, config: MethodConfig, spec: Spec) -> None:
        self.config = config
        self.diagnoser = build_diagnoser(config.pretraining, spec)
        self._pretraining = pretraining_stage(self.diagnoser, config.pretraining, spec)

    def stages(self) -> tuple[Stage, ...]:
        """Returns stage 1."""
        return (self._pretraining,)

    def logits(self, image: Tensor) -> Tensor:
        """Returns the class logits (N, classes) of stage 1's model for images (N, C, H, W) in [0, 1]."""
        return self._pretraining.logits(image)
