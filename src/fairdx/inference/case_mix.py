"""Rates and AUCs of groups as they would be if all groups had one mix of cases.

A group whose disease is more often early, or which is imaged at a harder site, has a lower true-positive rate
and a lower AUC under any score. With covariates C (severity, age, site) the figures of group s become

    rate = sum_c w_c P(Ŷ=1 | s, y, c)                               (direct standardisation)
    AUC  = sum_c w_c P(a case of s, c scores above a control of s, c)

where w_c is the share of c among the images of all groups that have the label (Y=1 for the AUC). The second
is the covariate-adjusted AUC of Janes and Pepe (2009): each case is placed among the controls with its own
covariates. Values of C that some group lacks are left out of every group.

Variances are those of weighted sums over strata, scaled by what repeated patients add, and of the mix itself.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fairdx.inference.resampling import effective_patients
from fairdx.inference.score_intervals import Areas, Shares
from fairdx.inference.uncertainty import few_patients_factor
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, Ints

_SHRUNK = 2.0  # images of its group that each stratum gets, for its variance alone
_RATIO_WEIGHT = 5.0  # of the rate's variance function against that of its strata, in images


@dataclass(frozen=True)
class Cases:
    """Images of the groups that are compared.

    Attributes:
        group: Shape (n,), 0 to S - 1.
        covariate: Value of the covariates, shape (n,), 0 to C - 1.
        label: 0 or 1, shape (n,).
        score: Shape (n,).
        decision: 0 or 1, shape (n,).
        n_groups: S.
        patient: Patient codes, shape (n,), or None.
        weight: What each image counts, shape (n,), or None for 1.
        level: Nominal coverage, for the widening with few patients.
    """

    group: Ints
    covariate: Ints
    label: Ints
    score: Floats
    decision: Ints
    n_groups: int
    patient: Ints | None
    weight: Floats | None
    level: float

    @property
    def cell(self) -> Ints:
        """Group and covariates of each image, (n,)."""
        return self.group * self.n_values + self.covariate

    @property
    def n_values(self) -> int:
        """Number of values of the covariates, C."""
        return int(self.covariate.max(initial=-1)) + 1

    def take(self, rows: NDArray[np.bool_]) -> "Cases":
        """Some of them, (n,)."""
        return replace(
            self,
            group=self.group[rows],
            covariate=self.covariate[rows],
            label=self.label[rows],
            score=self.score[rows],
            decision=self.decision[rows],
            patient=None if self.patient is None else self.patient[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def summed(self, values: Floats | NDArray[np.bool_]) -> Floats:
        """Weighted sums by group and covariates, (S, C)."""
        amount = values if self.weight is None else values * self.weight
        found = np.bincount(self.cell, weights=amount, minlength=self.n_groups * self.n_values)
        return found.astype(float).reshape(self.n_groups, -1)

    def patients(self, rows: NDArray[np.bool_]) -> Floats:
        """Effective numbers of patients by group and covariates among some images, (S, C)."""
        own, width = self.take(rows), self.n_groups * self.n_values
        found = effective_patients(self.cell[rows], own.patient, width, own.weight)
        return found.reshape(self.n_groups, -1)

    def images(self, rows: NDArray[np.bool_]) -> Floats:
        """Effective numbers of images by group and covariates among some images, (S, C)."""
        width, own = self.n_groups * self.n_values, self.cell[rows]
        if self.weight is None:
            return np.bincount(own, minlength=width).astype(float).reshape(self.n_groups, -1)
        return effective_patients(own, np.arange(len(own)), width, self.weight[rows]).reshape(
            self.n_groups, -1
        )

    def design_effect(self, moved: Floats) -> Floats:
        """How much more sums of deviations vary than if images were independent, (S,), at least 1."""
        if self.patient is None:
            return np.ones(self.n_groups)
        unit = self.group * (int(self.patient.max(initial=0)) + 1) + self.patient
        units, place = np.unique(unit, return_inverse=True)
        of_unit = units // (int(self.patient.max(initial=0)) + 1)
        sums = np.bincount(place, weights=moved, minlength=len(units))
        together = np.bincount(of_unit, weights=sums**2, minlength=self.n_groups)
        holders = np.bincount(of_unit, minlength=self.n_groups).astype(float)
        alone = np.bincount(self.group, weights=moved**2, minlength=self.n_groups)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = together / alone * holders / (holders - 1)
        return np.asarray(np.maximum(np.where(np.isfinite(ratio), ratio, 1.0), 1.0))


@dataclass(frozen=True)
class Adjusted:
    """Figures of groups with one mix of cases.

    Attributes:
        figures: With intervals, of shape (S, 1); nan where no value of the covariates is in all groups.
        images: Images behind each, shape (S,).
        left_out: Images that are left out, shape (S,).
    """

    figures: Shares | Areas
    images: Ints
    left_out: Ints


def adjusted_rate(cases: Cases, label: int) -> Adjusted:
    """P(Ŷ=1 | Y=label) of each group, with the mix of covariates of all images with this label.

    Args:
        cases: The images.
        label: 1 for the true-positive rate, 0 for the false-positive rate.

    Returns:
        The rates, with Wilson's interval of an effective number of images.

    Example:
        Of eight early and two late cases of one group all late ones are found, and half of the early ones;
        the other group has two early and eight late cases, and the same rates:

        >>> early = np.array([1] * 8 + [0] * 2 + [1] * 2 + [0] * 8)
        >>> found = np.array([1] * 4 + [0] * 4 + [1] * 2 + [1, 0] + [1] * 8)
        >>> group, ones = np.repeat([0, 1], 10), np.ones(20, dtype=int)
        >>> cases = Cases(group, early, ones, found * 1.0, found, 2, None, None, 0.95)
        >>> adjusted_rate(cases, 1).figures.value[:, 0].tolist()
        [0.75, 0.75]
    """
    own = cases.take(cases.label == label)
    kept, left_out, number, share = _common(own, np.ones(len(own.label), dtype=np.bool_))
    every = np.ones(len(kept.label), dtype=np.bool_)
    total, held = kept.summed(every), kept.images(every)
    rate = tables.ratio(kept.summed(kept.decision == 1), total)
    value = _mean(rate, share)
    effective = _size(share, held)
    shrunk = (np.nan_to_num(rate) * held + _SHRUNK * value[:, None]) / (held + _SHRUNK)
    variance = _mean(tables.ratio(share * shrunk * (1 - shrunk), held), share)
    model, inside = value * (1 - value) / effective, (value * effective + 0.5) / (effective + 1)
    added = _RATIO_WEIGHT / effective * inside * (1 - inside) / effective
    deviations = kept.decision - np.nan_to_num(rate)[kept.group, kept.covariate]
    moved = deviations * _contribution(kept, share, total)
    patients = _size(share, kept.patients(every))
    effect = np.clip(kept.design_effect(moved), 1.0, np.maximum(effective / patients, 1.0))
    variance = variance * effect + _mix_variance(own, rate, share)
    size = effective / ((variance + added) / (model + added))
    widen = few_patients_factor(patients, cases.level)
    shares = Shares(value[:, None], size[:, None], np.nan_to_num(widen, nan=1.0)[:, None])
    return Adjusted(shares, number, left_out)


def adjusted_area(cases: Cases) -> Adjusted:
    """AUC of each group within values of the covariates, with the mix of covariates of all cases.

    Args:
        cases: The images.

    Returns:
        The AUCs, with Newcombe's score interval.
    """
    from scipy.special import ndtri, stdtrit

    kept, left_out, number, share = _common(cases, cases.label == 1, cases.label == 0)
    ill = kept.label == 1
    total = np.stack([kept.summed(~ill), kept.summed(ill)])
    placed = _placements(kept)
    area = tables.ratio(kept.summed(np.where(ill, placed, 0.0)), total[1])
    value = _mean(area, share)
    deviations = placed - np.nan_to_num(area)[kept.group, kept.covariate]
    patients = [_size(share, kept.patients(rows)) for rows in (~ill, ill)]
    variance = sum(_spread(kept.take(rows), deviations[rows], share) for rows in (~ill, ill))
    moved = deviations * np.where(ill, *(_contribution(kept, share, total[y]) for y in (1, 0)))
    variance = variance * kept.design_effect(moved) + _mix_variance(cases.take(cases.label == 1), area, share)
    fewer = np.maximum(np.nan_to_num(np.minimum(*patients)), 2.0)
    widen = stdtrit(fewer - 1, (1 + cases.level) / 2) / ndtri((1 + cases.level) / 2)
    columns = (value, patients[1], patients[0], np.nan_to_num(variance), widen)
    return Adjusted(Areas(*(column[:, None] for column in columns)), number, left_out)


def _common(cases: Cases, *needed: NDArray[np.bool_]) -> tuple[Cases, Ints, Ints, Floats]:
    """What is in the common support.

    Args:
        cases: The images.
        needed: Kinds of images, each of shape (n,); every group must have one of each. The mix is that of the
            first kind.

    Returns:
        The images whose covariates all groups have, how many of each group are left out and kept, (S,), and
        the shares of the values of the covariates, (C,).
    """
    have = np.ones(cases.n_values, dtype=np.bool_)
    for rows in needed:
        width = cases.n_groups * cases.n_values
        found = np.bincount(cases.cell[rows], minlength=width).reshape(cases.n_groups, -1)
        have &= (found > 0).all(0)
    inside = have[cases.covariate]
    left_out = np.bincount(cases.group[~inside], minlength=cases.n_groups)
    number = np.bincount(cases.group[inside], minlength=cases.n_groups)
    mix = np.where(have, cases.summed(needed[0]).sum(0), 0.0)
    # The values keep their numbers, so that shares belong to them.
    kept = cases.take(inside)
    share = mix[: kept.n_values] / max(float(mix.sum()), 1e-300)
    return kept, left_out, number, share


def _mean(values: Floats, share: Floats) -> Floats:
    """Over the mix: (S, C) to (S,); nan without a mix."""
    if share.sum() <= 0:
        return np.full(len(values), np.nan)
    return np.asarray(np.where(share > 0, np.nan_to_num(values), 0.0) @ share)


def _size(share: Floats, held: Floats) -> Floats:
    """Images of as many equally weighted ones as the mix of strata makes of those held, (S,)."""
    squares = np.where(share > 0, tables.ratio(share**2, held), 0.0).sum(-1)
    return np.asarray(tables.ratio(np.ones(len(held)), squares))


def _spread(cases: Cases, deviations: Floats, share: Floats) -> Floats:
    """Variance of a mean over the mix of placements with these deviations from their strata's means, (S,)."""
    every = np.ones(len(deviations), dtype=np.bool_)
    held, weighed = cases.images(every), cases.summed(every)
    squares = tables.ratio(cases.summed(deviations**2), weighed) * held
    squares, freedom = np.nan_to_num(squares), np.maximum(held - 1, 0.0)
    pooled = tables.ratio(squares.sum(1), freedom.sum(1))[:, None]
    # A stratum of few images says little about its own variance.
    own = (squares + _SHRUNK * np.nan_to_num(pooled)) / (freedom + _SHRUNK)
    return _mean(tables.ratio(share * own, held), share)


def _mix_variance(cases: Cases, figure: Floats, share: Floats) -> Floats:
    """What the mix of so many patients adds to the variance of figures (S, C) standardised for it, (S,)."""
    patients = effective_patients(np.zeros_like(cases.group), cases.patient, 1, cases.weight)
    apart = np.nan_to_num(figure) - _mean(figure, share)[:, None]
    return _mean(apart**2, share) / max(float(patients[0]), 1.0)


def _contribution(cases: Cases, share: Floats, total: Floats) -> Floats:
    """What each image counts for in the figure of its group, (n,)."""
    each = np.nan_to_num(tables.ratio(share, total))[cases.group, cases.covariate]
    return each if cases.weight is None else each * cases.weight


def _placements(cases: Cases) -> Floats:
    """Share of the controls of its group and covariates below each case, of such cases above each control."""
    order = np.lexsort((cases.score, cases.cell))
    cell, score = cases.cell[order], cases.score[order]
    new = np.ones(len(cell), dtype=np.bool_)
    new[1:] = (cell[1:] != cell[:-1]) | (score[1:] != score[:-1])
    tie = np.cumsum(new) - 1
    weight = np.ones(len(cell)) if cases.weight is None else cases.weight[order]
    ill, placed = cases.label[order] == 1, np.zeros(len(cell))
    starts = (
        np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]])) if len(cell) else np.zeros(0, int)
    )
    own = np.repeat(np.arange(len(starts)), np.diff([*starts, len(cell)]))
    for rows, others in ((ill, ~ill), (~ill, ill)):
        held = np.bincount(tie, weights=weight * others, minlength=int(tie[-1]) + 1 if len(tie) else 0)
        below = (np.cumsum(held) - held / 2)[tie]
        before = np.concatenate([[0.0], np.cumsum(weight * others)])
        whole = np.diff(before[[*starts, len(cell)]])[own]
        share = tables.ratio(below - before[starts][own], whole)
        placed[rows] = (share if rows is ill else 1 - share)[rows]
    found = np.empty(len(cell))
    found[order] = placed
    return found
