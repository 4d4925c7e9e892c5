"""Rules that change a finished score by numbers on a model's card. Needs no torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdx.core.errors import InputError
from fairdx.models.card import ModelCard, RuleCard


def changed_scores(
    rule: RuleCard, score: NDArray[np.float64], group: NDArray[np.object_]
) -> NDArray[np.float64]:
    """Applies a rule.

    Args:
        rule: The rule.
        score: P(Y = 1), shape (n,).
        group: Name of each patient's group, shape (n,); not looked at by a rule that needs none.

    Returns:
        Changed scores, shape (n,).

    Raises:
        InputError: The rule knows nothing of a group.
    """
    if not rule.needs_group:
        return np.interp(score, rule.score, next(iter(rule.changed.values())))
    changed = np.empty_like(score)
    for name in dict.fromkeys(group.tolist()):
        if name not in rule.changed:
            known = ", ".join(rule.changed)
            raise InputError(f"the model has no rule for the group `{name}`, only for {known}")
        rows = group == name
        changed[rows] = np.interp(score[rows], rule.score, rule.changed[name])
    return changed


def decided(card: ModelCard, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Decides scores that the card's rule has changed already.

    Args:
        card: It holds the threshold.
        scores: Class probabilities, shape (n, classes).

    Returns:
        Codes of the classes on the card, shape (n,).
    """
    positive = scores.argmax(1) if card.threshold is None else scores[:, 1] >= card.threshold
    return np.asarray(positive, dtype=np.int64)


@dataclass(frozen=True)
class MonotoneRule:
    """A rule of a method: two-class scores and codes of groups in, two-class scores out.

    Attributes:
        card: The rule as numbers.
        groups: Names of the groups, in the order of their codes.
        threshold: Where its scores decide; None leaves it to validation images.
    """

    card: RuleCard
    groups: tuple[str, ...]
    threshold: float | None = None

    def __call__(self, scores: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns changed class probabilities, shape (n, 2)."""
        names = np.array(self.groups, dtype=object)[group]
        positive = changed_scores(self.card, scores[:, 1], names)
        return np.stack([1 - positive, positive], axis=1)
