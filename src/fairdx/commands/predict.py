"""`fairdx predict MODEL PATHS...`: scores of new images, and of parts the whole."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairdx.commands.interrupts import GOES_ON, interruptible
from fairdx.core.console import PlainConsole
from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from fairdx.deploy.predict import Outcome
    from fairdx.deploy.record import Record

SOME_BROKEN = 3
"""Exit status when everything was done, and some files could not be used."""


def add_predict(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(predict)


def predict(  # noqa: PLR0913, PLR0917 - one parameter for each option
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL PATHS...",
            help="A run or its model folder, exported as ONNX; then image files (PNG, JPEG, TIFF, "
            "WebP, DICOM, NIfTI) and folders of them. With --join: the parts.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Table of scores to write (CSV).")],
    listing: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="Further paths, one in each line; - is standard input."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Positive from this score on; by default the model's own.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table (CSV) with the columns path and group, for models that have to be told the group; "
            "sex and age are else taken from the DICOM header.",
        ),
    ] = None,
    dicom_sr: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a structured report of each DICOM image to this folder."),
    ] = None,
    keep_patient_id: Annotated[
        bool, typer.Option("--keep-patient-id", help="Write the patient's ID of DICOM files, too.")
    ] = False,
    part: Annotated[
        str | None, typer.Option(metavar="K/N", help="Score only the K-th of N parts, on one of N machines.")
    ] = None,
    join: Annotated[bool, typer.Option("--join", help="Join parts to the whole table; no model.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 16,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that decode, and threads that score; one for each processor by default."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda with onnxruntime-gpu installed.")] = "cpu",
) -> None:
    """Score image files with an exported model; needs no PyTorch (`pip install 'fairdx[predict]'`).

    Exit status: 0 all files were scored; 3 some could not be used, see OUT.errors.csv; 2 bad input; 1 failed.
    After an interruption the same command goes on.

    Example: `fairdx predict runs/demo images/ --out scores.csv`

    Example: `find /archive -name '*.dcm' | fairdx predict model --list - --out scores.csv --dicom-sr reports`

    Example: `fairdx predict model images/ --part 3/8 --out scores.part3.csv`, and when all eight are there
    `fairdx predict --join scores.part*.csv --out scores.csv`
    """
    if join:
        _refuse_options({"--list": listing, "--threshold": threshold, "--groups": groups, "--part": part,
                         "--dicom-sr": dicom_sr, "--keep-patient-id": keep_patient_id or None})  # fmt: skip
        from fairdx.deploy.join import join as join_parts

        _announce(out, join_parts([Path(argument) for argument in arguments], out))
        return
    from fairdx.deploy.predict import PredictOptions
    from fairdx.deploy.predict import predict as predict_files

    model, *paths = arguments
    if not paths and listing is None:
        raise InputError(f"there is nothing to score with {model}: give files, folders or --list")
    options = PredictOptions(
        threshold=threshold,
        batch_size=batch_size,
        workers=workers,
        device=device,
        groups=groups,
        keep_patient_id=keep_patient_id,
        part=_part(part),
        reports=dicom_sr,
    )
    with interruptible(GOES_ON):
        outcome = predict_files(Path(model), paths, out, options, listing=listing)
    _announce(out, outcome.record, outcome)


def _refuse_options(given: dict[str, object]) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} has no meaning with --join: the parts are scored already")


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise InputError(f"`--part {text}` is not of the form K/N, as in 3/8")
    return int(found[1]), int(found[2])


def _announce(out: Path, record: "Record", outcome: "Outcome | None" = None) -> None:
    """Says what was scored, what was not and why, and what to be careful about."""
    console = PlainConsole()
    lines = [f"{out}: {record.scored:,} files scored"]
    if record.broken:
        lines.append(f"{record.broken:,} problems with files, each listed in {out.name}.errors.csv")
    if outcome and outcome.inputs.passed_over:
        lines.append(f"passed over {outcome.inputs.passed_over:,} files in the folders that are no images")
    if outcome and outcome.inputs.repeated:
        lines.append(f"scored once what was given again, {outcome.inputs.repeated:,} times")
    if record.noted:
        lines.append(f"{record.noted:,} files have something odd and could be read: see the column note")
    cautions = {words: number for words, number in record.cautions.items() if words != "any"}
    if cautions:
        each = ", ".join(f"{number:,} {words}" for words, number in cautions.items())
        lines.append(
            f"caution: {record.cautions['any']:,} images are unlike those the mask was trained on ({each})"
        )
    if record.settings.reports:
        lines.append(f"wrote {record.reports:,} DICOM reports; files that are not DICOM have none")
    for line in lines:
        console.print(line)
    if record.broken:
        raise typer.Exit(SOME_BROKEN)
