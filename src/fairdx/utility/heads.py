"""New heads on frozen embeddings, and the bootstrap by patient that compares them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdx.core.errors import InputError
from fairdx.data.split import Split
from fairdx.inference.uncertainty import few_patients_factor, percentile_interval
from fairdx.metrics.scores import auc_from_histogram, auroc

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = ("auroc", "accuracy")
MEAN = "mean over findings"
"""Name of the line that is the mean of all findings."""
DECIDED = 0.5
"""The more probable class is decided, as in the paper: the threshold that suits a few validation images with
a rare finding moves accuracy by more than all that is compared here."""
_BINS = 512
_MOST = 4_000_000


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
    """All figures with percentile intervals from one bootstrap by patient, so that differences are paired.

    Args:
        answers: Of every finding from every arm.
        patient: Patient of each test image.
        differences: Name to (arm, arm that is subtracted).
        replicates: Bootstrap replicates.
        level: Nominal coverage.
        seed: Of the bootstrap.

    Returns:
        Values of every finding and arm with their mean over findings, then the differences.
    """
    codes, number = _codes(patient)
    values = np.array([_scores(answer) for answer in answers])  # (answers, metrics)
    drawn = _replicates(answers, codes, number, replicates, seed)
    drawn += (values - _binned(answers))[:, None, :]  # what the bins cost, 1e-5 or so
    place = {(a.finding, a.arm): i for i, a in enumerate(answers)}
    findings, arms = (list(dict.fromkeys(getattr(a, k) for a in answers)) for k in ("finding", "arm"))
    widen = float(few_patients_factor(number, level))

    def figures(name: str, kind: str, value: Floats, repeated: Floats) -> Iterator[Figure]:
        """Of arrays with findings in front: (F, M) and (F, B, M)."""
        sizes = [len(answers[place[finding, arms[0]]].truth) for finding in findings]
        rows = [(MEAN, value.mean(axis=0), repeated.mean(axis=0), min(sizes))]
        rows += list(zip(findings, value, repeated, sizes, strict=True))
        for finding, one, many, n in rows:
            for m, metric in enumerate(METRICS):
                interval = percentile_interval(many[:, m], level, widen)
                yield Figure(finding, name, kind, metric, float(one[m]), interval.low, interval.high, n)

    where = {arm: np.array([place[finding, arm] for finding in findings]) for arm in arms}
    found = [f for arm in arms for f in figures(arm, "value", values[where[arm]], drawn[where[arm]])]
    for name, (one, other) in differences.items():
        a, b = where[one], where[other]
        found += figures(name, "difference", values[a] - values[b], drawn[a] - drawn[b])
    return found


def _codes(patient: Sequence[object]) -> tuple[Ints, int]:
    names: dict[object, int] = {}
    codes = np.array([names.setdefault(one, len(names)) for one in patient], dtype=np.int64)
    return codes, len(names)


def _scores(answer: Answer) -> tuple[float, float]:
    decided = answer.head.score >= DECIDED
    return float(auroc(answer.truth, answer.head.score)), float((decided == answer.truth).mean())


def _tables(answer: Answer) -> tuple[Ints, Ints]:
    """Cell (label, bin of the score) of each image, and whether it was decided rightly."""
    edges = np.unique(np.quantile(answer.head.score, np.linspace(0, 1, _BINS + 1)[1:-1]))
    place = np.searchsorted(edges, answer.head.score, side="right")
    right = (answer.head.score >= DECIDED) == answer.truth
    return answer.truth * _BINS + place, right.astype(np.int64)


def _weighted(answer: Answer, weights: Floats, matrix: Any) -> Floats:
    """AUC and accuracy under image weights of shape (B, n): shape (B, 2)."""
    _, right = _tables(answer)
    own = weights[:, answer.rows]
    histogram = np.asarray((matrix @ own.T).T).reshape(len(own), 2, _BINS)
    return np.stack([auc_from_histogram(histogram), own @ right / own.sum(axis=1)], axis=1)


def _matrix(answer: Answer) -> Any:
    from scipy import sparse

    cell, _ = _tables(answer)
    n = len(cell)
    return sparse.csr_array((np.ones(n), (cell, np.arange(n))), shape=(2 * _BINS, n))


def _binned(answers: Sequence[Answer]) -> Floats:
    most = 1 + max(int(answer.rows.max()) for answer in answers)
    return np.concatenate([_weighted(a, np.ones((1, most)), _matrix(a)) for a in answers])


def _replicates(answers: Sequence[Answer], codes: Ints, number: int, replicates: int, seed: int) -> Floats:
    """Both metrics of every answer in every replicate: shape (answers, B, 2)."""
    rng = np.random.default_rng(seed)
    matrices = [_matrix(answer) for answer in answers]
    chunk = max(1, _MOST // len(codes))
    parts = []
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        weights = np.stack(
            [np.bincount(rng.integers(0, number, number), minlength=number)[codes] for _ in range(size)]
        ).astype(float)
        parts.append(np.stack([_weighted(a, weights, m) for a, m in zip(answers, matrices, strict=True)]))
    return np.concatenate(parts, axis=1)
