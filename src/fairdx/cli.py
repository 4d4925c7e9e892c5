"""The command line: a thin shell. Commands import what they need, so that the audit starts fast."""

import io
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fairdx import __version__
from fairdx.commands.interrupts import NOTHING, interruptible, say_stopped, unsaid
from fairdx.core.console import PlainConsole, plain, printable
from fairdx.core.errors import InputError, room_in
from fairdx.core.signals import heed

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


def _say_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"fairdx {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Options of no command."""


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

    The `config.toml` that a run leaves in its folder repeats it, in a folder beside it; what differs from the
    earlier run is named.

    Example: `fairdx run configs/nih_small.toml --set method.eta=0.1 --out runs/eta01`
    """
    from fairdx.runs.repeat import earlier_run
    from fairdx.runs.settings import load_settings

    chosen = load_settings(config, tuple(settings))
    earlier = earlier_run(config, chosen)
    usual = Path("runs") / config.stem if earlier is None else earlier.out
    _run(chosen, out or usual, resume, earlier)


def _run(settings: Any, out: Path, resume: bool, earlier: Any = None) -> None:
    from fairdx.runs.files import MODEL
    from fairdx.runs.page import summary_table, write_run_report
    from fairdx.runs.repeat import said
    from fairdx.runs.run import run

    with interruptible("the same command with --resume goes on"):
        results = run(settings, out, resume=resume, earlier=earlier)
    if results is None:  # one of several processes, and not the one that reports
        return
    page = write_run_report(out)
    console = PlainConsole(wrap=True)
    console.print(summary_table(results))
    for line in said(results["repeats"]) if earlier else ():
        console.print(plain(line))
    last = PlainConsole()  # a path that is broken over two lines cannot be copied
    last.print(plain("Open ") + plain(str(page), "bold") + plain(" for the whole report."))
    if (out / MODEL).exists():
        last.print(plain("The model to deploy: ") + plain(str(out / MODEL), "bold"))


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
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page to this file, with the 20 strangest images; - for standard output."),
    ] = None,
) -> None:
    """What is in a prepared data set: counts by label and group, splits, patients, problems.

    Example: `fairdx inspect prepared/nih --html nih.html`
    """
    from fairdx.commands.inspect import counted_label, inspection_page, render
    from fairdx.commands.outputs import check_outputs, write_output
    from fairdx.data.base import FILES, PreparedDataset
    from fairdx.data.inspect import describe

    if html and not pixels:
        raise InputError("--html shows images and needs their pixels: leave out --no-pixels")
    check_outputs({"--json": json, "--html": html}, [folder / name for name in FILES])
    with interruptible(NOTHING):
        dataset = PreparedDataset.open(folder)
        counted_label(dataset.meta, label)  # before all pixels are read
        description = describe(dataset, pixels=pixels)
    # Where a file goes to standard output, the table would stand in its middle.
    PlainConsole(stderr=Path("-") in (json, html), wrap=True).print(render(description, label=label))
    if json:
        write_output(json, description.to_json())
    if html:
        write_output(html, inspection_page(dataset, description, label=label))


def main() -> None:
    """Runs the command line: status 2 for bad input, 1 for a failed run, a traceback only with --debug."""
    heed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # none where it is closed
            # No work that was done ends in an error because a terminal lacks a sign that we print.
            stream.reconfigure(errors="backslashreplace")
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
            from fairdx.commands.monitor import add_monitor
            from fairdx.commands.predict import add_predict
            from fairdx.commands.prepare import add_prepare
            from fairdx.commands.study import add_studies
            from fairdx.commands.summary import add_checklist, add_summary
            from fairdx.commands.utility import add_utility

            add_check_model(app)
            add_convert_weights(app)
            add_explain(app)
            add_export(app)
            add_monitor(app)
            add_predict(app)
            add_prepare(app)
            add_studies(app)
            add_summary(app)
            add_checklist(app)
            add_utility(app)
        with room_in(None):
            app(arguments)
    except SystemExit as ended:
        stop = unsaid(ended)
        if stop is None:
            raise
        sys.exit(say_stopped(stop, "before the work was done"))
    except InputError as error:
        _stop(error, 2, debug)
    except ModuleNotFoundError as error:
        _stop(_missing(error), 2, debug)
    except Exception as error:
        _stop(error, 1, debug)


EXTRAS: Final = {
    **dict.fromkeys(("torch", "torchvision", "timm", "lightning_fabric", "safetensors"), "train"),
    **dict.fromkeys(("optuna", "sklearn", "fairlearn", "sqlalchemy"), "train,study"),
    **dict.fromkeys(("pydicom", "openjpeg"), "dicom"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    "onnxruntime": "predict",
    "highdicom": "dicom-sr",
    "nibabel": "nifti",
    "openpyxl": "excel",
    "psycopg": "postgresql",
}
"""The extra that brings a package that is not always there."""


def _missing(error: ModuleNotFoundError) -> Exception:
    """What to install; other missing modules are failures of our own, or of a user's code."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        return error
    return InputError(f"this command needs the package {name}: pip install 'fairdx[{EXTRAS[name]}]'")


def _stop(error: Exception, status: int, debug: bool) -> None:
    if debug:
        raise error
    sys.stderr.write(f"fairdx: {printable(str(error)) or type(error).__name__}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
