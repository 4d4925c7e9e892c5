"""Optimal transport of the score by the group that the embedding shows."""

from typing import final

import torch
from pydantic import Field

from fairdx.methods.base import METHODS, Features, MethodConfig, Spec
from fairdx.methods.closed_form import ClosedForm, require_embedding, require_one_score
from fairdx.methods.group_posterior import fit_posterior
from fairdx.methods.out_of_fold import unseen
from fairdx.methods.transport_maps import KNOTS, transport_maps
from fairdx.models.corrections import Transport
from fairdx.models.diagnosis import DiagnosisModel


class GuessedTransportConfig(MethodConfig):
    """Settings of the transport."""

    strength: float = Field(1.0, ge=0, le=1)
    """How far each group's scores move to the middle: 0 not at all, 1 the whole way."""


@final
@METHODS.register("guessed_transport")
class GuessedTransport(ClosedForm):
    """logit -> sum over s of P(s given E) T_s(logit), with T_s the map of group s to the middle.

    As `optimal_transport`, but told nothing: the maps of all groups are averaged by how likely each is.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.

    Raises:
        InputError: The label has more than two classes, or the model shows no embedding.
    """

    name = "guessed_transport"
    config_class = GuessedTransportConfig
    config: GuessedTransportConfig

    def __init__(self, config: GuessedTransportConfig, spec: Spec, model: DiagnosisModel) -> None:
        require_one_score(self.name, spec)
        self.transport = Transport(require_embedding(self.name, model), spec.groups, KNOTS)
        super().__init__(config, spec, model, self.transport)

    def solve(self, train: Features, validation: Features) -> None:
        """Fits the guess to all images, and the maps to those that the model has not learnt."""
        pool = unseen(train, validation)
        fit_posterior(self.transport, pool.everything)
        images = pool.images
        odds = images.logit[:, 1] - images.logit[:, 0]
        groups, strength = self.spec.groups, self.config.strength
        at, maps = transport_maps(odds, images.label, images.group, groups, strength=strength)
        self.transport.at.copy_(torch.from_numpy(at))
        self.transport.target.copy_(torch.from_numpy(maps))
