"""What the methods have in common that leave the diagnosis model as it is and change its input."""

from collections.abc import Callable
from typing import NamedTuple

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from fairdx.data.base import Batch
from fairdx.methods.base import Losses, Method, MethodConfig, Player, Schedule, Spec, Stage
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.fair import FairModel, Mask
from fairdx.models.networks import Discriminator, MaskGenerator


class MaskingConfig(MethodConfig):
    """Settings that methods share which mask, so that they are compared at equal power."""

    eta: float = Field(0.2, gt=0, le=1)
    """Noise strength: the largest change of a pixel, in units of the full range."""
    width: int = Field(24, ge=1)
    """Channels of the mask generator at half resolution."""
    epochs: int = Field(5, ge=0)
    """Passes over the training images."""
    batch_size: int = Field(128, ge=2)
    """Images in a batch."""
    accumulate_grad_batches: int = Field(1, ge=1)
    """Batches that make one step, exactly as one batch of as many images would, in the memory of one of them
    and with a second forward pass."""
    learning_rate: float = Field(2e-3, gt=0)
    """Of the generator."""
    discriminator_learning_rate: float = Field(2e-3, gt=0)
    """Of the discriminator."""
    discriminator_updates: int = Field(1, ge=1)
    """Steps of the discriminator for each step of the generator."""
    schedule: Schedule = "cosine"
    """Of all step sizes."""
    average_decay: float = Field(0.98, ge=0, lt=1)
    """The mask is a moving average of the generator's last steps; 0 keeps the last step."""
    budget: float = Field(0.01, ge=0, le=1)
    """What the mask may cost in AUROC and balanced accuracy on validation images; the fairest such epoch is
    kept, and of several within chance of fair the one with the highest AUROC."""


class Masked(NamedTuple):
    """A masked batch and what the frozen model makes of it; one forward pass serves both players."""

    image: Tensor
    """X~, shape (N, C, H, W)."""
    embedding: Tensor | None
    """E = f_theta(X~), shape (N, D); None where the model shows none."""
    logit: Tensor
    """Y^ before the softmax, shape (N, classes)."""
    moved: Tensor
    """Mean change of each image's values, shape (N,)."""
    before: Tensor | None = None
    """Logits of the images as they are, shape (N, classes), where a loss compares with them."""


MaskingLoss = Callable[[Batch, Masked], Losses]
"""A player's loss in such a stage."""


class Masking(Method):
    """A method with a mask in front of a model that stays as it is.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.
        steps: How often the mask is added.

    Attributes:
        mask_generator: g.
    """

    config: MaskingConfig

    def __init__(self, config: MaskingConfig, spec: Spec, model: DiagnosisModel, *, steps: int = 1) -> None:
        self.config, self.model = config, model
        self.mask_generator = MaskGenerator(spec.channels, width=config.width)
        self.fair = FairModel(model, mask=Mask(self.mask_generator, eta=config.eta, steps=steps))

    def forward(self, batch: Batch) -> Masked:
        """Masks a batch and diagnoses it, once for both players."""
        image = self.fair.masked(batch.image)
        moved = (image - batch.image).detach().abs().flatten(1).mean(1)
        seen: Diagnosis = self.model(image)
        return Masked(image, seen.embedding, seen.logit, moved)

    def progress(self, done: float) -> None:
        """Hears before each batch how much of the mask's training is done, from 0 to below 1."""

    def _stage(
        self,
        name: str,
        generator_loss: MaskingLoss,
        discriminator: Discriminator | None,
        discriminator_loss: MaskingLoss,
    ) -> Stage:
        """Returns the stage in which the generator learns, in turn with a discriminator where there is one.

        Args:
            name: Of the stage; the method's, so that no two methods share a stage.
            generator_loss: What the generator minimises, through the frozen model.
            discriminator: The network that looks for the group, if any.
            discriminator_loss: What it minimises.
        """
        config = self.config
        modules: dict[str, nn.Module] = {
            "model": self.model,
            "mask_generator": self.mask_generator,
        }
        players = [
            Player(
                "mask_generator",
                ("mask_generator",),
                generator_loss,
                config.learning_rate,
                through_shared=True,
            )
        ]
        if discriminator is not None:
            modules["discriminator"] = discriminator
            opponent = Player(
                "discriminator",
                ("discriminator",),
                discriminator_loss,
                config.discriminator_learning_rate,
                updates=config.discriminator_updates,
            )
            players.insert(0, opponent)
        return Stage(
            name=name,
            modules=modules,
            players=tuple(players),
            epochs=config.epochs,
            batch_size=config.batch_size,
            accumulate_grad_batches=config.accumulate_grad_batches,
            logits=self.logits,
            choose="fairness",
            config=config.model_dump(mode="json"),
            shared=self.forward,
            looks_at_images=discriminator is not None and "image" in discriminator.views,
            progress=self.progress,
            schedule=config.schedule,
            average=("mask_generator",) if config.average_decay > 0 else (),
            average_decay=config.average_decay,
            budget=config.budget,
        )


def mean_entropy(logit: Tensor) -> Tensor:
    """Mean entropy, in nats, of the distributions that logits (N, K) stand for."""
    log_probability = log_softmax(logit, dim=1)
    return -(log_probability.exp() * log_probability).sum(1).mean()
