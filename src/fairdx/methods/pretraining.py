"""Stage 1: encoder and head learn the diagnosis (Sec. 3.1). One way to get a model that is then frozen."""

from functools import partial
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairdx.core.config import Config
from fairdx.data.base import Batch
from fairdx.methods.base import Losses, Player, Schedule, Spec, Stage
from fairdx.models.information import JensenShannonCritic, jensen_shannon_score
from fairdx.models.networks import Diagnoser, Encoder
from fairdx.models.runtime import derive_seed, isolated_rng


class PretrainingConfig(Config):
    """Stage 1, shared by all methods; the table `[model]` without a `source`."""

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


def pretraining(config: PretrainingConfig, spec: Spec, *, seed: int) -> tuple[Diagnoser, Stage]:
    """Returns a new diagnosis model and the stage in which it learns.

    Args:
        config: Settings of the stage.
        spec: What the data look like.
        seed: Seed of the initial weights; the global generator stays as it was.
    """
    with isolated_rng(derive_seed(seed, "weights")):
        diagnoser = build_diagnoser(config, spec)
        stage = pretraining_stage(diagnoser, config, spec)
    diagnoser.renew = partial(_untrained, config, spec, seed)
    return diagnoser, stage


def _untrained(config: PretrainingConfig, spec: Spec, seed: int) -> Diagnoser:
    with isolated_rng(derive_seed(seed, "weights")):
        return build_diagnoser(config, spec)


def build_diagnoser(config: PretrainingConfig, spec: Spec) -> Diagnoser:
    """Builds encoder and head of stage 1."""
    encoder = Encoder(config.encoder, channels=spec.channels, size=spec.size, weights=config.weights)
    return Diagnoser(encoder, spec.classes)


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
