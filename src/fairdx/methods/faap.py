"""FAAP: a perturbation of the input hides the group from a discriminator on a frozen model's embedding.

Wang et al., "Fairness-aware adversarial perturbation towards bias mitigation for deployed deep models",
CVPR 2022.
"""

from typing import final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import METHODS, Losses, Spec, Stage
from fairdx.methods.masking import Masked, Masking, MaskingConfig, mean_entropy
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.networks import Discriminator


class FAAPConfig(MaskingConfig):
    """Settings of FAAP; generator, bound and training are those of `fair_diagnosis`, for equal power.

    The paper's bound is 0.05 (`eta` here is 0.2), its generator a residual network, its budget of epochs and
    step sizes other.
    """

    alpha: float = Field(0.25, ge=0)
    """Weight of the discriminator's entropy; from the loss -0.4 CE(S) - 0.1 H + 0.7 CE(Y) of a public
    re-implementation, divided by 0.4."""
    beta: float = Field(1.75, ge=0)
    """Weight of the diagnosis; from the same."""


@final
@METHODS.register("faap")
class FAAP(Masking):
    """G minimises -CE(D(E), s) - alpha H(D(E)) + beta CE(Y^, y), D minimises CE(D(E), s), with E = f(X~).

    D sees the embedding and not Y: so G hides S even where S and Y go together (demographic parity).
    The perturbation is bounded by eta * tanh, as a hard limit would have no gradient beyond it.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.

    Raises:
        InputError: The model shows no embedding.
    """

    config_class = FAAPConfig
    config: FAAPConfig
    discriminator: Discriminator

    def __init__(self, config: FAAPConfig, spec: Spec, model: DiagnosisModel) -> None:
        super().__init__(config, spec, model)
        if model.features is None:
            raise InputError("method `faap` looks for the group in the embedding, and this model shows none")
        # A single head, which every label chooses, knows nothing of the label.
        self.discriminator = Discriminator(spec.groups, 1, sees=("embedding",), features=model.features)

    def stages(self) -> tuple[Stage, ...]:
        """Returns the adversarial stage on the frozen model."""
        return (self._stage("faap", self.generator_loss, self.discriminator, self.discriminator_loss),)

    def discriminator_loss(self, batch: Batch, masked: Masked) -> Losses:
        """Cross-entropy of the guessed group."""
        return {"total": cross_entropy(self._guess(masked), batch.group)}

    def generator_loss(self, batch: Batch, masked: Masked) -> Losses:
        """The three terms of G and the mean size of the perturbation."""
        guess = self._guess(masked)
        losses = {
            "group_cross_entropy": cross_entropy(guess, batch.group),
            "group_entropy": mean_entropy(guess),
            "diagnosis_cross_entropy": cross_entropy(masked.logit, batch.label),
            "mask_size": masked.moved.mean(),
        }
        losses["total"] = (
            self.config.beta * losses["diagnosis_cross_entropy"]
            - losses["group_cross_entropy"]
            - self.config.alpha * losses["group_entropy"]
        )
        return losses

    def _guess(self, masked: Masked) -> Tensor:
        diagnosis = Diagnosis(masked.embedding, masked.logit)
        anyone = torch.zeros(len(masked.logit), dtype=torch.int64, device=masked.logit.device)
        guess: Tensor = self.discriminator(masked.image, diagnosis, anyone)
        return guess.float()
