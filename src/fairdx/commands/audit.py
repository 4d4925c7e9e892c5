"""`fairdx audit`: from a table of predictions to a page, to figures as JSON, and to an exit status."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fairdx.auditing.engine import audit
from fairdx.auditing.gate import parse_condition
from fairdx.auditing.predictions import Predictions, read_predictions
from fairdx.auditing.result import AuditResult, Note
from fairdx.core.errors import InputError
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.definitions import METRICS


@dataclass(frozen=True)
class AuditRequest:
    """What `fairdx audit` was asked; see its help for each."""

    predictions: Path
    labels: tuple[str, ...]
    scores: tuple[str, ...]
    groups: tuple[str, ...]
    patient: str | None
    identifier: str | None
    threshold: float
    where: tuple[str, ...]
    covariates: tuple[str, ...]
    references: tuple[str, ...]
    compare: str | None
    interval: str
    min_group_size: int
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
        One sentence for each figure for which a condition of `--fail-if` is true.

    Raises:
        InputError: The table, a column, a condition or an output path cannot be used.
    """
    conditions = [parse_condition(text) for text in request.conditions]
    table = read_predictions(
        request.predictions,
        label=request.labels,
        score=request.scores,
        groups=request.groups,
        patient=request.patient,
        covariates=request.covariates,
        identifier=request.identifier,
        compare_to=request.compare,
        where=_assignments("--where", request.where),
    )
    result = _audit(request, table)
    _write(request, result)
    console = Console()
    _print(console, result)
    if request.page is not None:
        console.print(f"Open [bold]{request.page}[/bold] for the whole audit.", highlight=False)
    return [message for condition in conditions for message in condition.violations(result)]


def _audit(request: AuditRequest, table: Predictions) -> AuditResult:
    """The audit, with the notes about the table among its cautions."""
    result = audit(
        table.y_true,
        table.y_score,
        sensitive_features=table.sensitive_features,
        patients=table.patients,
        threshold=request.threshold,
        reference=_references(request),
        covariates=table.covariates or None,
        compare_to=table.compare_to,
        min_group_size=request.min_group_size,
        n_replicates=request.replicates,
        interval=request.interval,  # type: ignore[arg-type]  # checked by audit
        seed=request.seed,
    )
    order = {"finding": 0, "caution": 1, "limit": 2}
    notes = [*(Note("caution", None, text) for text in table.notes), *result.notes]
    return replace(result, notes=sorted(notes, key=lambda note: order[note.kind]))


def _assignments(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise InputError(f"`{option} {text}` is not of the form NAME=VALUE, as in split=test")
        if name in found:
            raise InputError(f"`{option}` gives {name} two values, {found[name]} and {value}; give one")
        found[name] = value
    return found


def _references(request: AuditRequest) -> dict[str, str] | str | None:
    """`ATTRIBUTE=GROUP` for each, or a single group of the attributes that have it."""
    given = request.references
    if len(given) == 1 and given[0].partition("=")[0] not in request.groups:
        return given[0]
    return _assignments("--reference", given) or None


def _write(request: AuditRequest, result: AuditResult) -> None:
    try:
        if request.json is not None:
            request.json.parent.mkdir(parents=True, exist_ok=True)
            request.json.write_text(result.to_json(indent=2), encoding="utf-8")
        if request.page is not None:
            from fairdx.auditing.page import write_audit

            request.page.parent.mkdir(parents=True, exist_ok=True)
            write_audit(result, request.page, command=request.command)
    except OSError as error:
        raise InputError(f"cannot write {error.filename}: {error.strerror}") from error


def _print(console: Console, result: AuditResult) -> None:
    for note in result.notes:
        console.print(f"- {note.text}", highlight=False, markup=False)
    table = Table("attribute", "measure", "estimate", f"{result.settings.level:.0%} interval")
    for attribute, gaps in result.gaps.items():
        for name, gap in gaps.items():
            table.add_row(attribute, METRICS[name].title, *_figure(gap.estimate, ""))
        for group, found in result.effects.get(attribute, {}).items():
            for name, estimate in found.items():
                table.add_row(attribute, f"{METRICS[name].title}: {group}", *_figure(estimate, "+"))
    console.print(table)
    if result.comparison:
        console.print(_changes(result))


def _changes(result: AuditResult) -> Table:
    table = Table("attribute", "measure", "before", "after", "change", "p")
    for attribute, changes in result.comparison.items():
        for name, change in changes.items():
            difference = " (".join(_figure(change.difference, "+")) + ")"
            row = (f"{change.before:.4f}", f"{change.after:.4f}", difference, f"{change.p_value:.2g}")
            table.add_row(attribute, METRICS[name].title, *row)
    return table


def _figure(estimate: Estimate, sign: str) -> tuple[str, str]:
    value, low, high = (format(v, f"{sign}.4f") for v in (estimate.value, estimate.low, estimate.high))
    return value, f"{low} to {high}"
