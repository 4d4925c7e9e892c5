"""One call from anybody's model to a fair one."""

from pathlib import Path
from typing import Any

from torch import nn

from fairdx.core.config import merge, override
from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.models.sources import MEMORY
from fairdx.models.store import StoredModel, load_model
from fairdx.runs.files import MODEL
from fairdx.runs.page import write_run_report
from fairdx.runs.run import run
from fairdx.runs.settings import build_settings


def mitigate(
    model: nn.Module | str | Path,
    data: PreparedDataset | str | Path,
    out: str | Path,
    *,
    method: str = "fair_diagnosis",
    contract: dict[str, Any] | None = None,
    settings: tuple[str, ...] = (),
    resume: bool = False,
) -> StoredModel:
    """Makes a fair model of a frozen one: learns the method, measures it, writes report and model folder.

    Args:
        model: A network in memory, or where one is: a file, or `package.module:factory`.
        data: A prepared data set, or its folder.
        out: Folder for everything that comes out, as that of `fairdx run`.
        method: Name of the method.
        contract: What the model takes and gives; the keys of `fairdx.models.contract.Contract`.
        settings: Changes of the form `key=value`, as in a run's file: `data.label=edema`, `method.eta=0.1`.
        resume: Whether to go on from an interrupted call.

    Returns:
        The fair model; its `card.metrics` has every figure before and after.

    Raises:
        InputError: The model, the data or a setting cannot be used, or the method cannot be deployed.

    Examples:
        >>> fair = mitigate(network, "prepared/mine", "runs/fair", contract={"high": 255})  # doctest: +SKIP
        >>> fair.scores(images)  # doctest: +SKIP
    """
    network = model if isinstance(model, nn.Module) else None
    source = f"{MEMORY}{type(network).__name__}" if network is not None else str(model)
    root = data.root if isinstance(data, PreparedDataset) else Path(data)
    values = {
        "data": {"root": str(root)},
        "method": {"name": method},
        "model": {"source": source, "contract": contract or {}},
    }
    folder = Path(out)
    chosen = build_settings(override(merge(values, {}), settings), where="settings")
    run(chosen, folder, resume=resume, network=network)
    write_run_report(folder)
    if not (folder / MODEL).exists():
        raise InputError(f"method `{method}` draws lots and cannot be deployed; its report is in {folder}")
    return load_model(folder, trust=bool(getattr(chosen.model, "trust", False)), network=network)
