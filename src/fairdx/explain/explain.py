"""Looks at models on the same images, and puts everything together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from fairdx import __version__
from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.phantom import Phantom
from fairdx.data.phantom.findings import FINDINGS
from fairdx.explain.findings import changes_between
from fairdx.explain.looking import Looked, Looking, first_of, same_patients
from fairdx.explain.overlap import paired_change
from fairdx.explain.probe import FOLDS
from fairdx.explain.result import Explanation
from fairdx.explain.settings import ExplainSettings
from fairdx.explain.subject import DIAGNOSIS, Asked, Subject
from fairdx.explain.words import sentences
from fairdx.models.loading import TaskImages


@dataclass(frozen=True)
class Explained:
    """All models, looked at on the same images.

    Attributes:
        asked: The images.
        looked: The models, the unmitigated one first.
        explanation: The figures.
    """

    asked: Asked
    looked: tuple[Looked, ...]
    explanation: Explanation


def choose_images(images: TaskImages, settings: ExplainSettings, device: torch.device) -> Asked:
    """Draws the images that are explained.

    Args:
        images: Where they are.
        settings: How many, and the seed.
        device: Where to compute.

    Returns:
        Test images in random order; of a data set without a test split, any.

    Raises:
        InputError: There are too few images or patients, or they are all of one group.
    """
    task = images.task
    tested = task.split == "test"
    pool = np.flatnonzero(task.usable & (tested if tested.any() else True))
    if len(pool) < 20:
        raise InputError(
            f"{images.dataset.root} has {len(pool)} usable images with a known label and group; "
            "20 are needed to explain a model"
        )
    drawn = np.random.default_rng(settings.seed).permutation(pool)[: settings.images]
    _, patients = np.unique(task.patient[drawn].astype(str), return_inverse=True)
    people = len(np.unique(patients))
    if people < FOLDS:
        raise InputError(
            f"{images.dataset.root}: the {len(drawn)} images to explain are of {people} "
            f"patient{'s' * (people > 1)}; {FOLDS} are needed, as the group is guessed of patients that were "
            "not learnt from"
        )
    groups = np.unique(task.group[drawn])
    if len(groups) < 2:
        raise InputError(
            f"{images.dataset.root}: the {len(drawn)} images to explain are all of the group "
            f"{task.group_names[groups[0]]} of {task.attribute_name}; a map of the group needs two: "
            "ask for more images, or choose another attribute"
        )
    return Asked(images, drawn, patients.astype(np.int64), settings.seed, device)


def explain(
    subjects: Sequence[Subject], asked: Asked, phantom: Phantom | None, settings: ExplainSettings
) -> Explained:
    """Explains models on the same images.

    Args:
        subjects: The models, the unmitigated one first.
        asked: The images.
        phantom: What drew the images, if they are drawn and the label is its main finding.
        settings: How closely to look.

    Raises:
        InputError: A model or the images cannot be used.
    """
    count = len(asked.indices)
    dealt = min(settings.dealt_images, count) if settings.deals else 0
    steps = len(subjects) * (2 * count + 2 * min(settings.second_opinion, count) + dealt)
    others = 0 if phantom is None else (len(phantom.settings.groups) - 1) * settings.counterfactuals
    regions = (
        None if phantom is None else phantom.regions(asked.indices, finding=asked.images.task.label_name)
    )
    with Reporter("explain", steps + len(subjects) * others, unit="images") as bar:
        pairs = same_patients(subjects, asked, phantom, settings.counterfactuals, bar.advance)
        looked = tuple(
            Looking(subject, asked, phantom, regions, own, settings, bar.advance).look()
            for subject, own in zip(subjects, pairs, strict=True)
        )
    changes: dict[str, Any] = {}
    if len(looked) > 1:
        changes = _changes(looked[0], looked[-1], asked, settings)
    models = {one.subject.name: one.found for one in looked}
    explanation = Explanation(
        fairdx_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=_describe(asked),
        settings=settings.model_dump(mode="json"),
        models=models,
        changes=changes,
        sentences=(),
    )
    explanation = replace(explanation, sentences=sentences(explanation))
    return Explained(asked, looked, explanation)


def _describe(asked: Asked) -> dict[str, Any]:
    task, meta = asked.images.task, asked.images.dataset.meta
    return {
        "source": meta.source,
        "hash": meta.hash,
        "size": meta.size,
        "label": task.label_name,
        "classes": list(task.class_names),
        "attribute": task.attribute_name,
        "groups": list(task.group_names),
        "images": len(asked.indices),
        "patients": len(np.unique(asked.patients)),
    }


def _changes(first: Looked, last: Looked, asked: Asked, settings: ExplainSettings) -> dict[str, Any]:
    """What changes from the first model to the last, by way of making maps."""
    found: dict[str, Any] = {}
    for way, before in first.evidence.items():
        if way in last.evidence:
            part = first_of(asked, len(before.maps[DIAGNOSIS].values))
            found[way] = changes_between(before, last.evidence[way], part, level=settings.level)
    for group, pairs in first.pairs.items():
        other = last.pairs[group]
        patients = np.arange(len(pairs.change))
        found[f"counterfactual {group}"] = {
            "size of the change of the score": paired_change(
                np.abs(pairs.change), np.abs(other.change), patients, level=settings.level
            )
        }
    return found


def explains(phantom: Phantom | None, images: TaskImages) -> Phantom | None:
    """Returns the phantom if it can say something of this task: its own groups, and one of its findings."""
    if phantom is None:
        return None
    task = images.task
    known = task.label_name in [finding.name for finding in FINDINGS]
    return phantom if known and task.attribute_name == phantom.settings.attribute else None
