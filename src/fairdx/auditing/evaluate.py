"""The figures of one trained model with their intervals: what a training run reports."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.auditing.estimates import gap_estimate, information_estimates, signed_estimate
from fairdx.core.errors import InputError
from fairdx.inference.resampling import collapse, dense_vectors, effective_patients, replicate
from fairdx.inference.uncertainty import Estimate, check_level, few_patients_factor
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import effects_from_counts, reference_index
from fairdx.metrics.inputs import Codes, Floats, Ints, same_length, to_codes, to_numpy, to_scores
from fairdx.metrics.scores import auc_by_group, auc_from_histogram, binary_truth, class_codes

SCORE_BINS = 512
"""Bins of equal frequency in which scores are resampled; ties within a bin move a replicate of the AUC by
about 1 / SCORE_BINS^2, a hundredth of its standard error even with a million images."""


def evaluate(  # noqa: PLR0913 - each is one fact of the evaluation
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitive_features: Any,
    threshold: float = 0.5,
    patients: Any = None,
    n_replicates: int = 1000,
    seed: int = 0,
    reference: Any = None,
    positive_class: int | None = None,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Estimate performance, gaps, ADF and effects with intervals from a bootstrap by patient.

    Args:
        y_true: Labels, shape (n,).
        y_score: P(Y=1) of shape (n,), decided as score >= threshold; or class probabilities of shape (n, K),
            decided for the largest.
        sensitive_features: Groups, shape (n,), as names or codes.
        threshold: Operating point for scores of shape (n,), in [0, 1].
        patients: Patient of each image, shape (n,); images are independent if None.
        n_replicates: Bootstrap replicates.
        seed: Of the bootstrap.
        reference: Reference group of the effects; the largest if None.
        positive_class: Column whose decision the effects are of, for scores of shape (n, K); the last
            if None.
        level: Nominal coverage.

    Returns:
        auroc, accuracy, demographic_parity_difference, equal_opportunity_difference,
        equalized_odds_difference, approximate_diagnosis_fairness (plug-in),
        approximate_diagnosis_fairness_corrected, direct_effect, indirect_effect and total_effect. Of more
        than two groups the effects are those of the group whose direct effect is largest in size.
        Undefined values are nan.

    Raises:
        InputError: If columns do not fit or there is one group only.
    """
    check_level(level)
    scores = to_scores(y_score, bounded=False)
    group = to_codes(sensitive_features, "sensitive_features")
    n = same_length(y_true=to_numpy(y_true, "y_true"), y_score=scores, sensitive_features=group.codes)
    if len(group.names) < 2:
        raise InputError(f"sensitive_features has the single group {group.names[0]!r}; two are needed.")
    if n_replicates < 2:
        raise InputError(f"n_replicates is {n_replicates}; give at least 2 (1000 is usual).")
    patient = None if patients is None else to_codes(patients, "patients").codes
    if patient is not None:
        same_length(patients=patient, y_true=group.codes)
    source = (
        _binary(y_true, scores, threshold, group) if scores.ndim == 1 else _classes(y_true, scores, group)
    )
    draws = _draw(source, patient, n_replicates, seed)
    widen = few_patients_factor(effective_patients(group.codes, patient), level)
    positive = source.shape[2] - 1 if positive_class is None else positive_class
    return _estimates(draws, reference_index(group, reference), positive, level, n, widen)


@dataclass(frozen=True)
class _Tables:
    """The tables to resample together, and how to read decisions and AUC from them side by side.

    The first table is (group, label, decision) with, for two classes, the score's bin in place of the
    decision: both are sums of that one table. For more classes one of (rest or class, bin) follows per class.
    """

    cells: list[Ints]
    sizes: list[int]
    shape: tuple[int, int, int]
    cut: int | None  # the first bin that is decided positive; None for more than two classes
    exact_auc: float  # of the scores themselves, not their bins

    def decisions(self, counts: Floats) -> Floats:
        """(B, C) to (B, S, Y, D)."""
        first = counts[:, : self.sizes[0]].reshape(len(counts), *self.shape[:2], -1)
        if self.cut is None:
            return first
        return np.stack([first[..., : self.cut].sum(-1), first[..., self.cut :].sum(-1)], axis=-1)

    def auc(self, counts: Floats) -> Floats:
        """(B, C) to (B,): of more than two classes the mean of one against the rest."""
        if self.cut is not None:
            return auc_from_histogram(counts.reshape(len(counts), *self.shape[:2], -1).sum(1))
        ends = np.cumsum(self.sizes)
        parts = [counts[:, a:b].reshape(len(counts), 2, -1) for a, b in pairwise(ends)]
        areas: Floats = np.mean([auc_from_histogram(part) for part in parts], axis=0)
        return areas


def _binary(y_true: ArrayLike, scores: Floats, threshold: float, group: Codes) -> _Tables:
    label = binary_truth(y_true)
    place, n_bins, cut = _bins(scores, threshold)
    cell = (group.codes * 2 + label) * n_bins + place
    size = len(group.names) * 2 * n_bins
    return _Tables([cell], [size], (len(group.names), 2, 2), cut, _exact_auc([label], [scores]))


def _classes(y_true: ArrayLike, scores: Floats, group: Codes) -> _Tables:
    k, s = scores.shape[1], len(group.names)
    label, decision = class_codes(y_true, k), scores.argmax(1)
    cells, sizes = [(group.codes * k + label) * k + decision], [s * k * k]
    for c in range(k):
        place, n_bins, _ = _bins(scores[:, c], 0.5)
        cells.append((label == c) * n_bins + place)
        sizes.append(2 * n_bins)
    areas = _exact_auc([(label == c).astype(np.int64) for c in range(k)], list(scores.T))
    return _Tables(cells, sizes, (s, k, k), None, areas)


def _exact_auc(labels: list[Ints], scores: list[Floats]) -> float:
    areas = [auc_by_group(y, x, np.zeros_like(y), 1)[0] for y, x in zip(labels, scores, strict=True)]
    return float(np.mean(areas))


def _bins(scores: Floats, threshold: float) -> tuple[Ints, int, int]:
    """Bin of every score, the number of bins, and the first bin at or above the threshold.

    The bins are the distinct scores when these are few, else quantiles and the threshold.
    """
    values, place = np.unique(scores, return_inverse=True)
    if len(values) <= SCORE_BINS:
        return place.astype(np.int64), len(values), int(np.searchsorted(values, threshold))
    inner = np.quantile(scores, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
    edges = np.unique([*inner, threshold])
    cut = int(np.searchsorted(edges, threshold)) + 1
    return np.searchsorted(edges, scores, side="right").astype(np.int64), len(edges) + 1, cut


@dataclass(frozen=True)
class _Draws:
    counts: Floats  # (S, Y, D)
    replicates: Floats  # (B, S, Y, D)
    auc: float
    auc_replicates: Floats  # (B,)
    design_effect: float


def _draw(source: _Tables, patient: Ints | None, n_replicates: int, seed: int) -> _Draws:
    units = collapse(source.cells, source.sizes, patient)
    rng = np.random.default_rng(seed)
    read = [(source.decisions(c), source.auc(c)) for c in replicate(units, n_replicates, rng)]
    counts = source.decisions(units.counts[None])[0]
    effect = 1.0
    if patient is not None:
        vectors, multiplicity = dense_vectors(units)
        effect = tables.design_effect(source.decisions(vectors), multiplicity)
    decisions, areas = (np.concatenate(part) for part in zip(*read, strict=True))
    shift = source.exact_auc - source.auc(units.counts[None])[0]  # what the bins cost, 1e-5 or so
    return _Draws(counts, decisions, source.exact_auc, areas + shift, effect)


def _estimates(
    draws: _Draws, reference: int, positive: int, level: float, n: int, widen: float
) -> dict[str, Estimate]:
    counts, replicates = draws.counts, draws.replicates

    def signed(value: Any, repeated: Floats) -> Estimate:
        return signed_estimate(float(value), repeated, n, level, widen)

    def gap(rates: Any) -> Estimate:
        return gap_estimate(rates(counts), rates(replicates), n, level, widen)

    plug_in, corrected = information_estimates(counts, replicates, draws.design_effect, n, level, widen)
    found = {
        "auroc": signed(draws.auc, draws.auc_replicates),
        "accuracy": signed(_accuracy(counts), _accuracy(replicates)),
        "demographic_parity_difference": gap(tables.selection_rates),
        "equal_opportunity_difference": gap(tables.opportunity_rates),
        "equalized_odds_difference": gap(tables.odds_rates),
        "approximate_diagnosis_fairness": plug_in,
        "approximate_diagnosis_fairness_corrected": corrected,
    }
    values, repeated = (effects_from_counts(c, reference, positive) for c in (counts, replicates))
    size = np.abs(np.nan_to_num(values["direct_effect"]))
    size[reference] = -1.0
    other = int(np.argmax(size))
    for name in ("direct_effect", "indirect_effect", "total_effect"):
        found[name] = signed(values[name][other], repeated[name][:, other])
    return found


def _accuracy(counts: Floats) -> Floats:
    overall: Floats = tables.accuracies(counts.sum(-3, keepdims=True))[..., 0]
    return overall
