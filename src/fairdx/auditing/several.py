"""Several scores of the same images, resampled together: their means and differences are paired."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fairdx.auditing.draws import area_and_precision
from fairdx.inference.resampling import collapse, replicate
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.scores import auc_from_histogram

SCORE_BINS = 256
"""Bins of equal frequency in which the scores are resampled."""


@dataclass(frozen=True)
class Scored:
    """One score of the images.

    Attributes:
        label: 0 or 1; -1 where it is not known, and the image counts nothing; shape (n,).
        score: Shape (n,).
        threshold: A decision is score >= threshold.
    """

    label: Ints
    score: Floats
    threshold: float = 0.5


@dataclass(frozen=True)
class Together:
    """AUC and accuracy of K scores, and of paired replicates of their images.

    Attributes:
        auc: Exact, shape (K,).
        accuracy: Shape (K,).
        auc_replicates: Shape (B, K).
        accuracy_replicates: Shape (B, K).
    """

    auc: Floats
    accuracy: Floats
    auc_replicates: Floats
    accuracy_replicates: Floats


def resample_together(
    scored: Sequence[Scored],
    patient: Ints | None,
    weight: Floats | None = None,
    *,
    n_replicates: int,
    seed: int,
) -> Together:
    """Resample patients once for all scores.

    Args:
        scored: The scores, of the same n images.
        patient: Patient codes, shape (n,); images are resampled if None.
        weight: What each image counts, shape (n,); 1 if None.
        n_replicates: Bootstrap replicates, B.
        seed: Of the bootstrap.

    Returns:
        What the scores are worth, and in every replicate.
    """
    binned = [_Binned.of(one) for one in scored]
    units = collapse([one.cell for one in binned], [one.size for one in binned], patient, weight)
    ends = np.cumsum([0, *(one.size for one in binned)])

    def both(counts: Floats) -> Floats:
        parts = [counts[:, a:b] for a, b in pairwise(ends)]
        return np.stack([one.figures(part) for one, part in zip(binned, parts, strict=True)], axis=1)

    drawn = replicate(units, n_replicates, np.random.default_rng(seed))
    own, repeated = both(units.counts[None])[0], np.concatenate([both(counts) for counts in drawn])
    auc = np.array([_area(one, weight) for one in scored])
    repeated[..., 0] += auc - own[:, 0]  # what the bins cost: 1e-5 or so
    return Together(auc, own[:, 1], repeated[..., 0], repeated[..., 1])


def _area(one: Scored, weight: Floats | None) -> float:
    known = one.label >= 0
    counted = None if weight is None else weight[known]
    return area_and_precision(one.label[known], one.score[known], counted)[0]


@dataclass(frozen=True)
class _Binned:
    """Cells (label, bin) of the images, the last one for those without a label; decided from bin `cut` on."""

    cell: Ints
    size: int
    cut: int

    @classmethod
    def of(cls, one: Scored) -> "_Binned":
        known = one.score[one.label >= 0]
        inner = np.quantile(known, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
        edges = np.unique(np.append(inner, one.threshold))
        n_bins = len(edges) + 1
        place = np.searchsorted(edges, one.score, side="right")
        cell = np.where(one.label >= 0, one.label * n_bins + place, 2 * n_bins)
        return cls(cell.astype(np.int64), 2 * n_bins + 1, int(np.searchsorted(edges, one.threshold)) + 1)

    def figures(self, counts: Floats) -> Floats:
        """AUC and accuracy of tables (B, size): shape (B, 2)."""
        histogram = counts[:, :-1].reshape(len(counts), 2, -1)
        right = histogram[:, 1, self.cut :].sum(-1) + histogram[:, 0, : self.cut].sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = right / histogram.sum((-1, -2))
        return np.stack([auc_from_histogram(histogram), accuracy], axis=-1)
