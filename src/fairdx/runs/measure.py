"""Scores a model on validation and test images, fixes its threshold, and measures it with intervals."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from fairdx.auditing.evaluate import evaluate
from fairdx.data.phantom.findings import FINDINGS
from fairdx.data.split import Split
from fairdx.methods.base import Rule, Scores
from fairdx.metrics.causal import direct_effect
from fairdx.metrics.threshold import youden_threshold
from fairdx.models.scoring import apply, check_numbers, predict
from fairdx.runs.data import RunData

logger = logging.getLogger(__name__)

Logits = Callable[[Tensor], Tensor]
ScoresOf = Callable[[NDArray[np.int64]], Scores]
"""Scores images of the data set by their indices."""
Decide = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
"""What a model decides of images."""


class Adjust(Protocol):
    """The signature of `Method.adjust`."""

    def __call__(
        self, scores: Scores, label: NDArray[np.int64], group: NDArray[np.int64], *, seed: int
    ) -> Rule | None:
        """Fits a rule that changes a model's scores; None leaves them as they are."""


@dataclass(frozen=True)
class Measured:
    """A model, measured.

    Attributes:
        figures: Every metric with its interval, as in `results.json`.
        table: The predictions table.
        rule: What was done to the scores after the model, if anything.
    """

    figures: dict[str, Any]
    table: pd.DataFrame
    rule: Rule | None


def measure(
    current: RunData,
    name: str,
    logits: Logits,
    adjust: Adjust | None = None,
    *,
    scores: ScoresOf | None = None,
) -> Measured:
    """Scores validation and test images, fixes the threshold on the former and measures on the latter.

    Args:
        current: The run.
        name: Name of the method.
        logits: The model.
        adjust: `Method.adjust`, which may fit a rule on validation scores; all figures are then those of its
            scores. Where it has to be told the group, true effects are left out: interventions draw one
            patient's images as either group, and such a rule is no function of the image.
        scores: Scores images of the data set; by `logits` where they have to be looked at again.
    """
    task = current.images.task
    score = scores or partial(predict, logits, current.images, place=current.fabric)
    tested: tuple[Split, ...] = ("validation", "test")
    found = {split: score(task.indices(split)) for split in tested if len(task.indices(split))}
    chosen_on: Split = "validation"
    if chosen_on not in found:
        logger.warning("there are no validation images: the threshold is chosen on training images")
        chosen_on = "train"
        found[chosen_on] = score(task.indices(chosen_on))
    for split, given in found.items():
        at = task.indices(split)
        check_numbers(given, current.images, at, whose=name, what="score", kind=split)
    test, indices = task.indices("test"), task.indices(chosen_on)
    rule = None
    if adjust is not None:
        rule = adjust(found[chosen_on], task.label[indices], task.group[indices], seed=current.settings.seed)
    if rule is not None:
        found = {split: rule(given, task.group[task.indices(split)]) for split, given in found.items()}
    threshold = None if rule is None else rule.threshold
    if threshold is None and len(task.class_names) == 2:
        threshold = youden_threshold(task.label[indices], found[chosen_on][:, 1])
    figures = _figures(current, test, found["test"], threshold)
    figures["threshold"] = threshold
    figures["threshold_chosen_on"] = None if threshold is None else chosen_on
    if threshold is not None:
        figures["at_half"] = _figures(current, test, found["test"], 0.5)
    told = rule is not None and (rule.card is None or rule.card.needs_group)
    if _truth_is_known(current) and threshold is not None and not told:
        decide = partial(_decide, current, logits, rule, threshold)
        decision = (found["test"][:, 1] >= threshold).astype(np.int64)
        figures |= _true_effects(current, decide, test, decision)
    table = pd.concat(
        [
            _predictions(current, name, split, task.indices(split), found[split], threshold)
            for split in tested
            if split in found
        ],
        ignore_index=True,
    )
    return Measured(figures, table, rule)


def _truth_is_known(current: RunData) -> bool:
    """Interventions set the phantom's own groups and move its main finding; of others they say nothing."""
    phantom, task = current.phantom, current.images.task
    if phantom is None or current.settings.evaluation.true_effect_patients == 0:
        return False
    return (task.attribute_name, task.label_name) == (phantom.settings.attribute, FINDINGS[0].name)


def _figures(
    current: RunData, test: NDArray[np.int64], scores: Scores, threshold: float | None
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
    current: RunData, decide: Decide, test: NDArray[np.int64], decision: NDArray[np.int64]
) -> dict[str, Any]:
    """The effects measured by drawing the same patients of the phantom under interventions.

    Of more than two groups the one is named that `evaluate` names: with the largest estimated direct effect.
    """
    assert current.phantom is not None
    task = current.images.task
    groups = task.group_names
    reference = groups.index(current.reference)
    index = test[: current.settings.evaluation.true_effect_patients]
    found = {}
    for comparison, group in enumerate(groups):
        if comparison != reference:
            effects = current.phantom.true_effects(decide, index, reference=reference, comparison=comparison)
            found[group] = asdict(effects)
    names = np.array(groups)[task.group[test]]
    estimated = direct_effect(
        task.label[test], decision, sensitive_features=names, reference=current.reference
    )
    largest = found[max(found, key=lambda group: abs(np.nan_to_num(estimated.get(group, 0.0))))]
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
    current: RunData, logits: Logits, rule: Rule | None, threshold: float, images: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    (scores,) = apply(lambda image: (logits(image).float().softmax(1),), [images], current.fabric)
    if rule is not None:  # one that is not told the group
        scores = rule(scores, np.zeros(len(scores), dtype=np.int64))
    decided: NDArray[np.bool_] = scores[:, 1] >= threshold
    return decided


def _predictions(
    current: RunData,
    name: str,
    split: str,
    indices: NDArray[np.int64],
    scores: Scores,
    threshold: float | None,
) -> pd.DataFrame:
    """The predictions table: what `fairdx audit` reads."""
    dataset, task = current.images.dataset, current.images.task
    rows = dataset.table.iloc[indices]
    table = rows[["image", "patient", *dataset.meta.attributes]].reset_index(drop=True)
    table.insert(2, "split", split)
    table.insert(3, "method", name)
    table.insert(4, "label", task.label[indices])
    if task.attribute_name not in table:  # an intersection of columns
        table[task.attribute_name] = np.array(task.group_names)[task.group[indices]]
    if threshold is None:
        for code, class_name in enumerate(task.class_names):
            table[f"score_{class_name}"] = scores[:, code]
        table["decision"] = scores.argmax(1)
    else:
        table["score"] = scores[:, 1]
        table["decision"] = (scores[:, 1] >= threshold).astype(np.int64)
    return table
