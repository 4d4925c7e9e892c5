"""Adversarial debiasing: the model's step avoids what would help an adversary who sees its output.

Zhang, Lemoine and Mitchell, "Mitigating unwanted biases with adversarial learning", AIES 2018.
"""

from typing import Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from fairdx.data.base import Batch
from fairdx.methods.base import METHODS, Gradients, Losses, Player, Spec, Stage
from fairdx.methods.retraining import Choice, Retraining, RetrainingConfig
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel

Projection = Literal["whole", "tensor"]


class AdversarialDebiasingConfig(RetrainingConfig):
    """Settings of adversarial debiasing."""

    alpha: float = Field(1.0, ge=0)
    """Weight of the adversary's gradient. The paper lets it grow with the step and names no constant; 1 is
    Fairlearn's default, AIF360 has 0.1."""
    conditioned: bool = True
    """Whether the adversary knows Y: equalized odds if so, demographic parity if not."""
    projection: Projection = "whole"
    """Over which the gradients are projected: all weights as one vector (the paper), or each tensor by
    itself (AIF360)."""
    adversary_learning_rate: float = Field(1e-2, gt=0)
    """Not in the paper; its few weights need larger steps than a network's."""
    adversary_updates: int = Field(1, ge=1)
    """Steps of the adversary for each step of the model (paper)."""
    choose: Choice = "last"
    """The paper keeps the last step. The epoch with the highest AUROC would be the least fair one."""


class Adversary(nn.Module):
    """Guesses the group from the model's output: linear in a softened score u, and in u times Y.

    u is sigmoid((1 + |c|) * logit) with c learned, so that an adversary can sharpen it; for more than two
    classes the softmax of (1 + |c|) times the logits, without its first entry, which the others determine.

    Args:
        groups: Number of groups.
        classes: Number of classes of the label.
        conditioned: Whether it knows Y.
    """

    def __init__(self, groups: int, classes: int = 2, *, conditioned: bool = True) -> None:
        super().__init__()
        self.classes, self.conditioned = classes, conditioned
        self.c = nn.Parameter(torch.ones(()))
        self.guess = nn.Linear((classes - 1) * (1 + classes * conditioned), groups)

    def forward(self, logit: Tensor, label: Tensor) -> Tensor:
        """Returns logits of the group, shape (N, groups), from logits (N, classes) and Y (N,)."""
        score = ((1 + self.c.abs()) * logit.float()).softmax(1)[:, 1:]
        if self.conditioned:
            known = one_hot(label, self.classes).to(score.dtype)
            products = (score[:, :, None] * known[:, None, :]).flatten(1)
            score = torch.cat([score, products], dim=1)
        return cast(Tensor, self.guess(score))


def debias(own: Gradients, adversary: Gradients, *, alpha: float, projection: Projection) -> Gradients:
    """Returns own - (projection of own onto adversary) - alpha * adversary.

    Products of tensors are Frobenius products: the sum of the products of their entries.

    Args:
        own: Gradient of the model's loss, one tensor for each parameter, None where it has none.
        adversary: Gradient of the adversary's loss by the same parameters.
        alpha: Weight of the last term.
        projection: `whole`: all tensors are one vector. `tensor`: each by itself.

    Returns:
        Gradients to descend; None where both are None. An adversary without gradient changes nothing.
    """
    both = [
        (index, torch.zeros_like(a) if own[index] is None else cast(Tensor, own[index]), a)
        for index, a in enumerate(adversary)
        if a is not None
    ]
    dots = [torch.sum(g * a) for _, g, a in both]
    squares = [torch.sum(a * a) for _, _, a in both]
    if projection == "whole" and both:
        dots, squares = ([torch.stack(parts).sum()] * len(both) for parts in (dots, squares))
    combined = list(own)
    for (index, g, a), dot, square in zip(both, dots, squares, strict=True):
        combined[index] = g - (_share(dot, square) + alpha) * a
    return combined


def _share(dot: Tensor, square: Tensor) -> Tensor:
    """Length of the projection; a square that float32 cannot hold is that of a gradient that is zero."""
    smallest = torch.finfo(square.dtype).tiny
    return torch.where(square >= smallest, dot / square.clamp_min(smallest), torch.zeros_like(dot))


@final
@METHODS.register("adversarial_debiasing")
class AdversarialDebiasing(Retraining):
    """The model descends `debias` of the gradients of both losses, the adversary its own.

    The paper moves both at once; here the adversary moves first, on the same forward pass, so that the model
    meets the adversary of this step and not of the last one.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The diagnosis model as it is.
    """

    config_class = AdversarialDebiasingConfig
    config: AdversarialDebiasingConfig

    def __init__(self, config: AdversarialDebiasingConfig, spec: Spec, model: DiagnosisModel) -> None:
        super().__init__(config, spec, model)
        self.adversary = Adversary(spec.groups, spec.classes, conditioned=config.conditioned)

    def stages(self) -> tuple[Stage, ...]:
        """Returns the training against the adversary."""
        opponent = Player(
            "adversary",
            ("adversary",),
            self.adversary_loss,
            self.config.adversary_learning_rate,
            updates=self.config.adversary_updates,
        )
        learner = self._learner(loss=self.model_losses, through_shared=True, combine=self._combine)
        return (self._duel("adversarial_debiasing", opponent, learner, self.adversary),)

    def adversary_loss(self, batch: Batch, diagnosed: Diagnosis) -> Losses:
        """L_A: cross-entropy of the guessed group."""
        return {"total": cross_entropy(self.adversary(diagnosed.logit, batch.label), batch.group)}

    def model_losses(self, batch: Batch, diagnosed: Diagnosis) -> Losses:
        """L_P, the cross-entropy of the diagnosis, and L_A by its name in `Player.combine`."""
        return {
            "total": cross_entropy(diagnosed.logit, batch.label),
            "opponent": self.adversary_loss(batch, diagnosed)["total"],
        }

    def _combine(self, own: Gradients, adversary: Gradients) -> Gradients:
        return debias(own, adversary, alpha=self.config.alpha, projection=self.config.projection)
