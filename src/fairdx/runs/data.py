"""The data of a run: opened, checked before anything is trained, and described."""

import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric

from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.split import SPLITS
from fairdx.data.task import Task
from fairdx.data.verify import verified
from fairdx.methods import Spec
from fairdx.models.loading import TaskImages
from fairdx.runs.results import Data
from fairdx.runs.settings import DataSettings, RunSettings
from fairdx.training.observers import Observer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """What a run needs at every step."""

    settings: RunSettings
    images: TaskImages
    fabric: Fabric
    phantom: Phantom | None
    reference: str
    observers: tuple[Observer, ...] = ()
    """Who hears what training finds."""

    @cached_property
    def spec(self) -> Spec:
        """What a method must know of the data."""
        meta, task = self.images.dataset.meta, self.images.task
        counts = np.zeros((len(task.class_names), len(task.group_names)), dtype=np.int64)
        train = task.indices("train")
        np.add.at(counts, (task.label[train], task.group[train]), 1)
        return Spec(
            meta.channels,
            meta.size,
            *counts.shape,
            tuple(tuple(row) for row in counts.tolist()),
            task.group_names,
        )


def open_data(settings: RunSettings, folder: Path, phantoms: Path | None, fabric: Fabric) -> RunData:
    """Opens the data of a run, or draws the phantom.

    Args:
        settings: Everything that the run depends on.
        folder: The run's folder, for a phantom of its own.
        phantoms: Where rendered phantoms are shared between runs; None for one of its own.
        fabric: Device and processes.

    Raises:
        InputError: The data cannot be used.
    """
    data = settings.data
    if data.root is None:
        phantom: Phantom | None = Phantom(data.phantom)
        name = f"phantom-{_hash(data.phantom)[:12]}"
        rendered = folder / "phantom" if phantoms is None else phantoms / name
        prepare(Phantom(data.phantom).source(), rendered, PrepareOptions(), wait=phantoms is not None)
        dataset = verified(rendered)
    else:
        dataset = verified(data.root)
        own = dataset.meta.source == "phantom"
        phantom = Phantom(PhantomSettings(**dataset.meta.settings)) if own else None
    task = _task(dataset, data)
    reference = _reference(settings, task.group_names)
    _check_splits(task, reference, dataset.root)
    _check_training(task, settings, fabric.world_size, dataset.root)
    return RunData(settings, TaskImages(dataset, task), fabric, phantom, reference)


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


def _check_training(task: Task, settings: RunSettings, processes: int, root: Path) -> None:
    """Finds out before the first stage whether the last one will have full batches and several groups."""
    train = task.indices("train")
    share = len(train) // processes
    for table, config in (("model", settings.model), ("method", settings.method)):
        batch = getattr(config, "batch_size", None) or 0
        times = getattr(config, "accumulate_grad_batches", None) or 1
        if batch * times > share:
            said = f"`{table}.batch_size` is {batch}" + (f", taken {times} times for a step" * (times > 1))
            raise InputError(
                f"{said}, and {root} has {len(train)} usable training images for {processes} "
                f"{'process' if processes == 1 else 'processes'}: give {max(share // times, 2)} or less"
                + f", and a smaller `{table}.accumulate_grad_batches`"
                * (share // times < 2)
            )
    seen = {task.group_names[code] for code in task.group[train]}
    missing = [name for name in task.group_names if name not in seen]
    if len(seen) < 2 and settings.method_name != "vanilla":
        raise InputError(
            f"every training image of {root} is of the group {', '.join(seen)} of {task.attribute_name}: no "
            "method can learn to be fair to a group that it never sees"
        )
    if missing:
        logger.warning(
            "%s has no training image of %s %s: what is learnt says nothing of it",
            root,
            task.attribute_name,
            ", ".join(missing),
        )


def _reference(settings: RunSettings, groups: tuple[str, ...]) -> str:
    reference = settings.evaluation.reference or groups[0]
    if reference not in groups:
        raise InputError(f"`evaluation.reference`: there is no group `{reference}`, only {', '.join(groups)}")
    return reference


def _hash(phantom: PhantomSettings) -> str:
    text = json.dumps([phantom.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def describe(current: RunData) -> Data:
    """Returns what `results.json` says of the data."""
    dataset, task = current.images.dataset, current.images.task
    test = task.indices("test")
    return Data(
        source=dataset.meta.source,
        hash=dataset.meta.hash,
        size=dataset.meta.size,
        channels=dataset.meta.channels,
        label=task.label_name,
        classes=tuple(task.class_names),
        attribute=task.attribute_name,
        groups=tuple(task.group_names),
        reference=current.reference,
        images={split: len(task.indices(split)) for split in SPLITS},
        left_out=int((~task.usable).sum()),
        test_patients=len(set(task.patient[test])),
        prevalence={
            group: float(np.mean(task.label[test][task.group[test] == code] == 1))
            if (task.group[test] == code).any()
            else None
            for code, group in enumerate(task.group_names)
        },
    )
