"""`fairdx check-model MODEL DATA`: does a foreign model fit, before anybody trains."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fairdx.commands.interrupts import NOTHING, interruptible
from fairdx.core.console import PlainConsole, plain

if TYPE_CHECKING:
    from fairdx.models.sources import GivenModel
    from fairdx.runs.check import ModelCheck

Set = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of [model], as `contract.high=255`."),
]


def add_check_model(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("check-model")(check_model_command)


def check_model_command(
    model: Annotated[
        str, typer.Argument(help="A model (file or module:factory), or a run's TOML file with [model].")
    ],
    data: Annotated[Path, typer.Argument(help="A prepared data set.")],
    settings: Set = [],  # noqa: B006 - typer copies it
    label: Annotated[str | None, typer.Option(help="Label; the data set's first by default.")] = None,
    attribute: Annotated[
        str | None, typer.Option(help="Sensitive attribute; the data set's first by default.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all that was found (JSON) to this file.")] = None,
) -> None:
    """Runs a model on validation images: does its input contract fit, do gradients flow, first findings.

    Example: `fairdx check-model skin.onnx prepared/skin --set contract.layout=NHWC
    --set contract.output=probabilities`
    """
    from fairdx.commands.outputs import check_outputs, write_output
    from fairdx.data.base import FILES
    from fairdx.runs.check import check_model

    chosen = _settings(model, settings)
    check_outputs({"--json": json}, [model, chosen.source, *(data / name for name in FILES)])
    with interruptible(NOTHING):
        found = check_model(chosen, data, label=label, attribute=attribute)
    if json is not None:
        write_output(json, json_module.dumps(found.as_json(), indent=2, allow_nan=False))
    _print(found)


def _settings(model: str, settings: list[str]) -> "GivenModel":
    from fairdx.core.config import merge, override, read_toml, validate
    from fairdx.core.errors import InputError
    from fairdx.models.sources import GivenModel

    values: dict[str, Any] = {"source": model}
    if model.endswith(".toml"):
        values = read_toml(Path(model)).get("model", {})
        if not isinstance(values, dict) or "source" not in values:
            raise InputError(f"{model}: [model] has no `source`: there is no model to check")
    return validate(GivenModel, merge(override(values, settings), {}), where=f"{model} [model]")


def _print(found: "ModelCheck") -> None:
    console = PlainConsole(wrap=True)
    layer = f"input of `{found.layer}`, {found.features} numbers" if found.layer else "none to look at"
    retrained = "yes" if found.trainable else "no: only methods that leave it as it is"
    lines = {
        "Model": f"{found.source} ({found.kind}, {found.parameters:,} weights)",
        "Embedding": layer,
        "Can be trained anew": retrained,
        "Gradients reach the pixels of": f"{found.gradient:.0%} of the images",
    }
    if found.onnx_difference is not None:
        lines["Largest difference to ONNX Runtime"] = f"{found.onnx_difference:.1e}"
    if found.calibration is not None:
        lines["Calibration"] = ", ".join(f"{name} {value:.3f}" for name, value in found.calibration.items())
    for name, value in lines.items():
        console.print(plain(f"{name}: ", "bold") + plain(value))
    console.print(_table(found))
    console.print(_verdict(found))
    for text in found.findings:
        console.print(f"- {text}")


def _table(found: "ModelCheck") -> Table:
    table = Table(title=f"Contracts on {found.images:,} {found.split} images")
    for column in ("Contract", "AUC", "Brier score"):
        table.add_column(column, justify="left" if column == "Contract" else "right")
    for one in (found.given, *found.usual):
        brier = "" if one.brier is None else f"{one.brier:.4f}"
        table.add_row(one.name, f"{one.auroc:.4f}", brier)
    return table


def _verdict(found: "ModelCheck") -> str:
    from fairdx.runs.check import NO_BARS

    best = found.usual[0]
    if found.lost:
        return (
            f"The model gives no number as its score for {found.lost:,} of {found.images:,} images: nothing "
            "can be learnt through it, and nothing said of it."
            + (f" With `{best.name}` its AUC is {best.auroc:.4f}: correct the contract." * (not found.fits))
        )
    if found.gradient < 1:
        return (
            "No gradient reaches some of the images: a mask cannot learn through this model. Methods that "
            "need none: score_shift, concept_erasure, optimal_transport."
        )
    if not found.fits and best.name == NO_BARS:
        return (
            f"The images have black bars, and the model does not expect them: without, the AUC is "
            f"{best.auroc:.4f} instead of {found.given.auroc:.4f}. Prepare them with `--geometry stretch`."
        )
    if not found.fits:
        return (
            f"The contract does not fit: with `{best.name}` the AUC is {best.auroc:.4f} instead of "
            f"{found.given.auroc:.4f}. Correct the contract before you train anything."
        )
    if found.given.auroc < 0.5:
        return "The AUC is below 0.5: it ranks the ill below the healthy. Is `finding` the right column?"
    return "The contract fits: no usual one has an AUC that is larger by more than 0.01."
