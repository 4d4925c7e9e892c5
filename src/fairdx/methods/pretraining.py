"""Stage 1: encoder and head learn the diagnosis (Sec. 3.1). One way to get a model that is then frozen."""

from functools import partial
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairdx.core.config import Config
from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import Losses, Player, Schedule, Spec, Stage
from fairdx.models.diagnosis import Diagnosis
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
    accumulate_grad_batches: int = Field(1, ge=1)
    """Batches that make one step, exactly as one batch of as many images would, in the memory of one of them
    and with a second forward pass. Not with batch norms that learn."""
    learning_rate: float = Field(1e-3, gt=0)
    """The paper has 1e-4 (A.1); from random weights on small images that is far from done in a few epochs."""
    weight_decay: float = Field(0.01, ge=0)
    """Not in the paper; AdamW's usual value."""
    mutual_information: float = Field(0.1, ge=0)
    """Weight of the Jensen-Shannon term (Eqs. 5 and 6); not in the paper. 0 leaves the critic out."""
    schedule: Schedule = "cosine"
    """The paper has a step schedule (A.1)."""
    head_learning_rate: float | None = Field(None, gt=0)
    """Of the head, which starts from random weights where the encoder does not; as the encoder's by
    default."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Each earlier layer of the encoder has the step size of the next one times this; below 1 for pretrained
    weights, whose first layers are good already."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the embedding that the head does without, at random, while it learns."""
    class_balance: bool = False
    """Whether every class counts the same in the cross-entropy, however rare it is."""

    @property
    def layered(self) -> bool:
        """Whether parts of the model have step sizes of their own."""
        return self.layer_decay < 1 or self.head_learning_rate is not None


class Looked(NamedTuple):
    """What the networks of stage 1 make of a batch."""

    embedding: Tensor | None
    """E, shape (N, D)."""
    logit: Tensor
    """Y^ before the softmax, shape (N, classes)."""
    summary: Tensor | None
    """The critic's summary of the images, shape (N, width)."""


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
    return Diagnoser(encoder, spec.classes, dropout=config.dropout)


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

    weights = _class_weights(spec) if config.class_balance else None

    def forward(batch: Batch) -> Looked:
        # Before there is a mask, X~ is X.
        seen: Diagnosis = diagnoser(batch.image)
        summary = None if critic is None else critic.summary(batch.image)
        return Looked(seen.embedding, seen.logit, summary)

    def loss(batch: Batch, looked: Looked) -> Losses:
        weight = None if weights is None else weights.to(looked.logit.device)
        losses = {"cross_entropy": cross_entropy(looked.logit, batch.label, weight)}
        losses["total"] = losses["cross_entropy"]
        if critic is not None:
            # theta and omega both climb the bound (Eq. 6).
            assert looked.summary is not None
            assert looked.embedding is not None
            score = jensen_shannon_score(critic, looked.summary, looked.embedding)
            losses["mutual_information"] = score
            losses["total"] = losses["total"] - config.mutual_information * score
        return losses

    def logits(image: Tensor) -> Tensor:
        result: Tensor = diagnoser(image).logit
        return result

    def rates() -> list[dict[str, Any]]:
        groups = diagnoser.rates(
            config.learning_rate,
            config.weight_decay,
            head=config.head_learning_rate,
            decay=config.layer_decay,
        )
        return groups if critic is None else [*groups, {"params": list(critic.parameters())}]

    player = Player(
        "diagnoser",
        tuple(modules),
        loss,
        config.learning_rate,
        config.weight_decay,
        rates=rates if config.layered else None,
        through_shared=True,
    )
    return Stage(
        name="pretrain",
        modules=modules,
        players=(player,),
        epochs=config.epochs,
        batch_size=config.batch_size,
        accumulate_grad_batches=config.accumulate_grad_batches,
        logits=logits,
        choose="auroc",
        config=config.model_dump(mode="json"),
        schedule=config.schedule,
        shared=forward,
    )


def _class_weights(spec: Spec) -> Tensor:
    """Returns N / (classes * n_y) for each class y: weights with mean 1 over the training images.

    Raises:
        InputError: The numbers of training images are not known, or a class has none.
    """
    counts = [sum(row) for row in spec.counts]
    if not counts or 0 in counts:
        raise InputError("`model.class_balance` needs training images of every class")
    return torch.tensor([sum(counts) / (len(counts) * count) for count in counts])
