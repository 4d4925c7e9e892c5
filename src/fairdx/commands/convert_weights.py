"""`fairdx convert-weights FILE`: weights of another library under the names that timm has for them."""

from pathlib import Path
from typing import Annotated

import typer

from fairdx.core.console import PlainConsole, plain


def add_convert_weights(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("convert-weights")(convert_weights)


def convert_weights(
    source: Annotated[Path, typer.Argument(help="Weights: .safetensors, or .pth with plain tensors.")],
    encoder: Annotated[str, typer.Option(help="Name of the network in timm.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
) -> None:
    """Weights of the same network from another library, for `model.weights`; runs no code of the file.

    Example: `fairdx convert-weights lite0.pth --encoder tf_efficientnet_lite0 --out lite0.safetensors`
    """
    from fairdx.commands.outputs import check_outputs
    from fairdx.models.conversion import convert_weights as convert

    check_outputs({"--out": out}, [source])
    count = convert(source, encoder, out)
    PlainConsole().print(plain(f"{count} tensors: ") + plain(str(out), "bold"))
