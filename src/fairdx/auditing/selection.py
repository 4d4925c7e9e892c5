"""What images without a label may hide: they have scores and groups, and count in nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isnan

import numpy as np

from fairdx.auditing.result import Attribute, AuditResult, LabelsMissing, Note
from fairdx.auditing.threshold import Thresholds
from fairdx.metrics.bounds import LabelBounds, label_bounds
from fairdx.metrics.compared import GAP_SHARES
from fairdx.metrics.inputs import Codes, Floats, Ints
from fairdx.metrics.threshold import at_precision
from fairdx.report.numbers import POINTS

_TOLD = {"equal_opportunity_difference": "true-positive rates", "accuracy_difference": "accuracy"}


@dataclass(frozen=True)
class Unlabelled:
    """Images without a label.

    Attributes:
        decision: 0 or 1, shape (m,).
        attributes: Their groups by attribute, each of shape (m,).
    """

    decision: Ints
    attributes: Mapping[str, Codes]

    @classmethod
    def of(cls, scores: Floats, attributes: Mapping[str, Codes], points: Thresholds) -> "Unlabelled":
        """Decide on scores, shape (m,), at the audit's thresholds."""
        own, scores = points.by_image(attributes), at_precision(scores, *points.values)
        return cls((scores >= (points.default if own is None else own)).astype(np.int64), attributes)

    def counts(self, about: Attribute) -> Floats:
        """Counts by group that is compared, and decision, (S, 2)."""
        names = _compared(about)
        column = self.attributes[about.name]
        place = {name: s for s, name in enumerate(names)}
        group = np.array([place.get(name, -1) for name in column.names], dtype=np.int64)[column.codes]
        kept = group >= 0
        cell = 2 * group[kept] + self.decision[kept]
        return np.bincount(cell, minlength=2 * len(names)).reshape(-1, 2).astype(float)


def with_unlabelled(result: AuditResult, unlabelled: Unlabelled | None) -> AuditResult:
    """An audit with the bounds of its gaps for the labels that are missing.

    Args:
        result: The audit of the images that have a label, of two classes.
        unlabelled: Those that have none.

    Returns:
        The same with bounds for each attribute, and a caution for each. Nothing is added with weights.
    """
    if unlabelled is None or len(unlabelled.decision) == 0 or result.settings.weighted:
        return result
    found, notes = dict[str, LabelsMissing](), list[Note]()
    for name, about in result.attributes.items():
        if name not in unlabelled.attributes or len(_compared(about)) < 2:
            continue
        counts = unlabelled.counts(about)
        if counts.sum() == 0:
            continue
        known = _known(result, about)
        gaps = {metric: label_bounds(known, counts, make(2)) for metric, make in GAP_SHARES.items()}
        images = dict(zip(_compared(about), counts.sum(1).astype(int).tolist(), strict=True))
        found[name] = LabelsMissing(images, gaps)
        notes.append(Note("caution", name, _sentence(name, found[name])))
    return replace(result, labels_missing=found, notes=[*result.notes, *notes])


def _compared(about: Attribute) -> list[str]:
    return [group for group in about.groups if group not in about.excluded]


def _known(result: AuditResult, about: Attribute) -> Floats:
    """Counts of the groups that are compared by label and decision, (S, 2, 2)."""
    tables = []
    for group in _compared(about):
        figures, n = result.by_group[about.name][group], about.groups[group]
        share = figures["prevalence"].value
        labels = np.array([1 - share, share]) * n
        rates = np.nan_to_num([figures["fpr"].value, figures["tpr"].value])
        tables.append(labels[:, None] * np.stack([1 - rates, rates], axis=1))
    return np.array(tables)


def _sentence(name: str, found: LabelsMissing) -> str:
    listed = ", ".join(f"{group} {n:,}" for group, n in list(found.images.items())[:10])
    told = [f"the gap in {title} {_bounds(found.gaps[metric])}" for metric, title in _TOLD.items()]
    return (
        f"{name}: {sum(found.images.values()):,} images have a score but no label ({listed}). "
        f"Whatever their labels are, {'; '.join(told)} (chance comes on top)."
    )


def _bounds(bounds: LabelBounds) -> str:
    if isnan(bounds.low):
        return "may be anything"
    if isnan(bounds.at_random):
        return f"lies between {100 * bounds.low:.1f} and {POINTS.in_words(bounds.high)}"
    turned = (
        "no labels of theirs turn it around"
        if isnan(bounds.turning)
        else f"it turns around if {bounds.turning:.0%} of them have the worst labels for it"
    )
    return (
        f"lies between {100 * bounds.low:.1f} and {POINTS.in_words(bounds.high)}, and is "
        f"{100 * bounds.at_random:.1f} if they are like the labelled images with the same decision; {turned}"
    )
