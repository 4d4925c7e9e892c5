"""Everything that is estimated about one attribute of a binary audit."""

from dataclasses import dataclass, field

import numpy as np

from fairdx.auditing.case_mix import case_mix
from fairdx.auditing.design import MISSING, Grouping
from fairdx.auditing.draws import Draws
from fairdx.auditing.effects import EFFECTS, Strata, effect_estimates, effect_tests, sensitivity
from fairdx.auditing.estimates import signed_estimate
from fairdx.auditing.gaps import equity_scaled_estimate, gap_estimates
from fairdx.auditing.groups import group_estimates
from fairdx.auditing.permuted import Permuted
from fairdx.auditing.pooled import pooled_figures
from fairdx.auditing.resampled import Resampled
from fairdx.auditing.result import Attribute, CaseMix, Gap, Sensitivity, Support, Test
from fairdx.auditing.study import Study
from fairdx.inference.pooling import Pooled
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.bounds import gap_bounds
from fairdx.metrics.causal import common_support
from fairdx.metrics.compared import GAP_SHARES
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.parametric import ModelledEffects

MOST_PERMUTED = 2500
"""With more patients than this, scores are permuted by image and scaled, which many patients allow."""

Effects = dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class Part:
    """What was found about one attribute.

    Attributes:
        about: The attribute.
        chosen: Indices of the groups that are compared.
        by_group: Performance of every group.
        gaps: By metric.
        effects: By group.
        simultaneous: As `effects`, with intervals for all groups at once.
        adjusted: Standardised over covariates.
        support: Images that this leaves out.
        modelled: Standardised over covariates by a model, which leaves nobody out.
        sensitivity: Of the direct effects.
        pooled: Figures of all groups after partial pooling.
        bounds: Of gaps, where images have no group.
        case_mix: Figures with one mix of the covariates; None without these, and of intersections.
        tests: Not yet corrected for each other.
    """

    about: Attribute
    chosen: Ints
    by_group: dict[str, dict[str, Estimate]]
    gaps: dict[str, Gap] = field(default_factory=dict)
    effects: Effects = field(default_factory=dict)
    simultaneous: Effects = field(default_factory=dict)
    adjusted: Effects = field(default_factory=dict)
    support: dict[str, Support] = field(default_factory=dict)
    modelled: Effects = field(default_factory=dict)
    sensitivity: dict[str, Sensitivity] = field(default_factory=dict)
    pooled: dict[str, dict[str, Pooled]] = field(default_factory=dict)
    tests: list[Test] = field(default_factory=list)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    case_mix: CaseMix | None = None


def measure(draws: Draws, grouping: Grouping, study: Study) -> Part:
    """Estimate and test everything about an attribute.

    Args:
        draws: What was resampled.
        grouping: The attribute.
        study: The study.

    Returns:
        The figures. Groups that are too small are in `by_group` alone.
    """
    data, about = draws.data[grouping.name], study.describe(grouping)
    bounds = _missing_bounds(data)
    by_group, shrunk = group_estimates(data, draws.sample.truth.of_full), pooled_figures(data)
    compared = [s for s, g in enumerate(grouping.groups) if g not in about.excluded]
    chosen = np.array(compared, dtype=np.int64)
    if len(chosen) < 2:
        return Part(about, chosen, by_group, pooled=shrunk, bounds=bounds)
    kept = data.keep(chosen)
    decided, scored = (_permuted(draws, grouping, chosen, kept, study, by_score=s) for s in (False, True))
    gaps, tests = gap_estimates(kept, decided, scored)
    gaps["equity_scaled_auroc"] = equity_scaled_estimate(kept, draws.data[draws.overall])
    mixed = None
    if draws.covariate is not None and not grouping.intersection:
        mixed = case_mix(draws, grouping, chosen, study.settings)
    part = Part(about, chosen, by_group, gaps, pooled=shrunk, tests=tests, bounds=bounds, case_mix=mixed)
    return part if about.reference in about.excluded else _with_effects(part, draws, grouping, kept)


def _missing_bounds(data: Resampled) -> dict[str, tuple[float, float]]:
    """Between which the gaps of these images lie, whatever the groups of those without one are."""
    if MISSING not in data.groups or len(data.groups) < 3:
        return {}
    hidden = data.groups.index(MISSING)
    counts = data.sample.counts[0]
    known = np.delete(counts, hidden, axis=0)
    return {name: gap_bounds(known, counts[hidden], make(2)) for name, make in GAP_SHARES.items()}


def _permuted(
    draws: Draws, grouping: Grouping, chosen: Ints, kept: Resampled, study: Study, *, by_score: bool
) -> Permuted:
    """The images to permute, by class and decision; or by class and bin of the score."""
    sample = draws.sample
    group = grouping.of_finest[sample.finest]
    rows = np.isin(group, chosen)
    counts = kept.sample.score_table[0] if by_score else kept.sample.classes[0]
    outcome = sample.score_bin if by_score else sample.decision
    cell = (sample.truth.full * counts.shape[2] + outcome)[rows]
    patient = None if sample.patient is None else sample.patient[rows]
    if by_score and patient is not None and len(np.unique(patient)) > MOST_PERMUTED:
        patient = None
    cells = np.searchsorted(chosen, group[rows]), cell, patient
    return Permuted.of(grouping.name, counts, sample.truth.of_full, cells, study.settings)


def _with_effects(part: Part, draws: Draws, grouping: Grouping, kept: Resampled) -> Part:
    base = kept.groups.index(part.about.reference)
    kinds = kept.kinds if len(kept.kinds) else None
    plain = Strata(kept.sample.classes[0], kept.replicates.classes, None, kinds, kept.multiplicity)
    effects, others = effect_estimates(kept.who, plain, base), len(kept.groups) - 1
    part.effects.update(effects)
    part.simultaneous.update(effect_estimates(kept.who, plain, base, comparisons=others))
    part.sensitivity.update(sensitivity(kept.sample.counts[0], plain, base, effects, kept.groups))
    part.tests.extend(effect_tests(kept.who, plain, base, part.about.name))
    if draws.strata is not None and draws.covariate is not None:
        by_stratum = grouping.coarsen(draws.strata)[:, part.chosen]
        adjusted = Strata(by_stratum[0], by_stratum[1:], draws.covariate)
        part.adjusted.update(effect_estimates(kept.who, adjusted, base))
        part.support.update(_support(kept.groups, by_stratum[0].sum(-1), base, draws.covariate))
        part.modelled.update(_modelled(draws, kept, by_stratum, base))
    return part


def _modelled(draws: Draws, kept: Resampled, by_stratum: Floats, base: int) -> Effects:
    assert draws.design is not None
    values, repeated = ModelledEffects(*draws.design, base).of(by_stratum[0], by_stratum[1:])
    found: Effects = {}
    for s, group in enumerate(kept.groups):
        n, widen = int(kept.images[s] + kept.images[base]), float(max(kept.widen[s], kept.widen[base]))
        for name in EFFECTS if s != base else ():
            value, replicates = float(values[name][s]), repeated[name][:, s]
            estimate = signed_estimate(value, replicates, n, kept.settings.level, widen)
            found.setdefault(group, {})[name] = estimate
    return found


def _support(groups: tuple[str, ...], totals: Floats, reference: int, covariate: Ints) -> dict[str, Support]:
    """Images that are left out of the comparison of each group with the reference."""
    kept = common_support(totals, reference, covariate)
    own, base = (totals * ~kept).sum(-1), (totals[reference] * ~kept).sum(-1)
    return {g: Support(int(own[s]), int(base[s])) for s, g in enumerate(groups) if s != reference}


def most_affected(effects: Effects) -> str | None:
    """The group with the largest direct effect, None if none is defined."""
    sizes = {g: abs(found["direct_effect"].value) for g, found in effects.items()}
    known = {g: size for g, size in sizes.items() if not np.isnan(size)}
    return max(known, key=lambda g: known[g]) if known else None
