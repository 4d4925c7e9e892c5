"""LAFTR for equalized odds: an embedding from which an auditor who knows Y cannot tell S.

Madras et al., "Learning adversarially fair and transferable representations", ICML 2018, Eq. 6, without
the decoder.
"""

from typing import final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import METHODS, Losses, Player, Spec, Stage
from fairdx.methods.retraining import Choice, Retraining, RetrainingConfig, require_all_cells
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.networks import Discriminator


class LAFTRConfig(RetrainingConfig):
    """Settings of LAFTR."""

    gamma: float = Field(0.1, ge=0)
    """Weight of the auditor's objective in the model's loss. The paper varies it. With more a network that
    learns from random weights in a few epochs does not learn the diagnosis (docs/benchmarks.md)."""
    auditor_updates: int = Field(1, ge=1)
    """Steps of the auditor for each step of the model; 1 in the paper, which alternates."""
    auditor_learning_rate: float = Field(1e-3, gt=0)
    """The paper trains all networks with Adam at 1e-3."""
    choose: Choice = "last"
    """The paper keeps the last epoch. The epoch with the highest AUROC would be the least fair one."""


@final
@METHODS.register("laftr")
class LAFTR(Retraining):
    """The auditor maximises, the model minimises L = cells / 2 - sum over cells (y, s) of mean |h(E) - s|.

    For K groups |h - s| becomes 1 - h_s, one minus the auditor's probability of the true group; for two it is
    the same. A cell's mean is its part of the batch over its expected size, from the training set's counts:
    the mean over batches is the paper's mean over the data, and a rare cell has no leap when an image is in.

    Args:
        config: Settings.
        spec: What the data look like, with counts.
        model: The diagnosis model as it is.

    Raises:
        InputError: A class has no training images in some group (its mean would not be defined), or the
            model shows no embedding.
    """

    config_class = LAFTRConfig
    config: LAFTRConfig

    def __init__(self, config: LAFTRConfig, spec: Spec, model: DiagnosisModel) -> None:
        require_all_cells("laftr", spec)
        super().__init__(config, spec, model)
        # With a non-linearity between its layers: without one, no depth could see more than one layer does.
        if model.features is None:
            raise InputError("method `laftr` looks for the group in the embedding, and this model shows none")
        self.auditor = Discriminator(spec.groups, spec.classes, sees=("embedding",), features=model.features)
        counts = torch.tensor(spec.counts, dtype=torch.float64)
        self.weights: Tensor = (counts.sum() / counts).float()
        self._chance = (1 - 1 / spec.groups) * counts.numel()

    def stages(self) -> tuple[Stage, ...]:
        """Returns the training against the auditor."""
        opponent = Player(
            "auditor",
            ("auditor",),
            self.auditor_loss,
            self.config.auditor_learning_rate,
            updates=self.config.auditor_updates,
        )
        learner = self._learner(loss=self.model_loss, through_shared=True)
        return (self._duel("laftr", opponent, learner, self.auditor),)

    def auditor_loss(self, batch: Batch, diagnosed: Diagnosis) -> Losses:
        """Minus the objective: the auditor comes as near to S as it can."""
        return {"total": -self.objective(batch, diagnosed)}

    def model_loss(self, batch: Batch, diagnosed: Diagnosis) -> Losses:
        """L_C + gamma L: the diagnosis, and an auditor that is far from S."""
        losses = {
            "cross_entropy": cross_entropy(diagnosed.logit, batch.label),
            "auditor_objective": self.objective(batch, diagnosed),
        }
        losses["total"] = losses["cross_entropy"] + self.config.gamma * losses["auditor_objective"]
        return losses

    def objective(self, batch: Batch, diagnosed: Diagnosis) -> Tensor:
        """L: 0 for an auditor that guesses each group alike, `chance` for one that is always right."""
        guess = self.auditor(batch.image, diagnosed, batch.label).float().softmax(1)
        distance = 1 - guess.gather(1, batch.group[:, None])[:, 0]
        weight = self.weights.to(distance.device)[batch.label, batch.group]
        result: Tensor = self._chance - (weight * distance).mean()
        return result
