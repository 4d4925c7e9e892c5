"""Fairness metrics and causal effects of decisions: pure functions, and the table that declares them."""

from fairdx.metrics.benefit import net_benefit
from fairdx.metrics.causal import (
    IDENTIFICATION,
    Effects,
    direct_effect,
    effects,
    indirect_effect,
    total_effect,
)
from fairdx.metrics.definitions import METRICS, Metric
from fairdx.metrics.precision import average_precision, average_precision_gap
from fairdx.metrics.rates import (
    UndefinedMetricWarning,
    accuracy,
    approximate_diagnosis_fairness,
    balanced_accuracy,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    group_rates,
)
from fairdx.metrics.ratios import (
    demographic_parity_ratio,
    equal_opportunity_ratio,
    equalized_odds_ratio,
)
from fairdx.metrics.reliability import calibration
from fairdx.metrics.scores import (
    auroc,
    auroc_gap,
    brier_score,
    equity_scaled_auroc,
    group_auroc,
    mean_approximate_diagnosis_fairness,
    score_mutual_information,
)
from fairdx.metrics.streaming import RunningADF, RunningEffects

__all__ = [
    "IDENTIFICATION",
    "METRICS",
    "Effects",
    "Metric",
    "RunningADF",
    "RunningEffects",
    "UndefinedMetricWarning",
    "accuracy",
    "approximate_diagnosis_fairness",
    "auroc",
    "auroc_gap",
    "average_precision",
    "average_precision_gap",
    "balanced_accuracy",
    "brier_score",
    "calibration",
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "direct_effect",
    "effects",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
    "equity_scaled_auroc",
    "group_auroc",
    "group_rates",
    "indirect_effect",
    "mean_approximate_diagnosis_fairness",
    "net_benefit",
    "score_mutual_information",
    "total_effect",
]
