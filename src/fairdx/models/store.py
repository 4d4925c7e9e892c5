"""Model folders: a fair model on disk, as plain numbers and a card, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fairdx.core.errors import InputError, writing_to
from fairdx.core.files import write_whole
from fairdx.core.locks import locked
from fairdx.models.card import (
    CARD,
    CORRECTION_WEIGHTS,
    FROZEN_WEIGHTS,
    MASK_WEIGHTS,
    FrozenCard,
    ModelCard,
    file_hash,
    model_folder,
    read_card,
    write_card,
)
from fairdx.models.corrections import CORRECTIONS
from fairdx.models.diagnosis import DiagnosisModel, weights_hash
from fairdx.models.fair import Correction, FairModel, Mask
from fairdx.models.frozen import FrozenModel
from fairdx.models.networks import Diagnoser, Encoder, MaskGenerator
from fairdx.models.realised import Realisation
from fairdx.models.rules import changed_scores, decided
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.models.scoring import BATCH, Place, apply
from fairdx.models.sources import GivenModel, build_architecture, load_given

OURS: Final = "fairdx:"
"""Before the name of an encoder, where the frozen model is one that fairdx trained."""


def save_model(folder: Path, fair: FairModel, card: ModelCard) -> ModelCard:
    """Writes a model folder, the card last.

    Args:
        folder: Where; made if needed.
        fair: The model.
        card: What is known of it.

    Returns:
        The card as it was written, with the hashes of all files.

    Raises:
        InputError: The folder cannot be written.
    """
    parts: dict[str, nn.Module] = {}
    if card.frozen.inside:
        parts[FROZEN_WEIGHTS] = fair.model
    if fair.mask is not None:
        parts[MASK_WEIGHTS] = fair.mask.generator
    if fair.correction is not None:
        parts[CORRECTION_WEIGHTS] = fair.correction
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=True, required=False, clear=True):  # exports and explanations write here too
            before = _card_before(folder)
            (folder / CARD).unlink(missing_ok=True)
            for name, module in parts.items():
                state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
                write_whole(folder / name, save(state))
            written = write_card(folder, card.model_copy(update={"files": dict.fromkeys(parts, "")}))
            return written if before is None else _with_more(folder, written, before)


def _card_before(folder: Path) -> ModelCard | None:
    try:
        return read_card(folder, check=()) if (folder / CARD).exists() else None
    except InputError:
        return None  # what it lists is nobody's business any more


def _with_more(folder: Path, card: ModelCard, before: ModelCard) -> ModelCard:
    """Keeps what was exported of the same model; what is of another one must not stand beside this card."""
    more = {name: digest for name, digest in before.files.items() if name not in card.files}
    if card.identity == before.identity and all(_is(folder / name, digest) for name, digest in more.items()):
        return write_card(
            folder, card.model_copy(update={"files": {**card.files, **more}, "exports": before.exports})
        )
    for name in more:
        (folder / name).unlink(missing_ok=True)
    return card


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and file_hash(path) == digest


@dataclass(frozen=True)
class StoredModel:
    """A fair model from its folder, ready to score.

    Attributes:
        card: All that is known of it.
        fair: The module, images in [0, 1] to logits.
        place: Device and precision.
    """

    card: ModelCard
    fair: FairModel
    place: Place

    def scores(self, images: NDArray[Any], groups: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Scores images.

        Args:
            images: Of the size and channels on the card, shape (n, C, H, W): uint8, or floats in [0, 1].
            groups: Name of each patient's group, for a model that has to be told.

        Returns:
            Class probabilities, shape (n, classes).

        Raises:
            InputError: The images have another form, or the groups are needed and not given.
        """
        images = np.asarray(images)  # also of lists and of tensors
        _check_form(images, self.card)
        blocks = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        found = apply(lambda image: (self.fair(image).float().softmax(1),), blocks, self.place)
        scores = found[0] if found else np.empty((0, len(self.card.classes)))
        if self.card.rule is None:
            return scores
        names = _groups(groups, len(scores), self.card)
        positive = changed_scores(self.card.rule, scores[:, 1], names)
        return np.stack([1 - positive, positive], axis=1)

    def decisions(self, images: NDArray[Any], groups: Sequence[str] | None = None) -> NDArray[np.int64]:
        """Decides images, as `scores`; codes of the classes on the card, shape (n,).

        Raises:
            InputError: As for `scores`, or the model gives no number for an image.
        """
        scores = self.scores(images, groups)
        lost = ~np.isfinite(scores).all(axis=1)
        if lost.any():
            raise InputError(
                f"the model gives no number as its score for {lost.sum()} of {len(scores)} images, the first "
                f"at place {lost.argmax()}: they cannot be decided"
            )
        return decided(self.card, scores)


def load_model(
    folder: str | Path,
    *,
    trust: bool = False,
    source: str | None = None,
    network: nn.Module | None = None,
) -> StoredModel:
    """Loads a model folder.

    Args:
        folder: A model folder, or a run's folder.
        trust: Whether a frozen model from a file may run code of its own; see `GivenModel`.
        source: Where the frozen model is now, if the file has moved.
        network: The frozen model itself, where it was given in memory.

    Raises:
        InputError: The folder, or the frozen model that it names, is missing, damaged, edited or newer.
    """
    place = model_folder(Path(folder))
    card = read_card(place)
    model = _frozen(place, card, trust=trust, source=source, network=network)
    plan = card.realisation
    fair = FairModel(
        model,
        mask=_mask(place, card),
        correction=_correction(place, card),
        temperature=card.temperature,
        views=card.views,
        realisation=None if plan is None else Realisation(plan.steps, plan.levels),
    )
    fabric = make_fabric(TrainerSettings(precision=card.precision))
    fair.to(fabric.device).to(memory_format=torch.channels_last)
    fair.eval().requires_grad_(False)
    return StoredModel(card, fair, fabric)


def our_frozen_card(encoder: str, model: DiagnosisModel) -> FrozenCard:
    """Returns what a model folder has to say of a model that fairdx trained."""
    return FrozenCard(
        source=f"{OURS}{encoder}", kind="architecture", inside=True, weights_sha256=weights_hash(model)
    )


def _frozen(folder: Path, card: ModelCard, **where: Any) -> DiagnosisModel:
    frozen, size = card.frozen, card.image.size
    inside = _weights(folder / FROZEN_WEIGHTS) if frozen.inside else {}
    model: DiagnosisModel
    if frozen.source.startswith(OURS):
        encoder = Encoder(frozen.source.removeprefix(OURS), channels=card.image.channels, size=size)
        model = Diagnoser(encoder, len(card.classes))
    else:
        model = _given(frozen, inside, classes=len(card.classes), size=size, **where)
    if inside:
        _load(model, inside, folder / FROZEN_WEIGHTS)
    if weights_hash(model) != frozen.weights_sha256:
        raise InputError(
            f"{where['source'] or frozen.source} is not the frozen model that {folder} was made for"
        )
    return model


def _given(
    frozen: FrozenCard,
    inside: dict[str, Tensor],
    *,
    classes: int,
    size: int,
    trust: bool,
    source: str | None,
    network: nn.Module | None,
) -> FrozenModel:
    assert frozen.contract is not None
    options = dict(frozen.options)
    architecture = options.pop("architecture", None)
    if architecture is not None:
        own = {key.removeprefix("network."): value for key, value in inside.items()}
        network = build_architecture(architecture, options, own)
        return FrozenModel(network, frozen.contract, classes=classes, size=size, trainable=True)
    where = source or frozen.source
    if frozen.sha256 is not None:
        if not Path(where).is_file():
            raise InputError(f"the frozen model {where} is missing; say where it is now (--source)")
        if file_hash(Path(where)) != frozen.sha256:
            raise InputError(f"{where} is not the file of the frozen model: its hash differs from the card's")
    given = GivenModel(source=where, options=options, trust=trust, contract=frozen.contract)
    return load_given(given, classes=classes, size=size, network=network)


def _mask(folder: Path, card: ModelCard) -> Mask | None:
    if card.mask is None:
        return None
    mask = card.mask
    generator = MaskGenerator(mask.channels, width=mask.width, depth=mask.depth)
    _load(generator, _weights(folder / MASK_WEIGHTS), folder / MASK_WEIGHTS)
    return Mask(generator, eta=mask.eta, steps=mask.steps)


def _correction(folder: Path, card: ModelCard) -> Correction | None:
    if card.correction is None:
        return None
    shape = dict(card.correction)
    correction = CORRECTIONS[str(shape.pop("kind"))](**shape)
    _load(correction, _weights(folder / CORRECTION_WEIGHTS), folder / CORRECTION_WEIGHTS)
    return correction


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path} is missing: a folder that was exported with --out holds no weights to load")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} does not hold weights: {error}") from error


def _load(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        problem = str(error).splitlines()[min(1, str(error).count("\n"))].strip()
        raise InputError(f"{path} does not hold the weights that its card describes: {problem}") from error


def _check_form(images: NDArray[Any], card: ModelCard) -> None:
    expected = (card.image.channels, card.image.size, card.image.size)
    if images.ndim != 4 or images.shape[1:] != expected:
        raise InputError(f"images have shape {images.shape}, and the model takes {('n', *expected)}")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images are {images.dtype}; give uint8, or floats from 0 to 1")
    if images.dtype != np.uint8 and len(images) and not (images.min() >= 0 and images.max() <= 1):
        raise InputError("images of floats are from 0 to 1, and these are not")


def _groups(groups: ArrayLike | None, count: int, card: ModelCard) -> NDArray[np.object_]:
    if not card.needs_group:
        return np.empty(count, dtype=object)
    if groups is None:
        raise InputError(f"this model has to be told the {card.attribute} of each patient: give groups")
    names: NDArray[np.object_] = np.asarray(groups, dtype=object)
    if names.shape != (count,):
        raise InputError(f"there are {count} images and groups of shape {names.shape}")
    return names
