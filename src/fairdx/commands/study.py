"""`fairdx compare`, `fairdx ablate` and `fairdx tune`: the same options, one file format."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markdown import Markdown

from fairdx.commands.interrupts import GOES_ON, interruptible
from fairdx.core.console import PlainConsole
from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from fairdx.study.execute import Outcome
    from fairdx.study.settings import Command

Config = Annotated[Path, typer.Argument(help="A study file (TOML); see configs/ for examples.")]
Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as `study.seeds=[0]`.")
]
Out = Annotated[Path | None, typer.Option(help="Folder to write to; studies/NAME by default.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database for several workers, as `postgresql://user@host/name`; by default a file.",
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        min=1,
        help="Runs at a time, each in a process of its own with its share of cores and GPUs.",
    ),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Do runs again that failed earlier.")]


COMMANDS: "Final[dict[Command, str]]" = {
    "compare": """Methods x data sets x seeds, in one table with intervals; after an interruption it goes on.

    Example: `fairdx compare configs/table1_main.toml --set run.data.root=prepared/nih`
    """,
    "ablate": """A grid of settings x seeds, in one table with intervals; after an interruption it goes on.

    Example: `fairdx ablate configs/table3_eta.toml`
    """,
    "tune": """Search settings for a high AUC and a low ADF on validation images; choose within a budget.

    Example: `fairdx tune configs/tune_phantom.toml`
    """,
}
"""The commands and their help."""


def add_studies(app: typer.Typer) -> None:
    """Adds the three commands."""
    for name, text in COMMANDS.items():
        app.command(name, help=text)(study_command(name))


def study_command(command: "Command") -> Callable[..., None]:
    """Makes one of the three commands; they differ in nothing but their name."""

    def run(
        config: Config,
        settings: Set = [],  # noqa: B006 - typer copies it
        out: Out = None,
        storage: Storage = None,
        processes: Processes = 1,
        retry: Retry = False,
    ) -> None:
        _study(
            path=config,
            command=command,
            assignments=tuple(settings),
            out=out,
            storage=storage,
            retry=retry,
            processes=processes,
        )

    return run


def _study(**asked: Any) -> None:
    if find_spec("optuna") is None:
        raise InputError("studies need Optuna: pip install 'fairdx[train,study]'")
    from fairdx.study.run import StudyRequest, run_study

    with interruptible(GOES_ON):
        folder, outcome = run_study(StudyRequest(**asked))
    _report(folder, outcome)
    if outcome.failures:
        raise typer.Exit(1)


def _report(folder: Path, outcome: "Outcome") -> None:
    """Prints the table, what is open and what failed."""
    table = folder / "table.md"
    if table.exists() and len(outcome.rows):
        PlainConsole(wrap=True).print(Markdown(table.read_text(encoding="utf-8")))
    errors = PlainConsole(stderr=True)
    if outcome.open:
        errors.print(
            f"{outcome.open} runs are still open at other workers; the same command completes the table"
        )
    for title, message in outcome.failures:
        errors.print(f"failed: {title}: {message}")
    if outcome.failures:
        errors.print(f"{len(outcome.failures)} failed; --retry-failed does them again")
    if len(outcome.rows):
        errors.print(f"Open {folder / 'study.html'} for all of it.")
