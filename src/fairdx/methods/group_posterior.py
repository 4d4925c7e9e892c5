"""P(S given E), the group as the embedding shows it, for methods that have to guess it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairdx.core.errors import InputError
from fairdx.methods.base import Features
from fairdx.models.corrections import GroupPosterior

PENALTY = 1e-2
"""Inverse penalty of the logistic regression on standardised embeddings."""


def fit_posterior(correction: GroupPosterior, train: Features, validation: Features) -> NDArray[np.float64]:
    """Fits the part of a correction that guesses the group, by logistic regression on training images.

    Args:
        correction: Its `weight` and `bias` are set.
        train: What the guess is fitted to.
        validation: What it is applied to.

    Returns:
        P(S given E) of the validation images, shape (n, groups).

    Raises:
        InputError: scikit-learn is not installed.
    """
    assert train.embedding is not None
    assert validation.embedding is not None
    embedding, group = train.embedding, train.group
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError(
            "guessing the group from the embedding needs scikit-learn; run `pip install 'fairdx[study]'`"
        ) from error
    mean, spread = embedding.mean(0), np.maximum(embedding.std(0), 1e-12)
    known = np.unique(group)
    fitted: Any = LogisticRegression(C=PENALTY, max_iter=5000).fit((embedding - mean) / spread, group)
    weight, bias = fitted.coef_ / spread, fitted.intercept_ - fitted.coef_ @ (mean / spread)
    if len(known) == 2:  # one row of log-odds
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    full = np.zeros(correction.weight.shape)
    full[known] = weight
    offset = np.full(len(full), -1e9)  # a group without images is never guessed
    offset[known] = bias
    correction.weight.copy_(torch.from_numpy(full))
    correction.bias.copy_(torch.from_numpy(offset))
    scores = validation.embedding @ full.T + offset
    scores = np.exp(scores - scores.max(1, keepdims=True))
    found: NDArray[np.float64] = scores / scores.sum(1, keepdims=True)
    return found
