"""From settings to a diagnosis model, and to a method with its final weights."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from fairdx.core.errors import InputError
from fairdx.core.files import set_aside, write_whole
from fairdx.core.locks import locked
from fairdx.methods import METHODS, Method
from fairdx.methods.base import Scores, Stage
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.models.diagnosis import DiagnosisModel, weights_hash
from fairdx.models.fair import FairModel
from fairdx.models.frozen import FrozenModel
from fairdx.models.runtime import precision_of
from fairdx.models.scoring import Seen, predict_seen
from fairdx.models.sources import GivenModel, load_given, onnx_difference
from fairdx.runs.data import RunData
from fairdx.runs.files import as_before, decisive
from fairdx.runs.seen import FOLDER, SeenImages
from fairdx.training.accumulation import check_norms
from fairdx.training.checkpoint import BEST, FINISHED, LAST, read_finished
from fairdx.training.choice import Record
from fairdx.training.fit import RECIPE, SeenBefore, TrainingError, fit

logger = logging.getLogger(__name__)

CHECKED_IMAGES: Final = 16
BEHIND: Final = "behind.txt"
"""In a stage's folder, the hash of the weights it is trained behind. The folder's name tells their settings,
for which another machine trains other weights."""
LARGEST_DIFFERENCE: Final = 1e-3
"""Between a converted ONNX model and ONNX Runtime, on the raw output."""


@dataclass(frozen=True)
class StageFolders:
    """Where trained stages are kept, named by the hash of what they depend on.

    Attributes:
        folder: The folder that holds them.
        resume: Whether to go on from an unfinished stage.
        shared: Whether other processes may train the same stages at the same time.
        finished: Whether to take finished stages alone and train nothing.
    """

    folder: Path
    resume: bool
    shared: bool
    finished: bool = False

    @contextmanager
    def hold(self, name: str, fabric: Fabric, behind: str | None = None) -> Iterator[Path]:
        """Yields a stage's folder; of shared ones, when no other process trains the stage any more.

        Args:
            name: Of the folder.
            fabric: Our processes.
            behind: Hash of the weights that the stage is trained behind, if any. What was trained behind
                others is set aside.

        Raises:
            InputError: Finished stages alone are to be taken, and this one is not, is damaged, or was trained
                behind other weights.
        """
        folder = self.folder / name
        if self.finished:
            if not (folder / FINISHED).exists():
                raise InputError(
                    f"{folder} is not a finished stage: the run was not finished, or its data or settings "
                    "changed"
                )
            read_finished(folder)  # a damaged one is not to be trained again by whoever only looks at it
            if behind is not None and _behind(folder) not in (None, behind):
                raise InputError(
                    f"{folder} was trained behind other weights than those there are now: do the run again "
                    "with --resume, which trains it anew"
                )
        with ExitStack() as stack:
            if self.shared and fabric.is_global_zero:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder, wait=True))
            if behind is not None and not self.finished and fabric.is_global_zero:
                _keep_behind(folder, behind)
            fabric.barrier()  # all our processes find the stage in the same state
            yield folder


def _behind(folder: Path) -> str | None:
    """What a stage was trained behind; None where an earlier version did not say."""
    file = folder / BEHIND
    return file.read_text(encoding="ascii", errors="replace").strip() if file.exists() else None


def _keep_behind(folder: Path, behind: str) -> None:
    """Writes down what a stage is trained behind, and sets aside what was trained behind something else."""
    before = _behind(folder)
    if before == behind:
        return
    found = [path for path in (folder / name for name in (FINISHED, BEST, LAST)) if path.exists()]
    if before is not None and found:
        logger.warning("%s was trained behind other weights than there are now: it is trained again", folder)
        for path in found:
            set_aside(path)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / BEHIND, f"{behind}\n".encode())


@dataclass(frozen=True)
class Obtained:
    """The diagnosis model that methods are given.

    Attributes:
        model: The model, frozen.
        key: Hash of all that its weights depend on.
        history: What its training recorded; empty for a model that was trained elsewhere.
        seen: What it makes of the images.
    """

    model: DiagnosisModel
    key: str
    history: list[Record]
    seen: SeenImages

    def scores(self, fair: FairModel) -> Callable[[NDArray[np.int64]], Scores] | None:
        """Returns what scores images by what the model made of them; None where it has to look again.

        Args:
            fair: A finished model.
        """
        edits = fair.correction is not None and fair.correction.edits
        if fair.model is not self.model or fair.changes_image or edits or fair.temperature != 1:
            return None
        fabric = self.seen.fabric
        return lambda indices: predict_seen(fair.corrected, self.seen_by(fair, indices), fabric)

    def seen_by(self, fair: FairModel, indices: NDArray[np.int64]) -> Seen:
        """Returns what the model makes of images, as a finished or unfinished fair model looks at them."""
        return self.seen.of(fair.views, indices, fair.layers)


def obtain_model(current: RunData, place: StageFolders, network: nn.Module | None = None) -> Obtained:
    """Trains stage 1, or loads the model that was trained elsewhere.

    Args:
        current: Data, settings, device.
        place: Where stages are kept.
        network: The model itself, where the settings say that it is in memory.

    Raises:
        InputError: The model cannot be had, or there are too few images.
        TrainingError: A loss is no longer finite.
    """
    config, spec = current.settings.model, current.spec
    key = _data_key(current)
    if isinstance(config, PretrainingConfig):
        model, stage = pretraining(config, spec, seed=current.settings.seed)
        _check_retraining(current, model)
        key, history = _trained(stage, current, place, key)
        return _obtained(model, key, history, current, place)
    given = load_given(config, classes=spec.classes, size=spec.size, network=network)
    given.to(current.fabric.device).requires_grad_(False)
    given.to(memory_format=torch.channels_last)  # as `load_model` has it, for the same digits
    if config.kind == "onnx":
        _check_conversion(config, given, current)
    contract = config.contract.model_dump(mode="json")
    whose = weights_hash(given), contract
    # What it makes of an image does not depend on who is in which fold.
    seen = hash_of(current.images.dataset.meta.hash, *whose)
    return _obtained(given, hash_of(key, *whose), [], current, place, seen)


def _check_retraining(current: RunData, model: DiagnosisModel) -> None:
    """Says before stage 1 is trained, not after it, what a method that trains the model anew would refuse."""
    name, config = current.settings.method_name, current.settings.method
    if METHODS[name].retrains and (getattr(config, "accumulate_grad_batches", None) or 1) > 1:
        check_norms(name, {"encoder": model})


def _obtained(
    model: DiagnosisModel,
    key: str,
    history: list[Record],
    current: RunData,
    place: StageFolders,
    seen: str | None = None,
) -> Obtained:
    weights = seen or (key, weights_hash(model))  # a stage that was trained again may have others
    precise = hash_of(weights, precision_of(current.settings.trainer))
    folder = place.folder / FOLDER if place.shared else None
    return Obtained(model, key, history, SeenImages(model, current.images, current.fabric, precise, folder))


def _check_conversion(config: GivenModel, given: FrozenModel, current: RunData) -> None:
    """A converted model has to score real images as ONNX Runtime does."""
    indices = current.images.task.indices("train")[:CHECKED_IMAGES]
    image = current.images.batch(indices, current.fabric.device).image
    difference = onnx_difference(config, given, image)
    if not difference <= LARGEST_DIFFERENCE:
        raise InputError(
            f"{config.source}: converted to torch, its output differs from ONNX Runtime's by "
            f"{difference:.2g}; nothing that is learnt through it would hold"
        )


def train_method(current: RunData, place: StageFolders, obtained: Obtained) -> tuple[Method, list[Record]]:
    """Builds the method on a diagnosis model and trains its stages.

    Args:
        current: Data, settings, device.
        place: Where stages are kept.
        obtained: The model.

    Returns:
        The method with its final weights, and what its training recorded.

    Raises:
        InputError: The method does not suit the model or the data.
        TrainingError: A loss is no longer finite, or a weight of the frozen model has moved.
    """
    settings = current.settings
    method = METHODS[settings.method_name].build(
        settings.method, current.spec, obtained.model, seed=settings.seed
    )
    before, key = weights_hash(obtained.model), obtained.key
    behind, history = before, list[Record]()
    seen = partial(obtained.seen_by, method.fair)
    for stage in method.stages():
        key, records = _trained(stage, current, place, key, seen if stage.solve else None, behind)
        behind = hash_of(behind, *(weights_hash(stage.modules[name]) for name in stage.learning))
        history += records
        if stage.choose == "fairness" and records[0]["kept"]:
            logger.warning(
                "stage `%s`: on validation no epoch was fairer within the budget of %g; nothing is changed",
                stage.name,
                stage.budget,
            )
    if weights_hash(obtained.model) != before:
        raise TrainingError(f"method `{settings.method_name}` has changed the frozen model's weights")
    return method, history


def _trained(
    stage: Stage,
    current: RunData,
    place: StageFolders,
    key: str,
    seen: SeenBefore | None = None,
    behind: str | None = None,
) -> tuple[str, list[Record]]:
    """Trains a stage, or loads it where it is finished; returns its key as well."""
    key = hash_of(key, RECIPE, stage.name, as_before(stage.config))
    with place.hold(f"{stage.name}-{key[:12]}", current.fabric, behind) as folder:
        history = fit(
            stage,
            current.images,
            fabric=current.fabric,
            settings=current.settings.trainer,
            seed=current.settings.seed,
            folder=folder,
            resume=place.resume,
            seen=seen,
            observers=current.observers,
        )
    return key, history


def _data_key(current: RunData) -> str:
    """Hash of everything outside a stage's own settings that its weights depend on."""
    settings, task = current.settings, current.images.task
    data: tuple[Any, ...] = (current.images.dataset.meta.hash, task.label_name, task.attribute_name)
    given = settings.data
    if given.fold is not None:
        data += (given.fold, given.folds, given.fold_seed, given.fold_validation)
    return hash_of(*data, settings.seed, decisive(settings.model_dump(mode="json"))["trainer"])


def hash_of(*parts: Any) -> str:
    """Returns the sha256 of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
