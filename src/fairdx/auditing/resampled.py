"""The profiles of one attribute, of the sample and of its replicates, and what intervals need besides."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from fairdx.auditing.estimates import signed_estimate
from fairdx.auditing.profile import Profile
from fairdx.auditing.result import Settings
from fairdx.inference.resampling import effective_patients
from fairdx.inference.score_intervals import Areas, Shares
from fairdx.inference.uncertainty import Estimate, few_patients_factor, jackknife_acceleration
from fairdx.metrics.counts import design_effect
from fairdx.metrics.inputs import Floats, Ints

_AREA_WEIGHT = 5.0  # of the variance of a share against that of the replicates, in images of the fewer
_FEW = 10.0
"""Images of the rarer outcome, with fewer of which a group's own design effect says little."""


@dataclass(frozen=True)
class Discrimination:
    """AUC within groups with what its interval needs, each of shape (S,).

    Attributes:
        auc: Exact, nan where a label does not occur.
        variance: DeLong's, or Obuchowski's with patients; 0 where it cannot be estimated.
        positives: Effective number of patients with Y=1.
        negatives: Effective number of patients with Y=0.
        precision: Average precision, nan without Y=1.
    """

    auc: Floats
    variance: Floats
    positives: Floats
    negatives: Floats
    precision: Floats

    def groups(self, keep: Ints) -> "Discrimination":
        """The same for some of the groups."""
        return Discrimination(*(getattr(self, f.name)[keep] for f in fields(self)))


@dataclass(frozen=True)
class Groups:
    """Groups and the patients behind them.

    Attributes:
        names: S of them.
        images: Images of each, (S,).
        patients: Effective number of patients of each, (S,).
        by_label: Effective number of patients of each with each label, (S, 2).
        settings: Of the audit.
        held: Images of each with each label, (S, 2).
        weights: The sums of their weights, (S, 2).
    """

    names: tuple[str, ...]
    images: Ints
    patients: Floats
    by_label: Floats
    settings: Settings
    held: Floats
    weights: Floats

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        group: Ints,
        label: Ints,
        patient: Ints | None,
        settings: Settings,
        weight: Floats | None = None,
    ) -> "Groups":
        """Count images and patients; `group`, `label` (0 or 1) and `weight` are those of each image, (n,)."""
        n, cell = len(names), group * 2 + label
        return cls(
            names,
            np.bincount(group, minlength=n),
            effective_patients(group, patient, n, weight),
            effective_patients(cell, patient, 2 * n, weight).reshape(n, 2),
            settings,
            np.bincount(cell, minlength=2 * n).reshape(n, 2).astype(float),
            np.bincount(cell, weights=weight, minlength=2 * n).reshape(n, 2).astype(float),
        )

    def rows(self, counts: Floats) -> Floats:
        """Images in the cells of tables (..., S, Z, D), whose numbers are sums of weights.

        Within a group, and a label where there are two, they are shared out like the weights.
        """
        if not self.settings.weighted:
            return counts
        held, weights = self.held, self.weights
        if counts.shape[-2] != 2:
            held, weights = held.sum(1, keepdims=True), weights.sum(1, keepdims=True)
        scaled: Floats = counts * (held / np.where(weights > 0, weights, 1.0))[..., None]
        return scaled

    @property
    def widen(self) -> Floats:
        """Factor for few patients by group, (S,)."""
        return few_patients_factor(self.patients, self.settings.level)

    def keep(self, chosen: Ints) -> "Groups":
        """The same for some of the groups."""
        names = tuple(self.names[s] for s in chosen)
        parts = self.images[chosen], self.patients[chosen], self.by_label[chosen]
        return Groups(names, *parts, self.settings, self.held[chosen], self.weights[chosen])

    def shares(self, value: Floats, replicates: Floats, images: Floats, label: Ints | None = None) -> Shares:
        """Rates of groups with score intervals.

        Args:
            value: Shape (..., S, R).
            replicates: Shape (B, ..., S, R).
            images: Behind each rate, shape (..., S, R); with weights, from `rows`.
            label: The label that all images behind each rate have, -1 for both, shape (R,); both if None.

        Returns:
            With independent images their numbers decide; with patients the effective numbers, by the
            variance of the replicates of the group.
        """
        if not self.settings.dependent:
            return Shares(value, images, np.ones((1, 1)))
        which = np.full(value.shape[-1], -1) if label is None else label
        place = np.maximum(which, 0)
        patients = np.where(which < 0, self.patients[:, None], self.by_label[:, place])
        held = np.where(which < 0, self.held.sum(1, keepdims=True), self.held[:, place])
        most = np.maximum(held / np.maximum(patients, 1.0), 1.0)
        effect = _design_effects(value, replicates, images, most)
        widen = few_patients_factor(patients, self.settings.level)
        return Shares(value, images / effect, widen)


@dataclass(frozen=True)
class Resampled:
    """Profiles of one attribute, with what intervals need.

    Attributes:
        who: The groups, S of them.
        sample: Profile of the sample, leading dimension 1.
        replicates: Profile of the replicates, leading dimension B.
        kinds: Tables (U, S, Z, 2) of distinct patients, and how many of each: for BCa and design effects.
        multiplicity: Shape (U,).
        score_kinds: Tables of score bins (U, S, Z, 10) of distinct patients, and how many of each: for the
            design effect; none without patients.
        score_multiplicity: Shape (U,).
        discrimination: AUCs.
        calibration_error: Of each group, debiased, (S,).
        threshold: Operating point; nan where groups have their own.
    """

    who: Groups
    sample: Profile
    replicates: Profile
    kinds: Floats
    multiplicity: Floats
    score_kinds: Floats
    score_multiplicity: Floats
    discrimination: Discrimination
    calibration_error: Floats
    threshold: float

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups."""
        return self.who.names

    @property
    def settings(self) -> Settings:
        """Of the audit."""
        return self.who.settings

    @property
    def images(self) -> Ints:
        """Images by group, (S,)."""
        return self.who.images

    @property
    def widen(self) -> Floats:
        """Factor for few patients by group, (S,)."""
        return self.who.widen

    @property
    def design_effect(self) -> float:
        """Of the table of classes and decisions; 1 without patients."""
        return design_effect(self.kinds, self.multiplicity) if self.settings.dependent else 1.0

    @property
    def score_design_effect(self) -> float:
        """Of the table of classes and score bins; 1 without patients."""
        return design_effect(self.score_kinds, self.score_multiplicity) if self.settings.dependent else 1.0

    def keep(self, chosen: Ints) -> "Resampled":
        """The same for some of the groups."""
        return replace(
            self,
            who=self.who.keep(chosen),
            sample=self.sample.groups(chosen),
            replicates=self.replicates.groups(chosen),
            kinds=self.kinds[:, chosen],
            score_kinds=self.score_kinds[:, chosen],
            discrimination=self.discrimination.groups(chosen),
            calibration_error=self.calibration_error[chosen],
        )

    def areas(self) -> Areas:
        """AUCs of groups with score intervals, of shape (S, 1)."""
        own = self.discrimination
        auc, positives, negatives, variance = (
            x[:, None] for x in (own.auc, own.positives, own.negatives, own.variance)
        )
        return Areas(auc, positives, negatives, variance, self._few_patients())

    def precisions(self) -> Shares:
        """Average precisions of groups as shares of an effective number of images, shape (S, 1).

        That number is the one of which a share varies like the replicates do; with few images with Y=1 it is
        held near theirs, as for areas under ROC curves.
        """
        own, value = self.discrimination, self.discrimination.precision
        repeated = self.replicates.precision
        variance = np.var(np.where(np.isfinite(repeated), repeated, value), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            model = value * (1 - value) / own.positives
            added = _AREA_WEIGHT / np.minimum(own.positives, own.negatives) * model
            size = own.positives * (model + added) / (variance + added)
        size = np.where(np.isfinite(size) & (size > 0), size, own.positives)
        return Shares(value[:, None], size[:, None], self._few_patients())

    def _few_patients(self) -> Floats:
        """Factor for few patients with one of the labels, (S, 1)."""
        from scipy.special import ndtri, stdtrit

        own, tail = self.discrimination, (1 + self.settings.level) / 2
        fewer = np.maximum(np.minimum(own.positives, own.negatives), 2.0)
        return np.asarray(stdtrit(fewer - 1, tail) / ndtri(tail))[:, None]

    def signed(
        self, value: float, replicates: Floats, n: int, s: int, statistic: Callable[[Floats], Floats] | None
    ) -> Estimate:
        """Estimate of a quantity of group s; BCa if asked for and it is a function of the counts."""
        acceleration = None
        if self.settings.interval == "bca" and statistic is not None and np.isfinite(value):
            left_out = statistic(self.sample.classes - self.kinds)
            acceleration = jackknife_acceleration(left_out, self.multiplicity)
        level, widen = self.settings.level, float(self.widen[s])
        return signed_estimate(value, replicates, n, level, widen, acceleration)


def _design_effects(value: Floats, replicates: Floats, images: Floats, most: Floats) -> Floats:
    """How much more each rate varies than with independent images, (..., S, R).

    At least 1, and at most `most`, what patients whose images all agree would give, (S, R). A rate near 0 or
    1 has too few images of the rarer outcome to tell: there the other groups' is taken if it is larger.
    """
    independent = value * (1 - value)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.var(np.where(np.isfinite(replicates), replicates, value), axis=0) * images / independent
    rarer = images * np.minimum(value, 1 - value)
    known = (rarer >= _FEW) & np.isfinite(own)
    weight = np.where(known, rarer, 0.0)
    total = weight.sum(-2, keepdims=True)
    pooled = np.where(
        total > 0,
        (weight * np.where(known, own, 0.0)).sum(-2, keepdims=True) / np.maximum(total, 1e-300),
        most,
    )
    effect: Floats = np.where(known, own, np.fmax(np.where(np.isfinite(own), own, 0.0), pooled))
    return np.clip(effect, 1.0, most)
