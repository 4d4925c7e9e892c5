"""What the figures of an audit's page are drawn from: curves of a group, and the threshold explorer."""

from dataclasses import dataclass, field

from fairdx.core.schema import Number


@dataclass(frozen=True)
class Curves:
    """What figures of one group (or of all images) need.

    Attributes:
        roc_fpr: False-positive rates of the ROC curve, ascending from 0 to 1.
        roc_tpr: True-positive rates at the same points.
        calibration_score: Mean score in each calibration bin.
        calibration_observed: Share with Y=1 in each bin, nan in empty bins.
        calibration_low: Lower end of its Wilson interval.
        calibration_high: Upper end of its Wilson interval.
        calibration_count: Images in each bin.
        smooth_score: Scores at which the smooth calibration curve is given; empty with too few images.
        smooth_observed: Share with Y=1 there, by a spline.
        smooth_low: Lower end of its band, by patient.
        smooth_high: Upper end.
        histogram_edges: Edges of the score histogram, 41 from 0 to 1.
        histogram_negative: Images with Y=0 between edges.
        histogram_positive: Images with Y=1 between edges.
    """

    roc_fpr: list[Number]
    roc_tpr: list[Number]
    calibration_score: list[Number]
    calibration_observed: list[Number]
    calibration_low: list[Number]
    calibration_high: list[Number]
    calibration_count: list[int]
    smooth_score: list[Number]
    smooth_observed: list[Number]
    smooth_low: list[Number]
    smooth_high: list[Number]
    histogram_edges: list[float]
    histogram_negative: list[int]
    histogram_positive: list[int]


@dataclass(frozen=True)
class Series:
    """A value with its interval at each threshold of an explorer; lists of the same length."""

    value: list[Number]
    low: list[Number]
    high: list[Number]


@dataclass(frozen=True)
class Explorer:
    """Everything that moves with the operating point, for one attribute.

    Attributes:
        thresholds: Ascending; the decision is score >= threshold. The audit's own is among them.
        negatives: Images with Y=0 by group.
        positives: Images with Y=1 by group.
        selected_negatives: By group, those with Y=0 decided positive at each threshold.
        selected_positives: By group, those with Y=1 decided positive at each threshold.
        gaps: Gaps and information by metric, over the groups not excluded.
        effects: {group: {effect: series}} against the reference.
        rates: {group: {rate: series}} for selection_rate, tpr, fpr, ppv, npv and accuracy.
        benefit: {group: series} of the net benefit; null at a threshold of 1.
        n_replicates: Bootstrap replicates behind these intervals (fewer than in the audit).
    """

    thresholds: list[float]
    negatives: dict[str, int]
    positives: dict[str, int]
    selected_negatives: dict[str, list[int]]
    selected_positives: dict[str, list[int]]
    gaps: dict[str, Series]
    effects: dict[str, dict[str, Series]]
    rates: dict[str, dict[str, Series]]
    n_replicates: int
    benefit: dict[str, Series] = field(default_factory=dict)
