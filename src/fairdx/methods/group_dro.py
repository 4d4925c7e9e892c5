"""Group DRO: trains on the group that is worst off, where a group is a class of Y in a group of S.

Sagawa et al., "Distributionally robust neural networks for group shifts", ICLR 2020, Algorithm 1.
"""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairdx.data.base import Batch
from fairdx.methods.base import METHODS, Losses, Spec, Stage
from fairdx.methods.retraining import Retraining, RetrainingConfig
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel


class GroupDROConfig(RetrainingConfig):
    """Settings of group DRO."""

    step_size: float = Field(0.01, ge=0)
    """Step size of the group weights q (the authors' code). 0 keeps them equal."""


class WorstCase(nn.Module):
    """The model and the weights q of its groups, kept together so that a checkpoint holds both.

    Args:
        model: The diagnosis model.
        classes: Classes of the label.
        groups: Groups of the sensitive attribute.

    Attributes:
        q: Weight of each class in each group, shape (classes * groups,), sum 1.
    """

    q: Tensor

    def __init__(self, model: DiagnosisModel, classes: int, groups: int) -> None:
        super().__init__()
        self.model, self.groups = model, groups
        self.register_buffer("q", torch.full((classes * groups,), 1 / (classes * groups)))

    def forward(self, image: Tensor) -> Diagnosis:
        """Returns embedding and logits of images (N, C, H, W) in [0, 1]."""
        result: Diagnosis = self.model(image)
        return result

    def robust_loss(self, losses: Tensor, label: Tensor, group: Tensor, step_size: float) -> Tensor:
        """Moves q towards the groups with large losses and returns the loss weighted by it.

        A group that the batch has no image of counts with a loss of 0, as in the authors' code.

        Args:
            losses: Of each image, shape (N,).
            label: Y, int64 of shape (N,).
            group: S, int64 of shape (N,).
            step_size: Of the exponentiated gradient.
        """
        cell = nn.functional.one_hot(label * self.groups + group, len(self.q)).to(losses.dtype)
        means = (losses @ cell) / cell.sum(0).clamp_min(1)
        with torch.no_grad():
            self.q.copy_(torch.softmax(self.q.log() + step_size * means, 0))
        return means @ self.q


@final
@METHODS.register("group_dro")
class GroupDRO(Retraining):
    """Sum over groups of q_g times their mean loss, with q_g growing by exp(step_size * loss) at each step.

    The paper chooses the epoch by worst-group accuracy and regularises strongly; here both are as in stage 1.
    Its adjustment by group size is left out.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The diagnosis model as it is.
    """

    config_class = GroupDROConfig
    config: GroupDROConfig

    def __init__(self, config: GroupDROConfig, spec: Spec, model: DiagnosisModel) -> None:
        super().__init__(config, spec, model)
        self.worst_case = WorstCase(self.retrained, spec.classes, spec.groups)

    def stages(self) -> tuple[Stage, ...]:
        """Returns the robust training."""
        learner = self._learner(loss=self.loss, through_shared=True)
        modules = {"retrained": self.worst_case}
        return (self._stage("group_dro", (learner,), modules, shared=self.forward),)

    def forward(self, batch: Batch) -> Diagnosis:
        """Diagnoses a batch by the model that is kept with its weights."""
        found: Diagnosis = self.worst_case(batch.image)
        return found

    def loss(self, batch: Batch, diagnosed: Diagnosis) -> Losses:
        """The loss weighted by q; the plain cross-entropy and the largest weight are reported beside it."""
        each = cross_entropy(diagnosed.logit, batch.label, reduction="none")
        total = self.worst_case.robust_loss(each, batch.label, batch.group, self.config.step_size)
        return {
            "cross_entropy": each.detach().mean(),
            "largest_weight": self.worst_case.q.max(),
            "total": total,
        }
