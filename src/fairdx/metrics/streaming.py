"""ADF and effects accumulated batch by batch, in the manner of torchmetrics, without importing torch.

The state is a table of counts: `update` adds a batch, `compute` reads it, `reset` empties it. In distributed
training each process has its own; tables add, so `merge` joins them, and `sync` does it with the sum over
processes that the framework offers (with torch: `all_reduce` of a tensor made from `counts`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from fairdx.core.errors import InputError
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import effects_from_counts
from fairdx.metrics.inputs import Floats, Ints, same_length, to_numpy, to_scores
from fairdx.metrics.threshold import at_precision


class RunningTable(ABC):
    """Counts by group, label and decision, shape (S, Y, Y).

    Args:
        n_groups: Number of groups, coded 0 to n_groups - 1.
        n_classes: Number of classes, coded 0 to n_classes - 1.
        threshold: For scores of shape (n,): the decision is score >= threshold. Whole numbers are decisions.
    """

    def __init__(self, n_groups: int, n_classes: int = 2, *, threshold: float = 0.5) -> None:
        if n_groups < 2 or n_classes < 2:
            raise InputError(f"n_groups is {n_groups} and n_classes {n_classes}; give at least 2 of each.")
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is {threshold}; give a number in [0, 1].")
        self.n_groups, self.n_classes, self.threshold = n_groups, n_classes, threshold
        self.counts: Floats = np.zeros((n_groups, n_classes, n_classes))

    def update(self, preds: Any, target: Any, groups: Any) -> None:
        """Add a batch; predictions first, as in torchmetrics.

        Args:
            preds: Scores in [0, 1] of shape (n,) or (n, 1); class scores of shape (n, K), the largest
                deciding, or for two classes the second against the threshold if they are probabilities; or
                decisions as whole numbers of shape (n,). Tensors on any device.
            target: Labels, shape (n,) or (n, 1).
            groups: Groups, shape (n,) or (n, 1).

        Raises:
            InputError: If lengths differ, a code is missing, no whole number or out of range, or a score is
                missing or outside [0, 1].
        """
        decision = self._decide(to_numpy(preds, "preds"))
        label, group = _codes(target, "target", self.n_classes), _codes(groups, "groups", self.n_groups)
        if len(label) == len(group) == len(decision) == 0:
            return
        same_length(preds=decision, target=label, groups=group)
        self.counts += tables.count_table(group, label, decision, self.counts.shape)

    def _decide(self, preds: np.ndarray[Any, Any]) -> Ints:
        if preds.ndim == 2:
            preds = self._of_classes(to_scores(preds, "preds", bounded=False))
        if preds.dtype.kind != "f" or (self.n_classes > 2 and preds.ndim == 1):
            return _codes(preds, "preds", self.n_classes)
        scores = at_precision(to_scores(preds, "preds"), self.threshold)
        return (scores >= self.threshold).astype(np.int64)

    def _of_classes(self, scores: Floats) -> np.ndarray[Any, Any]:
        """Decisions from class scores (n, K), or the probability of the second of two classes."""
        if scores.shape[1] != self.n_classes:
            raise InputError(
                f"preds has {scores.shape[1]} columns; give one for each of {self.n_classes} classes."
            )
        sums_to_one = np.abs(scores.sum(1) - 1) < 1e-3
        if self.n_classes == 2 and len(scores) and sums_to_one.all() and (scores >= 0).all():
            return scores[:, 1]
        if self.n_classes == 2 and self.threshold != 0.5:
            raise InputError(
                "preds of two columns are no probabilities; a threshold needs the score of one class."
            )
        return np.asarray(scores.argmax(1))

    def merge(self, other: Self) -> Self:
        """Add the counts of another process or epoch to these; returns itself."""
        if other.counts.shape != self.counts.shape:
            raise InputError(
                f"Tables of shapes {self.counts.shape} and {other.counts.shape} cannot be merged."
            )
        self.counts = self.counts + other.counts
        return self

    def sync(self, sum_over_processes: Callable[[Floats], Any]) -> Self:
        """Replace the counts by their sum over processes; returns itself.

        Args:
            sum_over_processes: Takes this process's counts, returns the sum of all.
        """
        self.counts = to_numpy(sum_over_processes(self.counts), "counts").astype(np.float64)
        return self

    def reset(self) -> None:
        """Forget everything seen."""
        self.counts = np.zeros_like(self.counts)

    @abstractmethod
    def compute(self) -> Any:
        """The metric over everything seen since the last reset."""


class RunningADF(RunningTable):
    """ADF = I(S; Y^ | Y) in nats over everything seen (paper, Eq. 24).

    Example:
        >>> adf = RunningADF(n_groups=2)
        >>> adf.update([0.2, 0.3, 0.8, 0.9], [1, 1, 1, 1], [0, 0, 1, 1])
        >>> round(adf.compute(), 4)  # log 2
        0.6931
    """

    def compute(self, *, corrected: bool = False) -> float:
        """ADF; with `corrected` less its first-order bias, truncated at 0. nan before the first batch."""
        information = float(tables.mutual_information(self.counts))
        if not corrected:
            return information
        bias = float(tables.information_bias(self.counts, sample_size=float(max(self.counts.sum(), 1.0))))
        return float(np.maximum(information - bias, 0.0))


class RunningEffects(RunningTable):
    """Total, direct and indirect effect of each group against a reference over everything seen (Eqs. 1-3)."""

    def compute(self, *, reference: int = 0, positive: int = -1) -> dict[str, Floats]:
        """Effects by group.

        Args:
            reference: Code of the reference group.
            positive: Code of the decision whose probability they are of; the last if -1.

        Returns:
            total_effect, direct_effect and indirect_effect, each of shape (S,), 0 for the reference; nan
            where a label of the reference does not occur.
        """
        return effects_from_counts(self.counts, reference, positive)


def _codes(values: Any, name: str, size: int) -> Ints:
    """Whole numbers from 0 to size - 1, shape (n,)."""
    given = to_scores(values, name, bounded=False)
    if given.ndim != 1:
        raise InputError(f"{name} has shape {given.shape}; give one value per image.")
    if part := next(iter(given[given != np.round(given)].tolist()), None):
        raise InputError(f"{name} holds {part:g}; codes are whole numbers from 0 to {size - 1}.")
    if len(given) and (given.min() < 0 or given.max() >= size):
        bad = given.min() if given.min() < 0 else given.max()
        raise InputError(f"{name} holds {bad:.0f}; codes go from 0 to {size - 1}.")
    return given.astype(np.int64)
