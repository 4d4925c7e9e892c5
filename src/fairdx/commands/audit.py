"""`fairdx audit`: from a table of predictions to a page, to figures as JSON, and to an exit status."""

import inspect
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from fairdx.commands.interrupts import GATE, NOTHING, interruptible
from fairdx.commands.outputs import STANDARD_OUTPUT, check_outputs, write_output
from fairdx.core.console import printable
from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter, reporting

if TYPE_CHECKING:
    from fairdx.auditing.predictions import Predictions
    from fairdx.auditing.result import AuditResult

Texts = tuple[str, ...]


def _option(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, **more)


@dataclass(frozen=True)
class AuditRequest:
    """What `fairdx audit` is asked: every option stands here, and only here."""

    predictions: Annotated[
        str,
        typer.Argument(
            help="CSV, Excel or Parquet, packed or not, one row for each image; - for standard input."
        ),
    ]
    label: Annotated[Texts, _option("Column of the truth; repeated, one for each of several findings.")]
    score: Annotated[
        Texts,
        _option("Column of the score, P(Y = 1); repeated, one for each class (CLASS=COLUMN) or finding."),
    ]
    group: Annotated[
        Texts,
        _option(
            "Column of a sensitive attribute; age@40,60 divides numbers, stage:I|II|III orders levels. May "
            "be "
            "repeated.",
        ),
    ]
    positive: Annotated[
        str | None, _option("Label of the disease, where it is not 1 or a word such as 'diseased'.")
    ] = None
    patient: Annotated[str | None, _option("Column of the patient, for images that belong together.")] = None
    identifier: Annotated[str | None, _option("Column that names the image, once each.", "--id")] = None
    weight: Annotated[str | None, _option("Column that says what each image counts.")] = None
    threshold: Annotated[
        Texts,
        _option(
            "Operating point: positive from this score on (0.5). A finding or class, a group (sex:F), a "
            "model or the second score (compare) may have its own; may be repeated.",
            metavar="[NAME=]NUMBER",
        ),
    ] = ()
    where: Annotated[Texts, _option("Audit only these rows; may be repeated.", metavar="COLUMN=VALUE")] = ()
    covariate: Annotated[
        Texts, _option("Column to standardise the effects over, like --group; may be repeated.")
    ] = ()
    reference: Annotated[
        Texts,
        _option("Group that effects compare with; the largest by default.", metavar="[ATTRIBUTE=]GROUP"),
    ] = ()
    compare: Annotated[
        str | None, _option("Second score of the same images: a column, or a file joined on --id.")
    ] = None
    model: Annotated[
        str | None,
        _option(
            "Column that says whose prediction a row is, for rows of several models joined on --id.",
            metavar="COLUMN[=FIRST]",
        ),
    ] = None
    unlabelled: Annotated[str, _option("What a blank label counts as: exclude, positive or negative.")] = (
        "exclude"
    )
    uncertain: Annotated[
        str, _option("What the label -1 beside 0 and 1 counts as: exclude, positive or negative.")
    ] = "exclude"
    missing: Annotated[
        Texts,
        _option("Word that means missing, in place of NA, NaN, None, null and the like; may be repeated."),
    ] = ()
    intersections: Annotated[
        bool | None,
        _option(
            "Whether to audit intersections of attributes; with more than four findings only if asked.",
            "--intersections/--no-intersections",
        ),
    ] = None
    bins: Annotated[
        str, _option("Of calibration: a number of bins of equal frequency, or one as in uniform:15.")
    ] = "10"
    interval: Annotated[str, _option("Of rates and effects: percentile or bca.")] = "percentile"
    min_group_size: Annotated[int, _option("Smaller groups are reported but not compared.", min=1)] = 30
    replicates: Annotated[int, _option("Bootstrap replicates.", min=20)] = 2000
    seed: Annotated[int, _option("Seed of bootstrap and permutations.", min=0)] = 0
    suppress: Annotated[
        int | None,
        _option(
            "For what leaves the hospital: show nothing that a count of 1 to K - 1 people follows from.",
            metavar="K",
            min=2,
        ),
    ] = None
    out: Annotated[Path | None, _option("Write a page (HTML) to this file; - for standard output.")] = None
    json: Annotated[Path | None, _option("Write all figures (JSON) to this file; - for standard output.")] = (
        None
    )
    summary: Annotated[
        Path | None, _option("Write two pages for a committee (HTML, prints on A4) to this file.")
    ] = None
    fail_if: Annotated[
        Texts, _option("Exit with 3 if true, as `adf>0.005`; may be repeated.", metavar="CONDITION")
    ] = ()
    quiet: Annotated[bool, _option("Print nothing but what failed.", "--quiet")] = False


def add_audit(app: typer.Typer) -> None:
    """Adds `audit`, its options being the fields of `AuditRequest`."""

    def command(**given: Any) -> None:
        """The full fairness audit of anybody's predictions: no model, no images, no torch.

        Example: `fairdx audit scores.csv --label y --score p --group sex --patient id --out report.html`
        """
        listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        with interruptible(NOTHING):
            failed = audit_file(AuditRequest(**listed))
        for message in failed:
            sys.stderr.write(f"{printable(message)}\n")
        if failed:
            raise typer.Exit(GATE)

    signature = inspect.signature(AuditRequest)
    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=_listed(p.annotation))
        for p in signature.parameters.values()
    ]
    command.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command("audit")(command)


def _listed(annotation: Any) -> Any:
    """The annotation as typer reads it: an option that may be repeated is a list."""
    kind, option = get_args(annotation)
    return Annotated[list[str], option] if kind == Texts else annotation


def audit_file(request: AuditRequest) -> list[str]:
    """Audits a file, writes what was asked for and prints a summary.

    Args:
        request: What to do.

    Returns:
        One sentence for each figure for which a condition of `--fail-if` is true.

    Raises:
        InputError: The table, a column, a condition or an output path cannot be used.
    """
    from fairdx.auditing.gate import parse_condition
    from fairdx.commands.audit_summary import print_summary

    conditions = [parse_condition(text) for text in request.fail_if]
    inputs = [text for text in (request.predictions, request.compare) if text is not None and text != "-"]
    check_outputs({"--json": request.json, "--out": request.out, "--summary": request.summary}, inputs)
    table = _read(request)
    with reporting(_reporter(request, table)):
        result = _audit(request, table)
    _write(request, result)
    if not request.quiet:
        aside = STANDARD_OUTPUT in map(str, (request.json, request.out, request.summary))
        print_summary(result, request.out, stderr=aside)
    for message in [text for condition in conditions for text in condition.not_judged(result)]:
        sys.stderr.write(f"{printable(message)}\n")
    return [message for condition in conditions for message in condition.violations(result)]


def _read(request: AuditRequest) -> "Predictions":
    from fairdx.auditing.columns import LabelRules
    from fairdx.auditing.predictions import Columns, read_columns
    from fairdx.core.missing import BY_PROGRAMS

    columns = Columns(
        label=request.label,
        score=request.score,
        groups=request.group,
        patient=request.patient,
        weight=request.weight,
        covariates=request.covariate,
        identifier=request.identifier,
        compare_to=request.compare,
        model=request.model,
        where=_assignments("--where", request.where),
        labels=LabelRules(request.positive, request.uncertain, request.unlabelled),  # type: ignore[arg-type]
        missing=request.missing or BY_PROGRAMS,
    )
    return read_columns(request.predictions, columns)


def _reporter(request: AuditRequest, table: "Predictions") -> Reporter:
    """A bar over the replicates of all audits, on a terminal that is not to be quiet."""
    labels = 1 if table.y_score.ndim == 1 else table.y_score.shape[1]
    total = request.replicates * labels * (1 + 2 * len(table.models))
    shown = sys.stderr.isatty() and not request.quiet
    return Reporter("auditing", total, unit="replicates", enabled=shown)


def _audit(request: AuditRequest, table: "Predictions") -> "AuditResult":
    """The audit, with the notes about the table among its cautions."""
    from fairdx.auditing.models import audit_models
    from fairdx.auditing.result import Note
    from fairdx.auditing.selection import Unlabelled, with_unlabelled
    from fairdx.auditing.suppressed import audit_suppressed, without_counts
    from fairdx.auditing.threshold import Thresholds

    remarks, audited = list(table.notes), audit_models
    if request.suppress is not None:
        told = [without_counts(text, request.suppress) for text in remarks]
        remarks = [text for text in told if text is not None]
        audited = partial(audit_suppressed, least=request.suppress)
    result = audited(
        table.y_true,
        table.y_score,
        table.models,
        first=table.first,
        sensitive_features=table.sensitive_features,
        patients=table.patients,
        sample_weight=table.weight,
        positive_class=table.positive_class,
        threshold=Thresholds.parse(request.threshold),
        reference=references(request.reference, list(table.sensitive_features)),
        covariates=table.covariates or None,
        compare_to=table.compare_to,
        min_group_size=request.min_group_size,
        n_replicates=request.replicates,
        interval=request.interval,
        seed=request.seed,
        calibration_bins=request.bins,
        intersections=request.intersections,
        explore=request.out is not None or request.json is not None,
    )
    if table.unlabelled is not None and request.suppress is None:  # their numbers may be small
        scores, groups = table.unlabelled
        result = with_unlabelled(result, Unlabelled.of(scores, groups, Thresholds.parse(request.threshold)))
    order = {"finding": 0, "caution": 1, "limit": 2}
    notes = [*(Note("caution", None, text) for text in remarks), *result.notes]
    return replace(result, notes=sorted(notes, key=lambda note: order[note.kind]))


def _assignments(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise InputError(f"`{option} {text}` is not of the form NAME=VALUE, as in split=test")
        if name in found:
            raise InputError(f"`{option}` gives {name} two values, {found[name]} and {value}; give one")
        found[name] = value
    return found


def references(given: Sequence[str], attributes: Sequence[str]) -> dict[str, str] | str | None:
    """`--reference`: `ATTRIBUTE=GROUP` for each, or a single group of the attributes that have it."""
    if len(given) == 1 and given[0].partition("=")[0] not in attributes:
        return given[0]
    return _assignments("--reference", given) or None


def _write(request: AuditRequest, result: "AuditResult") -> None:
    if request.json is not None:
        write_output(request.json, result.to_json(indent=2))
    if request.out is not None:
        from fairdx.auditing.page import render_audit

        command = shlex.join(["fairdx", *sys.argv[1:]])
        write_output(request.out, render_audit(result, command=command))
    if request.summary is not None:
        from fairdx.auditing.summary import render_summary

        write_output(request.summary, render_summary(result))
