"""Fairness of predictions: metrics, effects, their uncertainty, and the audit that reports all of it."""

from fairdx.fairness.audit import audit
from fairdx.fairness.calibration import calibration
from fairdx.fairness.definitions import METRICS, Metric
from fairdx.fairness.delong import delong, delong_test
from fairdx.fairness.effects import (
    IDENTIFICATION,
    Effects,
    direct_effect,
    effects,
    indirect_effect,
    total_effect,
)
from fairdx.fairness.evaluate import evaluate
from fairdx.fairness.gate import Condition, parse_condition
from fairdx.fairness.metrics import (
    UndefinedMetricWarning,
    accuracy,
    approximate_diagnosis_fairness,
    balanced_accuracy,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    group_rates,
)
from fairdx.fairness.permutation import permutation_test
from fairdx.fairness.predictions import Predictions, read_predictions
from fairdx.fairness.result import AuditResult, json_schema
from fairdx.fairness.scores import (
    auroc,
    auroc_gap,
    brier_score,
    equity_scaled_auroc,
    group_auroc,
    mean_approximate_diagnosis_fairness,
    score_mutual_information,
)
from fairdx.fairness.streaming import RunningADF, RunningEffects
from fairdx.fairness.uncertainty import Estimate, Interval

__all__ = [
    "IDENTIFICATION",
    "METRICS",
    "AuditResult",
    "Condition",
    "Effects",
    "Estimate",
    "Interval",
    "Metric",
    "Predictions",
    "RunningADF",
    "RunningEffects",
    "UndefinedMetricWarning",
    "accuracy",
    "approximate_diagnosis_fairness",
    "audit",
    "auroc",
    "auroc_gap",
    "balanced_accuracy",
    "brier_score",
    "calibration",
    "delong",
    "delong_test",
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
    "json_schema",
    "mean_approximate_diagnosis_fairness",
    "parse_condition",
    "permutation_test",
    "read_predictions",
    "score_mutual_information",
    "total_effect",
]
