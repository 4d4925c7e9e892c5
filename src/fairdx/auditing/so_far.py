"""The images up to a look, or of one period, and the figures of groups among them."""

import re
from dataclasses import dataclass

import numpy as np

from fairdx.auditing.monitored import Look
from fairdx.core.errors import InputError
from fairdx.inference.delong import delong
from fairdx.inference.score_intervals import Areas, Normal
from fairdx.inference.uncertainty import few_patients_factor
from fairdx.metrics import counts as tables
from fairdx.metrics.compared import Compared
from fairdx.metrics.inputs import Codes, Floats, Ints

LEAST_IMAGES = 10
"""A rate of fewer images than this, or an AUC of fewer with a label, is not compared with others."""

_FEW = 10.0  # images of the rarer outcome, with fewer of which a design effect of one's own says little


def numbered(name: str) -> list[str]:
    """What names of periods are sorted by, so that 2 comes before 10."""
    return [part.zfill(20) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def in_time(looks: Codes) -> Codes:
    """Periods in order of time: text by the numbers in it, unless a category gives it another order."""
    names = list(looks.names)
    if not all(isinstance(value, str) for value in looks.values) or names != sorted(names):
        return looks
    return looks.reordered(sorted(range(len(names)), key=lambda k: numbered(names[k])))


@dataclass(frozen=True)
class Images:
    """Images in order of their looks.

    Attributes:
        look: Place of the look in which each image arrived, shape (n,), ascending.
        label: 0 or 1, shape (n,).
        scores: Shape (n,).
        decision: 0 or 1, shape (n,).
        patient: Patient codes, shape (n,), or None.
    """

    look: Ints
    label: Ints
    scores: Floats
    decision: Ints
    patient: Ints | None

    def looks(self, names: tuple[str, ...]) -> list[Look]:
        """What arrived when."""
        found = []
        for k, name in enumerate(names):
            so_far = self.rows(k)
            patients = so_far.stop if self.patient is None else len(np.unique(self.patient[so_far]))
            own = self.rows(k, alone=True)
            found.append(Look(name, own.stop - own.start, so_far.stop, int(patients)))
        return found

    def rows(self, look: int, *, alone: bool = False) -> slice:
        """Rows up to the end of a look, or of that look alone."""
        start, stop = np.searchsorted(self.look, [look, look + 1])
        return slice(int(start) if alone else 0, int(stop))

    def take(self, rows: slice | Ints) -> "Images":
        """Some of the images."""
        patient = None if self.patient is None else self.patient[rows]
        return Images(self.look[rows], self.label[rows], self.scores[rows], self.decision[rows], patient)


@dataclass(frozen=True)
class Rates:
    """Rates of groups.

    Attributes:
        value: Shape (S, R), nan where there are too few images.
        size: Effective number of images behind each, shape (S, R); 0 where there are too few.
        images: Number of images behind each, shape (S, R).
    """

    value: Floats
    size: Floats
    images: Floats

    @property
    def success(self) -> Floats:
        """Effective number of images with the outcome."""
        return np.nan_to_num(self.value) * self.size


def rates_of(
    images: Images,
    group: Ints,
    compared: Compared,
    n_groups: int,
    level: float,
    least: int = LEAST_IMAGES,
) -> Rates:
    """The rates of a gap.

    Args:
        images: The images.
        group: Group of each; -1 for those that are not compared.
        compared: Which rates.
        n_groups: Number of groups, S.
        level: Nominal coverage, for the widening with few patients.
        least: A rate of fewer images is unknown.

    Returns:
        The rates. With patients their sizes are effective numbers of images.
    """
    kept = group >= 0
    group, label, decision = group[kept], images.label[kept], images.decision[kept]
    counts = tables.count_table(group, label, decision, (n_groups, 2, 2))
    value, number = compared.rates(counts), compared.images(counts)
    size, enough = number, number >= least
    if images.patient is not None:
        part, whole = (m[:, label, decision] for m in (compared.parts, compared.wholes))
        size = _effective(part, whole, group, images.patient[kept], n_groups, level)
    return Rates(np.where(enough, value, np.nan), np.where(enough, size, 0.0), number)


def _summed(values: Floats, place: Ints, size: int) -> Floats:
    """Rows (R, n) summed by place: (R, size)."""
    sums = [np.bincount(place, weights=row, minlength=size) for row in values]
    return np.asarray(sums, dtype=float).reshape(len(values), size)


def _effective(
    part: Floats, whole: Floats, group: Ints, patient: Ints, n_groups: int, level: float
) -> Floats:
    """Images of as many independent ones as would vary like these, (S, R); of `part` and `whole` (R, n)."""
    pairs, unit = np.unique(group * (int(patient.max(initial=0)) + 1) + patient, return_inverse=True)
    of_unit = np.zeros(len(pairs), dtype=np.int64)
    of_unit[unit] = group

    def of_groups(values: Floats) -> Floats:
        return _summed(values, of_unit, n_groups).T

    x, m = _summed(part, unit, len(pairs)), _summed(whole, unit, len(pairs))
    hits, images, squares = of_groups(x), of_groups(m), of_groups(m**2)
    holders = of_groups((m > 0).astype(float))
    rate = tables.ratio(hits, images)
    spread = of_groups(x**2) - 2 * rate * of_groups(x * m) + rate**2 * squares
    with np.errstate(divide="ignore", invalid="ignore"):
        own = spread / (rate * (1 - rate) * images) * holders / (holders - 1)
        most = np.maximum(squares / images, 1.0)
        patients = images**2 / squares
    rarer = np.nan_to_num(images * np.minimum(rate, 1 - rate))
    known = (rarer >= _FEW) & np.isfinite(own)
    weight = np.where(known, rarer, 0.0)
    total = weight.sum(0)
    pooled = np.where(
        total > 0, (weight * np.where(known, own, 0.0)).sum(0) / np.maximum(total, 1e-300), np.inf
    )
    effect = np.where(known, own, np.fmax(np.where(np.isfinite(own), own, 0.0), pooled))
    widen = few_patients_factor(np.nan_to_num(patients), level)
    return np.asarray(np.nan_to_num(images / np.clip(effect, 1.0, most) / widen**2))


def areas_of(images: Images, group: Ints, n_groups: int, level: float) -> Areas:
    """AUCs of groups, (S, 1), nan where there are too few images of a label."""
    from scipy.special import ndtri, stdtrit

    columns = np.full((4, n_groups), np.nan)
    for s in range(n_groups):
        rows = group == s
        label, patient = images.label[rows], None if images.patient is None else images.patient[rows]
        if min(np.bincount(label, minlength=2)) < LEAST_IMAGES:
            continue
        holders = [
            (label == y).sum() if patient is None else len(np.unique(patient[label == y])) for y in (1, 0)
        ]
        try:
            found = delong(label, images.scores[rows], patients=patient)
        except InputError:  # fewer than two patients with one of the labels
            continue
        columns[:, s] = found.auc[0], holders[0], holders[1], found.covariance[0, 0]
    fewer = np.maximum(np.fmin(columns[1], columns[2]), 2.0)
    widen = stdtrit(fewer - 1, (1 + level) / 2) / ndtri((1 + level) / 2)
    return Areas(*(column[:, None] for column in (*columns, np.nan_to_num(widen, nan=1.0))))


def calibration_of(images: Images, group: Ints, n_groups: int, level: float) -> Normal:
    """Share with Y=1 less mean score of groups, (S, 1), nan where there are too few images."""
    kept = group >= 0
    group, residual = group[kept], (images.label - images.scores)[kept]
    patient = np.arange(len(group)) if images.patient is None else images.patient[kept]
    size = np.bincount(group, minlength=n_groups).astype(float)
    value = tables.ratio(_summed(residual[None], group, n_groups)[0], size)
    pairs, unit = np.unique(group * (int(patient.max(initial=0)) + 1) + patient, return_inverse=True)
    of_unit = np.zeros(len(pairs), dtype=np.int64)
    of_unit[unit] = group
    sums = np.bincount(unit, weights=residual - np.nan_to_num(value)[group], minlength=len(pairs))
    holders = np.bincount(of_unit, minlength=n_groups)
    error = np.sqrt(np.bincount(of_unit, weights=sums**2, minlength=n_groups)) / np.maximum(size, 1.0)
    widen = few_patients_factor(holders.astype(float), level)
    return Normal(np.where(size >= LEAST_IMAGES, value, np.nan)[:, None], error[:, None], widen[:, None])
