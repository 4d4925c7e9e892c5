"""Figures of groups after partial pooling, beside the raw ones: small groups and the worst."""

import numpy as np

from fairdx.auditing.groups import LABEL_OF_RATE, denominators
from fairdx.auditing.resampled import Resampled
from fairdx.inference.pooling import FEWEST_GROUPS, Pooled, PooledFigures, pooled_areas, pooled_rates
from fairdx.metrics.definitions import METRICS
from fairdx.metrics.rates import binary_rates

POOLED_RATES = ("tpr", "fpr", "accuracy")


def pooled_figures(data: Resampled) -> dict[str, dict[str, Pooled]]:
    """Pool the rates and AUCs of all groups of an attribute, those too small to compare among them.

    Args:
        data: Profiles of every group.

    Returns:
        {metric: {group: figures}}; nothing with fewer than three groups.
    """
    if len(data.groups) < FEWEST_GROUPS:
        return {}
    level, found = data.settings.level, {}
    counts, replicates = data.sample.counts[0], data.replicates.counts
    values, repeated = binary_rates(counts), binary_rates(replicates)
    images = denominators(data.who.rows(counts))
    for name in POOLED_RATES:
        label = np.array([LABEL_OF_RATE.get(name, -1)])
        value, drawn, behind = (x[..., None] for x in (values[name], repeated[name], images[name]))
        shares = data.who.shares(value, drawn, behind, label)
        size = np.broadcast_to(shares.size / shares.widen**2, shares.value.shape)[:, 0]
        found[name] = _by_group(data, name, values[name], pooled_rates(values[name], size, level))
    own = data.discrimination
    found["auroc"] = _by_group(data, "auroc", own.auc, pooled_areas(own.auc, own.variance, level))
    return found


def _by_group(
    data: Resampled, metric: str, raw: np.ndarray[tuple[int, ...], np.dtype[np.float64]], found: PooledFigures
) -> dict[str, Pooled]:
    worst = found.lowest if METRICS[metric].higher_is_better else found.highest
    return {
        group: Pooled(
            float(raw[s]), float(found.value[s]), float(found.low[s]), float(found.high[s]), float(worst[s])
        )
        for s, group in enumerate(data.groups)
        if np.isfinite(found.value[s])
    }
