"""A shift of the score by the group that the embedding shows: the simplest correction."""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fairdx.methods.base import METHODS, Features, MethodConfig, Spec
from fairdx.methods.closed_form import ClosedForm, require_embedding
from fairdx.methods.group_posterior import fit_posterior
from fairdx.methods.out_of_fold import unseen
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

    d is how far the logits of group s lie above those of the first group within labels (`group_shift`). Where
    the embedding shows the group only weakly, a part of the difference stays. It needs no group at test time.

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
        """Fits the guess to all images, and the shift to those that the model has not learnt."""
        pool = unseen(train, validation)
        fit_posterior(self.shift, pool.everything)
        images = pool.images
        shift = group_shift(images.logit, images.label, images.group, self.spec.groups)
        self.shift.shift.copy_(torch.from_numpy(-self.config.strength * shift))


def group_shift(
    logit: NDArray[np.float64], label: NDArray[np.int64], group: NDArray[np.int64], groups: int
) -> NDArray[np.float64]:
    """Computes by how much each group's logits lie above those of the first group, within labels.

    The least-squares offsets of the groups beside those of the labels. They are not enlarged where the group
    can only be guessed: through a weak guess that would drown the diagnosis.

    Args:
        logit: Class logits, shape (n, classes).
        label: Y, shape (n,).
        group: S, shape (n,).
        groups: Number of groups.

    Returns:
        d, shape (groups, classes), to be subtracted; that of the first group is 0.
    """
    centred = logit - logit.mean(1, keepdims=True)
    members = np.eye(groups)[group][:, 1:]
    labels = np.eye(int(label.max()) + 1)[label]
    solution, *_ = np.linalg.lstsq(np.hstack([members, labels]), centred, rcond=None)
    shift = np.zeros((groups, logit.shape[1]))
    shift[1:] = solution[: groups - 1]
    return shift
