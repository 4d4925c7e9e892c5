"""Fairness of predictions: metrics, effects, their uncertainty, and the audit that reports all of it."""

from fairdx.fairness.definitions import METRICS, Metric
from fairdx.fairness.effects import (
    IDENTIFICATION,
    Effects,
    direct_effect,
    effects,
    indirect_effect,
    total_effect,
)
from fairdx.fairness.evaluate import evaluate
from fairdx.fairness.metrics import (
    UndefinedMetricWarning,
    accuracy,
    approximate_diagnosis_fairness,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    group_rates,
)
from fairdx.fairness.scores import (
    auroc,
    auroc_gap,
    brier_score,
    calibration,
    equity_scaled_auroc,
    group_auroc,
    score_mutual_information,
)
from fairdx.fairness.uncertainty import Estimate, Interval

__all__ = [
    "IDENTIFICATION",
    "METRICS",
    "Effects",
    "Estimate",
    "Interval",
    "Metric",
    "UndefinedMetricWarning",
    "accuracy",
    "approximate_diagnosis_fairness",
    "auroc",
    "auroc_gap",
    "brier_score",
    "calibration",
    "demographic_parity_difference",
    "direct_effect",
    "effects",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "equity_scaled_auroc",
    "evaluate",
    "group_auroc",
    "group_rates",
    "indirect_effect",
    "score_mutual_information",
    "total_effect",
]
