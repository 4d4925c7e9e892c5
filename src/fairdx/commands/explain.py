"""`fairdx explain`: where a model looks, with the overlap of its maps tested against shuffled pairs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from fairdx.commands.interrupts import GOES_ON, NOTHING, interruptible
from fairdx.core.console import PlainConsole

Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as `second_opinion=200`.")
]


def add_explain(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(explain)


def explain(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|MODEL|CONFIG.toml",
            help="A run's folder, a model folder, or a file that says what to train and explain over seeds.",
        ),
    ],
    images: Annotated[
        list[str], typer.Option(help="An image to show in the figure, by name or row; may be repeated.")
    ] = [],  # noqa: B006 - typer copies it
    data: Annotated[
        Path | None, typer.Option(help="A prepared data set; a model folder needs one, a run has its own.")
    ] = None,
    settings: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Folder to write to; the run's by default.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the file of a frozen model run code of its own.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="Where the frozen model is now, if its file has moved.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Seeds at a time, of a file, each in a process of its own.")
    ] = 1,
) -> None:
    """Where a model looks: maps of diagnosis and group, their overlap against shuffled pairs (figure 4).

    Example: `fairdx explain runs/phantom --images 5000 --images 5007`
    """
    if place.suffix == ".toml":
        _over_seeds(place, tuple(settings), out, processes)
        return
    from fairdx.explain.settings import load_explain_settings
    from fairdx.runs.explain import ExplainRequest, explain_folder

    request = ExplainRequest(
        place=place,
        settings=load_explain_settings(tuple(settings)),
        chosen=tuple(images),
        data=data,
        out=out,
        trust=trust,
        source=source,
    )
    with interruptible(NOTHING):
        explained, folder = explain_folder(request)
    console = PlainConsole(wrap=True)
    for sentence in explained.explanation.sentences:
        console.print(f"- {sentence}")
    console.print(f"All figures are in {folder / 'overlap.json'}, the maps in {folder / 'figure4.png'}.")


def _over_seeds(config: Path, settings: tuple[str, ...], out: Path | None, processes: int) -> None:
    from fairdx.runs.figure4 import TABLE, figure4, load_figure4

    folder = out or Path("runs") / config.stem
    with interruptible(GOES_ON):
        figure4(load_figure4(config, settings), folder, processes=processes)
    PlainConsole(wrap=True).print(Markdown((folder / TABLE).read_text(encoding="utf-8")))
