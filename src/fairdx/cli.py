"""The command line: a thin shell. Commands import what they need, so that the audit starts fast."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fairdx.core.errors import InputError

app = typer.Typer(
    help="Find and remove the direct effect of a sensitive attribute on image-based diagnoses.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="Folder to write to; made if needed.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights, order and bootstrap.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from where an interrupted run stopped.")]
Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as `method.eta=0.1`.")
]


@app.command()
def demo(
    out: Out = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A look in one minute, on fewer and smaller images.")
    ] = False,
    seed: Seed = 0,
    resume: Resume = False,
) -> None:
    """The whole way on the built-in phantom: pretrain, mask, compare, true effect beside the estimated one.

    Example: `fairdx demo --quick --out look`
    """
    from fairdx.commands.demo import demo_settings

    _run(demo_settings(quick=quick, seed=seed), out, resume)


@app.command("run")
def run_command(
    config: Annotated[Path, typer.Argument(help="A TOML file; see configs/ for examples.")],
    settings: Set = [],  # noqa: B006 - typer copies it
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; runs/NAME OF CONFIG by default.")
    ] = None,
    resume: Resume = False,
) -> None:
    """One training run of one method, measured beside the same model without mitigation.

    Example: `fairdx run configs/nih_small.toml --set method.eta=0.1 --out runs/eta01`
    """
    from fairdx.runs.settings import load_settings

    _run(load_settings(config, tuple(settings)), out or Path("runs") / config.stem, resume)


def _run(settings: Any, out: Path, resume: bool) -> None:
    from fairdx.runs.files import MODEL
    from fairdx.runs.page import summary_table, write_run_report
    from fairdx.runs.run import run

    try:
        results = run(settings, out, resume=resume)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command with --resume goes on\n")
        raise typer.Exit(130) from None
    if results is None:  # one of several processes, and not the one that reports
        return
    page = write_run_report(out)
    console = Console()
    console.print(summary_table(results))
    console.print(f"Open [bold]{page}[/bold] for the whole report.", highlight=False)
    if (out / MODEL).exists():
        console.print(f"The model to deploy: [bold]{out / MODEL}[/bold]", highlight=False)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A prepared data set.")],
    label: Annotated[
        str | None, typer.Option(help="Label to count by group; the main one by default.")
    ] = None,
    pixels: Annotated[
        bool, typer.Option(help="Also read all pixels: check the hash, find blank, dark and repeated images.")
    ] = True,
    json: Annotated[
        Path | None, typer.Option(help="Write all counts and problems (JSON) to this file.")
    ] = None,
) -> None:
    """What is in a prepared data set: counts by label and group, splits, patients, problems.

    Example: `fairdx inspect prepared/nih`
    """
    from fairdx.data.base import PreparedDataset
    from fairdx.data.inspect import describe, render, write_json

    description = describe(PreparedDataset.open(folder), pixels=pixels)
    Console().print(render(description, label=label))
    if json:
        write_json(description, json)


def main() -> None:
    """Runs the command line: status 2 for bad input, 1 for a failed run, a traceback only with --debug."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s"
    )
    try:
        from fairdx.commands.audit import add_audit

        add_audit(app)
        if arguments[:1] != ["audit"]:  # which then starts a sixth of a second earlier
            from fairdx.commands.check_model import add_check_model
            from fairdx.commands.convert_weights import add_convert_weights
            from fairdx.commands.explain import add_explain
            from fairdx.commands.export import add_export
            from fairdx.commands.predict import add_predict
            from fairdx.commands.prepare import add_prepare
            from fairdx.commands.study import add_studies
            from fairdx.commands.utility import add_utility

            add_check_model(app)
            add_convert_weights(app)
            add_explain(app)
            add_export(app)
            add_predict(app)
            add_prepare(app)
            add_studies(app)
            add_utility(app)
        app(arguments)
    except InputError as error:
        _stop(error, 2, debug)
    except Exception as error:
        _stop(error, 1, debug)


def _stop(error: Exception, status: int, debug: bool) -> None:
    if debug:
        raise error
    sys.stderr.write(f"fairdx: {error or type(error).__name__}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
