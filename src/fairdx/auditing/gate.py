"""Conditions on the figures of an audit, for pipelines that must stop when a model is not fair enough."""

import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from fairdx.auditing.monitored import Course, MonitorResult
from fairdx.auditing.result import AuditResult
from fairdx.core.errors import InputError
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.definitions import METRICS

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

NAMES: dict[str, str] = {
    **{name: name for name in METRICS},
    **{re.sub(r"\W", "_", metric.abbreviation.lower()): name for name, metric in METRICS.items()},
    # The plug-in estimate is biased upward, so a fair model would often fail by it: it has to be asked for.
    "adf": "approximate_diagnosis_fairness_corrected",
    "approximate_diagnosis_fairness": "approximate_diagnosis_fairness_corrected",
    "adf_corrected": "approximate_diagnosis_fairness_corrected",
    "adf_plugin": "approximate_diagnosis_fairness",
    "auc_gap": "auroc_gap",
    "ece": "expected_calibration_error",
}
"""What a condition may call a metric: its name, or its abbreviation in small letters."""

_FORM = re.compile(r"\s*(abs\()?\s*(\w+?)(?:_(low|high))?\s*(\))?\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True)
class Condition:
    """A figure, or an end of its interval, compared with a number.

    Attributes:
        text: As it was written.
        metric: Name of the metric.
        end: "low" or "high" for an end of the interval, None for the estimate.
        absolute: Whether the size counts, whatever the sign.
        compare: One of `OPERATORS`.
        limit: The number.
    """

    text: str
    metric: str
    end: str | None
    absolute: bool
    compare: str
    limit: float

    def violations(self, result: AuditResult) -> list[str]:
        """Find where the condition is true.

        Args:
            result: An audit. The figures are those of all images, of every attribute and intersection, of
                their groups that are large enough to compare, of every class and every model. Effects are
                those standardised over the covariates, if there are any.

        Returns:
            A sentence for each figure for which it is true. An undefined or missing figure counts as true:
            a gate that cannot be checked is not passed.
        """
        return self._true_of(_figures(result, self.metric))

    def violations_now(self, result: MonitorResult) -> list[str]:
        """Find where the condition is true at the last look of a monitor, as `violations`.

        Raises:
            InputError: The metric is not monitored.
        """
        figures = [(where, course) for where, name, course in _courses(result) if name == self.metric]
        known = ", ".join(dict.fromkeys(name for _, name, _ in _courses(result)))
        effect = METRICS[self.metric].scope == "effect"
        bare = [name for name in result.attributes if not (result.effects if effect else result.gaps)[name]]
        if not figures and known and not effect:
            raise InputError(
                f"the condition `{self.text}`: {self.metric} is not monitored; there are {known}"
            )
        level = result.settings.level
        last: list[tuple[str, Estimate | None]] = [
            (where, Estimate(c.value[-1], c.low[-1], c.high[-1], level, c.method, 0)) for where, c in figures
        ]
        last += [(name, None) for name in bare]
        return self._true_of(last)

    def _true_of(self, figures: Sequence[tuple[str, Estimate | None]]) -> list[str]:
        found = []
        for where, estimate in figures:
            value = math.nan if estimate is None else getattr(estimate, self.end or "value")
            value = abs(value) if self.absolute else value
            if math.isnan(value):
                found.append(f"{self.text}: {self._shown} is undefined for {where}")
            elif OPERATORS[self.compare](value, self.limit):
                found.append(f"{self.text}: {self._shown} of {where} is {value:.6g}")
        return found

    def not_judged(self, result: AuditResult) -> list[str]:
        """Say of which groups the condition says nothing, because they are too small to compare.

        Args:
            result: An audit.

        Returns:
            A sentence for each attribute with such groups.
        """
        least = result.settings.min_group_size
        return [
            f"{self.text}: not judged for {', '.join(about.excluded)} of {name}, with fewer than {least} "
            "images "
            "or too few patients to compare"
            for name, about in result.attributes.items()
            if about.excluded and not about.intersection
        ]

    @property
    def _shown(self) -> str:
        name = self.metric if self.end is None else f"{self.metric}_{self.end}"
        return f"abs({name})" if self.absolute else name


def parse_condition(text: str) -> Condition:
    """Read a condition as `adf>0.005`, `auroc_gap_high>0.05` or `abs(direct_effect)>0.03`.

    Args:
        text: A metric's name or abbreviation, with `_low` or `_high` for an end of its interval or in `abs()`
            for its size, then one of > >= < <=, and a number.

    Returns:
        The condition.

    Raises:
        InputError: It cannot be read, or names no metric.

    Example:
        >>> parse_condition("eo_high > 0.1").metric
        'equal_opportunity_difference'
    """
    match = _FORM.fullmatch(text)
    limit = _number(match.group(6)) if match else math.nan
    if match is None or math.isnan(limit) or bool(match.group(1)) != bool(match.group(4)):
        raise InputError(f"the condition `{text}` is not of the form METRIC>NUMBER, as in adf>0.005")
    name, end = match.group(2).lower(), match.group(3)
    if match.group(1) and end:
        raise InputError(f"the condition `{text}`: give abs() of the estimate, or an end of the interval")
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(METRICS)}"
        raise InputError(f"the condition `{text}`: there is no metric `{name}`{hint}")
    return Condition(text, NAMES[name], end, bool(match.group(1)), match.group(5), limit)


def _number(text: str) -> float:
    try:
        return float(text.replace("_", "?"))  # which would be digits, as in 0_05 for 5
    except ValueError:
        return math.nan


def _figures(result: AuditResult, metric: str) -> list[tuple[str, Estimate | None]]:
    """Every figure of a metric, with where; None where the audit should have one and has not."""
    # The joint audit of several classes has few figures; the audits of each class have all of them.
    found = [(where, e) for where, e in _own(result, metric) if e is not None or not result.per_label]
    for name, part in (*result.per_label.items(), *result.models.items()):
        found += [(f"{where} ({name})", e) for where, e in _figures(part, metric)]
    return found


def _courses(result: MonitorResult) -> Iterator[tuple[str, str, Course]]:
    for attribute, gaps in result.gaps.items():
        yield from ((attribute, metric, course) for metric, course in gaps.items())
        for group, effects in result.effects[attribute].items():
            yield from ((f"{attribute} {group}", metric, course) for metric, course in effects.items())


def _own(result: AuditResult, metric: str) -> Iterator[tuple[str, Estimate | None]]:
    scope = METRICS[metric].scope
    if scope == "performance":
        yield "all images", result.overall.get(metric)
    for name, about in result.attributes.items():
        if scope == "performance":
            compared = [g for g in about.groups if g not in about.excluded]
            yield from ((f"{name} {g}", result.by_group[name][g].get(metric)) for g in compared)
        elif scope == "effect":
            source = result.adjusted_effects if result.settings.covariates else result.effects
            effects = source.get(name) or {"": {}}
            yield from ((f"{name} {g}".strip(), found.get(metric)) for g, found in effects.items())
        else:
            gap = result.gaps[name].get(metric)
            yield name, None if gap is None else gap.estimate
