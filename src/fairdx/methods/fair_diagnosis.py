"""Fair Diagnosis, the paper's method: a mask hides the group from a discriminator that knows the diagnosis.

Stage 1 trains the model that is deployed; stage 2 leaves it as it is and plays two players in turn: d_Y
learns to see S in masked images given Y, and g learns masks that keep it from doing so while Y stays
visible.
"""

from typing import ClassVar, NamedTuple, final

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from fairdx.data.base import Batch
from fairdx.methods.base import (
    METHODS,
    Losses,
    Method,
    MethodConfig,
    Player,
    Schedule,
    Spec,
    Stage,
    build_diagnoser,
)
from fairdx.methods.pretraining import pretraining_stage
from fairdx.networks import Diagnosis, Discriminator, MaskGenerator, View, apply_mask


class FairDiagnosisConfig(MethodConfig):
    """Settings of the mask and of its opponent. The preset `paper` has the paper's own values (A.1)."""

    eta: float = Field(0.2, gt=0, le=1)
    """Noise strength: the largest change of a pixel, in units of the full range (paper, A.1)."""
    alpha: float = Field(1.0, ge=0)
    """Weight of the discriminator's entropy in the generator's loss, Eq. 9 (paper, A.1)."""
    beta: float = Field(1.0, ge=0)
    """Weight of the diagnosis in the generator's loss, Eq. 10 (paper, A.1)."""
    steps: int = Field(1, ge=1)
    """How often the mask is added, K; "iteratively adding" has no number in the paper."""
    discriminator_sees: tuple[View, ...] = Field(("embedding", "logit"), min_length=1)
    """The paper has the image (Eq. 7). What the frozen model makes of it works better: see docs/paper.md."""
    discriminator_updates: int = Field(3, ge=1)
    """Steps of d_Y for each step of g; "updated alternatively" in the paper, read as 1."""
    width: int = Field(24, ge=1)
    """Channels of the mask generator at half resolution; not in the paper."""
    epochs: int = Field(5, ge=0)
    """Not in the paper."""
    batch_size: int = Field(128, ge=2)
    """Not in the paper."""
    learning_rate: float = Field(2e-3, gt=0)
    """Of the generator. The paper has 1e-4 (A.1), for many more epochs than a CPU affords."""
    discriminator_learning_rate: float = Field(2e-3, gt=0)
    """Of d_Y. The paper has 1e-4 (A.1)."""
    schedule: Schedule = "cosine"
    """The paper has a step schedule (A.1)."""
    average_decay: float = Field(0.98, ge=0, lt=1)
    """The mask is a moving average of the generator's last steps; 0 keeps the last step. Not in the paper."""
    budget: float = Field(0.01, ge=0, le=1)
    """AUROC and accuracy that the mask may cost on validation; the fairest epoch within it is kept."""


class Masked(NamedTuple):
    """A masked batch and what the frozen model makes of it; one forward pass serves both players."""

    image: Tensor
    """X~, shape (N, C, H, W)."""
    embedding: Tensor
    """E = f_theta(X~), shape (N, D)."""
    logit: Tensor
    """Y^ before the softmax, shape (N, classes)."""


@final
@METHODS.register("fair_diagnosis")
class FairDiagnosis(Method):
    """Eqs. 4 to 12.

    Args:
        config: Settings.
        spec: What the data look like.
    """

    config_class = FairDiagnosisConfig
    presets: ClassVar = {
        "default": {},
        "paper": {
            "discriminator_sees": ("image",),
            "discriminator_updates": 1,
            "learning_rate": 1e-4,
            "discriminator_learning_rate": 1e-4,
            "schedule": "step",
            "average_decay": 0.0,
            "pretraining": {"learning_rate": 1e-4, "schedule": "step", "mutual_information": 1.0},
        },
    }

    def __init__(self, config: FairDiagnosisConfig, spec: Spec) -> None:
        self.config = config
        self.diagnoser = build_diagnoser(config.pretraining, spec)
        self._pretraining = pretraining_stage(self.diagnoser, config.pretraining, spec)
        self.mask_generator = MaskGenerator(spec.channels, width=config.width)
        self.discriminator = Discriminator(
            spec.groups,
            spec.classes,
            sees=config.discriminator_sees,
            channels=spec.channels,
            features=self.diagnoser.encoder.features,
        )

    def stages(self) -> tuple[Stage, ...]:
        """Returns stage 1 and the adversarial stage on the frozen model."""
        return self._pretraining, self._adversarial_stage()

    def masked(self, image: Tensor) -> Tensor:
        """Returns X~ (Eq. 4), shape and range of `image`."""
        return apply_mask(image, self.mask_generator, eta=self.config.eta, steps=self.config.steps)

    def logits(self, image: Tensor) -> Tensor:
        """Returns the frozen model's class logits (N, classes) for the masked images."""
        return self._pretraining.logits(self.masked(image))

    def _adversarial_stage(self) -> Stage:
        config = self.config
        modules: dict[str, nn.Module] = {
            "diagnoser": self.diagnoser,
            "mask_generator": self.mask_generator,
            "discriminator": self.discriminator,
        }
        players = (
            Player(
                "discriminator",
                ("discriminator",),
                self.discriminator_loss,
                config.discriminator_learning_rate,
                updates=config.discriminator_updates,
            ),
            Player(
                "mask_generator",
                ("mask_generator",),
                self.generator_loss,
                config.learning_rate,
                through_shared=True,
            ),
        )
        return Stage(
            name="mask",
            modules=modules,
            players=players,
            epochs=config.epochs,
            batch_size=config.batch_size,
            logits=self.logits,
            choose="fairness",
            config=config.model_dump(mode="json"),
            shared=self.forward,
            schedule=config.schedule,
            average=("mask_generator",) if config.average_decay > 0 else (),
            average_decay=config.average_decay,
            budget=config.budget,
        )

    def forward(self, batch: Batch) -> Masked:
        """Masks a batch and diagnoses it, once for both players."""
        image = self.masked(batch.image)
        return Masked(image, *self.diagnoser(image))

    def discriminator_loss(self, batch: Batch, masked: Masked) -> Losses:
        """L_dY = -I(S^; S) (Eq. 11); the cross-entropy is H(S) minus the Barber-Agakov bound of I(S^; S)."""
        guess = self._guess(batch, masked)
        return {"total": cross_entropy(guess, batch.group)}

    def generator_loss(self, batch: Batch, masked: Masked) -> Losses:
        """L_g = I(S^; S) - alpha H(S^) - beta I(Y^; Y) (Eqs. 9 and 10), each information as above."""
        guess = self._guess(batch, masked)
        log_guess = log_softmax(guess, dim=1)
        losses = {
            "group_information": -cross_entropy(guess, batch.group),
            "group_entropy": -(log_guess.exp() * log_guess).sum(1).mean(),
            "diagnosis_information": -cross_entropy(masked.logit, batch.label),
            "mask_size": (masked.image - batch.image).abs().mean().detach(),
        }
        losses["total"] = (
            losses["group_information"]
            - self.config.alpha * losses["group_entropy"]
            - self.config.beta * losses["diagnosis_information"]
        )
        return losses

    def _guess(self, batch: Batch, masked: Masked) -> Tensor:
        diagnosis = Diagnosis(masked.embedding, masked.logit)
        guess: Tensor = self.discriminator(masked.image, diagnosis, batch.label)
        return guess.float()
