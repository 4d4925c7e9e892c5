"""Optimal transport of the score with the group from the record, as a DICOM header has sex and age."""

from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fairdx.core.errors import InputError
from fairdx.methods.base import METHODS, Method, MethodConfig, Scores, Spec, Stage
from fairdx.methods.transport_maps import transport_maps
from fairdx.models.card import RuleCard
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.fair import FairModel
from fairdx.models.rules import MonotoneRule

SMALLEST = 1e-6
"""Scores are kept so far from 0 and 1 before their log-odds are taken."""


class OptimalTransportConfig(MethodConfig):
    """Settings of the transport."""

    strength: float = Field(1.0, ge=0, le=1)
    """How far each group's scores move to the middle: 0 not at all, 1 the whole way."""


@final
@METHODS.register("optimal_transport")
class OptimalTransport(Method):
    """logit -> (1 - t) logit + t Q(F_s(logit)), with Q the mean of the groups' quantile functions.

    F_s is the distribution of the log-odds in group s, weighted to the prevalence of all. With one map for
    each group the distributions within both labels cannot be made equal at once; their mixture is.

    **It has to know S at test time.** It keeps the order of the patients within each group.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The diagnosis model, which stays as it is.

    Raises:
        InputError: The label has more than two classes.
    """

    config_class = OptimalTransportConfig
    needs_group: ClassVar = True

    def __init__(self, config: OptimalTransportConfig, spec: Spec, model: DiagnosisModel) -> None:
        if spec.classes != 2:
            raise InputError(
                f"method `optimal_transport` moves one score, and the label has {spec.classes} classes"
            )
        self.config, self.model, self.spec = config, model, spec
        self.fair = FairModel(model)

    def stages(self) -> tuple[Stage, ...]:
        """Returns no stage."""
        return ()

    def adjust(
        self, scores: Scores, label: NDArray[np.int64], group: NDArray[np.int64], *, seed: int
    ) -> MonotoneRule:
        """Fits the maps on validation scores.

        Raises:
            InputError: A group has images of one class only.
        """
        del seed
        for code in range(self.spec.groups):
            if len(np.unique(label[group == code])) < 2:
                raise InputError(
                    f"method `optimal_transport` is fitted on validation images, and those of group {code} "
                    "(counted from 0, in the order of the data set) are not of both classes; use more images"
                )
        p = np.clip(scores[:, 1], SMALLEST, 1 - SMALLEST)
        groups, strength = self.spec.groups, self.config.strength
        at, maps = transport_maps(np.log(p / (1 - p)), label, group, groups, strength=strength)
        names = self.spec.group_names or tuple(str(code) for code in range(groups))
        card = RuleCard(
            needs_group=True,
            score=_ends(at),
            changed={name: _ends(row) for name, row in zip(names, maps, strict=True)},
        )
        return MonotoneRule(card, names)


def _ends(odds: NDArray[np.float64]) -> tuple[float, ...]:
    """Probabilities, with the two ends that stay where they are."""
    return (0.0, *(1 / (1 + np.exp(-odds))).tolist(), 1.0)
