"""Tables whose truth is known, easy and hard: what are the audit's intervals and tests worth?

A cell draws data sets and says what is true of them. `benchmarks/coverage.py` counts over many of them, the
tests over a few.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from unittest.mock import patch
from zlib import crc32

import numpy as np
from scipy.stats import norm

from fairdx.auditing import AuditResult, audit
from fairdx.metrics import counts as tables
from fairdx.metrics.causal import effects_from_counts
from fairdx.metrics.reliability import calibration

DP, EO, EODDS = "demographic_parity_difference", "equal_opportunity_difference", "equalized_odds_difference"
ADF, AUC, DE = "approximate_diagnosis_fairness_corrected", "auroc_gap", "direct_effect"
CORRECTIONS = {"p_family": "Westfall-Young", "p_holm": "Holm"}
OPTIONS = {"n_replicates": 400, "n_permutations": 199, "explore": False}


@dataclass(frozen=True)
class Drawn:
    """A data set: truth, scores, groups; patients and a covariate, or None."""

    y: np.ndarray
    score: np.ndarray
    group: np.ndarray
    patient: np.ndarray | None = None
    covariate: np.ndarray | None = None


@dataclass(frozen=True)
class Cell:
    """A kind of table.

    Attributes:
        name: In tables.
        draw: A data set from a generator.
        truth: True values by metric: gaps, "direct_effect" of group "1", "auroc 1" (of a group); with one mix
            of cases "mixed auroc_gap", "mixed auroc 1".
        null: Metrics whose tests must reject in one of twenty data sets.
        family: Whether no difference at all is true, so that no corrected p-value may be small.
        power: A metric that does differ, whose corrected tests are to find it.
        options: Of the audit.
        joint: Whether to audit the joint table of several classes alone; it is the same without the audits of
            each class, which take ten times as long.
    """

    name: str
    draw: Callable[[np.random.Generator], Drawn]
    truth: dict[str, float] = field(default_factory=dict)
    null: tuple[str, ...] = ()
    family: bool = False
    power: str = ""
    options: dict[str, object] = field(default_factory=dict)
    joint: bool = False


def audited(cell: Cell, drawn: Drawn, seed: int) -> AuditResult:
    options = {**OPTIONS, **cell.options, "seed": seed}
    if drawn.covariate is not None:
        options["covariates"] = {"covariate": drawn.covariate}
    with patch("fairdx.auditing.engine.MOST_CLASSES", 2) if cell.joint else nullcontext():
        return audit(
            drawn.y, drawn.score, sensitive_features={"group": drawn.group}, patients=drawn.patient, **options
        )


def interval(result: AuditResult, metric: str) -> tuple[float, float]:
    """Of a gap, an effect of group 1, or a figure of a group as in `auroc 1`; perhaps `mixed`."""
    mixed, plain = metric.startswith("mixed "), metric.removeprefix("mixed ")
    name, _, group = plain.partition(" ")
    gaps, by_group = result.gaps["group"], result.by_group["group"]
    if mixed:
        gaps, by_group = result.case_mix["group"].gaps, result.case_mix["group"].by_group
    if group:
        found = by_group[group][name]
    elif name in gaps:
        found = gaps[name].estimate
    else:
        found = result.effects["group"]["1"][name]
    return found.low, found.high


def p_value(result: AuditResult, metric: str, which: str = "p_value") -> float:
    name = metric.removesuffix("_corrected")
    return next(getattr(t, which) for t in result.tests if t.metric == name)


def outcomes(name: str, number: int, **options: object) -> dict[str, bool]:
    """Of one data set: whether intervals hold the truth, tests reject, any corrected p-value is <= .05."""
    cell = cells()[name]
    cell = replace(cell, options={**options, **cell.options})
    result = audited(cell, cell.draw(np.random.default_rng([crc32(name.encode()), number])), number)
    found = {}
    for metric, value in cell.truth.items():
        low, high = interval(result, metric)
        found[f"coverage {metric}"] = bool(low - 1e-9 <= value <= high + 1e-9)
    for metric in cell.null:
        found[f"size {metric}"] = bool(p_value(result, metric) <= 0.05)
    for which, correction in CORRECTIONS.items():
        if cell.family:
            whole = [result, *result.per_label.values()]
            found[f"family, {correction}"] = any(
                getattr(t, which) <= 0.05 for one in whole for t in one.tests
            )
        if cell.power:
            found[f"power, {correction}"] = bool(p_value(result, cell.power, which) <= 0.05)
    if cell.power:
        found["power, uncorrected"] = bool(p_value(result, cell.power) <= 0.05)
    return found


def study(name: str, draws: int) -> dict[str, float]:
    """Shares of data sets by figure of `outcomes`."""
    every = [outcomes(name, number) for number in range(draws)]
    return {figure: float(np.mean([one[figure] for one in every])) for figure in every[0]}


def rates_cell(name, sizes, prevalence, rates, family=False) -> Cell:
    """Binary decisions: sizes and prevalences by group, P(decision | label) as rates[group][label]."""
    sizes, rates = np.array(sizes), np.array(rates)
    positives = np.round(sizes * np.array(prevalence))
    prevalence = positives / sizes

    def draw(rng):
        group = np.repeat(np.arange(len(sizes)), sizes)
        y = np.concatenate([np.arange(n) < m for n, m in zip(sizes, positives, strict=True)]).astype(int)
        decided = rng.random(len(group)) < rates[group, y]
        return Drawn(y, np.where(decided, 0.9, 0.1), group.astype(str))

    labels = np.stack([1 - prevalence, prevalence], axis=1)
    table = sizes[:, None, None] / sizes.sum() * labels[..., None] * np.stack([1 - rates, rates], axis=-1)
    truth = {
        DP: float(tables.largest_gap(tables.selection_rates(table))),
        EO: float(tables.largest_gap(tables.opportunity_rates(table))),
        EODDS: float(tables.largest_gap(tables.odds_rates(table))),
        ADF: float(tables.mutual_information(table)),
        DE: float(effects_from_counts(table, 0)["direct_effect"][1]),
    }
    fair = np.allclose(rates, rates[0])
    return Cell(name, draw, truth, (EO, EODDS, ADF) if fair else (), family, options={"reference": "0"})


@cache
def calibrated(prevalence, shift):
    """Slope and calibration error of the score of `latent_cell` in a group, from two million images."""
    rng = np.random.default_rng(0)
    y = (rng.random(2_000_000) < prevalence).astype(int)
    score = norm.cdf(shift * (y - 0.5) + rng.normal(size=len(y)))
    found = calibration(y, score)
    return found["calibration_slope"], found["expected_calibration_error"]


def latent_cell(
    name, n, gap, clustered, *, share=0.5, prevalence=(0.3, 0.5), icc=0.5, shift=1.5, calibrates=False
) -> Cell:
    """A normal score shifted by the disease, and by `gap` in group 1 with it, by half of that without."""
    prevalence = np.array(prevalence)

    def draw(rng):
        patient = np.repeat(np.arange(n), rng.integers(1, 11, n))[:n] if clustered else np.arange(n)
        count = int(patient[-1]) + 1
        s = (rng.random(count) < share).astype(int)[patient]
        y = (rng.random(n) < prevalence[s]).astype(int)
        noise = np.sqrt(icc) * rng.normal(size=count)[patient] + np.sqrt(1 - icc) * rng.normal(size=n)
        latent = shift * y + gap * s * (1 + y) / 2 + noise
        return Drawn(y, norm.cdf(latent - shift / 2), s.astype(str), patient if clustered else None)

    mean = np.array([[0, shift], [gap / 2, shift + gap]])
    positive = norm.cdf(mean - shift / 2)
    labels = np.stack([1 - prevalence, prevalence], axis=1)
    table = labels[..., None] * np.stack([1 - positive, positive], axis=-1)
    table *= np.array([1 - share, share])[:, None, None]
    auc = norm.cdf((mean[:, 1] - mean[:, 0]) / np.sqrt(2))
    truth = {
        DP: float(tables.largest_gap(tables.selection_rates(table))),
        EO: float(positive[1, 1] - positive[0, 1]),
        ADF: float(tables.mutual_information(table)),
        DE: float(effects_from_counts(table, 0)["direct_effect"][1]),
        AUC: float(auc.max() - auc.min()),
        "auroc 1": float(auc[1]),
    }
    if calibrates:
        truth["calibration_slope 1"], truth["expected_calibration_error 1"] = calibrated(prevalence[1], shift)
    null = (EO, ADF, AUC, "score_mutual_information") if gap == 0 else ()
    return Cell(name, draw, truth, null, options={"reference": "0"})


def unequal_dependence(rng):
    """Group 0: images of a patient nearly agree; group 1: they do not; the rates are the same."""
    patient = np.repeat(np.arange(160), 6)
    s = (np.arange(160) < 40).astype(int)[patient]
    y = rng.integers(0, 2, len(patient))
    icc = np.where(s == 1, 0.9, 0.0)
    latent = np.sqrt(icc) * rng.normal(size=160)[patient] + np.sqrt(1 - icc) * rng.normal(size=len(patient))
    return Drawn(y, norm.cdf(latent + 1.2 * (2 * y - 1)), s.astype(str), patient)


def classes(n, k, shares, wrong):
    """k classes; group g is wrong with probability wrong[g], evenly over the other classes."""

    def draw(rng):
        s, y = rng.choice(len(shares), n, p=shares), rng.integers(0, k, n)
        other = (y + rng.integers(1, k, n)) % k
        decided = np.where(rng.random(n) < np.array(wrong)[s], other, y)
        return Drawn(y, 0.05 + 0.9 * np.eye(k)[decided], s.astype(str))

    p = np.zeros((len(shares), k, k))
    for g, (share, w) in enumerate(zip(shares, wrong, strict=True)):
        p[g] = share / k * (w / (k - 1) + (1 - w - w / (k - 1)) * np.eye(k))
    return draw, float(tables.mutual_information(p))


def classes_of_patients(n, k, shares, wrong):
    """As `classes`, but patients have one to seven images of one class, half of which share their errors."""
    _, truth = classes(n, k, shares, wrong)

    def draw(rng):
        patient = np.repeat(np.arange(n), rng.integers(1, 8, n))[:n]
        s, y = rng.choice(len(shares), n, p=shares)[patient], rng.integers(0, k, n)[patient]
        shared = rng.random(n) < 0.5
        luck, other = rng.random((2, n)), rng.integers(1, k, (2, n))
        luck, other = (np.where(shared, one[0][patient], one[1]) for one in (luck, other))
        decided = np.where(luck < np.array(wrong)[s], (y + other) % k, y)
        return Drawn(y, 0.05 + 0.9 * np.eye(k)[decided], s.astype(str), patient)

    return draw, truth


def one_error(n, k, shares, wrong, usual):
    """k classes, wrong with probability `wrong`; in the last group all but `usual` of it is of one kind."""
    chance = np.full((len(shares), k, k), wrong / (k - 1))
    chance[-1] = usual / (k - 1) + (wrong - usual) * np.roll(np.eye(k), 1, axis=1)
    chance[:, np.eye(k) == 1] = 1 - wrong
    cumulated = np.cumsum(chance, axis=-1)

    def draw(rng):
        s, y = rng.choice(len(shares), n, p=shares), rng.integers(0, k, n)
        decided = (rng.random(n)[:, None] > cumulated[s, y, :-1]).sum(1)
        return Drawn(y, 0.05 + 0.9 * np.eye(k)[decided], s.astype(str))

    return draw, float(tables.mutual_information(np.array(shares)[:, None, None] / k * chance))


def look_alikes(rng):
    """Three classes; the decision depends on the class alone, and look-alikes are rarer in one group."""
    n = 3000
    s = rng.integers(0, 2, n)
    rare = np.where(s == 0, 0.10, 0.45)
    u = rng.random(n)
    y = np.where(u < 0.3, 2, np.where(u < 0.3 + 0.7 * rare, 1, 0))
    chance = np.array([[0.9, 0.08, 0.02], [0.3, 0.3, 0.4], [0.05, 0.15, 0.8]])[y]
    decided = (rng.random(n)[:, None] > np.cumsum(chance, axis=1)).sum(1)
    return Drawn(y, 0.05 + 0.85 * np.eye(3)[decided], s.astype(str))


def many_groups(groups, n, gap=0.2):
    """Groups of one size; the first has a lower true-positive rate by `gap`."""

    def draw(rng):
        s = np.repeat(np.arange(groups), n // groups)
        y = rng.integers(0, 2, len(s))
        rate = np.where(y == 1, np.where(s == 0, 0.8 - gap, 0.8), 0.2)
        return Drawn(y, np.where(rng.random(len(s)) < rate, 0.9, 0.1), np.char.add("g", s.astype(str)))

    return draw


def mixed_cell(name, n, gap, returning=1) -> Cell:
    """Early and late cases, which the groups have in other shares; of a kind group 1 is lower by `gap`."""
    early, shifts, share, prevalence = np.array([0.8, 0.3]), np.array([2.0, 0.5]), 0.3, 0.4

    def draw(rng):
        patient = np.repeat(np.arange(n // returning), returning)
        count = n // returning
        s = (rng.random(count) < share).astype(int)[patient]
        stage = (rng.random(count) < early[s[::returning]]).astype(int)[patient]
        y = (rng.random(len(patient)) < prevalence).astype(int)
        shared = 0.6 if returning > 1 else 0.0
        noise = np.sqrt(shared) * rng.normal(size=count)[patient]
        noise += np.sqrt(1 - shared) * rng.normal(size=len(patient))
        score = norm.cdf(y * shifts[stage] - gap * y * s + noise - 1)
        return Drawn(y, score, s.astype(str), patient if returning > 1 else None, stage.astype(str))

    mix = (1 - share) * early[0] + share * early[1]
    mix = np.array([1 - mix, mix])
    rates, areas = (
        [float(mix @ norm.cdf((shifts - gap * s - cut) / scale)) for s in (0, 1)]
        for cut, scale in ((1, 1), (0, np.sqrt(2)))
    )
    truth = {f"mixed {EO}": rates[0] - rates[1], f"mixed {AUC}": areas[0] - areas[1]}
    for s in (0, 1):
        truth |= {f"mixed tpr {s}": rates[s], f"mixed auroc {s}": areas[s]}
    return Cell(name, draw, truth)


@cache
def cells() -> dict[str, Cell]:
    """All of them by name."""
    fair, worse = [[0.1, 0.7]] * 2, [[0.1, 0.7], [0.1, 0.5]]
    shares, alike = (0.5, 0.4, 0.1), (0.3, 0.3, 0.3)
    sparse = {
        "8 classes, 3 groups": classes(1000, 8, shares, alike),
        "8 classes, 3 groups, a difference": classes(1000, 8, shares, (0.3, 0.3, 0.5)),
        "8 classes, the small group is better": classes(1000, 8, shares, (0.3, 0.3, 0.1)),
        "8 classes, the small group has errors of its own": one_error(1000, 8, shares, 0.3, 0.05),
        "8 classes, 250 patients": classes_of_patients(1000, 8, shares, alike),
        "8 classes, 250 patients, a difference": classes_of_patients(1000, 8, shares, (0.3, 0.3, 0.5)),
        "20 classes, a difference": classes(2000, 20, (0.8, 0.2), (0.3, 0.45)),
    }
    five, _ = classes(800, 5, (0.6, 0.4), (0.3, 0.3))
    five_apart, _ = classes(800, 5, (0.6, 0.4), (0.3, 0.45))
    made = [  # those where intervals are hardest come first
        *(
            Cell(name, draw, {ADF: adf}, () if adf > 0 else (ADF,), joint=True)
            for name, (draw, adf) in sparse.items()
        ),
        rates_cell("10 positives in the small group", (600, 30), (0.3, 0.33), fair),
        rates_cell("10 positives in the small group, a difference", (600, 30), (0.3, 0.33), worse),
        rates_cell("rates near 1 in a group of 3 %", (1940, 60), (0.3, 0.3), [[0.02, 0.97]] * 2),
        rates_cell("rare disease, group of 3 %", (4850, 150), (0.05, 0.08), worse),
        latent_cell("AUC .99, 20 positives", 400, 0.0, False, prevalence=(0.1, 0.1), shift=3.29),
        latent_cell("500 images of 90 patients", 500, 0.0, True, calibrates=True),
        latent_cell("500 images of 90 patients, ICC .8", 500, 0.0, True, icc=0.8, calibrates=True),
        Cell("unequal dependence within patients", unequal_dependence, {ADF: 0.0, EO: 0.0}, (ADF, EO)),
        Cell("20 groups, one is worse", many_groups(20, 2000), {EO: 0.2}),
        rates_cell("ten groups", (100,) * 10, (0.4,) * 10, [[0.1, 0.7]] * 10, family=True),
        latent_cell("500 images", 500, 0.0, False),
        latent_cell("500 images, a difference", 500, 0.3, False),
        latent_cell("2,000 images, a difference", 2000, 0.3, False),
        latent_cell("2,000 images of 360 patients, a difference", 2000, 0.3, True),
        mixed_cell("one mix of cases", 500, 0.0),
        mixed_cell("one mix of cases, a difference", 500, 0.5),
        mixed_cell("one mix of cases, 125 patients", 500, 0.0, returning=4),
        Cell("5 classes, no difference", five, family=True),
        Cell("10 groups, one is worse", many_groups(10, 1500, 0.3), {EO: 0.3}, power=EO),
        Cell("10 groups, one is worse by .2", many_groups(10, 1500, 0.2), {EO: 0.2}, power=EO),
        Cell("5 classes, a difference", five_apart, power="approximate_diagnosis_fairness"),
    ]
    return {cell.name: cell for cell in made}
