"""What `fairdx audit` prints: who is positive, how well the model does by group, what was found, the gaps."""

from collections.abc import Mapping
from math import isfinite, isnan
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fairdx.auditing.findings import headline
from fairdx.auditing.result import AuditResult
from fairdx.core.console import PlainConsole, plain
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.definitions import METRICS
from fairdx.report.numbers import UNDEFINED

_RATES = (
    "prevalence",
    "auroc",
    "average_precision",
    "selection_rate",
    "tpr",
    "fpr",
    "net_benefit",
)


def print_summary(result: AuditResult, page: Path | None, *, stderr: bool) -> None:
    """Print a summary of an audit.

    Args:
        result: The audit.
        page: Where its page was written, or None.
        stderr: Whether to print to standard error, because standard output has the figures.
    """
    console = PlainConsole(stderr=stderr, wrap=True)
    console.print(plain(headline(result)))
    for name, one in result.per_label.items():
        console.print(plain(f"{name}: {headline(one)}"))
    console.print(_rates(result))
    for note in result.notes:
        console.print(plain(f"- {note.text}"))
    console.print(_gaps(result))
    if result.comparison:
        console.print(_changes(result))
    for name, model in result.models.items():
        console.print(plain(f"{name}: {headline(model)}"))
        console.print(_changes(model))
    if page is not None and str(page) != "-":
        PlainConsole(stderr=stderr).print(plain(f"Open {page} for the whole audit."))


def _rates(result: AuditResult) -> Table:
    """Performance of all images and of every group; of several classes or findings for each of them."""
    several = bool(result.per_label)
    parts = result.per_label or {"": result}
    first = next(iter(parts.values()))
    groups = next(iter(first.by_group.values())).values()
    wanted = _RATES[:6] if several else _RATES  # what fits into 80 signs
    shown = [m for m in wanted if m in first.overall and all(m in found for found in groups)]
    shown = shown or ["accuracy"]  # of very many classes
    head = ["class" if result.task == "multiclass" else "finding"] if several else []
    table = Table(*head, "attribute", "group", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("images", *(METRICS[m].abbreviation for m in shown)):
        table.add_column(name, justify="right", no_wrap=True)
    for label, one in parts.items():
        lead = [plain(label)] if several else []
        table.add_row(*lead, "all", "", f"{one.n_images:,}", *_values(one.overall, shown))
        for name, about in one.attributes.items():
            if about.intersection:
                continue
            for group, found in one.by_group[name].items():
                size = f"{about.groups[group]:,}"
                table.add_row(*lead, plain(name), plain(group), size, *_values(found, shown))
    return table


def _values(found: Mapping[str, Estimate], metrics: list[str]) -> list[str]:
    return [_number(found[m].value, ".3f") if m in found else UNDEFINED for m in metrics]


def _gaps(result: AuditResult) -> Table:
    table = Table("attribute", "measure", "estimate", f"{result.settings.level:.0%} interval")
    for attribute, gaps in result.gaps.items():
        for name, gap in gaps.items():
            table.add_row(plain(attribute), METRICS[name].title, *_figure(gap.estimate, ""))
        for group, found in result.effects.get(attribute, {}).items():
            for name, estimate in found.items():
                measure = plain(f"{METRICS[name].title}: {group}")
                table.add_row(plain(attribute), measure, *_figure(estimate, "+"))
    return table


def _changes(result: AuditResult) -> Table:
    table = Table("attribute", "measure", "before", "after", "change", "p")
    for attribute, changes in result.comparison.items():
        for name, change in changes.items():
            difference = " (".join(_figure(change.difference, "+")) + ")"
            row = (
                *(_number(v) for v in (change.before, change.after)),
                difference,
                _number(change.p_value, ".2g"),
            )
            table.add_row(plain(attribute), METRICS[name].title, *row)
    return table


def _figure(estimate: Estimate, sign: str) -> tuple[str, str]:
    value, low, high = (_number(v, f"{sign}.4f") for v in (estimate.value, estimate.low, estimate.high))
    return value, f"{low} to {high}" if isfinite(estimate.low) else UNDEFINED


def _number(value: float, form: str = ".4f") -> str:
    return UNDEFINED if isnan(value) else format(value, form)
