"""`fairdx explain`: where a model looks, with the overlap of its maps tested against shuffled pairs."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as `second_opinion=200`.")
]


def add_explain(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(explain)


def explain(
    place: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A run's folder, or a model folder.")],
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
) -> None:
    """Where a model looks: maps of diagnosis and group, their overlap against shuffled pairs (figure 4).

    Example: `fairdx explain runs/phantom --images 5000 --images 5007`
    """
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
    try:
        explained, folder = explain_folder(request)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        raise typer.Exit(130) from None
    console = Console(highlight=False)
    for sentence in explained.explanation.sentences:
        console.print(f"- {sentence}", markup=False)
    console.print(f"All figures are in {folder / 'overlap.json'}, the maps in {folder / 'figure4.png'}.")
