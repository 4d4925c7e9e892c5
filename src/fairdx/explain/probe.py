"""What the embedding shows of the group, given the label: a linear probe, fitted out of fold.

It plays the part of d_Y for every model alike, also for those that were trained without one. As no image is
seen by the probe that explains it, what it finds is there for new patients too.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from fairdx.core.errors import InputError
from fairdx.data.split import patient_folds
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.scores import auroc

FOLDS: Final = 5
PENALTY: Final = 1e-2
"""Inverse penalty of the logistic regression on standardised embeddings, as elsewhere in the package."""


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


def fit_probe(
    embedding: Floats, label: Ints, group: Ints, patients: Ints, *, classes: int, groups: int, seed: int
) -> Probe:
    """Fits the probe; where a label has one group only, it guesses that group and shows nothing.

    Args:
        embedding: Shape (n, D).
        label: Codes of Y, shape (n,).
        group: Codes of S, shape (n,).
        patients: Whose image it is, shape (n,); a patient's images are in one fold.
        classes: Number of classes of Y.
        groups: Number of groups.
        seed: Of the folds.

    Raises:
        InputError: There are fewer patients than folds.
    """
    fold = np.asarray(patient_folds(patients, FOLDS, seed=seed), dtype=np.int64)
    weight = np.zeros((FOLDS, classes, groups, embedding.shape[1]))
    bias = np.zeros((FOLDS, classes, groups))
    for number in range(FOLDS):
        for code in range(classes):
            rows = (fold != number) & (label == code)
            if len(np.unique(group[rows])) > 1:
                weight[number, code], bias[number, code] = _fit(embedding[rows], group[rows], groups)
    return Probe(torch.from_numpy(weight), torch.from_numpy(bias), fold)


def _fit(embedding: Floats, group: Ints, groups: int) -> tuple[Floats, Floats]:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError(
            "looking for the group in the embedding needs scikit-learn; run `pip install 'fairdx[study]'`"
        ) from error
    mean, spread = embedding.mean(0), embedding.std(0)
    spread = np.where(
        spread > 1e-9 * np.abs(mean).max(initial=1e-3), spread, np.inf
    )  # dead units say nothing
    fitted: Any = LogisticRegression(C=PENALTY, max_iter=1000).fit((embedding - mean) / spread, group)
    known = fitted.classes_
    found, offset = fitted.coef_ / spread, fitted.intercept_ - fitted.coef_ @ (mean / spread)
    if len(known) == 2:  # one row of log-odds
        found, offset = np.concatenate([0 * found, found]), np.concatenate([0 * offset, offset])
    weight, bias = np.zeros((groups, embedding.shape[1])), np.full(groups, -1e9)
    weight[known], bias[known] = found, offset
    return weight, bias


def conditional_auroc(group_logits: Floats, label: Ints, group: Ints) -> float:
    """How well guesses tell the groups apart within a label: 0.5 is not at all.

    Args:
        group_logits: Shape (n, groups).
        label: Shape (n,).
        group: Shape (n,).

    Returns:
        AUROC of each group against the others within each label, averaged with the numbers of pairs as
        weights; nan where no label has two groups.
    """
    total, pairs = 0.0, 0
    for code in np.unique(label):
        for one in range(group_logits.shape[1]):
            rows = label == code
            own = group[rows] == one
            weight = int(own.sum()) * int((~own).sum())
            if weight:
                others = np.delete(group_logits[rows], one, axis=1)
                odds = group_logits[rows, one] - np.logaddexp.reduce(others, axis=1)
                total += weight * float(auroc(own.astype(int), odds))
                pairs += weight
    return total / pairs if pairs else float("nan")
