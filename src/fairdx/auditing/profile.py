"""All statistics of one attribute, computed from its score histogram for many replicates at once."""

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import expit

from fairdx.metrics.counts import by_label
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.precision import precision_from_histogram
from fairdx.metrics.reliability import TEN, Bins, fit_calibration, logit
from fairdx.metrics.scores import INFORMATION_BINS, auc_from_histogram, equal_frequency, score_table

EXPLORER_THRESHOLDS = 100
"""Operating points of the threshold explorer, at most (besides the audit's own)."""


OWN_BINS = 512
"""Up to so many distinct scores each has a bin of its own, and figures are those of the scores themselves."""


def score_bins(n: int) -> int:
    """Score bins for n images of many scores: half of equal frequency over all, half over those with Y=1.

    Ties within K bins move a replicate of the AUC by about 1 / K^2, and its standard error falls with the
    root of n: with 16 times the fourth root of n this stays a hundredth of it.
    """
    return int(np.clip(16 * n**0.25, 128, OWN_BINS))


@dataclass(frozen=True)
class Truth:
    """What is true of each image.

    Attributes:
        label: Shape (n,), 0 or 1: not of the class that is audited, or of it.
        full: The class, shape (n,), 0 to Z - 1; the label itself where there are two.
        of_full: The label of each class, shape (Z,).
    """

    label: Ints
    full: Ints
    of_full: Ints

    @classmethod
    def of(cls, label: Ints, full: Ints | None = None) -> "Truth":
        """Join a label with the class that it is made from, if that says more."""
        if full is None:
            return cls(label, label, np.arange(2))
        of_full = np.zeros(int(full.max()) + 1, dtype=np.int64)
        of_full[full] = label
        return cls(label, full, of_full)


@dataclass(frozen=True)
class Grid:
    """Bins of the score.

    Attributes:
        edges: Ascending; bin i holds edges[i - 1] <= score < edges[i].
        place: Bin of every image, shape (n,).
        cut: First bin that is decided positive.
        explored: Indices into `edges` of the thresholds to explore.
        mean_score: Mean score in each bin, shape (K,); that of the nearest edge in empty ones.
        information: Bin for I(S; score | Y) of each bin, for each class, shape (Z, K).
    """

    edges: Floats
    place: Ints
    cut: int
    explored: Ints
    mean_score: Floats
    information: Ints

    @property
    def size(self) -> int:
        """Number of bins, K."""
        return len(self.edges) + 1

    @classmethod
    def of(
        cls,
        scores: Floats,
        threshold: float,
        truth: Truth,
        weight: Floats | None = None,
        bins: Bins = TEN,
    ) -> "Grid":
        """Make bins for scores in [0, 1].

        The threshold, and the bins of calibration and for I(S; score | Y), are edges.

        Every other edge is the shortest number that parts the same images, so that what is printed of it
        selects them too.
        """
        values, rank = np.unique(scores, return_inverse=True)
        starts = [_information_starts(rank[truth.full == z], len(values)) for z in range(len(truth.of_full))]
        chosen = np.arange(len(values))
        most = score_bins(len(scores))
        if len(values) > OWN_BINS:
            parts = rank, rank[truth.label == 1]
            middle = np.linspace(0, 1, most // 2 + 1)[1:-1]
            wanted = [np.quantile(part, middle, method="nearest") for part in parts]
            chosen = np.unique(np.concatenate([[0], *wanted, *starts]).astype(np.int64))
        before = np.concatenate([[-1.0], values])[chosen]
        shortest = _shortest(before, values[chosen])
        parted = [shortest[np.searchsorted(chosen, s)] for s in starts]
        edges = np.unique(np.concatenate([shortest, [threshold], bins.edges]))
        place = np.searchsorted(edges, scores, side="right").astype(np.int64)
        cut = int(np.searchsorted(edges, threshold))
        lower = np.concatenate([[-1.0], edges])
        counts = np.bincount(place, weights=weight, minlength=len(lower))
        weighted = scores if weight is None else scores * weight
        sums = np.bincount(place, weights=weighted, minlength=len(lower))
        mean = np.where(counts > 0, sums / np.where(counts > 0, counts, 1), np.append(edges, edges[-1]))
        return cls(
            edges,
            place,
            cut + 1,
            np.unique(np.append(_explored(place[truth.label == 1], len(edges)), cut)),
            mean,
            np.stack([np.searchsorted(part, lower, side="right") for part in parted]),
        )


def _information_starts(rank: Ints, n_values: int) -> Ints:
    """The first value of each bin but the first, in bins of equal frequency of the images of one class."""
    counts = np.bincount(rank, minlength=n_values)
    occurring = np.flatnonzero(counts)
    bins = equal_frequency(counts[occurring].astype(float), INFORMATION_BINS)
    return occurring[np.flatnonzero(np.diff(bins, prepend=0))]


def _explored(positives: Ints, n_edges: int) -> Ints:
    """Half of the explored edges evenly over all, half where the images with Y=1 are."""
    half = min(EXPLORER_THRESHOLDS // 2, n_edges)
    even = np.linspace(0, n_edges - 1, half)
    if n_edges <= EXPLORER_THRESHOLDS or len(positives) == 0:
        even = np.linspace(0, n_edges - 1, min(EXPLORER_THRESHOLDS, n_edges))
        return np.unique(even.round().astype(np.int64))
    cases = np.quantile(positives, np.linspace(0, 1, half), method="nearest") - 1
    return np.unique(np.clip(np.append(even.round(), cases), 0, n_edges - 1).astype(np.int64))


def _shortest(before: Floats, values: Floats) -> Floats:
    """The decimal numbers with the fewest digits in (before, values]."""
    found = np.full(len(values), np.nan)
    for digits in range(17):
        for rounded in (np.round(values, digits), np.floor(values * 10.0**digits) / 10.0**digits):
            fits = np.isnan(found) & (rounded > before) & (rounded <= values)
            found[fits] = rounded[fits]
    return np.where(np.isnan(found), values, found)


@dataclass(frozen=True)
class Profile:
    """Statistics by group, with a leading dimension of replicates.

    Attributes:
        counts: By label and decision, (B, S, 2, 2).
        classes: By class and decision, (B, S, Z, 2).
        auc: (B, S).
        precision: Average precision, (B, S).
        brier: (B, S).
        slope: Calibration slope, (B, S).
        intercept: Calibration intercept, (B, S).
        residual: By the group's calibration bins, (positives - scores) / images of the group, (B, S, bins).
        in_the_large: Share with Y=1 less mean score, (B, S).
        score_table: By class and information bin, (B, S, Z, 10).
        selected: By class, decided positive at each explored threshold, (B, S, Z, G); fewer replicates.
    """

    counts: Floats
    classes: Floats
    auc: Floats
    precision: Floats
    brier: Floats
    slope: Floats
    intercept: Floats
    residual: Floats
    in_the_large: Floats
    score_table: Floats
    selected: Floats

    @classmethod
    def join(cls, parts: list["Profile"]) -> "Profile":
        """Join chunks of replicates, of which only the first need have explored thresholds."""
        explored = [part.selected for part in parts if part.selected.shape[-1]] or [parts[0].selected]
        joined = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)[:-1]}
        return cls(**joined, selected=np.concatenate(explored))

    def groups(self, keep: Ints) -> "Profile":
        """The same for some of the groups."""
        return Profile(*(getattr(self, f.name)[:, keep] for f in fields(self)))


@dataclass(frozen=True)
class Profiler:
    """Computes profiles; what it holds is fixed on the sample.

    Attributes:
        grid: Bins of the score.
        of_full: The label of each class, (Z,).
        calibration_bins: Calibration bin of each score bin within each group, (S, K).
        calibration: Fitted slope, its intercept, and the intercept at slope 1 of each group, (S, 3).
        sums: What each image adds to the sums that a profile is made of, by label and bin, (S, 2, K, L): to
            the squared error, to those of `_Sums`, and to the residual of each calibration bin.
    """

    grid: Grid
    of_full: Ints
    calibration_bins: Ints
    calibration: Floats
    sums: Floats

    @classmethod
    def of(
        cls, classes: Floats, squared_error: Floats, grid: Grid, of_full: Ints, bins: Bins = TEN
    ) -> "Profiler":
        """Fit to the histogram of the sample, (S, Z, K); `squared_error` holds sums of (score - Y)^2."""
        x, histogram = logit(grid.mean_score), by_label(classes, of_full)
        fitted = np.array([fit_calibration(x, h[1], h[0]) for h in histogram])
        own = np.stack([bins.place(h.sum(0), grid.mean_score) for h in histogram])
        mean = np.divide(squared_error, histogram, out=np.zeros_like(histogram), where=histogram > 0)
        label = np.arange(2)[:, None]
        residual = (label - grid.mean_score)[..., None] * np.eye(int(own.max()) + 1)[own][:, None]
        return cls(
            grid,
            of_full,
            own,
            fitted,
            np.concatenate([mean[..., None], _newton(x, fitted), residual], axis=-1),
        )

    def profile(self, classes: Floats, explore: bool = True, decided: Floats | None = None) -> Profile:
        """Profile histograms of shape (B, S, Z, K).

        Args:
            classes: The histograms.
            explore: Whether thresholds are explored.
            decided: Tables by class and decision, (B, S, Z, 2), where groups have thresholds of their own.
        """
        histogram = by_label(classes, self.of_full)
        images = histogram.sum((-1, -2))
        some = np.where(images > 0, images, 1)
        flat = histogram.reshape(*histogram.shape[:2], -1).swapaxes(0, 1)
        sums = np.matmul(flat, self.sums.reshape(len(self.sums), -1, self.sums.shape[-1])).swapaxes(0, 1)
        residual = sums[..., 1 + _N_SUMS :] / some[..., None]
        slope, intercept = self._calibration(sums[..., 1 : 1 + _N_SUMS])
        if decided is None:
            selected = classes[..., self.grid.cut :].sum(-1)
            decided = np.stack([classes.sum(-1) - selected, selected], axis=-1)
        return Profile(
            counts=by_label(decided, self.of_full),
            classes=decided,
            auc=auc_from_histogram(histogram),
            precision=precision_from_histogram(histogram),
            brier=sums[..., 0] / some,
            slope=slope,
            intercept=intercept,
            residual=residual,
            in_the_large=np.where(images > 0, residual.sum(-1), np.nan),
            score_table=score_table(classes, self.grid.information),
            selected=self._explored(classes) if explore else classes[..., :0],
        )

    def _explored(self, classes: Floats) -> Floats:
        """Images decided positive at each explored threshold, (B, S, Z, G)."""
        above: Floats = np.cumsum(classes[..., ::-1], axis=-1)[..., ::-1]
        return above[..., self.grid.explored + 1]

    def _calibration(self, sums: Floats) -> tuple[Floats, Floats]:
        """One Newton step from the fit to the sample: exact there, second-order close for replicates."""
        off, weight, r0, r1, h00, h01, h11 = np.moveaxis(sums, -1, 0)
        slopes, _, intercepts = self.calibration.T
        with np.errstate(divide="ignore", invalid="ignore"):
            moved: Floats = intercepts + off / weight
            slope: Floats = slopes + (h00 * r1 - h01 * r0) / (h00 * h11 - h01**2)
        return slope, moved


_N_SUMS = 7


def _newton(x: Floats, fitted: Floats) -> Floats:
    """What an image of each label and bin adds to the sums of a Newton step, (S, 2, K, 7).

    Args:
        x: Logit of the score of each bin, (K,).
        fitted: Slope, its intercept, and the intercept at slope 1 of each group, (S, 3).

    Returns:
        Of the regression at slope 1 the score and the information; of the other both scores (of intercept and
        slope) and the three entries of the information.
    """
    slopes, with_slope, intercepts = fitted.T[..., None]
    label = np.arange(2)[:, None]
    one, two = expit(intercepts + x)[:, None], expit(with_slope + slopes * x)[:, None]
    spread = np.broadcast_to(two * (1 - two), (len(fitted), 2, len(x)))
    parts = [label - one, one * (1 - one), label - two, (label - two) * x, spread, spread * x, spread * x * x]
    return np.stack(np.broadcast_arrays(*parts), axis=-1)
