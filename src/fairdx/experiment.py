"""One run: data, stages, predictions, figures. Everything it finds is written to files that a report reads.

A run folder holds `config.json` (every setting), `results.json`, `predictions.parquet`, `history.parquet`,
`samples.npz` and the weights of each stage under `stages/`, named by the hash of what they depend on.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny
from torch import Tensor

from fairdx import __version__
from fairdx.config import Config, merge, override, read_toml, validate
from fairdx.data.base import PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.errors import InputError
from fairdx.fairness.evaluate import evaluate
from fairdx.fairness.threshold import youden_threshold
from fairdx.loading import TaskImages
from fairdx.methods import METHODS, Method, MethodConfig, Spec
from fairdx.runtime import TrainerSettings, make_fabric
from fairdx.training import Record, fit, predict

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
RESULTS, PREDICTIONS, HISTORY, SAMPLES, CONFIG = (
    "results.json",
    "predictions.parquet",
    "history.parquet",
    "samples.npz",
    "config.json",
)
SAMPLES_PER_CELL = 2
"""Images of each group and label shown in the report."""

Scores = NDArray[np.float64]


class DataSettings(Config):
    """What to train and to measure on."""

    root: Path | None = None
    """A prepared data set; without one the phantom is used."""
    phantom: PhantomSettings = PhantomSettings()
    """The phantom's settings, where `root` is not given."""
    label: str | None = None
    """Label Y; the data set's first by default."""
    attribute: str | None = None
    """Sensitive attribute S; the data set's first by default."""


class EvaluationSettings(Config):
    """How results are measured."""

    reference: str | None = None
    """Group s- of the effects; the attribute's first group by default."""
    level: float = Field(0.95, gt=0, lt=1)
    """Nominal coverage of the intervals."""
    replicates: int = Field(1000, ge=2)
    """Bootstrap replicates, by patient."""
    true_effect_patients: int = Field(3000, ge=0)
    """Patients of the phantom that are drawn under interventions; 0 leaves the true effects out."""


class RunSettings(Config):
    """Everything that a run depends on."""

    method_name: str = "fair_diagnosis"
    """Name of the method."""
    method: SerializeAsAny[MethodConfig]
    """The method's own settings."""
    data: DataSettings = DataSettings()
    """Data."""
    trainer: TrainerSettings = TrainerSettings()
    """Device, precision, augmentation."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Intervals and true effects."""
    seed: int = Field(0, ge=0)
    """Seed of weights, order and bootstrap; the split has its own."""


def load_settings(path: Path | None, assignments: tuple[str, ...] = ()) -> RunSettings:
    """Reads a run's settings.

    Args:
        path: A TOML file, or None for all defaults. `[method]` has `name`, `preset` and the method's own
            keys. A relative `data.root` starts from the working directory.
        assignments: Changes of the form `key=value`, as `method.eta=0.1`.

    Raises:
        InputError: The file, a key or a value cannot be used.
    """
    where = str(path) if path else "settings"
    values = override(read_toml(path) if path else {}, assignments)
    chosen = values.pop("method", {})
    if not isinstance(chosen, dict):
        raise InputError(f'{where}: `method` is a table, as in [method] with name = "fair_diagnosis"')
    name = chosen.pop("name", "fair_diagnosis")
    method = METHODS[name]
    preset = chosen.pop("preset", "default")
    presets = {"default": {}, **method.presets}
    if preset not in presets:
        raise InputError(f"{where}: method `{name}` has no preset `{preset}`, only {', '.join(presets)}")
    own = validate(method.config_class, merge(dict(presets[preset]), chosen), where=f"{where} [method]")
    return validate(RunSettings, {**values, "method_name": name, "method": own}, where=where)


@dataclass(frozen=True)
class Run:
    """What a run needs at every step."""

    settings: RunSettings
    folder: Path
    images: TaskImages
    fabric: Fabric
    phantom: Phantom | None

    @property
    def reference(self) -> str:
        """Name of the reference group s-."""
        groups = self.images.task.group_names
        reference = self.settings.evaluation.reference or groups[0]
        if reference not in groups:
            raise InputError(
                f"`evaluation.reference`: there is no group `{reference}`, only {', '.join(groups)}"
            )
        return reference


def run(settings: RunSettings, folder: Path, *, resume: bool = False) -> dict[str, Any]:
    """Trains one method and measures it beside the same model without mitigation.

    Args:
        settings: Everything that the run depends on.
        folder: Where to write; made if needed.
        resume: Whether to go on from an unfinished stage in `folder`.

    Returns:
        The content of `results.json`.

    Raises:
        InputError: The data or settings cannot be used, or `folder` holds a run with other settings.
        fairdx.training.TrainingError: A loss is no longer finite.
    """
    start = time.monotonic()
    _claim(folder, settings)
    current = _open(settings, folder)
    method = METHODS[settings.method_name].build(settings.method, _spec(current), seed=settings.seed)
    history: list[Record] = []
    figures: dict[str, dict[str, Any]] = {}
    tables = []
    for name, logits in _trained(current, method, history, resume):
        figures[name], table = _measure(current, name, logits)
        tables.append(table)
    results = {
        "schema_version": SCHEMA_VERSION,
        "fairdx_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "data": _describe(current),
        "methods": figures,
    }
    if current.fabric.is_global_zero:
        pd.concat(tables, ignore_index=True).to_parquet(folder / PREDICTIONS)
        pd.DataFrame(history).to_parquet(folder / HISTORY)
        _save_samples(current, method)
        (folder / RESULTS).write_text(json.dumps(results, indent=2, allow_nan=False))
    return results


def _claim(folder: Path, settings: RunSettings) -> None:
    """Takes a folder for a run, unless it holds another one."""
    text = settings.model_dump_json(indent=2)
    file = folder / CONFIG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.read_text() != text:
            raise InputError(f"{folder} holds a run with other settings; give another --out, or delete it")
        file.write_text(text)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error


def _open(settings: RunSettings, folder: Path) -> Run:
    data = settings.data
    if data.root is None:
        phantom: Phantom | None = Phantom(data.phantom)
        dataset = prepare(Phantom(data.phantom).source(), folder / "phantom", PrepareOptions())
    else:
        dataset = PreparedDataset.open(data.root)
        own = dataset.meta.source == "phantom"
        phantom = Phantom(PhantomSettings(**dataset.meta.settings)) if own else None
    task = dataset.task(data.label, data.attribute)
    for split in ("train", "test"):
        if len(task.indices(split)) == 0:
            raise InputError(
                f"{dataset.root} has no {split} images with both {task.label_name} and {task.attribute_name}"
            )
    return Run(settings, folder, TaskImages(dataset, task), make_fabric(settings.trainer), phantom)


def _spec(current: Run) -> Spec:
    meta, task = current.images.dataset.meta, current.images.task
    return Spec(meta.channels, meta.size, len(task.class_names), len(task.group_names))


def _trained(
    current: Run, method: Method, history: list[Record], resume: bool
) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Trains stage by stage; yields a name and a model after the first stage (vanilla) and after the last."""
    settings = current.settings
    key = _data_key(current)
    stages = method.stages()
    for number, stage in enumerate(stages):
        key = _hash(key, stage.name, stage.config)
        folder = current.folder / "stages" / f"{stage.name}-{key[:12]}"
        history += fit(
            stage,
            current.images,
            fabric=current.fabric,
            settings=settings.trainer,
            seed=settings.seed,
            folder=folder,
            resume=resume,
        )
        if number == 0:
            yield "vanilla", stage.logits
    if len(stages) > 1:
        yield settings.method_name, method.logits


def _data_key(current: Run) -> str:
    """Hash of everything outside a stage's own settings that its weights depend on."""
    settings, task = current.settings, current.images.task
    data = (current.images.dataset.meta.hash, task.label_name, task.attribute_name)
    return _hash(*data, settings.seed, settings.trainer.model_dump(mode="json"))


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _measure(
    current: Run, name: str, logits: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores validation and test images, fixes the threshold on the former and measures on the latter."""
    task, settings = current.images.task, current.settings
    validation, test = task.indices("validation"), task.indices("test")
    scores = {
        split: predict(logits, current.images, indices, current.fabric)
        for split, indices in (("validation", validation), ("test", test))
    }
    threshold, chosen_on = _threshold(current, logits, validation, scores["validation"])
    figures = _figures(current, test, scores["test"], threshold)
    figures["threshold"] = threshold
    figures["threshold_chosen_on"] = chosen_on
    if threshold is not None:
        figures["at_half"] = _figures(current, test, scores["test"], 0.5)
    if current.phantom is not None and settings.evaluation.true_effect_patients and threshold is not None:
        figures |= _true_effects(current, logits, test, threshold)
    table = pd.concat(
        [
            _predictions(current, name, split, indices, scores[split], threshold)
            for split, indices in (("validation", validation), ("test", test))
            if len(indices)
        ],
        ignore_index=True,
    )
    return figures, table


def _threshold(
    current: Run, logits: Callable[[Tensor], Tensor], validation: NDArray[np.int64], scores: Scores
) -> tuple[float | None, str | None]:
    """The operating point, and the split it was chosen on; none for more than two classes."""
    task = current.images.task
    if len(task.class_names) > 2:
        return None, None
    label = task.label[validation]
    if len(set(label)) == 2:
        return youden_threshold(label, scores[:, 1]), "validation"
    train = task.indices("train")
    logger.warning("no validation images of both classes: the threshold is chosen on training images")
    return youden_threshold(
        task.label[train], predict(logits, current.images, train, current.fabric)[:, 1]
    ), "train"


def _figures(
    current: Run, test: NDArray[np.int64], scores: Scores, threshold: float | None
) -> dict[str, Any]:
    task, settings = current.images.task, current.settings
    estimates = evaluate(
        task.label[test],
        scores[:, 1] if threshold is not None else scores,
        sensitive_features=np.array(task.group_names)[task.group[test]],
        threshold=0.5 if threshold is None else threshold,
        patients=task.patient[test],
        n_replicates=settings.evaluation.replicates,
        seed=settings.seed,
        reference=current.reference,
        level=settings.evaluation.level,
    )
    return {
        name: {key: _json_number(value) for key, value in asdict(estimate).items()}
        for name, estimate in estimates.items()
    }


def _json_number(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _true_effects(
    current: Run, logits: Callable[[Tensor], Tensor], test: NDArray[np.int64], threshold: float
) -> dict[str, Any]:
    """The effects measured by drawing the same patients of the phantom under interventions."""
    assert current.phantom is not None
    groups = current.images.task.group_names
    reference = groups.index(current.reference)
    index = test[: current.settings.evaluation.true_effect_patients]
    decide = partial(_decide, current, logits, threshold)
    found = {}
    for comparison, group in enumerate(groups):
        if comparison != reference:
            effects = current.phantom.true_effects(decide, index, reference=reference, comparison=comparison)
            found[group] = asdict(effects)
    largest = max(found.values(), key=lambda effects: abs(float(effects["direct_effect"])))
    half_width = NormalDist().inv_cdf(0.5 + current.settings.evaluation.level / 2)
    named = {
        f"true_{name}": {
            "value": largest[name],
            "low": largest[name] - half_width * largest[f"{name}_error"],
            "high": largest[name] + half_width * largest[f"{name}_error"],
        }
        for name in ("direct_effect", "indirect_effect", "total_effect")
    }
    return {**named, "true_effects_by_group": found}


def _decide(
    current: Run, logits: Callable[[Tensor], Tensor], threshold: float, images: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    with torch.inference_mode(), current.fabric.autocast():
        image = torch.from_numpy(images).to(current.fabric.device)
        image = image.to(torch.float32, memory_format=torch.channels_last).div_(255)
        score = logits(image).float().softmax(1)[:, 1]
    return score.double().cpu().numpy() >= threshold


def _predictions(
    current: Run, name: str, split: str, indices: NDArray[np.int64], scores: Scores, threshold: float | None
) -> pd.DataFrame:
    """The predictions table: what `fairdx audit` reads."""
    dataset, task = current.images.dataset, current.images.task
    rows = dataset.table.iloc[indices]
    table = rows[["image", "patient", *dataset.meta.attributes]].reset_index(drop=True)
    table.insert(2, "split", split)
    table.insert(3, "method", name)
    table.insert(4, "label", task.label[indices])
    if threshold is None:
        for code, class_name in enumerate(task.class_names):
            table[f"score_{class_name}"] = scores[:, code]
        table["decision"] = scores.argmax(1)
    else:
        table["score"] = scores[:, 1]
        table["decision"] = (scores[:, 1] >= threshold).astype(np.int64)
    return table


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
        "images": {split: len(task.indices(split)) for split in ("train", "validation", "test")},
        "left_out": int((~task.usable).sum()),
        "test_patients": len(set(task.patient[test])),
        "prevalence": {
            group: float(np.mean(task.label[test][task.group[test] == code] == 1))
            if (task.group[test] == code).any()
            else None
            for code, group in enumerate(task.group_names)
        },
    }


def _save_samples(current: Run, method: Method) -> None:
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
        current.folder / SAMPLES,
        image=batch.image.cpu().numpy(),
        masked=masked.cpu().numpy(),
        label=task.label[indices],
        group=task.group[indices],
    )
