"""Do two maps of the same image lie on one another more than maps of different images do?

Any two maps overlap: two of pure noise have a cosine of 0.80 and a soft IoU of 0.55. So each measure stands
beside its *null*: the same measure of the first map of one image and the second map of another one, of the
same group and label. What is tested is the difference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from fairdx.inference.clustered import clustered_mean
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.inputs import Floats, Ints

TOP: Final = 0.2
"""Share of the cells that count as a map's top."""
PARTNERS: Final = 20
"""Other images with which each map is paired for the null, where the cell has so many."""
Prepared = NDArray[Any]
"""Maps (n, cells), made ready for a measure."""


@dataclass(frozen=True)
class Measure:
    """How signed maps are compared with others, row by row: called with two of shape (n, cells), gives (n,).

    Attributes:
        prepare: What is done to each set of maps, once for all comparisons.
        compare: Compares what was prepared, row by row.
    """

    prepare: Callable[[Floats], Prepared]
    compare: Callable[[Prepared, Prepared], Floats]

    def __call__(self, first: Floats, second: Floats) -> Floats:
        """Compares maps of shape (n, cells); returns shape (n,)."""
        return self.compare(self.prepare(first), self.prepare(second))


def _mass(maps: Floats) -> Floats:
    positive = np.maximum(maps, 0)
    mass: Floats = positive / positive.sum(1, keepdims=True)
    return mass


def _shared(first: Prepared, second: Prepared) -> Floats:
    shared: Floats = np.minimum(first, second).sum(1)
    return shared


def top_cells(maps: Floats) -> NDArray[np.bool_]:
    """Which cells have a map's highest fifth of values, at least one; shape of `maps`, (n, cells)."""
    count = max(1, round(TOP * maps.shape[1]))
    places = np.argpartition(-maps, count - 1, axis=1)[:, :count]
    chosen = np.zeros(maps.shape, dtype=np.bool_)
    np.put_along_axis(chosen, places, True, axis=1)
    return chosen


def _iou(first: Prepared, second: Prepared) -> Floats:
    share: Floats = (first & second).sum(1) / (first | second).sum(1)
    return share


def _unit_ranks(maps: Floats) -> Floats:
    ranks = rankdata(maps, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    unit: Floats = ranks / np.sqrt((ranks**2).sum(1, keepdims=True))
    return unit


def _product(first: Prepared, second: Prepared) -> Floats:
    product: Floats = (first * second).sum(1)
    return product


common_mass: Final = Measure(_mass, _shared)
"""1 - total variation of the rectified maps as distributions: 1 if equal, 0 if they share no cell. Each map
has a positive cell."""
top_iou: Final = Measure(top_cells, _iou)
"""Intersection over union of the cells with the highest fifth of values."""
rank_correlation: Final = Measure(_unit_ranks, _product)
"""Spearman's correlation over cells, of signed maps that are not constant."""
MEASURES: Final[Mapping[str, Measure]] = {
    "common_mass": common_mass,
    "top_iou": top_iou,
    "rank_correlation": rank_correlation,
}


def empty_maps(maps: Floats) -> NDArray[np.bool_]:
    """Which signed maps (n, cells) say nothing: all rectified away, constant, or not finite; shape (n,)."""
    finite = np.isfinite(maps).all(1)
    constant = maps.max(1) == maps.min(1)
    empty: NDArray[np.bool_] = ~finite | constant | ~(maps > 0).any(1)
    return empty


@dataclass(frozen=True)
class Beyond:
    """A measure, its null, and their difference image by image.

    Attributes:
        own: Of the two maps of each image, shape (n,).
        null: Mean over the partners of each image's first map, shape (n,).
        influence: Contribution of each image to the difference of the means, shape (n,): their mean is the
            difference, and their spread over patients its error. As an image is in the null twice, with its
            first map and with its second, both are taken off.
    """

    own: Floats
    null: Floats
    influence: Floats


def beyond_null(
    measure: Measure,
    first: Floats,
    second: Floats,
    *,
    cells: Ints,
    patients: Ints,
    seed: int,
    partners: int = PARTNERS,
) -> Beyond:
    """Compares the maps of each image with each other, and with those of other images of the same kind.

    Args:
        measure: How maps are compared.
        first: Signed maps, shape (n, cells of a map), none of them empty.
        second: The same.
        cells: Which images are of the same kind (group and label), shape (n,).
        patients: Whose image it is, shape (n,): a patient is nobody's partner in their own null.
        seed: Of the order in which partners are drawn.
        partners: How many.

    Returns:
        Measure and null; nan where an image is the only one of its kind.
    """
    one, other = measure.prepare(first), measure.prepare(second)
    own = measure.compare(one, other)
    ahead, behind = np.full(len(own), np.nan), np.full(len(own), np.nan)
    influence = np.full(len(own), np.nan)
    rng = np.random.default_rng(seed)
    for cell in np.unique(cells):
        rows = rng.permutation(np.flatnonzero(cells == cell))
        total, back, counts, counts_back = (np.zeros(len(rows)) for _ in range(4))
        for step in 1 + rng.permutation(len(rows) - 1)[:partners]:
            # A shift in a random order: each image is a partner once, with its first map and with its second.
            partner = np.roll(np.arange(len(rows)), -int(step))
            strange = patients[rows] != patients[rows[partner]]
            value = np.zeros(len(rows))
            value[strange] = measure.compare(one[rows[strange]], other[rows[partner[strange]]])
            total += value
            counts += strange
            back[partner] += value  # a shift: no partner comes twice
            counts_back[partner] += strange
        with np.errstate(invalid="ignore", divide="ignore"):
            ahead[rows], behind[rows] = total / counts, back / counts_back
        mean = np.nanmean(ahead[rows]) if (counts > 0).any() else np.nan
        influence[rows] = own[rows] - ahead[rows] - behind[rows] + mean
    return Beyond(own, ahead, influence)


@dataclass(frozen=True)
class Overlap:
    """A measure of overlap over a set of images.

    Attributes:
        own: Mean over images of their two maps.
        null: Mean over shuffled pairs.
        beyond: Own less null, with an interval over patients.
    """

    own: Estimate
    null: Estimate
    beyond: Estimate


@dataclass(frozen=True)
class Dealt:
    """Overlap beyond the shuffled pairs, with the true groups and with groups that were dealt by lot.

    Both maps of an image are made of the same activations. So they may overlap more, or less, than those of
    different images whatever is asked of the second. What the group itself adds is how far the true groups
    are from dealt ones.

    Attributes:
        own: With the true groups.
        mean: With dealt ones, on average.
        low: 2.5th percentile with dealt ones.
        high: 97.5th percentile.
        p: Two-sided p-value of a permutation test: where images say nothing of the group, the true groups
            are one deal among others.
        deals: How often groups were dealt.
        images: On how many images.
    """

    own: float
    mean: float
    low: float
    high: float
    p: float
    deals: int
    images: int


def among_dealt(own: float, dealt: Floats, images: int) -> Dealt:
    """Places the true groups among dealt ones.

    Args:
        own: Overlap beyond the shuffled pairs with the true groups.
        dealt: The same with dealt groups, shape (deals,).
        images: On how many images.
    """
    known = dealt[np.isfinite(dealt)]
    if not np.isfinite(own) or len(known) == 0:
        nan = float("nan")
        return Dealt(own, nan, nan, nan, nan, len(known), images)
    tail = min(1 + (known >= own).sum(), 1 + (known <= own).sum()) / (1 + len(known))
    low, high = np.quantile(known, [0.025, 0.975])
    return Dealt(
        own, float(known.mean()), float(low), float(high), float(min(1.0, 2 * tail)), len(known), images
    )


def summarise(beyond: Beyond, patients: Ints, rows: NDArray[np.bool_], *, level: float = 0.95) -> Overlap:
    """Means over some of the images, with intervals over patients.

    Args:
        beyond: From `beyond_null`.
        patients: Shape (n,).
        rows: Which images, boolean, shape (n,).
        level: Nominal coverage.
    """
    known = rows & np.isfinite(beyond.influence)
    columns = (beyond.own, beyond.null, beyond.influence)
    return Overlap(*(clustered_mean(column[known], patients[known], level=level) for column in columns))


def paired_change(before: Floats, after: Floats, patients: Ints, *, level: float = 0.95) -> Estimate:
    """Mean of after - before on the same images, with an interval over patients.

    Args:
        before: One number an image, shape (n,); nan where there is none.
        after: The same of the other model.
        patients: Shape (n,).
        level: Nominal coverage.
    """
    known = np.isfinite(before) & np.isfinite(after)
    return clustered_mean((after - before)[known], patients[known], level=level)
