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
from fairdx.metrics.inputs import Floats, Ints, same_length, to_numpy


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
        self.n_groups, self.n_classes, self.threshold = n_groups, n_classes, threshold
        self.counts: Floats = np.zeros((n_groups, n_classes, n_classes))

    def update(self, preds: Any, target: Any, groups: Any) -> None:
        """Add a batch; predictions first, as in torchmetrics.

        Args:
            preds: Scores of shape (n,), class scores of shape (n, K) (the largest decides), or decisions as
                whole numbers of shape (n,); tensors on any device.
            target: Labels, shape (n,).
            groups: Groups, shape (n,).

        Raises:
            InputError: If lengths differ or a code is out of range.
        """
        label, group = (to_numpy(v, n).astype(np.int64) for v, n in ((target, "target"), (groups, "groups")))
        decision = self._decide(to_numpy(preds, "preds"))
        if len(label) == 0:
            return
        same_length(preds=decision, target=label, groups=group)
        for name, code, size in (
            ("preds", decision, self.n_classes),
            ("target", label, self.n_classes),
            ("groups", group, self.n_groups),
        ):
            if code.min() < 0 or code.max() >= size:
                bad = code.min() if code.min() < 0 else code.max()
                raise InputError(f"{name} holds {bad}; codes go from 0 to {size - 1}.")
        self.counts += tables.count_table(group, label, decision, self.counts.shape)

    def _decide(self, preds: np.ndarray[Any, Any]) -> Ints:
        if preds.ndim == 2:
            decision = preds.argmax(1)
        else:
            decision = preds >= self.threshold if preds.dtype.kind == "f" else preds
        return np.asarray(decision, dtype=np.int64)

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
