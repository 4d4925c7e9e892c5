"""One run: data, stages, predictions, figures. Everything it finds is written to files that a report reads.

A run folder holds `config.json` (every setting), `results.json`, `predictions.parquet`, `history.parquet`,
`samples.npz` and the weights of each stage under `stages/`, named by the hash of what they depend on.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric

from fairdx import __version__
from fairdx.core.errors import InputError
from fairdx.core.files import write_whole
from fairdx.core.locks import locked
from fairdx.data.base import PreparedDataset, Task
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.split import SPLITS
from fairdx.methods import METHODS, Method, Spec
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import make_fabric
from fairdx.runs.files import HISTORY, PREDICTIONS, RESULTS, SAMPLES, STAGES, check_free, save_settings
from fairdx.runs.measure import Logits, Run, measure
from fairdx.runs.settings import DataSettings, RunSettings
from fairdx.training.fit import RECIPE, Record, fit

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SAMPLES_PER_CELL = 2
"""Images of each group and label shown in the report."""


def run(
    settings: RunSettings,
    folder: Path,
    *,
    resume: bool = False,
    stages: Path | None = None,
    phantoms: Path | None = None,
    beside_vanilla: bool = True,
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

    Returns:
        The content of `results.json`; None in all but the first of several processes.

    Raises:
        InputError: The data or settings cannot be used, or `folder` holds a run with other settings.
        fairdx.training.fit.TrainingError: A loss is no longer finite.
    """
    start = time.monotonic()
    fabric = make_fabric(settings.trainer)
    with fabric.rank_zero_first():
        check_free(folder, settings, RESULTS)
        current = _open(settings, folder, phantoms, fabric)
        save_settings(folder, settings)
    method = METHODS[settings.method_name].build(settings.method, _spec(current), seed=settings.seed)
    history: list[Record] = []
    figures: dict[str, dict[str, Any]] = {}
    tables = []
    place = _Stages(stages or folder / STAGES, resume, shared=stages is not None)
    for name, logits in _trained(current, method, place, history):
        plain = name == "vanilla"
        if plain and settings.method_name != name and not beside_vanilla:
            continue
        figures[name], table = measure(current, name, logits, None if plain else method.adjust)
        tables.append(table)
    results = {
        "schema_version": SCHEMA_VERSION,
        "fairdx_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "data": _describe(current),
        "kept_epochs": {record["stage"]: record["epoch"] for record in history if record["kept"]},
        "methods": figures,
    }
    if not fabric.is_global_zero:
        return None
    pd.concat(tables, ignore_index=True).to_parquet(folder / PREDICTIONS)
    pd.DataFrame(history).to_parquet(folder / HISTORY)
    _save_samples(current, method, folder)
    write_whole(folder / RESULTS, json.dumps(results, indent=2, allow_nan=False).encode())
    return results


def train(settings: RunSettings, *, stages: Path, phantoms: Path) -> tuple[Run, Method]:
    """Trains all stages of a method and measures nothing; what is finished or begun is not done again.

    Args:
        settings: Everything that the run depends on.
        stages: Where to keep trained stages.
        phantoms: Where to keep rendered phantoms.

    Returns:
        The data, and the method with its final weights.

    Raises:
        InputError: The data or settings cannot be used.
        fairdx.training.fit.TrainingError: A loss is no longer finite.
    """
    fabric = make_fabric(settings.trainer)
    with fabric.rank_zero_first():
        current = _open(settings, phantoms, phantoms, fabric)
    method = METHODS[settings.method_name].build(settings.method, _spec(current), seed=settings.seed)
    for _ in _trained(current, method, _Stages(stages, True, shared=True), []):
        pass  # every stage is trained in passing from one model to the next
    return current, method


def _open(settings: RunSettings, folder: Path, phantoms: Path | None, fabric: Fabric) -> Run:
    data = settings.data
    if data.root is None:
        phantom: Phantom | None = Phantom(data.phantom)
        name = f"phantom-{_hash(data.phantom.model_dump(mode='json'))[:12]}"
        rendered = folder / "phantom" if phantoms is None else phantoms / name
        dataset = prepare(
            Phantom(data.phantom).source(), rendered, PrepareOptions(), wait=phantoms is not None
        )
    else:
        dataset = PreparedDataset.open(data.root)
        own = dataset.meta.source == "phantom"
        phantom = Phantom(PhantomSettings(**dataset.meta.settings)) if own else None
    task = _task(dataset, data)
    reference = _reference(settings, task.group_names)
    _check_splits(task, reference, dataset.root)
    return Run(settings, TaskImages(dataset, task), fabric, phantom, reference)


def _task(dataset: PreparedDataset, data: DataSettings) -> Task:
    task = dataset.task(data.label, data.attribute)
    if data.fold is None:
        return task
    return task.fold(data.fold, data.folds, seed=data.fold_seed, validation=data.fold_validation)


def _check_splits(task: Task, reference: str, root: Path) -> None:
    """Finds out before training, not after it, whether every split can be used."""
    for split in SPLITS:
        indices = task.indices(split)
        if len(indices) == 0 and split == "validation":
            continue
        for code, name in enumerate(task.class_names):
            if not (task.label[indices] == code).any():
                raise InputError(
                    f"{root} has no {split} image whose {task.label_name} is `{name}`; choose another label, "
                    "or prepare it with another --seed or larger --test and --validation"
                )
    tested = {task.group_names[code] for code in task.group[task.indices("test")]}
    if len(tested) < 2 or reference not in tested:
        raise InputError(
            f"{root} has test images of the groups {', '.join(sorted(tested))} only; two are needed, and the "
            f"reference {reference} among them"
        )


def _reference(settings: RunSettings, groups: tuple[str, ...]) -> str:
    reference = settings.evaluation.reference or groups[0]
    if reference not in groups:
        raise InputError(f"`evaluation.reference`: there is no group `{reference}`, only {', '.join(groups)}")
    return reference


def _spec(current: Run) -> Spec:
    meta, task = current.images.dataset.meta, current.images.task
    counts = np.zeros((len(task.class_names), len(task.group_names)), dtype=np.int64)
    train = task.indices("train")
    np.add.at(counts, (task.label[train], task.group[train]), 1)
    return Spec(meta.channels, meta.size, *counts.shape, tuple(tuple(row) for row in counts.tolist()))


@dataclass(frozen=True)
class _Stages:
    """Where trained stages are kept."""

    folder: Path
    resume: bool
    shared: bool
    """Whether other processes may train the same stages at the same time."""

    @contextmanager
    def hold(self, name: str, fabric: Fabric) -> Iterator[Path]:
        """Yields a stage's folder; of shared ones, when no other process trains the stage any more."""
        folder = self.folder / name
        with ExitStack() as stack:
            if self.shared and fabric.is_global_zero:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder, wait=True))
            fabric.barrier()  # all our processes find the stage in the same state
            yield folder


def _trained(
    current: Run, method: Method, place: _Stages, history: list[Record]
) -> Iterator[tuple[str, Logits]]:
    """Trains stage by stage; yields a name and a model after the first stage (vanilla) and after the last."""
    settings = current.settings
    key = _data_key(current)
    stages = method.stages()
    for number, stage in enumerate(stages):
        key = _hash(key, RECIPE, stage.name, stage.config)
        with place.hold(f"{stage.name}-{key[:12]}", current.fabric) as folder:
            history += fit(
                stage,
                current.images,
                fabric=current.fabric,
                settings=settings.trainer,
                seed=settings.seed,
                folder=folder,
                resume=place.resume,
            )
        if number == 0:
            yield "vanilla", stage.logits
        elif history[-stage.epochs - 1]["kept"]:
            logger.warning(
                "stage `%s`: on validation no epoch was fairer within the budget of %g; nothing is changed",
                stage.name,
                stage.budget,
            )
    if settings.method_name != "vanilla":
        yield settings.method_name, method.logits


def _data_key(current: Run) -> str:
    """Hash of everything outside a stage's own settings that its weights depend on."""
    settings, task = current.settings, current.images.task
    data: tuple[Any, ...] = (current.images.dataset.meta.hash, task.label_name, task.attribute_name)
    given = settings.data
    if given.fold is not None:
        data += (given.fold, given.folds, given.fold_seed, given.fold_validation)
    return _hash(*data, settings.seed, settings.trainer.model_dump(mode="json"))


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _describe(current: Run) -> dict[str, Any]:
    dataset, task = current.images.dataset, current.images.task
    test = task.indices("test")
    return {
        "source": dataset.meta.source,
        "hash": dataset.meta.hash,
        "size": dataset.meta.size,
        "channels": dataset.meta.channels,
        "label": task.label_name,
        "classes": list(task.class_names),
        "attribute": task.attribute_name,
        "groups": list(task.group_names),
        "reference": current.reference,
        "images": {split: len(task.indices(split)) for split in SPLITS},
        "left_out": int((~task.usable).sum()),
        "test_patients": len(set(task.patient[test])),
        "prevalence": {
            group: float(np.mean(task.label[test][task.group[test] == code] == 1))
            if (task.group[test] == code).any()
            else None
            for code, group in enumerate(task.group_names)
        },
    }


def _save_samples(current: Run, method: Method, folder: Path) -> None:
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
        masked = method.masked(batch.image).float()
    np.savez_compressed(
        folder / SAMPLES,
        image=batch.image.cpu().numpy(),
        masked=masked.cpu().numpy(),
        label=task.label[indices],
        group=task.group[indices],
    )
