"""LinearPost: the best attribute-blind decision under equal rates is linear in P(S, Y given E).

Xian and Zhao, "A unified post-processing framework for group fairness", 2024: decide 1 where
eta(x) - t > sum over y and s of l_sy P(S = s, Y = y given x) / P(S = s, Y = y), with the sum of l over the
groups 0 for each y.
"""

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import minimize

from fairdx.methods.base import METHODS, Features, MethodConfig, Spec
from fairdx.methods.closed_form import ClosedForm, require_embedding, require_one_score
from fairdx.methods.group_posterior import linear_posterior, probabilities
from fairdx.methods.out_of_fold import unseen
from fairdx.models.corrections import LinearRule
from fairdx.models.diagnosis import DiagnosisModel

Array = NDArray[np.float64]


class LinearPostConfig(MethodConfig):
    """Settings of the rule."""

    tolerance: float = Field(0.02, ge=0)
    """Difference of any group's rates from the groups' mean that is allowed."""
    penalty: float = Field(1e-3, gt=0)
    """Inverse penalty of the logistic regression of the cells on standardised embeddings."""


@final
@METHODS.register("linear_post")
class LinearPost(ClosedForm):
    """A rule for one operating point, the prevalence; its value serves as the score at all others.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.

    Raises:
        InputError: The label has more than two classes, or the model shows no embedding.
    """

    name = "linear_post"
    config_class = LinearPostConfig
    config: LinearPostConfig

    def __init__(self, config: LinearPostConfig, spec: Spec, model: DiagnosisModel) -> None:
        require_one_score(self.name, spec)
        self.rule = LinearRule(require_embedding(self.name, model), spec.groups)
        super().__init__(config, spec, model, self.rule)

    def solve(self, train: Features, validation: Features) -> None:
        """Fits the cells and the prices to images that the model has not learnt."""
        images = unseen(train, validation).images
        assert images.embedding is not None
        cell, groups = images.group * 2 + images.label, self.spec.groups
        weight, bias = linear_posterior(images.embedding, cell, 2 * groups, penalty=self.config.penalty)
        cells = probabilities(images.embedding @ weight.T + bias)
        price = cell_prices(cells, tolerance=self.config.tolerance)
        for buffer, found in ((self.rule.weight, weight), (self.rule.bias, bias), (self.rule.price, price)):
            buffer.copy_(torch.from_numpy(found))


def cell_prices(cells: Array, *, tolerance: float) -> Array:
    """Solves the dual: the prices at which the best decisions have rates within the tolerance.

    The loss counts the ill and the healthy alike, so that the operating point is the prevalence; the dual is
    mean of max(0, eta - t - d . l) plus the tolerance times the sum of |l|, which is convex in l.

    Args:
        cells: P(S = s, Y = y given x), shape (n, 2 K), in the order s * 2 + y.
        tolerance: How far a rate may be from the groups' mean.

    Returns:
        What each cell's probability costs, shape (2 K,).
    """
    shares = np.maximum(cells.mean(0), 1e-12)
    groups = cells.shape[1] // 2
    eta = cells[:, 1::2].sum(1)
    gain = eta - shares[1::2].sum()
    # The difference of a group's rate from the mean of the groups' rates, as a function of decisions. A cell
    # without images has no rate; as 0 it would pull those of all others down.
    known = (cells.max(0) > 0).reshape(groups, 2)
    ratio = (cells / shares).reshape(len(cells), groups, 2)
    mean = ratio.sum(1, keepdims=True) / np.maximum(known.sum(0), 1)
    differences = (known * (ratio - mean)).reshape(len(cells), 2 * groups)

    def dual(parts: Array) -> tuple[float, Array]:
        """Value and slope at l = up - down, both at least 0."""
        prices = parts[: 2 * groups] - parts[2 * groups :]
        value = gain - differences @ prices
        decided = value > 0
        slope = -(differences * decided[:, None]).mean(0)
        total = float(np.maximum(value, 0).mean() + tolerance * parts.sum())
        return total, np.concatenate([slope, -slope]) + tolerance

    found = minimize(
        dual, np.zeros(4 * groups), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (4 * groups)
    )
    prices = (found.x[: 2 * groups] - found.x[2 * groups :]).reshape(groups, 2)
    mean_price = (known * prices).sum(0) / np.maximum(known.sum(0), 1)
    centred: Array = (known * (prices - mean_price)).ravel() / shares
    return centred
