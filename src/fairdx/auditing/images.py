"""The images of an audit with their truth and scores, of which classes and findings take their own."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.dependence import Shown
from fairdx.auditing.profile import Truth
from fairdx.auditing.result import Note
from fairdx.auditing.selection import Unlabelled
from fairdx.auditing.study import Study
from fairdx.core.errors import InputError
from fairdx.metrics.inputs import Floats, is_missing
from fairdx.metrics.matching import order_of_scores


@dataclass(frozen=True)
class Images:
    """Images with their truth and scores.

    Attributes:
        study: Who they are of.
        truth: As given, shape (n,) or (n, L).
        scores: Shape (n,), or (n, K).
        after: A second table of scores, of the same shape, or None.
        names: How the columns of both scores are named.
        explore: Whether thresholds are explored.
    """

    study: Study
    truth: NDArray[Any]
    scores: Floats
    after: Floats | None
    names: tuple[list[str], list[str]]
    explore: bool

    def take(self, rows: NDArray[np.bool_]) -> "Images":
        """Some of them, (n,)."""
        after = None if self.after is None else self.after[rows]
        return replace(
            self, study=self.study.take(rows), truth=self.truth[rows], scores=self.scores[rows], after=after
        )

    def matched(self, labels: list[str], what: str) -> "Images":
        """The same with the columns of scores in the order of the labels, where columns have names."""

        def order(names: list[str]) -> list[int]:
            return order_of_scores(labels, names or labels, positional=True, what=what)

        after = None if self.after is None else self.after[:, order(self.names[1])]
        return replace(self, scores=self.scores[:, order(self.names[0])], after=after)

    def at(self, label: str) -> "Images":
        """The same at the threshold of one class or finding."""
        return replace(self, study=self.study.at(label))

    def decided(self, scores: Floats, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Decisions on the scores of some of the rows (n,)."""
        points, study = self.study.thresholds, self.study
        by_image = points.by_image(study.attributes)
        return np.asarray(scores >= (points.default if by_image is None else by_image[rows]))

    def column(self, k: int) -> "Images":
        """The same with one of the columns of scores."""
        return replace(self, scores=self.scores[:, k], after=None if self.after is None else self.after[:, k])

    def shown(self, truth: Truth, rows: NDArray[np.bool_] | None = None) -> Shown:
        """What the audit of one column of scores is made of; `truth` and `rows` of all images."""
        rows = np.ones(len(self.scores), dtype=np.bool_) if rows is None else rows
        decided = self.decided(self.scores, np.ones_like(rows)).astype(np.int64)
        return Shown(truth.full, decided, truth.label, self.scores, rows)

    def weighted(self) -> tuple["Images", list[Note]]:
        """Those that have a weight above 0, and what is to be said about weights."""
        weight = self.study.weight
        if weight is None:
            return self, []
        kept, notes = self.take(weight > 0), []
        if (left_out := int((weight <= 0).sum())) > 0:
            notes.append(
                _caution(f"{left_out:,} of {len(weight):,} images have the weight 0 and are left out.")
            )
        whose = "patients" if kept.study.settings.clustered else "images"
        effective, n = kept.study.n_effective or 0.0, kept.study.n_patients
        text = (
            f"Images are weighted: {n:,} {whose} tell as much as {effective:,.0f} of equal weight (Kish's "
            "effective sample size). Tests rest on scores and the bootstrap; nothing is permuted."
        )
        return kept, [*notes, _caution(text)]

    def unlabelled(self) -> Unlabelled | None:
        """Those that have no label, of one column of truth and of scores; None if all have one."""
        missing = is_missing(self.truth)
        return self.without_label(missing, self.scores[missing]) if missing.any() else None

    def without_label(self, rows: NDArray[np.bool_], scores: Floats) -> Unlabelled:
        """Some of the images (n,) by their scores (m,) and groups."""
        decided = self.decided(scores, rows).astype(np.int64)
        return Unlabelled(decided, {n: c.take(rows) for n, c in self.study.attributes.items()})

    def labelled(self) -> tuple["Images", list[Note]]:
        """Those that have a label, and a caution if some have none."""
        missing = is_missing(self.truth)
        if not missing.any():
            return self, []
        if missing.all():
            raise InputError("y_true is missing in every row; there is nothing to audit.")
        text = f"{missing.sum():,} of {len(missing):,} images have no label and are left out."
        return self.take(~missing), [_caution(text)]


def _caution(text: str) -> Note:
    return Note("caution", None, text)
