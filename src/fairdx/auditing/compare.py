"""A second table of predictions against the first, on the same images and with the same replicates."""

from collections.abc import Callable

import numpy as np

from fairdx.auditing.binary import GAP_RATES, Resampled
from fairdx.auditing.design import Sample
from fairdx.auditing.profile import Profile
from fairdx.auditing.result import Change
from fairdx.core.errors import InputError
from fairdx.inference.delong import delong_test
from fairdx.inference.paired import length_change
from fairdx.inference.uncertainty import Estimate, length_p_value
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, Ints


def changes(
    before: dict[str, Resampled],
    after: dict[str, Resampled],
    compared: dict[str, Ints],
    sample: Sample,
) -> dict[str, dict[str, Change]]:
    """Compare every figure of two tables.

    Args:
        before: By attribute, all images first.
        after: The same for the second table; empty if there is none.
        compared: Groups of each attribute that are not too small.
        sample: The images.

    Returns:
        {attribute, or the name of all images: {metric: change}}.
    """
    if not after:
        return {}
    everyone = next(iter(before))
    found = {everyone: _changes(before[everyone], after[everyone], _overall)}
    found[everyone]["auroc"] = _with_delong(found[everyone]["auroc"], sample)
    for name, chosen in compared.items():
        if len(chosen) > 1:
            first, second = (d[name].keep(chosen, d[name].effective) for d in (before, after))
            found[name] = {**_gaps(first, second), **_changes(first, second, _information)}
    return found


def _overall(profile: Profile) -> dict[str, Floats]:
    return {
        "auroc": profile.auc[:, 0],
        "accuracy": tables.accuracies(profile.counts)[:, 0],
        "brier_score": profile.brier[:, 0],
    }


def _information(profile: Profile) -> dict[str, Floats]:
    return {"approximate_diagnosis_fairness": tables.mutual_information(profile.counts)}


def _gaps(first: Resampled, second: Resampled) -> dict[str, Change]:
    found = {}
    for name, rates in GAP_RATES.items():
        values = rates(first.sample)[0], rates(second.sample)[0]
        repeated = rates(first.replicates), rates(second.replicates)
        moved = length_change(values, repeated, tables.largest_gap, first.settings.level, first.widen)
        before, after = (float(tables.largest_gap(v)) for v in values)
        estimate = Estimate.of(after - before, moved.interval, int(first.images.sum()))
        found[name] = Change(before, after, estimate, moved.p_value, "paired bootstrap")
    return found


def _changes(
    first: Resampled, second: Resampled, figures: Callable[[Profile], dict[str, Floats]]
) -> dict[str, Change]:
    values = [figures(first.sample), figures(second.sample)]
    repeated = [figures(first.replicates), figures(second.replicates)]
    found = {}
    for name in values[0]:
        before, after = (float(v[name][0]) for v in values)
        moved = repeated[1][name] - repeated[0][name]
        estimate = first.signed(after - before, moved, int(first.images.sum()), None)
        p_value = length_p_value(np.array([after - before]), moved[:, None], _size, first.widen)
        found[name] = Change(before, after, estimate, p_value, "paired bootstrap")
    return found


def _size(vector: Floats) -> Floats:
    size: Floats = np.abs(vector[..., 0])
    return size


def _with_delong(change: Change, sample: Sample) -> Change:
    try:
        test = delong_test(sample.label, *sample.scores, patients=sample.patient)
    except InputError:  # too few patients with one of the labels
        return change
    method = "paired DeLong" if sample.patient is None else "paired Obuchowski"
    return Change(change.before, change.after, change.difference, test.p_value, method)
