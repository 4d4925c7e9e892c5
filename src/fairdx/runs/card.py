"""The model folder that every run leaves: the fair model, and a card with what is known of it."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from fairdx import __version__
from fairdx.core.files import write_whole
from fairdx.data.base import Meta
from fairdx.explain.result import OVERLAP, read_explanation
from fairdx.methods import Method
from fairdx.methods.pretraining import PretrainingConfig
from fairdx.models.card import FrozenCard, ImageCard, MaskCard, ModelCard, Range, RealisationCard
from fairdx.models.fair import FairModel, Mask
from fairdx.models.frozen import FrozenModel
from fairdx.models.runtime import precision_of
from fairdx.models.scoring import apply, blocks_of
from fairdx.models.sources import frozen_card
from fairdx.models.store import our_frozen_card, save_model
from fairdx.runs.card_text import card_text
from fairdx.runs.data import RunData, describe
from fairdx.runs.files import MODEL
from fairdx.runs.measure import Measured

logger = logging.getLogger(__name__)

FAMILIAR_IMAGES: Final = 4096
"""Training images from which the usual range of an image is taken."""
TEXT: Final = "README.md"
"""The card in words."""
_TAIL: Final = 0.001


def save_run_model(
    current: RunData, method: Method, measured: Mapping[str, Measured], folder: Path
) -> ModelCard | None:
    """Writes `model/` into a run's folder.

    Args:
        current: The run.
        method: The method with its final weights.
        measured: Every model that was measured, by name.
        folder: The run's folder.

    Returns:
        The card; None for a method whose rule cannot be written down.
    """
    name = current.settings.method_name
    rule = measured[name].rule
    if rule is not None and rule.card is None:
        logger.warning("method `%s` draws lots and cannot be deployed: there is no model folder", name)
        return None
    task, figures = current.images.task, measured[name].figures
    plan = method.fair.realisation
    card = ModelCard(
        fairdx=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        method=name,
        image=_image_card(current.images.dataset.meta),
        label=task.label_name,
        classes=task.class_names,
        attribute=task.attribute_name,
        groups=task.group_names,
        needs_group=method.needs_group,
        threshold=figures["threshold"],
        threshold_chosen_on=figures["threshold_chosen_on"],
        precision=precision_of(current.settings.trainer),
        temperature=method.fair.temperature,
        views=method.fair.views,
        realisation=None if plan is None else RealisationCard(steps=plan.steps, levels=plan.levels),
        frozen=_frozen_card(current, method),
        mask=None if method.fair.mask is None else _mask_card(method.fair.mask),
        correction=None if method.fair.correction is None else method.fair.correction.shape(),
        rule=None if rule is None else rule.card,
        data=describe(current).model_dump(mode="json"),
        metrics={name: one.figures for name, one in measured.items()},
        familiar=_familiar(current, method.fair),
    )
    written = save_model(folder / MODEL, method.fair, card)
    looks = read_explanation(folder / MODEL / OVERLAP).sentences if OVERLAP in written.files else ()
    write_whole(folder / MODEL / TEXT, card_text(written, looks).encode())
    return written


def _image_card(meta: Meta) -> ImageCard:
    kept = ("geometry", "bits", "window", "frame", "lenient")
    form = {key: meta.policies[key] for key in kept if key in meta.policies}
    return ImageCard(size=meta.size, channels=meta.channels, **form)


def _frozen_card(current: RunData, method: Method) -> FrozenCard:
    config, model = current.settings.model, method.fair.model
    if isinstance(config, PretrainingConfig):
        return our_frozen_card(config.encoder, model)
    assert isinstance(model, FrozenModel)
    card = frozen_card(config, model)
    return card.model_copy(update={"inside": card.inside or method.retrains})


def _mask_card(mask: Mask) -> MaskCard:
    generator = mask.generator
    return MaskCard(
        eta=mask.eta,
        steps=mask.steps,
        channels=generator.channels,
        width=generator.width,
        depth=generator.depth,
    )


def _familiar(current: RunData, fair: FairModel) -> dict[str, Range]:
    """Between what bounds mean, spread and change of the training images lie."""
    train = current.images.task.indices("train")
    chosen = train[np.linspace(0, len(train) - 1, min(len(train), FAMILIAR_IMAGES)).astype(np.int64)]

    def statistics(image: Tensor) -> tuple[Tensor, ...]:
        flat = image.flatten(1)
        change = (fair.masked(image).float() - image).abs().flatten(1).mean(1)
        return flat.mean(1), flat.std(1), change

    blocks = map(current.images.dataset.read, blocks_of(chosen))
    found: tuple[Any, ...] = apply(statistics, blocks, current.fabric)
    bounds = [np.quantile(values, (_TAIL, 1 - _TAIL)) for values in found]
    return {
        name: Range(low=float(low), high=float(high))
        for name, (low, high) in zip(("mean", "spread", "change"), bounds, strict=True)
    }
