"""A second table of predictions against the first, on the same images and with the same replicates."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fairdx.auditing.design import Sample
from fairdx.auditing.draws import Draws
from fairdx.auditing.profile import Profile
from fairdx.auditing.resampled import Resampled
from fairdx.auditing.result import Change
from fairdx.core.errors import InputError
from fairdx.inference.delong import delong_test
from fairdx.inference.paired import length_change
from fairdx.inference.uncertainty import Estimate, length_p_value
from fairdx.metrics import counts as tables
from fairdx.metrics.compared import GAP_SHARES
from fairdx.metrics.inputs import Floats, Ints

ADF = "approximate_diagnosis_fairness"

GAP_RATES: dict[str, Callable[[Profile], Floats]] = {
    **{name: lambda p, make=make: make(2).rates(p.counts) for name, make in GAP_SHARES.items()},  # type: ignore[misc]
    "auroc_gap": lambda p: p.auc[..., None],
    "average_precision_gap": lambda p: p.precision[..., None],
    "calibration_gap": lambda p: p.in_the_large[..., None],
}
"""The rates (B, S, R) that each gap is the largest difference of."""


def changes(draws: Draws, compared: dict[str, Ints]) -> dict[str, dict[str, Change]]:
    """Compare every figure of two tables.

    Args:
        draws: What was resampled of both.
        compared: Groups of each attribute that are not too small.

    Returns:
        {attribute, or the name of all images: {metric: change}}; empty if there is one table.
    """
    if not draws.data_after:
        return {}
    before, after = draws.data, draws.data_after
    everyone = draws.overall
    found = {everyone: _changes(before[everyone], after[everyone], _overall)}
    found[everyone]["auroc"] = _with_delong(found[everyone]["auroc"], draws.sample)
    for name, chosen in compared.items():
        if len(chosen) > 1:
            first, second = (data[name].keep(chosen) for data in (before, after))
            found[name] = {**_gaps(first, second), ADF: _information(first, second)}
    return found


def _overall(profile: Profile) -> dict[str, Floats]:
    return {
        "auroc": profile.auc[:, 0],
        "average_precision": profile.precision[:, 0],
        "accuracy": tables.accuracies(profile.counts)[:, 0],
        "brier_score": profile.brier[:, 0],
    }


def _gaps(first: Resampled, second: Resampled) -> dict[str, Change]:
    found = {}
    for name, rates in GAP_RATES.items():
        values = rates(first.sample)[0], rates(second.sample)[0]
        known = np.isfinite(values[0]).all(-1) & np.isfinite(values[1]).all(-1)
        if known.sum() < 2:
            continue
        values = values[0][known], values[1][known]
        repeated = rates(first.replicates)[:, known], rates(second.replicates)[:, known]
        if name in GAP_SHARES:
            sizes = (_images(name, data)[known] for data in (first, second))
            noise = np.random.default_rng(first.settings.seed)
            repeated = tuple(  # type: ignore[assignment]
                _spread_out(r, v, n, noise) for r, v, n in zip(repeated, values, sizes, strict=True)
            )
        level, widen = first.settings.level, first.widen[known][:, None]
        moved = length_change(values, repeated, tables.largest_gap, level, widen)
        before, after = (float(tables.largest_gap(v)) for v in values)
        estimate = Estimate.of(after - before, moved.interval, int(first.images.sum()))
        found[name] = Change(
            before, after, estimate, moved.p_value, "paired bootstrap", moved.p_value, moved.p_value
        )
    return found


def _images(name: str, data: Resampled) -> Floats:
    """Images behind each rate of a gap, (S, R), as many as would vary alike without patients."""
    counts, n_groups = data.sample.counts[0], len(data.groups)
    images = GAP_SHARES[name](2).images(data.who.rows(counts))
    if data.settings.dependent:
        images = images * np.minimum(data.who.patients / np.maximum(data.images, 1), 1.0)[:n_groups, None]
    return np.asarray(images)


def _spread_out(replicates: Floats, value: Floats, images: Floats, rng: np.random.Generator) -> Floats:
    """Replicates with at least the spread of a rate with one more image of either outcome.

    Where every decision of a group is the same all replicates agree, as if its rate were known exactly.
    """
    shrunk = (value * images + 1) / (images + 2)
    least = shrunk * (1 - shrunk) / np.maximum(images, 1.0)
    rarer = images * np.minimum(value, 1 - value)
    missing = np.where(rarer < 1, np.maximum(least - replicates.var(0), 0.0), 0.0)
    return np.asarray(replicates + np.sqrt(missing) * rng.normal(size=replicates.shape))


def _information(first: Resampled, second: Resampled) -> Change:
    """The change of ADF, whose root is a vector that is nearly normal where ADF is 0."""
    tables_of = [data.sample.classes for data in (first, second)]
    roots = [tables.information_root(t) for t in tables_of]
    drawn = [tables.information_root(data.replicates.classes) for data in (first, second)]
    level, widen = first.settings.level, float(first.widen.max())
    vectors, repeated = (roots[0][0], roots[1][0]), (drawn[0], drawn[1])
    moved = length_change(vectors, repeated, _root_length, level, widen, squared=True)
    before, after = (float(tables.mutual_information(t)[0]) for t in tables_of)
    estimate = Estimate.of(after - before, moved.interval, int(first.images.sum()))
    return Change(before, after, estimate, moved.p_value, "paired bootstrap", moved.p_value, moved.p_value)


def _root_length(root: Floats) -> Floats:
    return np.asarray(np.sqrt((root**2).sum((-1, -2, -3))))


def _changes(
    first: Resampled, second: Resampled, figures: Callable[[Profile], dict[str, Floats]]
) -> dict[str, Change]:
    values = [figures(first.sample), figures(second.sample)]
    repeated = [figures(first.replicates), figures(second.replicates)]
    found, widen = {}, float(first.widen.max())
    for name in values[0]:
        before, after = (float(v[name][0]) for v in values)
        moved = repeated[1][name] - repeated[0][name]
        estimate = first.signed(
            after - before, moved, int(first.images.sum()), int(first.widen.argmax()), None
        )
        p_value = length_p_value(np.array([after - before]), moved[:, None], _size, widen)
        found[name] = Change(before, after, estimate, p_value, "paired bootstrap", p_value, p_value)
    return found


def _size(vector: Floats) -> Floats:
    size: Floats = np.abs(vector[..., 0])
    return size


def _with_delong(change: Change, sample: Sample) -> Change:
    try:
        test = delong_test(
            sample.truth.label, *sample.scores, patients=sample.patient, sample_weight=sample.weight
        )
    except InputError:  # too few patients with one of the labels
        return change
    method = "paired DeLong" if sample.patient is None else "paired Obuchowski"
    return replace(change, p_value=test.p_value, method=method, p_holm=test.p_value, p_family=test.p_value)
