"""`fairdx utility CONFIG`: what else the frozen embeddings are good for."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from fairdx.commands.interrupts import GOES_ON, interruptible
from fairdx.core.console import PlainConsole, plain

Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as `utility.fewest=5`.")
]


def add_utility(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(utility)


def utility(
    config: Annotated[Path, typer.Argument(help="A run's TOML file, with a table [utility] if need be.")],
    settings: Set = [],  # noqa: B006 - typer copies it
    out: Annotated[Path | None, typer.Option(help="Folder to write to; runs/NAME by default.")] = None,
) -> None:
    """Other findings from the frozen encoder, with and without its extras (figure 3); goes on if interrupted.

    Example: `fairdx utility configs/figure3_data_utility.toml`
    """
    from fairdx.utility.run import data_utility
    from fairdx.utility.settings import load_utility_settings

    folder = out or Path("runs") / config.stem
    with interruptible(GOES_ON):
        figures = data_utility(load_utility_settings(config, tuple(settings)), folder)
    if figures is None:
        return
    console = PlainConsole(wrap=True)
    console.print(Markdown((folder / "utility.md").read_text(encoding="utf-8")))
    console.print(plain("The figure: ") + plain(str(folder / "figure3.svg"), "bold"))
