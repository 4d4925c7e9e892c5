"""`fairdx monitor`: predictions that arrive over time, to the course of every gap and an exit status."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairdx.commands.interrupts import GATE, NOTHING, interruptible
from fairdx.commands.outputs import STANDARD_OUTPUT, check_outputs, write_output
from fairdx.core.console import printable
from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from fairdx.auditing.monitored import MonitorResult


@dataclass(frozen=True)
class MonitorRequest:
    """What `fairdx monitor` is asked."""

    predictions: tuple[str, ...]
    label: str
    score: str
    group: tuple[str, ...]
    time: str | None
    by: str
    patient: str | None
    identifier: str | None
    positive: str | None
    threshold: float
    reference: tuple[str, ...]
    min_group_size: int
    level: float
    out: Path | None
    json: Path | None
    fail_if: tuple[str, ...]


def add_monitor(app: typer.Typer) -> None:
    """Adds `monitor`."""

    @app.command()
    def monitor(  # noqa: PLR0913, PLR0917 - one parameter for each option
        predictions: Annotated[
            list[str],
            typer.Argument(
                help="Tables as for `fairdx audit`. Without --time each file is a period, in this order."
            ),
        ],
        label: Annotated[str, typer.Option(help="Column of the truth.")],
        score: Annotated[str, typer.Option(help="Column of the score, P(Y = 1).")],
        group: Annotated[
            list[str],
            typer.Option(help="Column of a sensitive attribute; age@40,60 divides numbers. May be repeated."),
        ],
        time: Annotated[str | None, typer.Option(help="Column of the date, as 2025-03-31.")] = None,
        by: Annotated[str, typer.Option(help="How dates are divided: day, week, month, quarter or year.")] = (
            "month"
        ),
        patient: Annotated[str | None, typer.Option(help="Column of the patient.")] = None,
        identifier: Annotated[
            str | None, typer.Option("--id", help="Column that names the image, once each.")
        ] = None,
        positive: Annotated[
            str | None, typer.Option(help="Label of the disease, where it does not say so itself.")
        ] = None,
        threshold: Annotated[
            float, typer.Option(help="Operating point: positive from this score on.", min=0, max=1)
        ] = 0.5,
        reference: Annotated[
            list[str],
            typer.Option(
                metavar="[ATTRIBUTE=]GROUP", help="Group that effects compare with; the largest by default."
            ),
        ] = [],  # noqa: B006
        min_group_size: Annotated[
            int, typer.Option(help="A group is compared once it has so many images.", min=1)
        ] = 30,
        level: Annotated[
            float, typer.Option(help="Probability that a course of intervals holds at every look.")
        ] = 0.95,
        weight: Annotated[str | None, typer.Option(hidden=True)] = None,
        out: Annotated[
            Path | None, typer.Option(help="Write a page (HTML) to this file; - for output.")
        ] = None,
        json: Annotated[Path | None, typer.Option(help="Write all figures (JSON); - for output.")] = None,
        fail_if: Annotated[
            list[str],
            typer.Option(
                metavar="CONDITION",
                help="Exit with 3 if true at the last look, as `eo_low>0.05`; may be repeated.",
            ),
        ] = [],  # noqa: B006 - typer copies it
    ) -> None:
        """Gaps over time, with intervals that hold however often one looks.

        Example: `fairdx monitor 2025-*.csv --label y --score p --group sex --fail-if "eo_low>0.05"`
        """
        if weight is not None:
            from fairdx.auditing.monitoring import NO_WEIGHTS

            raise InputError(NO_WEIGHTS)
        request = MonitorRequest(
            tuple(predictions),
            label,
            score,
            tuple(group),
            time,
            by,
            patient,
            identifier,
            positive,
            threshold,
            tuple(reference),
            min_group_size,
            level,
            out,
            json,
            tuple(fail_if),
        )
        with interruptible(NOTHING):
            failed = monitor_files(request)
        for message in failed:
            sys.stderr.write(f"{printable(message)}\n")
        if failed:
            raise typer.Exit(GATE)


def monitor_files(request: MonitorRequest) -> list[str]:
    """Monitors tables, writes what was asked for and prints what is shown.

    Args:
        request: What to do.

    Returns:
        One sentence for each figure for which a condition of `--fail-if` is true.

    Raises:
        InputError: A table, a column, a condition or an output path cannot be used.
    """
    from fairdx.auditing.gate import parse_condition
    from fairdx.auditing.page_monitor import render_monitor, sentences
    from fairdx.report.numbers import NBSP

    conditions = [parse_condition(text) for text in request.fail_if]
    inputs = [text for text in request.predictions if text != "-"]
    check_outputs({"--json": request.json, "--out": request.out}, inputs)
    result = _monitored(request)
    failed = [message for condition in conditions for message in condition.violations_now(result)]
    if request.json is not None:
        write_output(request.json, result.to_json(indent=2))
    if request.out is not None:
        command = shlex.join(["fairdx", *sys.argv[1:]])
        write_output(request.out, render_monitor(result, command=command))
    aside = STANDARD_OUTPUT in (str(request.json), str(request.out))
    told = [*result.notes, *(text for name in result.attributes for text in sentences(result, name))]
    for text in told:
        plain = "".join(c for c in text.replace(NBSP, " ") if c.isprintable())
        (sys.stderr if aside else sys.stdout).write(f"{plain}\n")
    return failed


def _monitored(request: MonitorRequest) -> "MonitorResult":
    from fairdx.auditing.arrivals import ArrivalColumns, read_arrivals
    from fairdx.auditing.columns import LabelRules
    from fairdx.auditing.monitoring import monitor
    from fairdx.commands.audit import references

    asked = ArrivalColumns(
        request.label,
        request.score,
        request.group,
        request.time,
        request.by,
        request.patient,
        request.identifier,
        LabelRules(request.positive),
    )
    found = read_arrivals(request.predictions, asked)
    result = monitor(
        found.y_true,
        found.y_score,
        sensitive_features=found.sensitive_features,
        looks=found.looks,
        patients=found.patients,
        positive_class=found.positive_class,
        threshold=request.threshold,
        reference=references(request.reference, list(found.sensitive_features)),
        min_group_size=request.min_group_size,
        level=request.level,
    )
    return replace(result, notes=list(found.notes))
