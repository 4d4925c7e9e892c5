"""Changes between embedding and diagnosis, as modules of plain numbers."""

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from fairdx.models.diagnosis import Diagnosis
from fairdx.models.fair import Correction
from fairdx.models.statistics import MapLayer


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


class Head(Correction):
    """Another linear head on the embedding, in place of the model's own.

    Args:
        features: Length of the embedding, D.
        classes: Number of classes.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(classes, features))
        self.register_buffer("bias", torch.zeros(classes))

    def shape(self) -> dict[str, Any]:
        """Returns kind and sizes."""
        classes, features = self.weight.shape
        return {"kind": "head", "features": features, "classes": classes}

    def forward(self, diagnosis: Diagnosis) -> Tensor:
        """Returns the head's class logits (N, classes)."""
        assert diagnosis.embedding is not None
        return diagnosis.embedding @ self.weight.T + self.bias


class Residual(Correction):
    """Log-odds plus what a small network makes of them and of linear functions of what the model shows.

    With E the embedding, and beside it the statistics of the maps that are watched:
    u = clip(A [odds, E] + a), odds + B tanh(C u + c) + b. What lies outside of anything that was seen is
    treated as its edge.

    Args:
        features: Length of E, with the statistics.
        inputs: Length of u.
        width: Hidden units.
        layers: Layers whose maps are watched, as `MapLayer` has them.

    Attributes:
        limit: How large the entries of u can be.
    """

    limit: Tensor

    def __init__(self, features: int, inputs: int, width: int, layers: Iterable[Iterable[Any]] = ()) -> None:
        super().__init__()
        self.features, self.inputs, self.width = features, inputs, width
        self.layers = tuple(MapLayer(*layer) for layer in layers)
        self.project = nn.Linear(features + 1, inputs)
        self.hidden = nn.Linear(inputs, width)
        self.out = nn.Linear(width, 1)
        self.register_buffer("limit", torch.full((), 4.0))
        for layer in (self.project, self.out):  # by itself it changes nothing
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def shape(self) -> dict[str, Any]:
        """Returns kind and sizes."""
        sizes = {"features": self.features, "inputs": self.inputs, "width": self.width}
        return {"kind": "residual", **sizes, "layers": [list(layer) for layer in self.layers]}

    def seen(self, embedding: Tensor, odds: Tensor) -> Tensor:
        """Returns u, shape (N, inputs), of what is shown, (N, features), and log-odds (N,)."""
        u: Tensor = self.project(torch.cat([odds[:, None], embedding], dim=1))
        return torch.minimum(torch.maximum(u, -self.limit), self.limit)

    def change(self, u: Tensor) -> Tensor:
        """Returns what is added to the log-odds, (N,)."""
        added: Tensor = self.out(torch.tanh(self.hidden(u)))
        return added[:, 0]

    def forward(self, diagnosis: Diagnosis) -> Tensor:
        """Returns corrected logits (N, 2): 0 and the log-odds."""
        shown = [part for part in (diagnosis.embedding, diagnosis.statistics) if part is not None]
        odds = diagnosis.logit[:, 1] - diagnosis.logit[:, 0]
        found = odds + self.change(self.seen(torch.cat(shown, dim=1), odds))
        return torch.stack([torch.zeros_like(found), found], dim=1)


class LinearRule(Correction):
    """P(Y = 1 given E) less sum over y of what each group's share in P(S, y given E) weighs.

    The cells of P(S, Y given E) are in the order s * 2 + y.

    Args:
        features: Length of the embedding, D.
        groups: Number of groups, K.

    Attributes:
        weight: Of the linear model of the cells, shape (2 K, D).
        bias: Of the cells, shape (2 K,).
        price: Subtracted for each cell in proportion to its probability, shape (2 K,).
    """

    weight: Tensor
    bias: Tensor
    price: Tensor

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(2 * groups, features))
        self.register_buffer("bias", torch.zeros(2 * groups))
        self.register_buffer("price", torch.zeros(2 * groups))

    def shape(self) -> dict[str, Any]:
        """Returns kind and sizes."""
        cells, features = self.weight.shape
        return {"kind": "linear_rule", "features": features, "groups": cells // 2}

    def forward(self, diagnosis: Diagnosis) -> Tensor:
        """Returns logits (N, 2) of the value of the rule, taken as a probability."""
        assert diagnosis.embedding is not None
        cells = (diagnosis.embedding @ self.weight.T + self.bias).softmax(1)
        value = cells[:, 1::2].sum(1) - cells @ self.price
        # Beyond 0 and 1 the order has to stay: 5 x - 2.5 is the logit's tangent in the middle, near enough.
        found = 5 * value - 2.5
        return torch.stack([torch.zeros_like(found), found], dim=1)


CORRECTIONS: Final[dict[str, type[Correction]]] = {
    "erasure": Erasure,
    "shift": Shift,
    "transport": Transport,
    "head": Head,
    "residual": Residual,
    "linear_rule": LinearRule,
}
"""By their kind on a card."""
