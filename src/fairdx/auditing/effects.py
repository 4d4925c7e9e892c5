"""Effects of groups against their reference: estimates, tests, and how much it takes to explain them away."""

from dataclasses import dataclass, replace

import numpy as np

from fairdx.auditing.estimates import signed_estimate
from fairdx.auditing.groups import absolute_sum
from fairdx.auditing.resampled import Groups
from fairdx.auditing.result import Sensitivity, Test
from fairdx.inference.score_intervals import Shares, critical_value
from fairdx.inference.uncertainty import (
    Estimate,
    few_patients_factor,
    jackknife_acceleration,
    length_p_value,
)
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import common_support, effects_from_strata, support_shares
from fairdx.metrics.inputs import Floats, Ints

EFFECTS = ("total_effect", "direct_effect", "indirect_effect")

_STEPS, _MOST = 40, 40.0  # of the bisection for p-values, in standard errors
_BOUND = 4.0  # of the ratio of the variance of an effect to that of its parts


@dataclass(frozen=True)
class Strata:
    """Tables of groups by stratum and decision.

    Attributes:
        sample: Shape (..., S, Z, 2).
        replicates: Shape (B, ..., S, Z, 2).
        covariate: The value of the covariates of each stratum, (Z,); None without covariates.
        kinds: Tables (U, S, Z, 2) of distinct patients, and how many of each, for BCa intervals; or None.
        multiplicity: Shape (U,).
    """

    sample: Floats
    replicates: Floats
    covariate: Ints | None = None
    kinds: Floats | None = None
    multiplicity: Floats | None = None

    def effects(self, counts: Floats, reference: int) -> dict[str, Floats]:
        """Effects of tables (..., S, Z, 2), each (..., S)."""
        return effects_from_strata(counts[..., 1], counts.sum(-1), reference, self.covariate)

    def weights(self, counts: Floats, reference: int) -> Floats:
        """Shares of the strata in the reference, P(y | s-) or P(y, c | s-), (..., S, Z)."""
        totals = counts.sum(-1)
        if self.covariate is not None:
            kept = common_support(totals, reference, self.covariate)
            return support_shares(totals, kept, reference, self.covariate)[2]
        share = tables.ratio(totals, totals.sum(-1, keepdims=True))
        return np.broadcast_to(share[..., reference, None, :], totals.shape)


@dataclass(frozen=True)
class Contrast:
    """Effects as differences of rates, with the interval that the rates' score intervals give them.

    Attributes:
        value: Shape (..., S).
        shares: The rates of the group and those of the reference, by stratum, each (..., S, Z).
        weights: Of the strata, (..., S, Z).
        other: Variance of the weights' part, (..., S).
        ratio: Of the variance of the effect in replicates to that of its parts, (..., S).
        widen: For few patients, (S,).
    """

    value: Floats
    shares: tuple[Shares, Shares]
    weights: Floats
    other: Floats
    ratio: Floats
    widen: Floats

    def ends(self, critical: Floats | float) -> tuple[Floats, Floats]:
        """Ends at so many standard errors, the same or those of each group, each (..., S)."""
        apart = []
        for shares in self.shares:
            low, high = shares.ends(np.asarray(critical)[..., None])
            apart.append(((shares.value - low) ** 2, (high - shares.value) ** 2))
        (below, above), (base_below, base_above) = apart
        squared = self.weights**2
        added = (critical * self.widen) ** 2 * self.other

        def reach(own: Floats, base: Floats) -> Floats:
            parts = np.where(squared > 0, squared * (own + base), 0.0).sum(-1)
            return np.asarray(np.sqrt(self.ratio * (parts + added)))

        low, high = self.value - reach(below, base_above), self.value + reach(above, base_below)
        return np.maximum(low, -1.0), np.minimum(high, 1.0)

    def p_values(self) -> Floats:
        """P-values of no effect: the level at which the interval leaves out 0."""
        from scipy.special import ndtr

        low, high = np.zeros_like(self.value), np.full_like(self.value, _MOST)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            below, above = self.ends(middle)
            out = (below > 0) | (above < 0)
            low, high = np.where(out, middle, low), np.where(out, high, middle)
        return np.where(np.isnan(self.value), np.nan, 2 * ndtr(-low))


def contrasts(who: Groups, strata: Strata, reference: int) -> dict[str, Contrast]:
    """The direct and the total effect of every group; the indirect one is no difference of rates.

    Args:
        who: The groups that are compared.
        strata: Their tables.
        reference: Index of the reference group.

    Returns:
        By effect. The total effect has one stratum: all images (without covariates).
    """
    values = strata.effects(strata.sample, reference)
    repeated = strata.effects(strata.replicates, reference)
    weights = strata.weights(strata.sample, reference), strata.weights(strata.replicates, reference)
    found = {"direct_effect": _contrast(who, strata.sample, strata.replicates, weights, reference)}
    if strata.covariate is None:
        whole = strata.sample.sum(-2, keepdims=True), strata.replicates.sum(-2, keepdims=True)
        ones = tuple(np.ones(c.shape[:-1]) for c in whole)
        found["total_effect"] = _contrast(who, *whole, ones, reference)  # type: ignore[arg-type]
    return {
        name: _matched(contrast, values[name], repeated[name], who.settings.dependent)
        for name, contrast in found.items()
    }


def _contrast(
    who: Groups, sample: Floats, replicates: Floats, weights: tuple[Floats, Floats], reference: int
) -> Contrast:
    rates, repeated = (tables.ratio(c[..., 1], c.sum(-1)) for c in (sample, replicates))
    own = who.shares(rates, repeated, who.rows(sample).sum(-1))
    base = Shares(*(_of_reference(part, reference) for part in (own.value, own.size, own.widen)))
    apart = np.where(weights[0] > 0, own.value - base.value, 0.0)
    moved = (np.nan_to_num(weights[1]) * apart).sum(-1)
    few = who.widen, who.widen[reference]
    return Contrast(
        np.full(apart.shape[:-1], np.nan),
        (own, base),
        np.nan_to_num(weights[0]),
        moved.var(0),
        np.ones(1),
        np.maximum(*few),
    )


def _of_reference(part: Floats, reference: int) -> Floats:
    return part if part.shape[-2] == 1 else part[..., reference : reference + 1, :]


def _matched(contrast: Contrast, value: Floats, replicates: Floats, clustered: bool) -> Contrast:
    """The contrast with its value; with patients its parts are correlated, which replicates show."""
    ratio = np.ones_like(value)
    if clustered:
        parts = sum(s.variance for s in contrast.shares)
        squared = contrast.weights**2
        expected = np.where(squared > 0, squared * parts, 0.0).sum(-1) + contrast.other
        known = np.where(np.isfinite(replicates), replicates, value)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = known.var(0) / expected
        ratio = np.where(np.isfinite(found) & (expected > 0), np.clip(found, 1 / _BOUND, _BOUND), 1.0)
    return Contrast(value, contrast.shares, contrast.weights, contrast.other, ratio, contrast.widen)


def effect_estimates(
    who: Groups, strata: Strata, reference: int, *, comparisons: int = 1
) -> dict[str, dict[str, Estimate]]:
    """Effects of each group against the reference.

    Args:
        who: The groups that are compared.
        strata: Their tables.
        reference: Index of the reference group.
        comparisons: How many groups the intervals are to hold for at once.

    Returns:
        {group: {effect: estimate}}.
    """
    level = who.settings.level
    values, repeated = (strata.effects(c, reference) for c in (strata.sample, strata.replicates))
    made = {} if who.settings.interval == "bca" else contrasts(who, strata, reference)
    ends = {name: one.ends(critical_value(level, comparisons)) for name, one in made.items()}
    found: dict[str, dict[str, Estimate]] = {}
    for s, group in enumerate(who.names):
        n = int(who.images[s] + who.images[reference])
        for name in EFFECTS if s != reference else ():
            value = float(values[name][s])
            if name in ends and np.isfinite(value):
                low, high = (float(end[s]) for end in ends[name])
                estimate = Estimate(value, low, high, level, "score intervals of rates", n)
            else:
                own = level ** (1 / comparisons)
                estimate = _resampled(who, strata, (reference, s, name), value, repeated[name][:, s], own)
                estimate = replace(estimate, level=level, n=n)
            found.setdefault(group, {})[name] = estimate
    return found


def _resampled(
    who: Groups,
    strata: Strata,
    which: tuple[int, int, str],
    value: float,
    replicates: Floats,
    level: float,
) -> Estimate:
    """A percentile or BCa interval."""
    reference, s, name = which
    acceleration = None
    wanted = who.settings.interval == "bca" and np.isfinite(value)
    if wanted and strata.kinds is not None and strata.multiplicity is not None:
        left_out = strata.effects(strata.sample - strata.kinds, reference)[name][:, s]
        acceleration = jackknife_acceleration(left_out, strata.multiplicity)
    fewest = min(who.patients[s], who.patients[reference])
    widen = float(few_patients_factor(fewest, level))
    return signed_estimate(value, replicates, 0, level, widen, acceleration)


def effect_tests(who: Groups, strata: Strata, reference: int, attribute: str) -> list[Test]:
    """Tests of no effect, of every group and effect.

    Args:
        who: The groups that are compared.
        strata: Their tables.
        reference: Index of the reference group.
        attribute: Its name.

    Returns:
        Tests whose p-values are not yet corrected for each other.
    """
    by_score = {name: one.p_values() for name, one in contrasts(who, strata, reference).items()}
    values, repeated = (strata.effects(c, reference) for c in (strata.sample, strata.replicates))
    found = []
    for s, group in enumerate(who.names):
        for name in EFFECTS if s != reference else ():
            if name in by_score:
                p, method = float(by_score[name][s]), "score intervals of rates"
            else:
                fewest = max(who.widen[s], who.widen[reference])
                p = length_p_value(
                    values[name][s : s + 1], repeated[name][:, s : s + 1], absolute_sum, fewest
                )
                method = "bootstrap"
            found.append(Test(attribute, name, group, method, p, p, p, p))
    return found


def sensitivity(
    counts: Floats,
    strata: Strata,
    reference: int,
    effects: dict[str, dict[str, Estimate]],
    names: tuple[str, ...],
) -> dict[str, Sensitivity]:
    """What it would take to explain the direct effect of each group away.

    Args:
        counts: By label and decision, (S, 2, 2).
        strata: Tables by class and decision.
        reference: Index of the reference group.
        effects: From `effect_estimates`.
        names: Of the groups.

    Returns:
        By group.
    """
    found = {}
    rates = tables.decision_rates(counts)[..., 1]
    share = tables.label_rates(counts)[reference]
    full = tables.ratio(strata.sample[..., 1], strata.sample.sum(-1))[reference]
    weights = strata.weights(strata.sample, reference)[reference]
    risk = float(np.where(weights > 0, full * weights, 0.0).sum())
    for s, group in enumerate(names):
        if s == reference:
            continue
        effect = effects[group]["direct_effect"]
        nearest = effect.low if effect.value > 0 else effect.high
        if effect.low <= 0 <= effect.high:
            nearest = 0.0
        more, less = (s, reference) if effect.value > 0 else (reference, s)
        found[group] = Sensitivity(
            e_value(risk, effect.value), e_value(risk, nearest), missed_share(rates[more], rates[less], share)
        )
    return found


def e_value(risk: float, difference: float) -> float:
    """How strong a common cause of disease and image must be to explain an effect away.

    Args:
        risk: Probability of a positive decision in the reference, in (0, 1).
        difference: The effect that is added to it.

    Returns:
        The E-value (VanderWeele and Ding 2017): the risk ratio by which an unmeasured cause would have to go
        both with the group and with positive decisions; 1 explains nothing. nan where a risk is 0.
    """
    other = risk + difference
    if not (risk > 0 and other > 0):
        return float("nan")
    ratio = max(other / risk, risk / other)
    return float(ratio + np.sqrt(ratio * (ratio - 1)))


def missed_share(more: Floats, less: Floats, share: Floats) -> float:
    """How many records "healthy" would have to be missed disease to explain a direct effect away.

    If a share q of the images recorded Y=0 of the group with more positive decisions were diseased, and
    decided like its diseased ones, its true false-positive rate would be (FPR - q TPR) / (1 - q).

    Args:
        more: [FPR, TPR] of the group with more positive decisions, the disease held.
        less: [FPR, TPR] of the other.
        share: P(y | s-), shape (2,).

    Returns:
        q, in [0, 1); nan if no such share does.
    """
    wanted = less[0] - (more[1] - less[1]) * share[1] / share[0] if share[0] > 0 else np.nan
    # (FPR - q TPR) / (1 - q) = wanted
    with np.errstate(divide="ignore", invalid="ignore"):
        q = float((more[0] - wanted) / (more[1] - wanted))
    return q if 0 <= q < 1 and wanted >= 0 else float("nan")
