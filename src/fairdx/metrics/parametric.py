"""Effects standardised over covariates by a model: the g-formula of Robins (1986) with logistic regressions.

Strata say nothing where a value of the covariates occurs in one group alone. A model carries on from its
neighbours. Decisions are regressed on the group, the label and the covariates:

    logit P(Ŷ=1 | s, y, c) = a_sy + b_y c        DE  = mean over the reference of P(s+, y, c) - P(s-, y, c)
    logit P(Ŷ=1 | s, c)    = a_s + b c           TCE = mean over the reference of P(s+, c) - P(s-, c)

and IE = TCE - DE. The price is the model's assumptions: in the logit the group and the covariates add up. A
weak normal prior (standard deviation 10) keeps coefficients finite where decisions are all the same.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from fairdx.metrics.counts import ratio
from fairdx.metrics.inputs import Codes, Floats, Ints

_PRECISION = 0.01  # of the prior
_STEPS = 50


def covariate_design(covariates: dict[str, Codes], rows: Ints) -> Floats:
    """Numbers for a regression, of mean 0 and spread 1.

    Args:
        covariates: Columns.
        rows: One row for each stratum, shape (Z,).

    Returns:
        Shape (Z, p). A covariate whose values are all numbers has a linear term, and a square if it takes
        more than two; others have an indicator of each value but the first.
    """
    columns = list[Floats]()
    for column in covariates.values():
        code = column.codes[rows]
        try:
            number = np.array([float(name) for name in column.names])[code]
        except ValueError:
            columns += [(code == k).astype(float) for k in range(1, len(column.names))]
            continue
        number = _scaled(number)
        columns += [number, _scaled(number**2)] if len(np.unique(number)) > 2 else [number]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))


def _scaled(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-12))


@dataclass(frozen=True)
class ModelledEffects:
    """Effects of tables of decisions by group and stratum, S groups and Z strata.

    Attributes:
        label: Class of each stratum, shape (Z,).
        covariates: From `covariate_design`, shape (Z, p).
        reference: Index of the reference group.
    """

    label: Ints
    covariates: Floats
    reference: int

    def of(self, sample: Floats, replicates: Floats) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Effects of the sample and of its replicates.

        Args:
            sample: Counts by group, stratum and decision, shape (S, Z, 2).
            replicates: Shape (B, S, Z, 2); one Newton step away from the fit to the sample.

        Returns:
            total_effect, direct_effect and indirect_effect: those of the sample, each (S,), and those of the
            replicates, (B, S).
        """
        n_groups = len(sample)
        direct, total = (
            self._standardised(design, sample, replicates)
            for design in (self._with_label(n_groups), self._without(n_groups))
        )
        found = [
            {"total_effect": t, "direct_effect": d, "indirect_effect": t - d}
            for d, t in zip(direct, total, strict=True)
        ]
        return {name: effect[0] for name, effect in found[0].items()}, found[1]

    def _with_label(self, n_groups: int) -> Floats:
        """Rows (S Z) of a_sy + b_y c."""
        classes = int(self.label.max()) + 1
        of_class = np.eye(classes)[self.label]  # (Z, Y)
        slopes = (of_class[:, :, None] * self.covariates[:, None, :]).reshape(len(self.label), -1)
        levels = np.einsum("st,zy->szty", np.eye(n_groups), of_class).reshape(n_groups * len(self.label), -1)
        return np.concatenate([levels, np.tile(slopes, (n_groups, 1))], axis=1)

    def _without(self, n_groups: int) -> Floats:
        """Rows (S Z) of a_s + b c."""
        levels = np.repeat(np.eye(n_groups), len(self.label), axis=0)
        return np.concatenate([levels, np.tile(self.covariates, (n_groups, 1))], axis=1)

    def _standardised(self, design: Floats, sample: Floats, replicates: Floats) -> tuple[Floats, Floats]:
        """Mean decisions of each group less those of the reference, over the reference's strata."""
        beta = fit_logistic(design, sample.reshape(-1, 2))
        moved = _one_step(design, beta, replicates.reshape(len(replicates), -1, 2))
        return tuple(
            self._contrast(expit(b @ design.T), counts)
            for b, counts in ((beta[None], sample[None]), (moved, replicates))
        )  # type: ignore[return-value]

    def _contrast(self, chance: Floats, counts: Floats) -> Floats:
        chance = chance.reshape(len(chance), counts.shape[1], -1)
        size = counts[:, self.reference].sum(-1)
        weight = np.nan_to_num(ratio(size, size.sum(-1, keepdims=True)))
        apart = chance - chance[:, self.reference, None]
        return np.asarray(np.einsum("bsz,bz->bs", apart, weight))


def fit_logistic(design: Floats, counts: Floats) -> Floats:
    """Coefficients of a logistic regression with the weak prior, by Newton's method.

    Args:
        design: Shape (n, p).
        counts: Of decisions 0 and 1 in each row, shape (n, 2).

    Returns:
        Shape (p,).
    """
    total, beta = counts.sum(-1), np.zeros(design.shape[1])

    def loss(b: Floats) -> float:
        linear = design @ b
        penalty = _PRECISION / 2 * float(b @ b)
        return float((total * np.logaddexp(0, linear) - counts[:, 1] * linear).sum()) + penalty

    current = loss(beta)
    for _ in range(_STEPS):
        p = expit(design @ beta)
        slope = design.T @ (counts[:, 1] - total * p) - _PRECISION * beta
        bend = (design * (total * p * (1 - p))[:, None]).T @ design + _PRECISION * np.eye(len(beta))
        step = np.linalg.solve(bend, slope)
        while (proposed := loss(beta + step)) > current + 1e-9:
            step = step / 2
        beta, current = beta + step, proposed
        if np.abs(step).max() < 1e-9:
            break
    return beta


def _one_step(design: Floats, beta: Floats, counts: Floats) -> Floats:
    """Coefficients of replicates (B, n, 2) after one Newton step from those of the sample: (B, p)."""
    p = expit(design @ beta)
    total = counts.sum(-1)
    slope = (counts[..., 1] - total * p) @ design - _PRECISION * beta
    weight = total * (p * (1 - p))
    bend = np.stack([(design * w[:, None]).T @ design for w in weight]) + _PRECISION * np.eye(len(beta))
    return np.asarray(beta + np.linalg.solve(bend, slope[..., None])[..., 0])
