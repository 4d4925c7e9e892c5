"""A shift of the score by the group that the embedding shows: the simplest correction."""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fairdx.methods.base import METHODS, Features, MethodConfig, Spec
from fairdx.methods.closed_form import ClosedForm, require_embedding
from fairdx.methods.group_posterior import fit_posterior
from fairdx.models.corrections import Shift
from fairdx.models.diagnosis import DiagnosisModel


class ScoreShiftConfig(MethodConfig):
    """Settings of the shift."""

    strength: float = Field(1.0, ge=0)
    """1 takes the mean difference between groups within labels out, as far as the group can be guessed."""


@final
@METHODS.register("score_shift")
class ScoreShift(ClosedForm):
    """logit - strength * sum over s of P(s given E) d_s.

    d is the mean of the logits of group s within a label, less that of all, averaged over labels by their
    share. The regression of the logits on P(s given E) within labels gives it, so that a group that can only
    be guessed is shifted by more. It needs no group at test time.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.

    Raises:
        InputError: The model shows no embedding.
    """

    name = "score_shift"
    config_class = ScoreShiftConfig
    config: ScoreShiftConfig

    def __init__(self, config: ScoreShiftConfig, spec: Spec, model: DiagnosisModel) -> None:
        self.shift = Shift(require_embedding(self.name, model), spec.groups, spec.classes)
        super().__init__(config, spec, model, self.shift)

    def solve(self, train: Features, validation: Features) -> None:
        """Fits the guess to training images and the shift to validation images, which the model never saw."""
        posterior = fit_posterior(self.shift, train, validation)
        shift = group_shift(validation.logit, validation.label, validation.group, posterior)
        self.shift.shift.copy_(torch.from_numpy(-self.config.strength * shift))


def group_shift(
    logit: NDArray[np.float64],
    label: NDArray[np.int64],
    group: NDArray[np.int64],
    posterior: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Computes by how much to shift each group's logits so that their means within labels agree.

    With P(s given E) as the only handle, a shift of d moves the difference between groups by d times the
    difference of their mean posteriors; the shift is that much larger.

    Args:
        logit: Class logits, shape (n, classes).
        label: Y, shape (n,).
        group: S, shape (n,).
        posterior: P(S given E), shape (n, groups).

    Returns:
        d, shape (groups, classes), to be subtracted; that of the first group is 0.
    """
    groups, shift = posterior.shape[1], np.zeros((posterior.shape[1], logit.shape[1]))
    centred = logit - logit.mean(1, keepdims=True)
    response, handle, weight = [], [], []
    for y in np.unique(label):
        rows = label == y
        share = np.sqrt(rows.mean())
        for s in range(groups):
            member = rows & (group == s)
            if member.any():
                response.append(centred[member].mean(0) - centred[rows].mean(0))
                handle.append(posterior[member].mean(0) - posterior[rows].mean(0))
                weight.append(share * np.sqrt(member.mean()))
    scale = np.array(weight)[:, None]
    design = np.stack(handle)[:, 1:] * scale
    solution, *_ = np.linalg.lstsq(design, np.stack(response) * scale, rcond=1e-6)
    shift[1:] = solution
    return shift
