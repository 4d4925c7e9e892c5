"""Predictions that arrive period by period and whose truth is known: does every interval hold at every look?

`benchmarks/monitoring.py` counts over many streams, the tests over a few.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from scipy.stats import norm

from fairdx.auditing import monitor
from fairdx.metrics.counts import mutual_information

GAPS = (
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "auroc_gap",
)


@dataclass(frozen=True)
class Stream:
    """A kind of stream.

    Attributes:
        name: In tables.
        shares: Of the groups.
        periods: Looks.
        images: In each period.
        gap: By which the latent score of the diseased of the last group is lower.
        returning: Images of a patient, who comes back over time; 1 for independent images.
        prevalence: Of the disease.
        rarer: That in the last group, if it is another.
    """

    name: str
    shares: tuple[float, ...] = (0.5, 0.5)
    periods: int = 24
    images: int = 150
    gap: float = 0.0
    returning: int = 1
    prevalence: float = 0.3
    rarer: float | None = None

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Truth, score, group, look and patient of each image."""
        n = self.periods * self.images
        patients = n // self.returning
        patient = rng.permutation(np.repeat(np.arange(patients), self.returning)) % patients
        n = len(patient)
        group = rng.choice(len(self.shares), patients, p=self.shares)[patient]
        y = (rng.random(n) < self.prevalences[group]).astype(int)
        shared = 0.5 if self.returning > 1 else 0.0
        noise = np.sqrt(shared) * rng.normal(size=patients)[patient]
        noise += np.sqrt(1 - shared) * rng.normal(size=n)
        latent = 1.5 * y - self.gap * y * (group == len(self.shares) - 1) + noise
        return y, norm.cdf(latent - 0.75), group, np.arange(n) * self.periods // n, patient

    @property
    def prevalences(self) -> np.ndarray:
        """Of the disease in each group."""
        found = np.full(len(self.shares), self.prevalence)
        found[-1] = self.prevalence if self.rarer is None else self.rarer
        return found

    @property
    def truth(self) -> dict[str, float]:
        """True values by metric; the groups but the last are alike."""
        gaps = np.zeros(len(self.shares))
        gaps[-1] = self.gap
        rates = norm.cdf(np.stack([0 * gaps, 1.5 - gaps], axis=1) - 0.75)
        ill = np.stack([1 - self.prevalences, self.prevalences], axis=1)
        table = np.array(self.shares)[:, None, None] * ill[..., None] * np.stack([1 - rates, rates], axis=-1)
        area = norm.cdf((1.5 - gaps) / np.sqrt(2))
        opportunity = float(rates[0, 1] - rates[-1, 1])
        direct = float((rates[-1] - rates[0]) @ ill[0])
        total = float(rates[-1] @ ill[-1] - rates[0] @ ill[0])
        return {
            "demographic_parity_difference": abs(total),
            "equal_opportunity_difference": opportunity,
            "equalized_odds_difference": opportunity,
            "auroc_gap": float(np.ptp(area)),
            "approximate_diagnosis_fairness_corrected": float(mutual_information(table)),
            "direct_effect": direct,
            "indirect_effect": total - direct,
            "total_effect": total,
        }


STREAMS = {
    one.name: one
    for one in (
        Stream("two groups"),
        Stream("two groups, a difference", gap=0.4),
        Stream("a group of 5 %", (0.95, 0.05)),
        Stream("four groups", (0.4, 0.3, 0.2, 0.1)),
        Stream("four groups, one is worse", (0.4, 0.3, 0.2, 0.1), gap=0.4),
        Stream("patients come back", returning=5),
        Stream("patients come back, a difference", returning=5, gap=0.4),
        Stream("rare disease", prevalence=0.05, images=400),
        Stream("rarer in one group, a difference", rarer=0.15, gap=0.4),
    )
}


def outcomes(name: str, number: int) -> dict[str, bool]:
    """As `holds`, of a stream by its name."""
    return holds(STREAMS[name], number)


def holds(stream: Stream, number: int) -> dict[str, bool]:
    """Of one stream: whether an interval holds the truth at every look, by metric.

    Also `direct_effect`, `total_effect` (of the last group), and, where a period has enough images for one,
    `single EO`: intervals of single periods.
    """
    y, score, group, look, patient = stream.draw(np.random.default_rng([crc32(stream.name.encode()), number]))
    result = monitor(
        y,
        score,
        sensitive_features={"group": group.astype(str)},
        looks=look,
        patients=patient if stream.returning > 1 else None,
        reference="0",
    )
    last = str(len(stream.shares) - 1)
    courses = {**result.gaps["group"], **result.effects["group"][last]}
    truth = stream.truth
    found = {}
    for metric, value in truth.items():
        course = courses[metric]
        found[metric] = bool(np.isfinite(course.high[-1])) and _holds(course.low, course.high, value)
    single = courses["equal_opportunity_difference"]
    if np.isfinite(single.period_high).any():
        opportunity = truth["equal_opportunity_difference"]
        found["single EO"] = _holds(single.period_low, single.period_high, opportunity)
    return found


def held(stream: Stream, draws: int) -> dict[str, float]:
    """Shares of streams by figure of `holds`."""
    every = [holds(stream, number) for number in range(draws)]
    return {m: float(np.mean([one[m] for one in every if m in one])) for m in set().union(*every)}


def _holds(low: list[float], high: list[float], value: float) -> bool:
    ends = np.array([low, high])
    known = np.isfinite(ends).all(0)
    return bool(((ends[0] <= value + 1e-9) & (ends[1] >= value - 1e-9))[known].all())
