"""Gaps over time: predictions arrive period by period, and the figures hold at every look at once."""

from collections.abc import Callable
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
from fairdx.auditing.so_far import LEAST_IMAGES, Images, Rates, areas_of, calibration_of, in_time, rates_of
from fairdx.core.errors import InputError
from fairdx.inference.information_sequences import information_sequence
from fairdx.inference.score_intervals import Figures, Shares, critical_value, highest_gap, lowest_gap
from fairdx.inference.sequences import figures_gap, mixture_critical, share_differences, share_gap
from fairdx.inference.uncertainty import check_group_size, check_level
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import reference_index, references_by_attribute
from fairdx.metrics.compared import GAP_SHARES, Compared
from fairdx.metrics.inputs import Codes, Floats, Ints, plain, same_length, to_attributes, to_codes, to_scores
from fairdx.metrics.scores import binary_truth
from fairdx.metrics.threshold import at_precision

EXACT = "Beta mixture, product of groups"
ASYMPTOTIC = "normal mixture"
JOINT = "Beta mixture of all rates"

NO_WEIGHTS = (
    "A monitor takes no weights: its intervals hold at every look because each image counts once; leave them "
    "out, or audit the images of all periods together with `fairdx audit --weight`."
)
"""Why weights are refused."""

_NAN = float("nan")
_SELECTION = GAP_SHARES["demographic_parity_difference"](2)
_ODDS = GAP_SHARES["equalized_odds_difference"](2)


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
    sample_weight: None = None,
) -> MonitorResult:
    """Follow the gaps of a model in use, with intervals that hold at all looks at once.

    Columns may be of any form that `fairdx.audit` takes.

    Args:
        y_true: Truth of two classes, shape (n,).
        y_score: P(Y=1), shape (n,), in [0, 1].
        sensitive_features: One attribute, shape (n,), or several as a mapping or data frame.
        looks: Period in which each image arrived, shape (n,): dates, numbers, or text with numbers that tell
            the order, as 2025-03 or week 9; an ordered category of pandas for any other text.
        patients: Patient of each image, shape (n,); images are independent if None.
        positive_class: The class of two that is the disease, where it does not say so itself.
        threshold: A decision is score >= threshold.
        reference: Group that effects compare with, or a group by attribute; the largest if None.
        min_group_size: A group is compared from the look on at which it has so many images.
        level: Probability that all intervals of a course hold.
        sample_weight: Not possible; None.

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
    if sample_weight is not None:
        raise InputError(NO_WEIGHTS)
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}; give a number in [0, 1].")
    attributes, look = to_attributes(sensitive_features), in_time(to_codes(looks, "looks"))
    scores = at_precision(to_scores(plain(y_score)), threshold)
    if scores.ndim != 1:
        raise InputError(f"y_score has shape {scores.shape}; a monitor follows one score, P(Y=1).")
    truth = to_codes(plain(y_true), "y_true")
    label = binary_truth(truth, positive_class)  # type: ignore[arg-type]
    named = {f"sensitive feature {name!r}": column.codes for name, column in attributes.items()}
    patient = None if patients is None else to_codes(patients, "patients").codes
    own = {} if patient is None else {"patients": patient}
    same_length(y_true=label, y_score=scores, looks=look.codes, **named, **own)
    settings = MonitorSettings(
        threshold, check_level(level), check_group_size(min_group_size), patient is not None
    )
    order = np.argsort(look.codes, kind="stable")
    decision = (scores >= threshold).astype(np.int64)
    images = Images(look.codes, label, scores, decision, patient).take(order)
    references = references_by_attribute(reference, {name: c.names for name, c in attributes.items()})
    parts = {
        name: _watch(images, replace(column, codes=column.codes[order]), references.get(name), settings)
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
    gaps["approximate_diagnosis_fairness_corrected"] = groups.information()
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

    def rates(
        self, compared: Compared, look: int, *, alone: bool = False, least: int = LEAST_IMAGES
    ) -> Rates:
        found, group = self.so_far(look, alone=alone)
        return rates_of(found, group, compared, len(self.names), self.settings.level, least)

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

    def information(self) -> Course:
        """The course of I(S; decision | Y)."""
        # Every image counts, in cells of a single one too: the sequence holds at any size.
        odds = [self.rates(_ODDS, look, least=1) for look in range(self.n_looks)]
        success, size, images = (
            np.stack(one) for one in zip(*((r.success, r.size, r.images) for r in odds), strict=True)
        )
        share = tables.ratio(images, images.sum((-1, -2), keepdims=True))
        low, high = information_sequence(success, size, share, 1 - self.settings.level)
        groups = (images.sum(-1) > 0).sum(-1)
        drawn = _Drawn(JOINT)
        for look, count in enumerate(groups):
            value = corrected_information(odds[look]) if count > 1 else _NAN
            drawn.add(value, (float(low[look]), min(float(high[look]), float(np.log(2)))))
        return drawn.course()

    def effects(self, base: int) -> dict[str, dict[str, Course]]:
        """The courses of the effects of each group against the reference."""
        others = [s for s in range(len(self.names)) if s != base]
        alpha = (1 - self.settings.level) / len(others)
        selected = [self.rates(_SELECTION, look) for look in range(self.n_looks)]
        odds = [self.rates(_ODDS, look) for look in range(self.n_looks)]
        ill = [self._prevalence(look) for look in range(self.n_looks)]
        direct = [direct_effects(*found, base) for found in zip(odds, ill, strict=True)]
        indirect = [indirect_effects(*found, base) for found in zip(odds, ill, strict=True)]
        return {
            self.names[s]: {
                "total_effect": _total_effect(selected, s, base, alpha),
                "direct_effect": _normal_course(direct, s, alpha),
                "indirect_effect": _normal_course(indirect, s, alpha),
            }
            for s in others
        }

    def _prevalence(self, look: int) -> Rates:
        """Of the disease in the groups, shape (S, 1)."""
        images, group = self.so_far(look)
        ill = replace(images, decision=images.label)
        return rates_of(ill, group, _SELECTION, len(self.names), self.settings.level)


def _total_effect(selected: list[Rates], group: int, base: int, alpha: float) -> Course:
    """The course of the difference of two groups' shares of positive decisions."""
    value, success, size = (
        np.stack([getattr(rates, what)[[group, base], 0] for rates in selected], axis=1)
        for what in ("value", "success", "size")
    )
    drawn = _Drawn(EXACT)
    ends = share_differences((success[0], success[1]), (size[0], size[1]), alpha)
    for effect, low, high in zip(value[0] - value[1], *ends, strict=True):
        drawn.add(float(effect), (float(low), float(high)))
    return drawn.course()


def _normal_course(found: list[tuple[Floats, Floats]], group: int, alpha: float) -> Course:
    """The course of an effect, from effects and standard errors (S,) at every look."""
    drawn, first = _Drawn(ASYMPTOTIC), _NAN
    for effects, errors in found:
        effect, error = float(effects[group]), float(errors[group])
        first = error if np.isnan(first) and np.isfinite(effect) else first
        reach = error and mixture_critical((first / error) ** 2, alpha) * error
        drawn.add(effect, (max(effect - reach, -1.0), min(effect + reach, 1.0)))
    return drawn.course()


def corrected_information(odds: Rates) -> float:
    """I(S; decision | Y) in nats less its first-order bias, at least 0, from rates (S, 2) within labels."""
    share = tables.ratio(odds.images, odds.images.sum())
    within = tables.ratio(odds.images, odds.images.sum(0))
    rate = np.nan_to_num(odds.value)
    counts = odds.images[..., None] * np.stack([1 - rate, rate], axis=-1)
    pooled = (within * rate).sum(0)
    noisy = (odds.size > 0) & (pooled > 0) & (pooled < 1)
    bias = tables.ratio(np.where(noisy, share * (1 - within), 0.0), odds.size)
    return max(float(tables.mutual_information(counts)) - float(np.nansum(bias)) / 2, 0.0)


def _variance(rates: Rates) -> Floats:
    """Of rates shrunk by two images of each outcome: one of 0 or 1 is not known exactly."""
    shrunk = (rates.success + 2) / (rates.size + 4)
    return tables.ratio(shrunk * (1 - shrunk), rates.size)


def direct_effects(odds: Rates, ill: Rates, base: int) -> tuple[Floats, Floats]:
    """Direct effects of all groups against one, and their standard errors.

    Args:
        odds: False- and true-positive rates, shape (S, 2).
        ill: Prevalence of the disease, shape (S, 1).
        base: Which of the groups is s-.

    Returns:
        Effects and errors, each of shape (S,); nan where a group has too few images of a label. Variances
        are of rates shrunk by two images of each outcome (Agresti and Coull 1998).
    """
    share = float(ill.value[base, 0])
    weight = np.array([1 - share, share])
    variance = weight**2 * _variance(odds)
    apart = odds.value - odds.value[base]
    effect = apart @ weight
    moved = ((apart - effect[:, None]) ** 2 @ weight) / max(float(ill.size[base, 0]), 1.0)
    return effect, np.sqrt((variance + variance[base]).sum(1) + moved)


def indirect_effects(odds: Rates, ill: Rates, base: int) -> tuple[Floats, Floats]:
    """As `direct_effects`: what the other prevalence of a group does, at the rates of the group itself."""
    apart, noise = odds.value[:, 1] - odds.value[:, 0], _variance(odds).sum(1)
    more, moved = (ill.value - ill.value[base])[:, 0], (_variance(ill) + _variance(ill)[base])[:, 0]
    # Of a product of two independent estimates; the last term keeps it from 0 where both of them are 0.
    return apart * more, np.sqrt(apart**2 * moved + more**2 * noise + moved * noise)


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
