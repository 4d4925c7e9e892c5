"""The metrics as data: name, title, range, direction and a sentence each; tables and pages read them here."""

import math
from dataclasses import dataclass
from typing import Literal

Scope = Literal["performance", "gap", "information", "effect"]


@dataclass(frozen=True)
class Metric:
    """What a metric is, apart from its computation.

    Attributes:
        name: Key in results; spells the definition.
        title: Name in tables and figures.
        abbreviation: Short form, as in the paper or the field.
        scope: "performance" (overall and per group), "gap" (between groups), "information" or "effect".
        best: The ideal value.
        minimum: Lower end of its range.
        maximum: Upper end of its range.
        higher_is_better: Direction; None where `best` lies inside the range or nothing is ideal.
        unit: "" for fractions, "nats" for information.
        definition: One sentence.
    """

    name: str
    title: str
    abbreviation: str
    scope: Scope
    best: float | None
    minimum: float
    maximum: float
    higher_is_better: bool | None
    unit: str
    definition: str


_INF = math.inf


def _performance(
    name: str, title: str, short: str, best: float | None, better: bool | None, text: str
) -> Metric:
    return Metric(name, title, short, "performance", best, 0.0, 1.0, better, "", text)


def _gap(name: str, title: str, short: str, text: str) -> Metric:
    return Metric(name, title, short, "gap", 0.0, 0.0, 1.0, False, "", text)


def _ratio(name: str, title: str, short: str, text: str) -> Metric:
    return Metric(name, title, short, "gap", 1.0, 0.0, 1.0, True, "", text)


def _information(name: str, title: str, short: str, text: str) -> Metric:
    return Metric(name, title, short, "information", 0.0, 0.0, _INF, False, "nats", text)


def _effect(name: str, title: str, short: str, text: str) -> Metric:
    return Metric(name, title, short, "effect", 0.0, -1.0, 1.0, None, "", text)


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        _performance("prevalence", "Prevalence", "P(Y=1)", None, None, "Share of images whose truth is Y=1."),
        _performance(
            "selection_rate", "Selection rate", "P(Ŷ=1)", None, None, "Share of images decided Ŷ=1."
        ),
        _performance("accuracy", "Accuracy", "ACC", 1.0, True, "Share of images with the right decision."),
        _performance("tpr", "True-positive rate", "TPR", 1.0, True, "P(Ŷ=1 | Y=1): sensitivity."),
        _performance("fpr", "False-positive rate", "FPR", 0.0, False, "P(Ŷ=1 | Y=0): 1 - specificity."),
        _performance("ppv", "Positive predictive value", "PPV", 1.0, True, "P(Y=1 | Ŷ=1): precision."),
        _performance("npv", "Negative predictive value", "NPV", 1.0, True, "P(Y=0 | Ŷ=0)."),
        _performance(
            "auroc",
            "Area under the ROC curve",
            "AUC",
            1.0,
            True,
            "Probability that a random image with Y=1 scores above one with Y=0, ties counting half; for "
            "several classes the mean over them, one against the rest.",
        ),
        _performance(
            "average_precision",
            "Area under the precision-recall curve",
            "AP",
            1.0,
            True,
            "Average precision: the mean over images with Y=1 of the share with Y=1 among all that score at "
            "least as high. A useless score has the prevalence.",
        ),
        _performance("brier_score", "Brier score", "Brier", 0.0, False, "Mean of (score - Y)^2."),
        Metric(
            "calibration_slope",
            "Calibration slope",
            "slope",
            "performance",
            1.0,
            -_INF,
            _INF,
            None,
            "",
            "Slope of the logistic regression of Y on logit(score); below 1 the scores are too extreme.",
        ),
        Metric(
            "calibration_intercept",
            "Calibration intercept",
            "intercept",
            "performance",
            0.0,
            -_INF,
            _INF,
            None,
            "",
            "Intercept of that regression with the slope held at 1; above 0 the scores are too low.",
        ),
        _performance(
            "expected_calibration_error",
            "Expected calibration error",
            "ECE",
            0.0,
            False,
            "Mean over ten bins of equal frequency of |share with Y=1 - mean score|.",
        ),
        Metric(
            "net_benefit",
            "Net benefit",
            "NB",
            "performance",
            None,
            -_INF,
            1.0,
            True,
            "",
            "TP / n - FP / n x t / (1 - t) at the threshold t (Vickers and Elkin 2006); 0 is to treat "
            "nobody, and the prevalence is the most there is.",
        ),
        _gap(
            "demographic_parity_difference",
            "Demographic parity difference",
            "DP",
            "Largest difference between two groups in P(Ŷ=c), over classes c.",
        ),
        _gap(
            "equal_opportunity_difference",
            "Equal opportunity difference",
            "EO",
            "Largest difference between two groups in the true-positive rate; with more than two classes, in "
            "that of any class.",
        ),
        _gap(
            "equalized_odds_difference",
            "Equalized odds difference",
            "EOdds",
            "Largest difference between two groups in P(Ŷ=c | Y=y), over c and y: for two classes the larger "
            "of the true-positive and false-positive rate gaps.",
        ),
        _gap("accuracy_difference", "Accuracy difference", "ΔACC", "Largest difference in accuracy."),
        _gap(
            "predictive_parity_difference",
            "Predictive parity difference",
            "ΔPPV",
            "Largest difference between two groups in the positive predictive value.",
        ),
        _gap(
            "auroc_gap", "AUC gap", "ΔAUC", "Largest difference between two groups in their AUC within group."
        ),
        _gap(
            "average_precision_gap",
            "Average precision gap",
            "ΔAP",
            "Largest difference between two groups in their average precision; part of it is that of their "
            "prevalences.",
        ),
        Metric(
            "calibration_gap",
            "Calibration gap",
            "Δcal",
            "gap",
            0.0,
            0.0,
            2.0,  # one group's mean score may be 1 too high, another's 1 too low
            False,
            "",
            "Largest difference between two groups in (share with Y=1 - mean score).",
        ),
        Metric(
            "equity_scaled_auroc",
            "Equity-scaled AUC",
            "ES-AUC",
            "gap",
            1.0,
            0.0,
            1.0,
            True,
            "",
            "AUC / (1 + sum over groups of |AUC of the group - AUC|), FairVision.",
        ),
        _ratio(
            "demographic_parity_ratio",
            "Demographic parity ratio",
            "DP ratio",
            "Smallest ratio of two groups' P(Ŷ=1): below 0.8 the four-fifths rule of hiring is broken.",
        ),
        _ratio(
            "equal_opportunity_ratio",
            "Equal opportunity ratio",
            "EO ratio",
            "Smallest ratio of two groups' true-positive rates.",
        ),
        _ratio(
            "equalized_odds_ratio",
            "Equalized odds ratio",
            "EOdds ratio",
            "The smaller of the smallest ratios of true-positive and of false-positive rates.",
        ),
        _information(
            "approximate_diagnosis_fairness",
            "Approximate Diagnosis Fairness",
            "ADF",
            "I(S; Ŷ | Y), Eq. 24 of the paper: what the decision tells about the group beyond the truth; the "
            "plug-in estimate, which is biased upward by about (|S|-1)(|Ŷ|-1)|Y|/2n.",
        ),
        _information(
            "approximate_diagnosis_fairness_corrected",
            "Approximate Diagnosis Fairness, bias-corrected",
            "ADF*",
            "ADF less its first-order bias (Miller 1955, times the design effect of repeated patients), "
            "truncated at 0.",
        ),
        _information(
            "score_mutual_information",
            "I(S; score | Y), bias-corrected",
            "I(S;score|Y)",
            "ADF without a threshold: the score in ten bins of equal frequency within each label in place of "
            "the decision; corrected like ADF*, truncated at 0.",
        ),
        _effect(
            "total_effect",
            "Total effect",
            "TCE",
            "P(Ŷ=1 | s+) - P(Ŷ=1 | s-): what changing the group changes, along both paths (Eq. 1).",
        ),
        _effect(
            "direct_effect",
            "Direct effect",
            "DE",
            "sum over y of [P(Ŷ=1 | s+, y) - P(Ŷ=1 | s-, y)] P(y | s-): the path S → X, the disease held "
            "(Eq. 2).",
        ),
        _effect(
            "indirect_effect",
            "Indirect effect",
            "IE",
            "sum over y of P(Ŷ=1 | s+, y) [P(y | s+) - P(y | s-)]: the path S → Y → X (Eq. 3).",
        ),
    )
}
"""All metrics by name, in the order of tables."""

THRESHOLD_FREE = frozenset(
    {
        "prevalence",
        "auroc",
        "average_precision",
        "brier_score",
        "calibration_slope",
        "calibration_intercept",
        "expected_calibration_error",
        "auroc_gap",
        "average_precision_gap",
        "calibration_gap",
        "equity_scaled_auroc",
        "score_mutual_information",
    }
)
"""Metrics that rest on scores alone; all others rest on decisions."""
