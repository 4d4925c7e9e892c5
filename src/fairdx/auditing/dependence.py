"""How the tests of an audit depend on each other: all their statistics, drawn together under no difference.

Every statistic of a group is, to first order, a sum over its patients of one number each: of a rate (part -
rate x whole), of an AUC the placements of DeLong, of a direct effect the decision less its mean given the
class. If groups are permuted among patients these sums are jointly normal, with the covariance of the numbers
over patients (Strasser and Weber 1999; Hothorn et al. 2006). So one draw of sums gives every statistic of
every class and attribute, at a cost that does not grow with the images. The p-values themselves are those of
their own tests; only how they go together is taken from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.design import Grouping
from fairdx.auditing.result import AuditResult, Test
from fairdx.auditing.study import Study
from fairdx.metrics.compared import GAP_SHARES
from fairdx.metrics.inputs import Floats, Ints

DRAWS = 1999
"""Draws of all statistics: a corrected p-value of 0.05 is good to 0.005."""

_MOST_IMAGES = 50_000  # from which the covariance is taken
_MOST_NUMBERS = 4_000_000  # drawn at once
_BINS = 64  # of the score, for the AUC
_INFORMATION_BINS = 10
_MOST_CELLS = 100  # of a table whose information is tested; how larger ones go with other tests stays unknown
_MOST_SUMS = 600  # of all tests: their covariance is a matrix of so many rows


@dataclass(frozen=True)
class Shown:
    """What one audit of a page is made of: that of a class or finding, or that of the joint decision.

    Attributes:
        full: The class (or combination of findings) of each image, shape (n,).
        decision: What was decided of it, coded from 0, shape (n,).
        label: 0 or 1, shape (n,); None for the joint decision.
        scores: Shape (n,); None for the joint decision.
        rows: Which images are audited, shape (n,).
    """

    full: Ints
    decision: Ints
    label: Ints | None
    scores: Floats | None
    rows: NDArray[np.bool_]

    def take(self, chosen: NDArray[np.bool_]) -> "Shown":
        """The same for some of the images."""
        label = None if self.label is None else self.label[chosen]
        scores = None if self.scores is None else self.scores[chosen]
        return Shown(self.full[chosen], self.decision[chosen], label, scores, self.rows[chosen])

    def columns(self) -> dict[str, Floats]:
        """What each image adds to each statistic, by metric: (n, R), of mean 0; 0 for images left out."""
        full, decision = self.full[self.rows], self.decision[self.rows]
        found = {}
        if len(np.unique(full * (int(decision.max()) + 1) + decision)) <= _MOST_CELLS:
            found["approximate_diagnosis_fairness"] = _information(full, decision)
        if self.label is not None and self.scores is not None:
            found |= _of_label(self.label[self.rows], full, decision, self.scores[self.rows])
        spread = {name: np.zeros((len(self.rows), part.shape[1])) for name, part in found.items()}
        for name, part in found.items():
            spread[name][self.rows] = part
        return spread


def _of_label(label: Ints, full: Ints, decision: Ints, scores: Floats) -> dict[str, Floats]:
    rates = {}
    for name, make in GAP_SHARES.items():
        compared = make(2)
        part, whole = (masks[:, label, decision].T for masks in (compared.parts, compared.wholes))
        total = np.maximum(whole.sum(0), 1.0)
        rates[name] = (part - part.sum(0) / total * whole) / total
    given = _within(decision.astype(float), full)
    selected = decision - decision.mean()
    return {
        **rates,
        "auroc_gap": _placed(label, scores)[:, None],
        "calibration_gap": (label - scores - (label - scores).mean())[:, None],
        "score_mutual_information": _information(full, _binned(full, scores)),
        "total_effect": selected[:, None],
        "direct_effect": given[:, None],
        "indirect_effect": (selected - given)[:, None],
    }


def _within(values: Floats, full: Ints) -> Floats:
    """Values less their mean in the class, (n,)."""
    size = np.maximum(np.bincount(full), 1)
    return np.asarray(values - (np.bincount(full, weights=values) / size)[full])


def _information(full: Ints, outcome: Ints) -> Floats:
    """Of each class and outcome that occurs, scaled so that squares add up to the information, (n, R)."""
    cell = full * (int(outcome.max()) + 1) + outcome
    occurring, place = np.unique(cell, return_inverse=True)
    of_cell = occurring // (int(outcome.max()) + 1)
    size, count = np.bincount(full), np.bincount(place)
    share = count / size[of_cell]
    own = (place[:, None] == np.arange(len(occurring))) - (full[:, None] == of_cell) * share
    return np.asarray(own / np.sqrt(count))


def _binned(full: Ints, scores: Floats) -> Ints:
    """Ten bins of equal frequency of the score within each class."""
    found = np.zeros(len(scores), dtype=np.int64)
    for k in np.unique(full):
        own = scores[full == k]
        edges = np.unique(np.quantile(own, np.linspace(0, 1, _INFORMATION_BINS + 1)[1:-1]))
        found[full == k] = np.searchsorted(edges, own, side="right")
    return found


def _placed(label: Ints, scores: Floats) -> Floats:
    """DeLong's placements in the pooled images, less their mean, over the size of the class: (n,)."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, _BINS + 1)[1:-1]))
    place = np.searchsorted(edges, scores, side="right")
    counts = np.bincount(label * _BINS + place, minlength=2 * _BINS).reshape(2, -1)
    below = np.cumsum(counts, axis=1) - counts / 2
    size = np.maximum(counts.sum(1), 1)
    found = np.where(label == 1, below[0][place] / size[0], 1 - below[1][place] / size[1])
    return np.asarray(_within(found, label) / size[label])


@dataclass(frozen=True)
class _Sums:
    """Sums of finest groups, to draw.

    Attributes:
        columns: By audit and metric, which of the sums are its.
        root: Root of their covariance over patients, shape (J, J).
        variance: Its diagonal, (J,).
        share: Share of patients in each of the finest groups, (F,).
    """

    columns: list[dict[str, slice]]
    root: Floats
    variance: Floats
    share: Floats

    @classmethod
    def of(cls, study: Study, shown: Sequence[Shown | None]) -> "_Sums":
        n_finest = int(study.finest.max()) + 1
        patient = np.arange(study.n) if study.patient is None else study.patient
        unit = patient * n_finest + study.finest
        share = np.bincount(np.unique(unit) % n_finest, minlength=n_finest).astype(float)
        some = np.ones(study.n, dtype=np.bool_)
        if study.n > _MOST_IMAGES:
            drawn = np.random.default_rng(0).random(int(patient.max()) + 1)
            some = (drawn < _MOST_IMAGES / study.n)[patient]
        places, parts, start = list[dict[str, slice]](), list[Floats](), 0
        for one in shown:
            made = {} if one is None or not (one.rows & some).any() else one.take(some).columns()
            own = {}
            for metric, part in made.items():
                if start + part.shape[1] > _MOST_SUMS:
                    continue
                if study.weight is not None:
                    part = part * study.weight[some, None]  # noqa: PLW2901
                own[metric] = slice(start, start + part.shape[1])
                start += part.shape[1]
                parts.append(part)
            places.append(own)
        every = np.concatenate(parts, axis=1) if parts else np.zeros((int(some.sum()), 0))
        if study.patient is not None:
            code = np.unique(unit[some], return_inverse=True)[1]
            every = np.stack([np.bincount(code, weights=c) for c in every.T], axis=1) if parts else every
        covariance = every.T @ every
        size, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(size, 0.0))
        return cls(places, root, np.diagonal(covariance).copy(), share / share.sum())

    def draw(self, n_draws: int, rng: np.random.Generator) -> Floats:
        """Sums of permuted groups, (n_draws, F, J)."""
        noise = rng.normal(size=(n_draws, len(self.share), len(self.root))) @ self.root.T
        weight = np.sqrt(self.share)
        mean = np.einsum("f,bfj->bj", weight, noise)
        return np.asarray(weight[:, None] * (noise - weight[:, None] * mean[:, None]))


@dataclass(frozen=True)
class _Statistic:
    """Which sums of which groups a test looks at.

    Attributes:
        place: Its sums.
        groups: The groups that are compared, as rows that add up finest groups, (S, F).
        base: Of an effect, the place of the reference among them; the group itself is the other one.
        added: Whether squares are added up, or the largest counts.
    """

    place: slice
    groups: Floats
    base: int | None
    added: bool

    def of(self, sums: Floats, variance: Floats, share: Floats) -> Floats:
        """The statistic of draws (b, F, J): shape (b,)."""
        own, variance = self.groups @ sums[..., self.place], variance[self.place]
        size = self.groups @ share
        mean = own / size[:, None]
        if self.base is not None:
            return np.abs(mean[:, 0, 0] - mean[:, 1, 0])
        rest = own.sum(1, keepdims=True) / size.sum()
        if self.added:
            return np.asarray((size[:, None] * (mean - rest) ** 2).sum((-1, -2)))
        scale = variance * (1 / size - 1 / size.sum())[:, None]
        usable = scale > 1e-300
        squared = np.where(usable, (mean - rest) ** 2 / np.where(usable, scale, 1.0), 0.0)
        return np.asarray(squared.max((-1, -2)))


@dataclass(frozen=True)
class Dependence:
    """Statistics of all tests of a page, drawn together.

    Attributes:
        study: Of all images.
        results: The audits of the page, uncorrected.
        shown: What each is made of; None for one without tests.
    """

    study: Study
    results: Sequence[AuditResult]
    shown: Sequence[Shown | None]

    def draws(self) -> Floats:
        """Shape (DRAWS, tests), audit by audit; nan for tests whose draws are not known."""
        found = [
            self._statistic(result, place, test)
            for result, place in zip(self.results, self._sums.columns, strict=True)
            for test in result.tests
        ]
        drawn = np.full((DRAWS, len(found)), np.nan)
        numbers = max(len(self._sums.share) * len(self._sums.root), 1)
        step, rng = max(1, _MOST_NUMBERS // numbers), np.random.default_rng(self.study.settings.seed)
        for start in range(0, DRAWS if any(found) else 0, step):
            sums = self._sums.draw(min(step, DRAWS - start), rng)
            for k, statistic in enumerate(found):
                if statistic is not None:
                    own = statistic.of(sums, self._sums.variance, self._sums.share)
                    drawn[start : start + step, k] = own
        return drawn

    @cached_property
    def _sums(self) -> _Sums:
        return _Sums.of(self.study, self.shown)

    @cached_property
    def _groupings(self) -> dict[str, Grouping]:
        return {grouping.name: grouping for grouping in self.study.groupings}

    def _statistic(self, result: AuditResult, place: dict[str, slice], test: Test) -> _Statistic | None:
        grouping = self._groupings.get(test.attribute)
        if grouping is None or test.metric not in place:
            return None
        about = result.attributes[test.attribute]
        gap = result.gaps[test.attribute].get(test.metric)
        left_out = {*about.excluded, *([] if gap is None else gap.left_out)}
        names = [g for g in about.groups if g not in left_out]
        if test.group is not None:
            names = [test.group, about.reference]
        if len(names) < 2 or not set(names) <= set(grouping.groups):
            return None
        rows = np.array([grouping.of_finest == grouping.groups.index(g) for g in names], dtype=float)
        added = test.metric in ("approximate_diagnosis_fairness", "score_mutual_information")
        return _Statistic(place[test.metric], rows, None if test.group is None else 1, added)
