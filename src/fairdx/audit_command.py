"""`fairdx audit`: from a table of predictions to a page, to figures as JSON, and to an exit status."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fairdx.errors import InputError
from fairdx.fairness.audit import audit
from fairdx.fairness.definitions import METRICS
from fairdx.fairness.predictions import read_predictions
from fairdx.fairness.result import AuditResult

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
ENDS = ("low", "high")


@dataclass(frozen=True)
class AuditRequest:
    """What `fairdx audit` was asked; see its help for each."""

    predictions: Path
    label: str
    score: str
    groups: tuple[str, ...]
    patient: str | None
    threshold: float
    where: tuple[str, ...]
    covariates: tuple[str, ...]
    reference: str | None
    compare: str | None
    replicates: int
    seed: int
    page: Path | None
    json: Path | None
    conditions: tuple[str, ...]
    command: str


def audit_file(request: AuditRequest) -> list[str]:
    """Audits a file, writes what was asked for and prints a summary.

    Args:
        request: What to do.

    Returns:
        One sentence for each condition of `--fail-if` that is true.

    Raises:
        InputError: The table, a column, a condition or an output path cannot be used.
    """
    conditions = [parse_condition(text) for text in request.conditions]
    table = read_predictions(
        request.predictions,
        label=request.label,
        score=request.score,
        groups=request.groups,
        patient=request.patient,
        covariates=request.covariates,
        compare_to=request.compare,
        where=dict(_assignment(text) for text in request.where),
    )
    result = audit(
        table.y_true,
        table.y_score,
        sensitive_features=table.sensitive_features,
        patients=table.patients,
        threshold=request.threshold,
        reference=_reference(request),
        covariates=table.covariates or None,
        compare_to=table.compare_to,
        n_replicates=request.replicates,
        seed=request.seed,
    )
    console = Console()
    for note in table.notes:
        console.print(note, highlight=False, markup=False)
    _write(request, result)
    _print(console, result)
    if request.page is not None:
        console.print(f"Open [bold]{request.page}[/bold] for the whole audit.", highlight=False)
    return [message for condition in conditions for message in condition.violations(result)]


def _assignment(text: str) -> tuple[str, str]:
    column, separator, value = text.partition("=")
    if not separator:
        raise InputError(f"`--where {text}` is not of the form COLUMN=VALUE, as in split=test")
    return column, value


def _reference(request: AuditRequest) -> dict[str, str] | None:
    """The reference group belongs to the first attribute; the others keep their largest."""
    return None if request.reference is None else {request.groups[0]: request.reference}


def _write(request: AuditRequest, result: AuditResult) -> None:
    try:
        if request.json is not None:
            request.json.parent.mkdir(parents=True, exist_ok=True)
            request.json.write_text(result.to_json(indent=2), encoding="utf-8")
        if request.page is not None:
            from fairdx.report.audit_page import write_audit

            request.page.parent.mkdir(parents=True, exist_ok=True)
            write_audit(result, request.page, command=request.command)
    except OSError as error:
        raise InputError(f"cannot write {error.filename}: {error.strerror}") from error


def _print(console: Console, result: AuditResult) -> None:
    for note in result.notes:
        console.print(f"- {note.text}", highlight=False, markup=False)
    table = Table("attribute", "measure", "estimate", "95 % interval" if result.settings.level == 0.95 else "interval")
    for attribute, gaps in result.gaps.items():
        for name, gap in gaps.items():
            e = gap.estimate
            table.add_row(attribute, METRICS[name].title, f"{e.value:.4f}", f"{e.low:.4f} to {e.high:.4f}")
        for group, found in result.effects.get(attribute, {}).items():
            for name, e in found.items():
                title = f"{METRICS[name].title}: {group}"
                table.add_row(attribute, title, f"{e.value:+.4f}", f"{e.low:+.4f} to {e.high:+.4f}")
    console.print(table)


@dataclass(frozen=True)
class Condition:
    """One `--fail-if`: a figure, optionally an end of its interval, compared with a number."""

    text: str
    metric: str
    end: str | None
    compare: str
    limit: float

    def violations(self, result: AuditResult) -> list[str]:
        """Returns a sentence for each attribute and group for which the condition is true.

        An undefined figure counts as true: a gate that cannot be checked is not passed.
        """
        found = []
        for where, estimate in _figures(result, self.metric):
            value = getattr(estimate, self.end or "value")
            if np.isnan(value):
                found.append(f"{self.text}: {self.metric} is undefined for {where}")
            elif OPERATORS[self.compare](value, self.limit):
                found.append(f"{self.text}: {self.metric} of {where} is {value:.6g}")
        return found


def parse_condition(text: str) -> Condition:
    """Reads a condition as `adf>0.005`, `auroc_gap_high>0.05` or `direct_effect_low>0`.

    Args:
        text: A metric's name or abbreviation, `_low` or `_high` for an end of its interval, one of
            > >= < <=, and a number.

    Raises:
        InputError: The condition cannot be read, or names no metric.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*", text)
    try:
        limit = float(match.group(3)) if match else float("nan")
    except ValueError:
        match = None
    if match is None:
        raise InputError(f"`--fail-if {text}` is not of the form METRIC>NUMBER, as in adf>0.005")
    name, end = match.group(1).lower(), None
    for suffix in ENDS:
        if name.endswith(f"_{suffix}"):
            name, end = name.removesuffix(f"_{suffix}"), suffix
    known = {metric.abbreviation.lower().replace(" ", "_"): key for key, metric in METRICS.items()}
    metric = name if name in METRICS else known.get(name)
    if metric is None:
        near = get_close_matches(name, [*METRICS, *known], n=1)
        hint = f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(METRICS)}"
        raise InputError(f"`--fail-if {text}`: there is no metric `{name}`{hint}")
    return Condition(text, metric, end, match.group(2), limit)


def _figures(result: AuditResult, metric: str) -> list[tuple[str, object]]:
    """All estimates of a metric, with where they were found."""
    figures: list[tuple[str, object]] = []
    if metric in result.overall:
        figures.append(("all images", result.overall[metric]))
    for attribute in result.attributes:
        if metric in result.gaps.get(attribute, {}):
            figures.append((attribute, result.gaps[attribute][metric].estimate))
        for groups in (result.by_group, result.effects):
            for group, found in groups.get(attribute, {}).items():
                if metric in found:
                    figures.append((f"{attribute} {group}", found[metric]))
    if not figures:
        raise InputError(f"the audit has no figure called `{metric}` for these predictions")
    return figures
