"""Fair Diagnosis, the paper's method: a mask hides the group from the diagnosis of a frozen model.

Stage 1 trains the model that is deployed. Stage 2 leaves it as it is and learns a mask g: the diagnosis Y
stays visible while S, given Y, does not. The paper finds out what is visible of S by an adversary, d_Y, that
learns in turn with g. Beside it, the gap between groups in the diagnosis is measured on each batch directly,
and the diagnosis is kept by what it is worth within a group: how it orders the patients there
(docs/experiments.md).
"""

import logging
from collections.abc import Callable
from typing import ClassVar, Literal, Self, final

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import cross_entropy

from fairdx.data.base import Batch
from fairdx.methods.base import METHODS, Losses, Spec, Stage
from fairdx.methods.masking import Masked, Masking, MaskingConfig, mean_entropy
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.information import ranking_loss, separation_gap
from fairdx.models.networks import Discriminator, View

logger = logging.getLogger(__name__)


class FairDiagnosisConfig(MaskingConfig):
    """Settings of the mask and of what it is measured by.

    The preset `adversarial` is the paper's form with a stronger d_Y, `gap` has no d_Y; `paper` has the
    paper's values (A.1).
    """

    adversary: float = Field(1.0, ge=0)
    """Weight of what d_Y sees, I(S^; S) - alpha H(S^); 1 in the paper. 0 leaves d_Y out."""
    separation: float = Field(5.0, ge=0)
    """Weight of the gap between groups within a label, measured on the batch; not in the paper. Its noise
    grows with the weight and shrinks with the batch: beyond 10, take batches of 128 and more."""
    growth: float = Field(0.0, ge=0, le=1)
    """Share of the epochs over which both weights grow from 0 in a straight line; not in the paper. 0: whole
    from the first batch on. 1 leads the mask along the trade-off, and the budget says how far."""
    alpha: float = Field(1.0, ge=0)
    """Weight of the discriminator's entropy in the generator's loss, Eq. 9 (paper, A.1)."""
    beta: float = Field(2.0, ge=0)
    """Weight of the diagnosis in the generator's loss, Eq. 10; 1 in the paper (A.1). What trades AUROC for
    fairness."""
    diagnosis: Literal["ranking", "information"] = "ranking"
    """What beta weighs. `information` is the paper's, I(Y^; Y): it pays for S in the score wherever groups
    differ in prevalence, which the rest of the loss takes out. `ranking` is how often the score puts an ill
    patient above a healthy one of the same group, where S is of no use."""
    fidelity: float = Field(0.5, ge=0)
    """Weight of the change of the frozen model's log-odds, squared, in units of their variance; not in the
    paper. It keeps the scale of the scores, which an order leaves open."""
    steps: int = Field(1, ge=1)
    """How often the mask is added, K; "iteratively adding" has no number in the paper."""
    discriminator_sees: tuple[View, ...] = Field(("embedding", "logit"), min_length=1)
    """The paper has the image (Eq. 7). What the frozen model makes of it works better: see docs/paper.md."""
    discriminator_updates: int = Field(3, ge=1)
    """Steps of d_Y for each step of g; "updated alternatively" in the paper, read as 1."""

    @model_validator(mode="after")
    def _something_to_hide(self) -> Self:
        if self.separation == 0 and self.adversary == 0:
            raise ValueError("`separation` and `adversary` are both 0: nothing would hide the group")
        return self


_AS_WRITTEN = {"separation": 0.0, "beta": 1.0, "diagnosis": "information", "fidelity": 0.0}
"""The paper's terms only, with its weights."""


@final
@METHODS.register("fair_diagnosis")
class FairDiagnosis(Masking):
    """Eqs. 4 to 12.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.
    """

    config_class = FairDiagnosisConfig
    config: FairDiagnosisConfig
    presets: ClassVar = {
        "default": {},
        "adversarial": _AS_WRITTEN,
        # Its weight grows: the mask first diagnoses better, and then gives up as little of that as it can.
        "gap": {"adversary": 0.0, "separation": 60.0, "growth": 1.0, "beta": 1.0, "fidelity": 0.3},
        "paper": {
            **_AS_WRITTEN,
            "discriminator_sees": ("image",),
            "discriminator_updates": 1,
            "learning_rate": 1e-4,
            "discriminator_learning_rate": 1e-4,
            "schedule": "step",
            "average_decay": 0.0,
            "model": {"learning_rate": 1e-4, "schedule": "step", "mutual_information": 1.0},
        },
    }

    def __init__(self, config: FairDiagnosisConfig, spec: Spec, model: DiagnosisModel) -> None:
        super().__init__(config, spec, model, steps=config.steps)
        self.spec = spec
        self._grown = 1.0
        self.discriminator = None
        if config.adversary > 0:
            self.discriminator = Discriminator(
                spec.groups,
                spec.classes,
                sees=_visible(config.discriminator_sees, model),
                channels=spec.channels,
                features=model.features or 0,
            )

    def stages(self) -> tuple[Stage, ...]:
        """Returns the stage of the mask on the frozen model."""
        return (self._stage("mask", self.generator_loss, self.discriminator, self.discriminator_loss),)

    def forward(self, batch: Batch) -> Masked:
        """Masks a batch and diagnoses it, and the images as they are where fidelity counts."""
        masked = super().forward(batch)
        if self.config.fidelity == 0:
            return masked
        with torch.no_grad():
            return masked._replace(before=self.model(batch.image).logit)

    def progress(self, done: float) -> None:
        """Sets how much of their weights what hides the group has by now."""
        growth = self.config.growth
        self._grown = 1.0 if growth == 0 else min(1.0, done / growth)

    def discriminator_loss(self, batch: Batch, masked: Masked) -> Losses:
        """L_dY = -I(S^; S) (Eq. 11); the cross-entropy is H(S) minus the Barber-Agakov bound of I(S^; S)."""
        return {"total": cross_entropy(self._guess(batch, masked), batch.group)}

    def generator_loss(self, batch: Batch, masked: Masked) -> Losses:
        """L_g = a (I(S^; S) - alpha H(S^)) - beta D + s G + f F.

        Eqs. 9 and 10, with the gap G of Eq. 8 measured and the fidelity F to the frozen model's scores. Each
        information is as above; a is `adversary` and s `separation`, as far as they have grown, f `fidelity`,
        and D what `diagnosis` says.
        """
        config = self.config
        losses = {"mask_size": masked.moved.mean()}
        if config.diagnosis == "information":
            losses["diagnosis_information"] = -cross_entropy(masked.logit, batch.label)
            losses["total"] = -config.beta * losses["diagnosis_information"]
        else:
            losses["ranking"] = self._ranking(batch, masked)
            losses["total"] = config.beta * losses["ranking"]
        if config.fidelity > 0:
            losses["change"] = self._change(masked)
            losses["total"] = losses["total"] + config.fidelity * losses["change"]
        if config.separation > 0:
            losses["separation_gap"] = self._gap(batch, masked)
            weight = self._grown * config.separation
            losses["total"] = losses["total"] + weight * losses["separation_gap"]
        if config.adversary > 0:
            guess = self._guess(batch, masked)
            losses["group_information"] = -cross_entropy(guess, batch.group)
            losses["group_entropy"] = mean_entropy(guess)
            hidden = losses["group_information"] - config.alpha * losses["group_entropy"]
            losses["total"] = losses["total"] + self._grown * config.adversary * hidden
        return losses

    def _ranking(self, batch: Batch, masked: Masked) -> Tensor:
        return self._over_classes(
            masked,
            lambda score, c: ranking_loss(score, batch.label == c, batch.group, groups=self.spec.groups),
        )

    def _change(self, masked: Masked) -> Tensor:
        assert masked.before is not None
        logit = masked.before.float()

        def change(score: Tensor, c: int) -> Tensor:
            before = log_odds(logit, c)
            return (score - before).square().mean() / before.var().clamp_min(1e-6)

        return self._over_classes(masked, change)

    def _gap(self, batch: Batch, masked: Masked) -> Tensor:
        groups, classes = self.spec.groups, self.spec.classes
        return self._over_classes(
            masked,
            lambda score, _: separation_gap(score, batch.label, batch.group, groups=groups, classes=classes),
        )

    def _over_classes(self, masked: Masked, term: Callable[[Tensor, int], Tensor]) -> Tensor:
        """A term of the positive class's log-odds; with more classes, the mean over all of them."""
        logit = masked.logit.float()
        classes = range(self.spec.classes) if self.spec.classes > 2 else (1,)
        return torch.stack([term(log_odds(logit, c), c) for c in classes]).mean()

    def _guess(self, batch: Batch, masked: Masked) -> Tensor:
        assert self.discriminator is not None
        diagnosis = Diagnosis(masked.embedding, masked.logit)
        guess: Tensor = self.discriminator(masked.image, diagnosis, batch.label)
        return guess.float()


def _visible(sees: tuple[View, ...], model: DiagnosisModel) -> tuple[View, ...]:
    """What d_Y can look at: a model may show no embedding."""
    if model.features is not None or "embedding" not in sees:
        return sees
    left = tuple(view for view in sees if view != "embedding") or ("logit",)
    logger.warning("the model shows no embedding: d_Y looks at %s alone", " and ".join(left))
    return left


def log_odds(logit: Tensor, c: int) -> Tensor:
    """Log p_c - log (1 - p_c) of class logits (N, classes), shape (N,)."""
    others = [k for k in range(logit.shape[1]) if k != c]
    return logit[:, c] - logit[:, others].logsumexp(1)
