"""New heads on frozen embeddings, and what they are worth beside each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.assemble import performance
from fairdx.auditing.result import Settings
from fairdx.auditing.several import Scored, resample_together
from fairdx.core.errors import InputError
from fairdx.data.split import Split
from fairdx.inference.uncertainty import Estimate, Interval, few_patients_factor, percentile_interval
from fairdx.metrics.scores import auroc

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = ("auroc", "accuracy")
MEAN = "mean over findings"
"""Name of the line that is the mean of all findings."""
DECIDED = 0.5
"""The more probable class is decided, as in the paper: the threshold that suits a few validation images with
a rare finding moves accuracy by more than all that is compared here."""


@dataclass(frozen=True)
class Head:
    """A logistic regression that was chosen on validation images.

    Attributes:
        penalty: Its inverse penalty, C.
        score: P(finding) of the test images, shape (n,).
    """

    penalty: float
    score: Floats


@dataclass(frozen=True)
class Answer:
    """What one arm says about one finding on test images.

    Attributes:
        finding: Name of the label.
        arm: Which embeddings the head sees.
        truth: 0 or 1, shape (n,).
        rows: Which of the test images, as places in the list of all of them, shape (n,).
        head: The head.
    """

    finding: str
    arm: str
    truth: Ints
    rows: Ints
    head: Head


def fit_head(
    embeddings: Mapping[Split, Floats], labels: Mapping[Split, Ints], penalties: Sequence[float]
) -> Head:
    """Fits logistic regressions on standardised training embeddings; validation AUC chooses among them.

    Args:
        embeddings: Shape (n, D), by split.
        labels: 0 or 1, shape (n,), by split.
        penalties: Inverse penalties to choose from.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError(
            "data utility needs scikit-learn; install it with pip install 'fairdx[study]'"
        ) from error
    train = embeddings["train"]
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread < 1e-12] = 1.0
    seen = {split: (values - mean) / spread for split, values in embeddings.items()}

    def tried(penalty: float) -> tuple[float, float, Any]:
        model = LogisticRegression(C=penalty, max_iter=5000).fit(seen["train"], labels["train"])
        score = model.predict_proba(seen["validation"])[:, 1]
        return float(auroc(labels["validation"], score)), -penalty, model

    _, penalty, model = max((tried(p) for p in penalties), key=lambda found: found[:2])
    return Head(-penalty, model.predict_proba(seen["test"])[:, 1])


@dataclass(frozen=True)
class Figure:
    """One figure with its interval.

    Attributes:
        finding: Name of the label, or `MEAN`.
        arm: The arm, or the two that are compared.
        kind: `value`, or `difference` between two arms.
        metric: `auroc` or `accuracy`.
        value: The figure, a fraction.
        low: Lower end of its interval.
        high: Upper end of its interval.
        n: Test images; of the mean, the fewest of any finding.
    """

    finding: str
    arm: str
    kind: str
    metric: str
    value: float
    low: float
    high: float
    n: int


def compare(
    answers: Sequence[Answer],
    patient: Sequence[object],
    differences: Mapping[str, tuple[str, str]],
    *,
    replicates: int,
    level: float,
    seed: int,
) -> list[Figure]:
    """All figures, from one bootstrap by patient, so that means and differences are paired.

    Args:
        answers: Of every finding from every arm.
        patient: Patient of each test image.
        differences: Name to (arm, arm that is subtracted).
        replicates: Bootstrap replicates.
        level: Nominal coverage.
        seed: Of the bootstrap.

    Returns:
        Values of every finding and arm with their mean over findings, then the differences. A finding's own
        AUC and accuracy have the intervals that `fairdx.audit` gives them, the others percentile intervals.
    """
    names, codes = np.unique(np.array([str(one) for one in patient]), return_inverse=True)
    codes = codes.astype(np.int64)
    together = resample_together(
        [_scored(answer, len(codes)) for answer in answers], codes, n_replicates=replicates, seed=seed
    )
    values = np.stack([together.auc, together.accuracy], axis=-1)  # (answers, metrics)
    drawn = np.stack([together.auc_replicates, together.accuracy_replicates], axis=-1).swapaxes(0, 1)
    place = {(a.finding, a.arm): i for i, a in enumerate(answers)}
    findings, arms = (list(dict.fromkeys(getattr(a, k) for a in answers)) for k in ("finding", "arm"))
    widen = float(few_patients_factor(len(names), level))
    settings = Settings(DECIDED, level, "percentile", replicates, 20, seed, 1, True, [])
    audited = [_audited(answer, codes, settings) for answer in answers]

    def figures(name: str, kind: str, value: Floats, repeated: Floats) -> Iterator[Figure]:
        """Of arrays with findings in front: (F, M) and (F, B, M)."""
        sizes = [len(answers[place[finding, arms[0]]].truth) for finding in findings]
        rows = [(MEAN, value.mean(axis=0), repeated.mean(axis=0), min(sizes))]
        rows += list(zip(findings, value, repeated, sizes, strict=True))
        for finding, one, many, n in rows:
            for m, metric in enumerate(METRICS):
                if kind == "value" and finding != MEAN:
                    ends: Interval | Estimate = audited[place[finding, name]][metric]
                else:
                    ends = percentile_interval(many[:, m], level, widen)
                yield Figure(finding, name, kind, metric, float(one[m]), ends.low, ends.high, n)

    where = {arm: np.array([place[finding, arm] for finding in findings]) for arm in arms}
    found = [f for arm in arms for f in figures(arm, "value", values[where[arm]], drawn[where[arm]])]
    for name, (one, other) in differences.items():
        a, b = where[one], where[other]
        found += figures(name, "difference", values[a] - values[b], drawn[a] - drawn[b])
    return found


def _scored(answer: Answer, n: int) -> Scored:
    """The answer as a score of all n test images, of which some have no label."""
    label, score = np.full(n, -1, dtype=np.int64), np.zeros(n)
    label[answer.rows], score[answer.rows] = answer.truth, answer.head.score
    return Scored(label, score, DECIDED)


def _audited(answer: Answer, patient: Ints, settings: Settings) -> dict[str, Estimate]:
    own = np.unique(patient[answer.rows], return_inverse=True)[1].astype(np.int64)
    return performance(answer.truth, answer.head.score, own, settings)
