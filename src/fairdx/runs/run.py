"""One run: data, stages, predictions, figures. Everything it finds is written to files that a report reads.

A run folder holds `config.json` (every setting), `config.toml` (the same, to repeat the run), `results.json`,
`predictions.parquet`, `history.parquet` and `history.csv`, `samples.npz` and the weights of each stage under
`stages/`, named by the hash of what they depend on.
"""

import io
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn

from fairdx import __version__
from fairdx.core.files import write_whole
from fairdx.methods import Method
from fairdx.models.cluster import check_started
from fairdx.models.fair import FairModel
from fairdx.models.runtime import make_fabric, precision_of
from fairdx.runs.card import save_run_model
from fairdx.runs.data import RunData, describe, open_data
from fairdx.runs.files import (
    CONFIG_TOML,
    HISTORY,
    PREDICTIONS,
    RESULTS,
    SAMPLES,
    STAGES,
    check_free,
    save_settings,
)
from fairdx.runs.folder import to_toml
from fairdx.runs.measure import Measured, measure
from fairdx.runs.precision import recalled, remember
from fairdx.runs.reached import note_of_masks
from fairdx.runs.repeat import Earlier, fingerprints, made_with
from fairdx.runs.results import SCHEMA_VERSION, MethodFigures, RunResults
from fairdx.runs.settings import RunSettings
from fairdx.runs.together import check_same_data, check_together, held, in_all
from fairdx.runs.tracking import tracking
from fairdx.runs.trained import StageFolders, obtain_model, train_method
from fairdx.training.choice import Record

logger = logging.getLogger(__name__)

SAMPLES_PER_CELL = 2
"""Images of each group and label shown in the report."""


def run(  # noqa: PLR0913 - each is one fact of the run, and all but two are keywords
    settings: RunSettings,
    folder: Path,
    *,
    resume: bool = False,
    stages: Path | None = None,
    phantoms: Path | None = None,
    beside_vanilla: bool = True,
    network: nn.Module | None = None,
    hold: bool = True,
    earlier: Earlier | None = None,
) -> dict[str, Any] | None:
    """Trains one method and measures it beside the same model without mitigation.

    Args:
        settings: Everything that the run depends on.
        folder: Where to write; made if needed.
        resume: Whether to go on from an unfinished stage.
        stages: Where to keep trained stages, for runs that share them; in `folder` by default. A process
            that needs a stage another is training waits for it.
        phantoms: Where to keep rendered phantoms, for runs that share them; in `folder` by default.
        beside_vanilla: Whether to measure the model without mitigation as well.
        network: The model itself, where the settings say that it is in memory.
        hold: Whether to hold the folder against other processes; False where the caller does.
        earlier: The finished run that this one repeats, to be compared with it.

    Returns:
        The content of `results.json`; None in all but the first of several processes.

    Raises:
        InputError: The data or settings cannot be used, or `folder` holds a run with other settings or the
            stages of the one that is to be repeated, or another process writes to it.
        DiskError: The disk is full.
        fairdx.training.fit.TrainingError: A loss is no longer finite.
    """
    if earlier is not None:
        earlier.check(folder, resume=resume)
    if hold:  # many runs at a time, each of one process, have a study that holds their folders
        check_started(settings.trainer.processes, settings.trainer.nodes)
    place = StageFolders(stages or folder / STAGES, resume, shared=stages is not None)
    settings = recalled(settings, place.folder)
    fabric = make_fabric(settings.trainer)
    with held(folder, fabric, hold=hold):
        return _run(
            settings,
            folder,
            fabric,
            place=place,
            phantoms=phantoms,
            beside_vanilla=beside_vanilla,
            network=network,
            earlier=earlier,
        )


def _run(
    settings: RunSettings,
    folder: Path,
    fabric: Fabric,
    *,
    place: StageFolders,
    phantoms: Path | None,
    beside_vanilla: bool,
    network: nn.Module | None,
    earlier: Earlier | None,
) -> dict[str, Any] | None:
    start = time.monotonic()
    decides = settings.model_dump(mode="json", exclude={"data": {"root"}}), precision_of(settings.trainer)
    check_together(fabric, decides, folder)
    current = in_all(fabric, lambda: _opened(settings, folder, phantoms, fabric))
    check_same_data(fabric, current.images.dataset.meta.hash, current.images.dataset.root)
    made = made_with(current)
    if earlier is not None and fabric.is_global_zero:
        for difference in earlier.differences(made):
            logger.warning("not as it was when %s was made: %s", earlier.folder, difference)
    with tracking(settings, folder, fabric) as heard:
        if fabric.is_global_zero:
            remember(settings, place.folder)
        found = _measured(replace(current, observers=heard.observers), place, network, beside_vanilla)
        if not fabric.is_global_zero:
            return None
        table = pd.concat([one.table for one in found.measured.values()], ignore_index=True)
        prints = fingerprints(found.method.fair, table)
        compared = {} if earlier is None else {"repeats": earlier.compared(made, prints)}
        results = RunResults(
            schema_version=SCHEMA_VERSION,
            fairdx_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - start, 1),
            data=describe(current),
            notes=found.notes,
            kept_epochs={record["stage"]: record["epoch"] for record in found.history if record["kept"]},
            methods={name: MethodFigures.model_validate(one.figures) for name, one in found.measured.items()},
            made_with=made,
            fingerprints=prints,
            **compared,
        ).as_json()
        write_whole(folder / PREDICTIONS, table.to_parquet())
        write_whole(folder / HISTORY, pd.DataFrame(found.history).to_parquet())
        _save_samples(current, found.method, folder)
        save_run_model(current, found.method, found.measured, folder)
        write_whole(folder / RESULTS, json.dumps(results, indent=2, allow_nan=False).encode())
        heard.measured(results)
    return results


def _opened(settings: RunSettings, folder: Path, phantoms: Path | None, fabric: Fabric) -> RunData:
    """Opens the data; the first process also takes the folder for these settings."""
    if fabric.is_global_zero:
        check_free(folder, settings, RESULTS)
    current = open_data(settings, folder, phantoms, fabric)
    if fabric.is_global_zero:
        save_settings(folder, settings)
        write_whole(folder / CONFIG_TOML, to_toml(settings.model_dump(mode="json")).encode())
    return current


@dataclass(frozen=True)
class _Found:
    """What a run comes to before it is written."""

    method: Method
    measured: dict[str, Measured]
    history: list[Record]
    notes: list[str]


def _measured(current: RunData, place: StageFolders, network: nn.Module | None, beside: bool) -> _Found:
    """Trains the method and measures it, and beside it the model without mitigation."""
    obtained = obtain_model(current, place, network)
    measured: dict[str, Measured] = {}
    name = current.settings.method_name
    method, history = train_method(current, place, obtained)
    if beside and name != "vanilla":  # later than the method, which may want more seen in the same pass
        plain = FairModel(obtained.model)
        measured["vanilla"] = measure(current, "vanilla", plain, scores=obtained.scores(plain))
    scores = obtained.scores(method.fair)
    measured[name] = measure(current, name, method.fair, method.adjust, scores=scores)
    history = [*obtained.history, *history]
    notes = [record["note"] for record in history if record.get("note")]
    reached = note_of_masks(current, obtained, method.fair, measured[name])
    return _Found(method, measured, history, notes if reached is None else [*notes, reached])


def train(
    settings: RunSettings,
    folder: Path,
    *,
    stages: Path,
    phantoms: Path,
    check: Callable[[RunData], None] | None = None,
) -> tuple[RunData, Method]:
    """Trains all stages of a method and measures nothing; what is finished or begun is not done again.

    Args:
        settings: Everything that the run depends on.
        folder: Where the course of the training is written to; made if needed.
        stages: Where to keep trained stages.
        phantoms: Where to keep rendered phantoms.
        check: Shown the data before anything is trained, to refuse them.

    Returns:
        The data, and the method with its final weights.

    Raises:
        InputError: The data or settings cannot be used.
        fairdx.training.fit.TrainingError: A loss is no longer finite.
    """
    settings = recalled(settings, stages)
    fabric = make_fabric(settings.trainer)
    current = in_all(fabric, lambda: open_data(settings, phantoms, phantoms, fabric))
    if check is not None:
        check(current)
    place = StageFolders(stages, resume=True, shared=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tracking(settings, folder, fabric) as heard:
        if fabric.is_global_zero:
            remember(settings, stages)
        current = replace(current, observers=heard.observers)
        method, _ = train_method(current, place, obtain_model(current, place))
    return current, method


def _save_samples(current: RunData, method: Method, folder: Path) -> None:
    """Keeps a few test images of each group and label, with what the model is shown instead."""
    task = current.images.task
    test = task.indices("test")
    cells = [
        test[(task.group[test] == group) & (task.label[test] == label)][:SAMPLES_PER_CELL]
        for group in range(len(task.group_names))
        for label in range(min(2, len(task.class_names)))
    ]
    indices = np.concatenate(cells)
    batch = current.images.batch(indices, current.fabric.device)
    with torch.inference_mode(), current.fabric.autocast():
        masked = method.fair.masked(batch.image).float()
    content = io.BytesIO()
    np.savez_compressed(
        content,
        image=batch.image.cpu().numpy(),
        masked=masked.cpu().numpy(),
        label=task.label[indices],
        group=task.group[indices],
    )
    write_whole(folder / SAMPLES, content.getvalue())
