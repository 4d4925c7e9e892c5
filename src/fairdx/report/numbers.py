"""How numbers are written on pages: one style per metric, the same in Python and in the page's script."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from math import isfinite

from fairdx.metrics.definitions import METRICS

NOT_A_GOAL = {"indirect_effect", "total_effect"}
"""Effects that fairness does not ask to be zero: the disease itself may be more frequent in a group."""

UNDEFINED = "–"
"""Shown for a value that is not defined."""

MINUS = "\u2212"
NBSP = "\u00a0"


@dataclass(frozen=True)
class Style:
    """How a quantity is written.

    Attributes:
        scale: Factor from the stored fraction to what is shown.
        digits: Digits after the point.
        signed: Whether a plus is written.
        unit: What follows the number in running text.
    """

    scale: float = 1.0
    digits: int = 3
    signed: bool = False
    unit: str = ""

    def __call__(self, value: float | None) -> str:
        """Write a number without its unit."""
        if value is None or not isfinite(value):
            return UNDEFINED
        text = _fixed(abs(shortened(value)) * self.scale, self.digits)
        zero = float(text) == 0
        sign = MINUS if value < 0 and not zero else "+" if self.signed and not zero else ""
        return sign + text

    def interval(self, low: float | None, high: float | None) -> str:
        """Write the two ends of an interval."""
        if low is None or high is None or not (isfinite(low) and isfinite(high)):
            return "no interval"
        return f"{self(low)}{NBSP}to{NBSP}{self(high)}"

    def in_words(self, value: float | None) -> str:
        """Write a number with its unit."""
        text = self(value)
        return text if text == UNDEFINED else f"{text}{self.unit}"


def shortened(value: float) -> float:
    """Seven significant digits, as the page's script gets them: far more than is shown."""
    return float(f"{value:.7g}")


def _fixed(value: float, digits: int) -> str:
    """Digits after the point, ties away from zero, as JavaScript's `toFixed` writes them."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))


PERCENT = Style(100, 1, unit="\u202f%")
POINTS = Style(100, 1, unit=" points")
SIGNED_POINTS = Style(100, 1, signed=True, unit=" points")
DECIMAL = Style()
NATS = Style(1, 5, unit=" nats")

_OTHERS = {
    "auroc": DECIMAL,
    "average_precision": DECIMAL,
    "brier_score": DECIMAL,
    "net_benefit": DECIMAL,
    "expected_calibration_error": DECIMAL,
    "calibration_slope": Style(digits=2),
    "calibration_intercept": Style(digits=2, signed=True),
    "auroc_gap": DECIMAL,
    "average_precision_gap": DECIMAL,
    "equity_scaled_auroc": DECIMAL,
    "demographic_parity_ratio": DECIMAL,
    "equal_opportunity_ratio": DECIMAL,
    "equalized_odds_ratio": DECIMAL,
}


def style_of(metric: str) -> Style:
    """How a metric of `fairdx.metrics.definitions.METRICS` is written.

    Rates are shares in percent, gaps and effects are percentage points, areas are decimals.
    """
    if metric in _OTHERS:
        return _OTHERS[metric]
    scope = METRICS[metric].scope
    return {"information": NATS, "effect": SIGNED_POINTS, "gap": POINTS, "performance": PERCENT}[scope]


def unit_of(metric: str) -> str:
    """The unit in a table's row head: "%", "points", "nats" or nothing."""
    return style_of(metric).unit.strip()


def direction_of(metric: str) -> tuple[str, str]:
    """An arrow and its meaning: which values of the metric are good."""
    about = METRICS[metric]
    if about.higher_is_better is None:
        return (
            ("", "")
            if about.best is None or metric in NOT_A_GOAL
            else (f"→{about.best:g}", f"best at {about.best:g}")
        )
    return ("↑", "higher is better") if about.higher_is_better else ("↓", "lower is better")


def loss_of(metric: str, value: float) -> float | None:
    """Distance from the ideal, smaller being better; None where nothing is ideal."""
    about = METRICS[metric]
    if about.best is None or metric in NOT_A_GOAL:
        return None
    return abs(value - about.best)


def probability(value: float) -> str:
    """Write a p-value."""
    if not isfinite(value):
        return UNDEFINED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_is(value: float) -> str:
    """Write a p-value in a sentence: `p = 0.78` or `p < 0.001`."""
    if not isfinite(value):
        return f"p {UNDEFINED}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def integer(value: int) -> str:
    """Write a count with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")
