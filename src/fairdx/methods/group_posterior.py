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


def fit_posterior(correction: GroupPosterior, images: Features) -> None:
    """Fits the part of a correction that guesses the group, by logistic regression.

    Args:
        correction: Its `weight` and `bias` are set.
        images: What the guess is fitted to.

    Raises:
        InputError: scikit-learn is not installed.
    """
    assert images.embedding is not None
    weight, bias = linear_posterior(images.embedding, images.group, len(correction.weight))
    correction.weight.copy_(torch.from_numpy(weight))
    correction.bias.copy_(torch.from_numpy(bias))


def probabilities(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of the rows of logits (n, K)."""
    scores = np.exp(logit - logit.max(1, keepdims=True))
    found: NDArray[np.float64] = scores / scores.sum(1, keepdims=True)
    return found


def mean_and_spread(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns mean and standard deviation of columns (n, D), by which they are standardised.

    A column that is constant, up to how 32 bits round it, gets an infinite one: nothing was learnt of it, and
    so it weighs nothing in an image in which it differs. A feature may be 0 in all images but one.
    """
    mean, spread = columns.mean(0), columns.std(0)
    constant = spread <= 4 * np.finfo(np.float32).eps * np.abs(columns).max(0)
    return mean, np.where(constant, np.inf, spread)


def linear_posterior(
    embedding: NDArray[np.float64], code: NDArray[np.int64], count: int, *, penalty: float = PENALTY
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fits P(code given E) by logistic regression on standardised embeddings.

    Args:
        embedding: E, shape (n, D).
        code: What is guessed, from 0 to `count` - 1, shape (n,).
        count: How many codes there are.
        penalty: Inverse penalty of the regression.

    Returns:
        Weights, shape (count, D), and offsets, shape (count,), of logits; a code without images gets
        an offset of -1e9.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError(
            "guessing the group from the embedding needs scikit-learn; run `pip install 'fairdx[study]'`"
        ) from error
    mean, spread = mean_and_spread(embedding)
    known = np.unique(code)
    standard = ((embedding - mean) / spread).astype(np.float32)  # half the memory, and time to spare
    fitted: Any = LogisticRegression(C=penalty, max_iter=5000).fit(standard, code)
    found, offset = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
    weight, bias = found / spread, offset - found @ (mean / spread)
    if len(known) == 2:  # one row of log-odds
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    full = np.zeros((count, embedding.shape[1]))
    full[known] = weight
    offsets = np.full(count, -1e9)  # one without images is never guessed
    offsets[known] = bias
    return full, offsets
