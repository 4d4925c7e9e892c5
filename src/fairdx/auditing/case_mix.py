"""True-positive rates and AUCs of groups with one mix of the covariates, beside those as they are."""

from dataclasses import replace

import numpy as np

from fairdx.auditing.design import Grouping
from fairdx.auditing.draws import Draws
from fairdx.auditing.gaps import LEAST_IMAGES, gap_of
from fairdx.auditing.result import CaseMix, Gap, Settings
from fairdx.inference.case_mix import Adjusted, Cases, adjusted_area, adjusted_rate
from fairdx.inference.score_intervals import critical_value
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.inputs import Ints

GAP_OF = {"tpr": "equal_opportunity_difference", "auroc": "auroc_gap"}
"""The gap between groups in each of the figures that are adjusted."""


def case_mix(draws: Draws, grouping: Grouping, chosen: Ints, settings: Settings) -> CaseMix:
    """Figures of groups as they would be if all had one mix of cases.

    Args:
        draws: What was resampled; the study has covariates.
        grouping: The attribute.
        chosen: Indices of the groups that are compared.
        settings: Of the audit.

    Returns:
        The figures and their gaps. Those of groups with too few images are shown, but not compared.
    """
    sample = draws.sample
    assert sample.stratum is not None
    assert draws.covariate is not None
    place = np.full(len(grouping.groups), -1)
    place[chosen] = np.arange(len(chosen))
    group = place[grouping.of_finest[sample.finest]]
    cases = Cases(
        np.maximum(group, 0),
        draws.covariate[sample.stratum],
        sample.truth.label,
        sample.scores[0],
        sample.decision,
        len(chosen),
        sample.patient,
        sample.weight,
        settings.level,
    ).take(group >= 0)
    names = tuple(grouping.groups[s] for s in chosen)
    found = {"tpr": adjusted_rate(cases, 1), "auroc": adjusted_area(cases)}
    by_group: dict[str, dict[str, Estimate]] = {name: {} for name in names}
    for metric, adjusted in found.items():
        for name, estimate in zip(names, _estimates(adjusted, settings.level), strict=True):
            by_group[name][metric] = estimate
    gaps = {GAP_OF[metric]: _gap(adjusted, names, settings.level) for metric, adjusted in found.items()}
    left_out = {
        metric: dict(zip(names, adjusted.left_out.tolist(), strict=True))
        for metric, adjusted in found.items()
    }
    return CaseMix(by_group, gaps, left_out)


def _estimates(adjusted: Adjusted, level: float) -> list[Estimate]:
    figures = adjusted.figures
    low, high = figures.ends(critical_value(level))
    columns = figures.value[:, 0], low[:, 0], high[:, 0], adjusted.images
    return [
        Estimate(float(v), float(a), float(b), level, "undefined" if np.isnan(v) else "score", int(n))
        for v, a, b, n in zip(*columns, strict=True)
    ]


def _gap(adjusted: Adjusted, names: tuple[str, ...], level: float) -> Gap:
    few = (adjusted.images < LEAST_IMAGES)[:, None]
    figures = replace(adjusted.figures, value=np.where(few, np.nan, adjusted.figures.value))
    return gap_of(figures, names, level, int(adjusted.images.sum()))
