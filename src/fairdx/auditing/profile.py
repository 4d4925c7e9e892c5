"""All statistics of one attribute, computed from its score histogram for many replicates at once."""

from dataclasses import dataclass, fields

import numpy as np

from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.reliability import CALIBRATION_BINS, calibration_table, fit_calibration, logit
from fairdx.metrics.scores import auc_from_histogram, equal_frequency, information_bins, score_table

SCORE_BINS = 512
"""Score bins of equal frequency; below so many distinct scores each has its own."""

EXPLORER_THRESHOLDS = 150
"""Operating points of the threshold explorer, at most (besides the audit's own)."""


@dataclass(frozen=True)
class Grid:
    """Bins of the score.

    Attributes:
        edges: Ascending; bin i holds edges[i - 1] <= score < edges[i].
        place: Bin of every image, shape (n,).
        cut: First bin that is decided positive.
        explored: Indices into `edges` of the thresholds to explore.
        mean_score: Mean score in each bin, shape (K,); that of the nearest edge in empty ones.
    """

    edges: Floats
    place: Ints
    cut: int
    explored: Ints
    mean_score: Floats

    @property
    def size(self) -> int:
        """Number of bins, K."""
        return len(self.edges) + 1

    @classmethod
    def of(cls, scores: Floats, threshold: float) -> "Grid":
        """Make bins for scores in [0, 1], the threshold being an edge."""
        edges = np.unique(scores)
        if len(edges) > SCORE_BINS:
            inner = np.quantile(scores, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
            edges = np.unique(_readable(inner))
        edges = np.unique(np.append(edges, threshold))
        place = np.searchsorted(edges, scores, side="right").astype(np.int64)
        cut = int(np.searchsorted(edges, threshold))
        even = np.linspace(0, len(edges) - 1, min(EXPLORER_THRESHOLDS, len(edges)))
        explored = np.unique(np.append(even.round().astype(np.int64), cut))
        counts = np.bincount(place, minlength=len(edges) + 1)
        sums = np.bincount(place, weights=scores, minlength=len(edges) + 1)
        empty = np.append(edges, edges[-1])
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), empty)
        return cls(edges, place, cut + 1, explored, mean)


def _readable(scores: Floats) -> Floats:
    """Round to four significant digits of the distance to the nearer of 0 and 1."""
    distance = np.minimum(scores, 1 - scores)
    digits = 10.0 ** (3 - np.floor(np.log10(np.maximum(distance, 1e-12))))
    rounded = np.round(distance * digits) / digits
    return np.where(scores <= 0.5, rounded, 1 - rounded)


@dataclass(frozen=True)
class Profile:
    """Statistics by group, with a leading dimension of replicates.

    Attributes:
        counts: By label and decision, (B, S, 2, 2).
        auc: (B, S).
        brier: (B, S).
        slope: Calibration slope, (B, S).
        intercept: Calibration intercept, (B, S).
        residual: By calibration bin, (positives - scores) / images of the group, (B, S, 10).
        in_the_large: Share with Y=1 less mean score, (B, S).
        score_table: By label and information bin, (B, S, 2, 10).
        selected: By label, decided positive at each explored threshold, (B, S, 2, G); fewer replicates.
    """

    counts: Floats
    auc: Floats
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
        squared_error: Mean (score - Y)^2 in each cell, (S, 2, K).
        calibration_bins: Calibration bin of each score bin, (K,).
        information_bins: Information bin of each score bin for each label, (2, K).
        calibration: Fitted slope, its intercept, and the intercept at slope 1 of each group, (S, 3).
    """

    grid: Grid
    squared_error: Floats
    calibration_bins: Ints
    information_bins: Ints
    calibration: Floats

    @classmethod
    def of(cls, histogram: Floats, squared_error: Floats, grid: Grid) -> "Profiler":
        """Fit to the histogram of the sample, (S, 2, K); `squared_error` holds sums of (score - Y)^2."""
        x = logit(grid.mean_score)
        fitted = [fit_calibration(x, h[1], h[0]) for h in histogram]
        return cls(
            grid,
            squared_error / np.maximum(histogram, 1),
            equal_frequency(histogram.sum((0, 1)), CALIBRATION_BINS),
            information_bins(histogram),
            np.array(fitted),
        )

    def profile(self, histogram: Floats, explore: bool = True) -> Profile:
        """Profile histograms of shape (B, S, 2, K)."""
        above = np.cumsum(histogram[..., ::-1], axis=-1)[..., ::-1]  # images in this bin and above
        images = histogram.sum((-1, -2))
        selected, total = above[..., self.grid.cut], above[..., 0]
        table = calibration_table(histogram, self.grid.mean_score, self.calibration_bins)
        residual = table["residual"] / np.maximum(images, 1)[..., None]
        slope, intercept = self._calibration(histogram)
        thresholds = self.grid.explored + 1 if explore else self.grid.explored[:0]
        return Profile(
            counts=np.stack([total - selected, selected], axis=-1),
            auc=auc_from_histogram(histogram),
            brier=(histogram * self.squared_error).sum((-1, -2)) / np.maximum(images, 1),
            slope=slope,
            intercept=intercept,
            residual=residual,
            in_the_large=np.where(images > 0, residual.sum(-1), np.nan),
            score_table=score_table(histogram, self.information_bins),
            selected=above[..., thresholds],
        )

    def _calibration(self, histogram: Floats) -> tuple[Floats, Floats]:
        """One Newton step from the fit to the sample: exact there, second-order close for replicates."""
        x = logit(self.grid.mean_score)
        positive, total = histogram[..., 1, :], histogram.sum(-2)
        slopes, _, intercepts = self.calibration.T
        p = 1 / (1 + np.exp(-(intercepts[:, None] + x)))
        expected = np.einsum("bsk,sk->bs", total, p)
        variance = np.einsum("bsk,sk->bs", total, p * (1 - p))
        with np.errstate(divide="ignore", invalid="ignore"):
            moved: Floats = intercepts + (positive.sum(-1) - expected) / variance
            return self._slope_step(x, positive, total, slopes), moved

    def _slope_step(self, x: Floats, positive: Floats, total: Floats, slopes: Floats) -> Floats:
        """Slope after one step in the two parameters of the regression."""
        p = 1 / (1 + np.exp(-(self.calibration[:, 1, None] + slopes[:, None] * x)))

        def summed(weights: Floats) -> Floats:
            total_weight: Floats = np.einsum("bsk,sk->bs", total, weights)
            return total_weight

        r0 = positive.sum(-1) - summed(p)
        r1 = positive @ x - summed(p * x)
        variance = p * (1 - p)
        h00, h01, h11 = summed(variance), summed(variance * x), summed(variance * x * x)
        step: Floats = (h00 * r1 - h01 * r0) / (h00 * h11 - h01**2)
        return slopes + step
