"""What the embedding shows of the group, given the label: a linear probe, fitted out of fold.

It plays the part of d_Y for every model alike, also for those that were trained without one. As no image is
seen by the probe that explains it, what it finds is there for new patients too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Final

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax
from torch import Tensor

from fairdx.data.split import patient_folds
from fairdx.inference.clustered import clustered_mean
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.inputs import Floats, Ints

FOLDS: Final = 5
PENALTY: Final = 1e-2
"""Inverse penalty of the logistic regression on standardised embeddings, as elsewhere in the package."""
STEPS: Final = 500
"""Most steps of its fit; it ends before, when nothing moves any more."""
ABSENT: Final = -1e9
"""Logit of a group that a label does not have."""


@dataclass(frozen=True)
class Probe:
    """A probe for each fold and label.

    Attributes:
        weight: Log-odds of the groups by embedding, shape (folds, classes, groups, D).
        bias: Shape (folds, classes, groups).
        fold: Of each image: the probe that has not seen it, shape (n,).
    """

    weight: Tensor
    bias: Tensor
    fold: Ints

    def logits(self, embedding: Tensor, label: Tensor, fold: Tensor) -> Tensor:
        """Returns logits of the group, (N, groups).

        Args:
            embedding: Shape (N, D).
            label: Codes of Y, shape (N,).
            fold: Codes of the folds, shape (N,).
        """
        weight = self.weight.to(embedding)[fold, label]
        return torch.einsum("ngd,nd->ng", weight, embedding) + self.bias.to(embedding)[fold, label]


def fit_probes(
    embedding: Floats,
    label: Ints,
    groupings: Sequence[Ints],
    patients: Ints,
    *,
    classes: int,
    groups: int,
    seed: int,
) -> list[Probe]:
    """Fits a probe for each of several groupings of the same images, with the same folds.

    Where a label has one group only, the probe guesses that group and shows nothing.

    Args:
        embedding: Shape (n, D).
        label: Codes of Y, shape (n,).
        groupings: Codes of S, each of shape (n,).
        patients: Whose image it is, shape (n,); a patient's images are in one fold.
        classes: Number of classes of Y.
        groups: Number of groups.
        seed: Of the folds.

    Raises:
        InputError: There are fewer patients than folds.
    """
    fold = np.asarray(patient_folds(patients, FOLDS, seed=seed), dtype=np.int64)
    group = np.stack(list(groupings))
    weight = np.zeros((len(group), FOLDS, classes, groups, embedding.shape[1]))
    bias = np.zeros((len(group), FOLDS, classes, groups))
    for number in range(FOLDS):
        for code in range(classes):
            rows = (fold != number) & (label == code)
            if rows.any():
                found = logistic(embedding[rows], group[:, rows], groups)
                weight[:, number, code], bias[:, number, code] = found
    return [Probe(torch.from_numpy(w), torch.from_numpy(b), fold) for w, b in zip(weight, bias, strict=True)]


def logistic(embedding: Floats, group: Ints, groups: int) -> tuple[Floats, Floats]:
    """Logistic regressions of several groupings on the same standardised embeddings, all at once.

    Newton's method with the bound of Boehning (1992) in place of the Hessian: the bound is the same for all
    groupings and steps, and is factorised once. Each step lowers the loss.

    Args:
        embedding: Shape (n, D).
        group: Codes, shape (groupings, n).
        groups: Number of groups, G.

    Returns:
        Weights of the embedding itself (groupings, G, D), and biases (groupings, G); where a grouping has one
        group only, weights of 0 and a bias for that group.
    """
    mean, spread = embedding.mean(0), embedding.std(0)
    spread = np.where(
        spread > 1e-9 * np.abs(mean).max(initial=1e-3), spread, np.inf
    )  # dead units say nothing
    x = np.concatenate([(embedding - mean) / spread, np.ones((len(embedding), 1))], axis=1)
    # With two groups the weights of one are the negative of the other's: the penalty counts them twice.
    penalty = np.full(x.shape[1], (2 if groups == 2 else 1) / PENALTY)
    penalty[-1] = 0
    factor = cho_factor(x.T @ x / 2 + np.diag(penalty) + 1e-9 * len(x) * np.eye(x.shape[1]))
    truth = group[:, None, :] == np.arange(groups)[:, None]  # (groupings, G, n)
    absent = np.where(truth.any(2, keepdims=True), 0.0, ABSENT)
    kept = 1 if groups == 2 else groups
    found = np.zeros((len(group), kept, x.shape[1]))
    for _ in range(STEPS):
        odds = found @ x.T
        chance = softmax((np.concatenate([odds, -odds], axis=1) if groups == 2 else odds) + absent, axis=1)
        slope = (chance - truth)[:, :kept] @ x + penalty * found
        step = cho_solve(factor, slope.reshape(-1, x.shape[1]).T).T.reshape(slope.shape)
        found -= step
        if np.abs(step).max() < 1e-6:
            break
    if groups == 2:
        found = np.concatenate([found, -found], axis=1)
    weight = found[..., :-1] / spread
    return weight, found[..., -1] + absent[..., 0] - weight @ mean


def dealt_groups(label: Ints, group: Ints, patients: Ints, *, count: int, seed: int) -> list[Ints]:
    """Deals the patients' groups out again by lot, among patients of the same labels.

    Such groups are as frequent as the true ones within each label, and no image shows them.

    Args:
        label: Codes of Y, shape (n,).
        group: Codes of S, shape (n,); those of a patient's first image count.
        patients: Code of the patient of each image, shape (n,).
        count: How many times.
        seed: Of the draw.
    """
    _, first, whose = np.unique(patients, return_index=True, return_inverse=True)
    lowest, highest = np.full(len(first), label.max()), np.zeros(len(first), dtype=np.int64)
    np.minimum.at(lowest, whose, label)
    np.maximum.at(highest, whose, label)
    kind = lowest * (label.max() + 1) + highest
    own = group[first]
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        dealt = own.copy()
        for one in np.unique(kind):
            rows = np.flatnonzero(kind == one)
            dealt[rows] = own[rng.permutation(rows)]
        made.append(dealt[whose])
    return made


def conditional_auroc(
    group_logits: Floats, label: Ints, group: Ints, patients: Ints, *, level: float = 0.95
) -> Estimate:
    """How well guesses tell the groups apart within a label: 0.5 is not at all.

    The interval is over patients, from what each image adds to the pairs that it is in: DeLong's, with
    clusters.

    Args:
        group_logits: Shape (n, groups).
        label: Shape (n,).
        group: Shape (n,).
        patients: Code of the patient of each image, shape (n,).
        level: Nominal coverage.

    Returns:
        AUROC of each group against the others within each label, averaged with the numbers of pairs as
        weights; nan where no label has two groups.
    """
    won, pairs = np.zeros(len(label)), np.zeros(len(label))
    for code in np.unique(label):
        rows = np.flatnonzero(label == code)
        for one in range(group_logits.shape[1]):
            own = group[rows] == one
            others = np.delete(group_logits[rows], one, axis=1)
            odds = group_logits[rows, one] - np.logaddexp.reduce(others, axis=1)
            above, below = rows[own], rows[~own]
            won[above] += _below(odds[~own], odds[own])
            won[below] += _below(-odds[own], -odds[~own])
            pairs[above] += len(below)
            pairs[below] += len(above)
    total = pairs.sum()
    if total == 0:
        return clustered_mean(np.empty(0), np.empty(0, dtype=np.int64), level=level)
    area = won.sum() / total
    known = pairs > 0
    n = int(known.sum())
    # Each pair is in the sums of two images, and the area moves by both.
    moved = area + 2 * n * (won - area * pairs)[known] / total
    found = clustered_mean(moved, patients[known], level=level)
    return (
        replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0)) if isfinite(found.low) else found
    )


def _below(others: Floats, values: Floats) -> Floats:
    """How many of the others are lower than each value; equal ones count half."""
    ordered = np.sort(others)
    found: Floats = (ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right")) / 2
    return found
