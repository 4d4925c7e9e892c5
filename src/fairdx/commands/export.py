"""`fairdx export RUN --format onnx`: a model as a file that other software runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fairdx.commands.interrupts import NOTHING, interruptible
from fairdx.core.console import PlainConsole, plain
from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from fairdx.deploy.comparison import Samples
    from fairdx.deploy.export import Exported


def add_export(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(export)


def export(
    model: Annotated[Path, typer.Argument(help="A run, or its model folder.")],
    format_: Annotated[
        Literal["onnx", "torch-export", "safetensors", "triton", "monai"],
        typer.Option("--format", help="ONNX, PyTorch, weights alone, a Triton repository, a MONAI bundle."),
    ] = "onnx",
    mask_only: Annotated[
        bool,
        typer.Option("--mask-only", help="The mask alone, to put in front of a model that nobody may touch."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to, with a card; the model folder by default.")
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Version of ONNX's operators; 18 by default.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Prepared data set to compare on; the run's own by default, where it is there."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Where the file of a foreign model is now, if it has moved.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a foreign model that may run code of its own (TorchScript).")
    ] = False,
) -> None:
    """Exports a model, and keeps the file only if it scores and decides as PyTorch does.

    Example: `fairdx export runs/demo --format onnx`

    Example: `fairdx export runs/demo --format triton --mask-only --out to_deploy`
    """
    from fairdx.deploy.export import Request, export

    with interruptible(NOTHING):
        exported = export(
            Request(
                folder=model,
                format=format_,
                content="mask" if mask_only else "model",
                out=out,
                opset=opset,
                trust=trust,
                source=source,
                samples=_samples(model, data),
            )
        )
    _tell(exported)


def _samples(model: Path, data: Path | None) -> "Samples | None":
    """Validation images of the data set that is given, or that the run was made with."""
    from fairdx.data.base import PreparedDataset
    from fairdx.deploy.comparison import validation_images
    from fairdx.models.card import model_folder, read_card

    folder = model_folder(model)
    card = read_card(folder, check=())
    if data is not None:
        found = PreparedDataset.open(data)
        form = (found.meta.channels, found.meta.size)
        if form != (card.image.channels, card.image.size):
            raise InputError(
                f"{data} has images of {form[0]} x {form[1]} x {form[1]}, and the model takes "
                f"{card.image.channels} x {card.image.size} x {card.image.size}"
            )
        return validation_images(found)
    for place in _places(folder.parent):
        try:
            found = PreparedDataset.open(place)
        except InputError:
            continue  # gone, moved, or not finished: then the comparison is on noise, and says so
        if found.meta.hash == card.data.get("hash"):
            return validation_images(found)
    return None


def _places(run: Path) -> list[Path]:
    """Where the data set of a run may be."""
    from fairdx.runs.files import CONFIG

    try:
        root = json.loads((run / CONFIG).read_bytes())["data"]["root"]
    except (OSError, ValueError, LookupError, TypeError):
        root = None  # a model folder alone, without the run that made it
    return [run / "phantom", *([Path(root)] if root else [])]


def _tell(exported: "Exported") -> None:
    entry, console = exported.entry, PlainConsole()
    console.print(plain("Wrote ") + plain(str(exported.path), "bold"))
    images = "validation images" if entry.compared_on == "validation" else "images of noise"
    console.print(
        f"On {entry.images} {images} it differs from PyTorch by at most {entry.largest_difference:.1e}, and "
        f"{entry.equal_decisions:.1%} of the decisions are the same."
    )
    for note in exported.notes:
        console.print(note)
