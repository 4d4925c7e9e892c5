"""Gaps over time: predictions arrive period by period, and the figures hold at every look at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairdx.auditing.assemble import now, package_version
from fairdx.auditing.monitored import (
    MONITOR_SCHEMA_VERSION,
    Course,
    MonitorResult,
    MonitorSettings,
    Watched,
)
from fairdx.auditing.so_far import LEAST_IMAGES, Images, Rates, areas_of, calibration_of, rates_of
from fairdx.core.errors import InputError
from fairdx.inference.resampling import effective_patients
from fairdx.inference.score_intervals import Figures, Shares, critical_value, highest_gap, lowest_gap
from fairdx.inference.sequences import figures_gap, mixture_critical, share_differences, share_gap
from fairdx.inference.uncertainty import check_level
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import reference_index
from fairdx.metrics.compared import GAP_SHARES, Compared
from fairdx.metrics.inputs import Codes, Floats, Ints, plain, same_length, to_attributes, to_codes, to_scores
from fairdx.metrics.scores import binary_truth
from fairdx.metrics.threshold import at_precision

EXACT = "Beta mixture, product of groups"
ASYMPTOTIC = "normal mixture"

_NAN = float("nan")


def monitor(  # noqa: PLR0913 - each is one fact of the monitor, and all but two are keywords
    y_true: Any,
    y_score: Any,
    *,
    sensitive_features: Any,
    looks: Any,
    patients: Any = None,
    positive_class: Any = None,
    threshold: float = 0.5,
    reference: Any = None,
    min_group_size: int = 30,
    level: float = 0.95,
) -> MonitorResult:
    """Follow the gaps of a model in use, with intervals that hold at all looks at once.

    Columns may be of any form that `fairdx.audit` takes.

    Args:
        y_true: Truth of two classes, shape (n,).
        y_score: P(Y=1), shape (n,), in [0, 1].
        sensitive_features: One attribute, shape (n,), or several as a mapping or data frame.
        looks: Period in which each image arrived, shape (n,); they are looked at in sorted order, as months
            written 2025-03 are, or numbers.
        patients: Patient of each image, shape (n,); images are independent if None.
        positive_class: The class of two that is the disease, where it does not say so itself.
        threshold: A decision is score >= threshold.
        reference: Group that effects compare with; the largest if None.
        min_group_size: A group is compared from the look on at which it has so many images.
        level: Probability that all intervals of a course hold.

    Returns:
        The course of every gap and effect.

    Raises:
        InputError: If a column does not fit, or holds what it must not.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> month, sex, truth = rng.integers(1, 7, 3000), rng.integers(0, 2, 3000), rng.integers(0, 2, 3000)
        >>> score = np.clip(0.3 * truth + 0.05 * sex + 0.5 * rng.random(3000), 0, 1)
        >>> found = monitor(truth, score, sensitive_features={"sex": sex}, looks=month)
        >>> sum(low > 0 for low in found.gaps["sex"]["demographic_parity_difference"].low)  # of six looks
        3
    """
    attributes, look = to_attributes(sensitive_features), to_codes(looks, "looks")
    scores = at_precision(to_scores(plain(y_score)), threshold)
    if scores.ndim != 1:
        raise InputError(f"y_score has shape {scores.shape}; a monitor follows one score, P(Y=1).")
    truth = to_codes(plain(y_true), "y_true")
    label = binary_truth(truth, positive_class)  # type: ignore[arg-type]
    named = {f"sensitive feature {name!r}": column.codes for name, column in attributes.items()}
    patient = None if patients is None else to_codes(patients, "patients").codes
    own = {} if patient is None else {"patients": patient}
    same_length(y_true=label, y_score=scores, looks=look.codes, **named, **own)
    settings = MonitorSettings(threshold, check_level(level), min_group_size, patient is not None)
    order = np.argsort(look.codes, kind="stable")
    decision = (scores >= threshold).astype(np.int64)
    images = Images(look.codes, label, scores, decision, patient).take(order)
    parts = {
        name: _watch(images, replace(column, codes=column.codes[order]), _named(reference, name), settings)
        for name, column in attributes.items()
    }
    return MonitorResult(
        MONITOR_SCHEMA_VERSION,
        package_version(),
        now(),
        [", ".join(truth.take(label == y).names) for y in (0, 1)],
        settings,
        images.looks(look.names),
        {name: part.about for name, part in parts.items()},
        {name: part.gaps for name, part in parts.items()},
        {name: part.effects for name, part in parts.items()},
        notes=[],
    )


def _named(reference: Any, attribute: str) -> Any:
    return reference.get(attribute) if isinstance(reference, Mapping) else reference


@dataclass(frozen=True)
class _Part:
    about: Watched
    gaps: dict[str, Course]
    effects: dict[str, dict[str, Course]]


def _watch(images: Images, column: Codes, reference: Any, settings: MonitorSettings) -> _Part:
    """Everything about one attribute."""
    size = np.bincount(column.codes, minlength=len(column.names))
    base = reference_index(column, reference, "the attribute")
    large = np.flatnonzero(size >= settings.min_group_size)
    names = [column.names[s] for s in large]
    about = Watched(
        dict(zip(column.names, size.tolist(), strict=True)),
        column.names[base],
        [g for g in column.names if g not in names],
    )
    if len(large) < 2:
        return _Part(about, {}, {})
    place = np.full(len(column.names), -1)
    place[large] = np.arange(len(large))
    groups = _Groups(images, place[column.codes], names, settings)
    gaps = {name: groups.gap(make(2)) for name, make in GAP_SHARES.items()}
    gaps["auroc_gap"] = groups.figures_gap(areas_of)
    gaps["calibration_gap"] = groups.figures_gap(calibration_of)
    effects = groups.effects(names.index(column.names[base])) if column.names[base] in names else {}
    return _Part(about, gaps, effects)


@dataclass(frozen=True)
class _Groups:
    """Images of the groups that are compared in the end; the group of others is -1."""

    images: Images
    group: Ints
    names: list[str]
    settings: MonitorSettings

    @property
    def n_looks(self) -> int:
        return int(self.images.look[-1]) + 1

    def so_far(self, look: int, *, alone: bool = False) -> tuple[Images, Ints]:
        """The images up to a look, or of that look alone, and their groups; -1 where these are too small."""
        rows = self.images.rows(look, alone=alone)
        group = self.group[rows]
        size = np.bincount(group[group >= 0], minlength=len(self.names))
        least = LEAST_IMAGES if alone else self.settings.min_group_size
        return self.images.take(rows), np.where((size >= least)[group] & (group >= 0), group, -1)

    def rates(self, compared: Compared, look: int, *, alone: bool = False) -> Rates:
        found, group = self.so_far(look, alone=alone)
        return rates_of(found, group, compared, len(self.names), self.settings.level)

    def gap(self, compared: Compared) -> Course:
        """The course of the largest gap in some rates."""
        drawn, so_far = _Drawn(EXACT), [self.rates(compared, look) for look in range(self.n_looks)]
        success, size = np.stack([r.success for r in so_far]), np.stack([r.size for r in so_far])
        ends = share_gap(success, size, self.settings.level)
        for look, (rates, low, high) in enumerate(zip(so_far, *ends, strict=True)):
            own = self.rates(compared, look, alone=True)
            period_ends = self._period_ends(own, look)
            drawn.add(largest(rates.value), (float(low), float(high)), largest(own.value), period_ends)
        return drawn.course(*self._furthest(so_far[-1].value))

    def _period_ends(self, own: Rates, look: int) -> tuple[float, float]:
        """Of a period alone; 6 / (pi k)^2 of the error is spent on period k, which adds up to all of it."""
        level = 1 - (1 - self.settings.level) * 6 / (np.pi * (look + 1)) ** 2
        shares = Shares(own.value, np.where(own.size > 0, own.size, np.nan), np.ones((1, 1)))
        known = int(np.isfinite(own.value).sum(0).max())
        if known < 2:
            return _NAN, _NAN
        number = known * (known - 1) // 2 * own.value.shape[1]
        low = float(lowest_gap(shares, critical_value(level, number)))
        return max(low, 0.0), min(float(highest_gap(shares, critical_value(level))), 1.0)

    def figures_gap(self, figures: Callable[[Images, Ints, int, float], Figures]) -> Course:
        """The course of the largest gap in some figure of groups."""
        drawn, first = _Drawn(ASYMPTOTIC), np.full(len(self.names), np.nan)
        for look in range(self.n_looks):
            images, group = self.so_far(look)
            found = figures(images, group, len(self.names), self.settings.level)
            known = np.isfinite(found.value[:, 0])
            size = np.bincount(group[group >= 0], minlength=len(self.names)).astype(float)
            first = np.where(np.isnan(first) & known, size, first)
            growth = float(np.max((size / first)[known], initial=1.0))
            ends = figures_gap(found, growth, self.settings.level)
            drawn.add(largest(found.value), ends)
        return drawn.course(*self._furthest(found.value))

    def _furthest(self, value: Floats) -> tuple[str | None, str | None]:
        """The groups with the lowest and the highest rate of the pair that is furthest apart."""
        if np.isnan(largest(value)):
            return None, None
        spread = np.fmax.reduce(value, axis=0) - np.fmin.reduce(value, axis=0)
        column = value[:, int(np.nanargmax(spread))]
        return self.names[int(np.nanargmin(column))], self.names[int(np.nanargmax(column))]

    def effects(self, base: int) -> dict[str, dict[str, Course]]:
        """The courses of total and direct effects of each group against the reference."""
        others = [s for s in range(len(self.names)) if s != base]
        alpha = (1 - self.settings.level) / len(others)
        total = {s: _Drawn(EXACT) for s in others}
        direct = {s: _Drawn(ASYMPTOTIC) for s in others}
        first = np.full(len(self.names), np.nan)
        for look in range(self.n_looks):
            selected = self.rates(GAP_SHARES["demographic_parity_difference"](2), look)
            odds = self.rates(GAP_SHARES["equalized_odds_difference"](2), look)
            found = direct_effects(odds, self._label_shares(look, base), base)
            for s in others:
                value = float(selected.value[s, 0] - selected.value[base, 0])
                success, size = ((x[s, 0], x[base, 0]) for x in (selected.success, selected.size))
                low, high = share_differences(success, size, alpha)
                total[s].add(value, (float(low), float(high)) if np.isfinite(value) else None)
                effect, error = float(found[0][s]), float(found[1][s])
                if np.isnan(first[s]) and np.isfinite(effect):
                    first[s] = error
                reach = error and mixture_critical((first[s] / error) ** 2, alpha) * error
                direct[s].add(effect, (max(effect - reach, -1.0), min(effect + reach, 1.0)))
        return {
            self.names[s]: {"total_effect": total[s].course(), "direct_effect": direct[s].course()}
            for s in others
        }

    def _label_shares(self, look: int, base: int) -> tuple[Floats, float]:
        """P(y | s-), shape (2,), and the effective number of images of the reference."""
        images, group = self.so_far(look)
        label = images.label[group == base]
        share = np.bincount(label, minlength=2) / max(len(label), 1)
        patient = None if images.patient is None else images.patient[group == base]
        return share, float(effective_patients(np.zeros_like(label), patient, 1)[0])


def direct_effects(odds: Rates, reference: tuple[Floats, float], base: int) -> tuple[Floats, Floats]:
    """Direct effects of all groups against one, and their standard errors.

    Args:
        odds: False- and true-positive rates, shape (S, 2).
        reference: P(y | s-), shape (2,), and the effective number of images behind it.
        base: Which of the groups is s-.

    Returns:
        Effects and errors, each of shape (S,); nan where a group has too few images of a label. Variances
        are of rates shrunk by two images of each outcome (Agresti and Coull 1998): one of 0 or 1 is not known
        exactly.
    """
    weight, patients = reference
    shrunk = (odds.success + 2) / (odds.size + 4)
    variance = weight**2 * tables.ratio(shrunk * (1 - shrunk), odds.size)
    apart = odds.value - odds.value[base]
    effect = apart @ weight
    moved = ((apart - effect[:, None]) ** 2 @ weight) / max(patients, 1.0)
    return effect, np.sqrt((variance + variance[base]).sum(1) + moved)


def largest(value: Floats) -> float:
    """The largest gap between two groups in figures (S, R); nan where fewer than two are known."""
    known = np.isfinite(value).sum(0) > 1
    if not known.any():
        return _NAN
    spread = np.fmax.reduce(value[:, known], axis=0) - np.fmin.reduce(value[:, known], axis=0)
    return float(spread.max())


class _Drawn:
    """A course in the making."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.rows: list[tuple[float, ...]] = []

    def add(
        self,
        value: float,
        ends: tuple[float, float] | None,
        period: float = _NAN,
        period_ends: tuple[float, float] = (_NAN, _NAN),
    ) -> None:
        ends = (_NAN, _NAN) if ends is None or np.isnan(value) else ends
        self.rows.append((value, *ends, period, *period_ends))

    def course(self, lowest: str | None = None, highest: str | None = None) -> Course:
        value, low, high, period, period_low, period_high = (list(c) for c in zip(*self.rows, strict=True))
        return Course(value, low, high, period, period_low, period_high, lowest, highest, self.method)
