"""Changes between embedding and diagnosis, as modules of plain numbers."""

from typing import Any, Final

import torch
from torch import Tensor

from fairdx.models.diagnosis import Diagnosis
from fairdx.models.fair import Correction


class Erasure(Correction):
    """E - P (E - mu): takes directions out of the embedding (LEACE).

    Args:
        features: Length of the embedding, D.

    Attributes:
        projection: P, shape (D, D).
        center: mu, shape (D,).
    """

    edits = True
    projection: Tensor
    center: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("projection", torch.zeros(features, features))
        self.register_buffer("center", torch.zeros(features))

    def shape(self) -> dict[str, Any]:
        """Returns kind and length of the embedding."""
        return {"kind": "erasure", "features": len(self.center)}

    def edit(self, embedding: Tensor) -> Tensor:
        """Returns the embedding without those directions, shape (N, D)."""
        return embedding - (embedding - self.center) @ self.projection.T


class GroupPosterior(Correction):
    """P(S given E): what a linear model makes of the embedding. Its subclasses change the score by it.

    Args:
        features: Length of the embedding, D.
        groups: Number of groups, K.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(groups, features))
        self.register_buffer("bias", torch.zeros(groups))

    def posterior(self, diagnosis: Diagnosis) -> Tensor:
        """Returns P(S given E), shape (N, K)."""
        assert diagnosis.embedding is not None
        return (diagnosis.embedding @ self.weight.T + self.bias).softmax(1)


class Shift(GroupPosterior):
    """Shifts each class's logit by its group's, averaged over the groups that the embedding suggests.

    Args:
        features: Length of the embedding, D.
        groups: Number of groups, K.
        classes: Number of classes.

    Attributes:
        shift: Added to the logits, shape (K, classes).
    """

    shift: Tensor

    def __init__(self, features: int, groups: int, classes: int) -> None:
        super().__init__(features, groups)
        self.register_buffer("shift", torch.zeros(groups, classes))

    def shape(self) -> dict[str, Any]:
        """Returns kind and sizes."""
        groups, features = self.weight.shape
        return {"kind": "shift", "features": features, "groups": groups, "classes": self.shift.shape[1]}

    def forward(self, diagnosis: Diagnosis) -> Tensor:
        """Returns the shifted class logits (N, classes)."""
        return diagnosis.logit + self.posterior(diagnosis) @ self.shift


class Transport(GroupPosterior):
    """Moves the log-odds along each group's map, averaged over the groups that the embedding suggests.

    Args:
        features: Length of the embedding, D.
        groups: Number of groups, K.
        knots: Places at which the maps are known; linear between them, shifted beyond the first and the last.

    Attributes:
        at: Ascending log-odds, shape (knots,).
        target: What they become, shape (K, knots).
    """

    at: Tensor
    target: Tensor

    def __init__(self, features: int, groups: int, knots: int) -> None:
        super().__init__(features, groups)
        self.register_buffer("at", torch.arange(float(knots)))
        self.register_buffer("target", torch.arange(float(knots)).repeat(groups, 1))

    def shape(self) -> dict[str, Any]:
        """Returns kind and sizes."""
        groups, features = self.weight.shape
        return {"kind": "transport", "features": features, "groups": groups, "knots": len(self.at)}

    def forward(self, diagnosis: Diagnosis) -> Tensor:
        """Returns corrected logits (N, 2): 0 and the log-odds."""
        odds = diagnosis.logit[:, 1] - diagnosis.logit[:, 0]
        inside = odds.clamp(self.at[0], self.at[-1])
        # Counted, not searched for: an exported model has no operation that searches.
        right = (self.at < inside[:, None]).sum(1).clamp(1, len(self.at) - 1)
        left = right - 1
        share = (inside - self.at[left]) / (self.at[right] - self.at[left])
        moved = self.target[:, left] + share * (self.target[:, right] - self.target[:, left])  # (K, N)
        found = (self.posterior(diagnosis) * moved.T).sum(1) + odds - inside
        return torch.stack([torch.zeros_like(found), found], dim=1)


CORRECTIONS: Final[dict[str, type[Correction]]] = {"erasure": Erasure, "shift": Shift, "transport": Transport}
"""By their kind on a card."""
