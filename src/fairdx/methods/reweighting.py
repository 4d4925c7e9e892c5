"""Reweighting: training images count by weights that make S and Y independent in the training set.

Kamiran and Calders, "Data preprocessing techniques for classification without discrimination", Knowledge and
Information Systems 33, 2012, Sec. 5.3.
"""

from typing import final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fairdx.data.base import Batch
from fairdx.methods.base import METHODS, Losses, Spec, Stage
from fairdx.methods.retraining import Retraining, RetrainingConfig, require_all_cells
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel


@final
@METHODS.register("reweighting")
class Reweighting(Retraining):
    """Cross-entropy with the weight w(s, y) = P(s) P(y) / P(s, y) of each image.

    The paper weights any learner's examples; here they weight the loss. The mean is over the images of a
    batch, not over their weights, which have mean 1 over the training set.

    Args:
        config: Settings.
        spec: What the data look like, with counts.
        model: The diagnosis model as it is.

    Raises:
        InputError: A class has no training images in some group; no weights could make up for that.
    """

    config_class = RetrainingConfig

    def __init__(self, config: RetrainingConfig, spec: Spec, model: DiagnosisModel) -> None:
        require_all_cells("reweighting", spec)
        super().__init__(config, spec, model)
        counts = torch.tensor(spec.counts, dtype=torch.float64)
        expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / counts.sum()
        self.weights: Tensor = (expected / counts).float()

    def stages(self) -> tuple[Stage, ...]:
        """Returns the weighted training."""
        learner = self._learner(loss=self.loss, through_shared=True)
        modules = {"retrained": self.retrained}
        return (self._stage("reweighting", (learner,), modules, shared=self.forward),)

    def loss(self, batch: Batch, diagnosed: Diagnosis) -> Losses:
        """The weighted cross-entropy; the plain one is reported beside it."""
        each = cross_entropy(diagnosed.logit, batch.label, reduction="none")
        weight = self.weights.to(each.device)[batch.label, batch.group]
        return {"cross_entropy": each.detach().mean(), "total": (weight * each).mean()}
