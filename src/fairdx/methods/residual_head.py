"""FRAPPE: a residual on the embedding, learnt on fidelity to the frozen score and on the gap between groups.

Tifrea, Lahoti, Packer, Halpern, Beirami and Prost, "FRAPPE: A group fairness framework for post-processing
everything", ICML 2024.
"""

from typing import Any, final

import numpy as np
import torch
from pydantic import Field

from fairdx.methods.base import METHODS, Features, MethodConfig, Spec
from fairdx.methods.closed_form import ClosedForm, require_embedding, require_one_score
from fairdx.methods.group_posterior import mean_and_spread
from fairdx.methods.out_of_fold import unseen
from fairdx.models.corrections import Residual
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.information import separation_gap

HIDDEN = 32
BATCH = 512


class ResidualHeadConfig(MethodConfig):
    """Settings of the residual."""

    weight: float = Field(8.0, ge=0)
    """Of the gap between groups within a label, beside the squared change of the log-odds in units of their
    variance; the paper's lambda."""
    steps: int = Field(400, ge=1)
    """Steps of Adam."""
    learning_rate: float = Field(3e-3, gt=0)
    """Of Adam."""
    weight_decay: float = Field(1e-2, ge=0)
    """On the embedding's weights."""


@final
@METHODS.register("residual_head")
class ResidualHead(ClosedForm):
    """odds -> odds + net(odds, E), on images that the model has not learnt.

    The paper's penalty is a kernel distance (MMD); here it is the gap that the other methods minimise, so
    that they differ in where they correct and not in what they measure.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.

    Raises:
        InputError: The label has more than two classes, or the model shows no embedding.
    """

    name = "residual_head"
    config_class = ResidualHeadConfig
    config: ResidualHeadConfig

    def __init__(self, config: ResidualHeadConfig, spec: Spec, model: DiagnosisModel) -> None:
        require_one_score(self.name, spec)
        self.residual = Residual(require_embedding(self.name, model), HIDDEN, HIDDEN)
        super().__init__(config, spec, model, self.residual)

    def solve(self, train: Features, validation: Features) -> None:
        """Learns the residual on images that the model has not learnt."""
        images = unseen(train, validation).images
        assert images.embedding is not None
        odds = images.logit[:, 1] - images.logit[:, 0]
        raw = np.concatenate([odds[:, None], images.embedding], axis=1)
        centre, spread = mean_and_spread(raw)
        standard = torch.from_numpy((raw - centre) / spread).float()
        own = torch.from_numpy(odds).float()
        label, group = torch.from_numpy(images.label), torch.from_numpy(images.group)
        first = torch.nn.Linear(raw.shape[1], HIDDEN)
        network = self.residual
        learnt = [*network.hidden.parameters(), *network.out.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": list(first.parameters())},
            {"params": learnt, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            groups,
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        network.requires_grad_(True)
        variance = own.var().clamp_min(1e-6)
        for _ in range(self.config.steps):
            rows = torch.randperm(len(own))[:BATCH]
            with torch.enable_grad():
                change = network.change(first(standard[rows]).clamp(-network.limit, network.limit))
                gap = separation_gap(own[rows] + change, label[rows], group[rows], groups=self.spec.groups)
                loss = change.square().mean() / variance + self.config.weight * gap
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        network.requires_grad_(False)
        with torch.no_grad():
            weight = first.weight.double().numpy() / spread
            network.project.weight.copy_(torch.from_numpy(weight))
            network.project.bias.copy_(torch.from_numpy(first.bias.double().numpy() - weight @ centre))
