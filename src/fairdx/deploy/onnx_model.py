"""An exported model in ONNX Runtime, and what its card makes of a probability: rule, decision, cautions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.decode import Form
from fairdx.models.card import CARD, ModelCard, model_folder, read_card
from fairdx.models.rules import changed_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

INPUT: Final = "image"
OUTPUTS: Final = ("probability", "change")
CAUTIONS: Final = {
    "mean": ("darker", "brighter"),
    "spread": ("less contrast", "more contrast"),
    "change": ("smaller mask", "larger mask"),
}
"""What is said of an image below and above the range of the training images, by entry of `card.familiar`."""


class Scores(NamedTuple):
    """What the model says of n images."""

    probability: Floats
    """Of each class, shape (n, classes)."""
    change: Floats
    """Mean absolute change of the image by the mask, in [0, 1], shape (n,)."""


class Verdicts(NamedTuple):
    """What is written about n images."""

    score: Floats
    """P(Y = 1) after the rule, shape (n, 1); of each class with more than two, shape (n, classes)."""
    decision: NDArray[np.int64]
    """Code of the class decided on, shape (n,)."""


@dataclass(frozen=True)
class DeployedModel:
    """A model folder, opened for prediction; see `open_model`."""

    card: ModelCard
    """Its card."""
    threshold: float | None
    """Positive from this score on; None where the largest score decides."""
    batch_size: int
    """Images at a time, always as many: a file's score does not depend on what stands beside it."""
    session: Any
    """An `onnxruntime.InferenceSession`."""

    @property
    def form(self) -> Form:
        """What image files are brought to: as `fairdx prepare` did for the training images."""
        return Form(**self.card.image.model_dump())

    def score(self, images: NDArray[np.uint8]) -> Scores:
        """Run the model.

        Args:
            images: uint8 of shape (n, C, H, W), at most `batch_size` of them.

        Returns:
            The probabilities and the mask's changes, NaN where the model gives NaN.

        Raises:
            InputError: The model fails, or gives outputs of another shape.
        """
        batch = np.zeros((self.batch_size, *images.shape[1:]), np.float32)
        np.divide(images, np.float32(255), out=batch[: len(images)])
        try:
            probability, change = self.session.run(list(OUTPUTS), {INPUT: batch})
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            text = str(error).strip().splitlines()[0]
            raise InputError(
                f"the exported model cannot score {len(batch)} images of shape {batch.shape[1:]} ({text}): "
                "export it again"
            ) from error
        wanted = ((self.batch_size, len(self.card.classes)), (self.batch_size,))
        if (probability.shape, change.shape) != wanted:
            raise InputError(
                f"the exported model gives outputs of shape {probability.shape} and {change.shape}, not "
                f"{wanted[0]} and {wanted[1]}: export it again"
            )
        kept = slice(len(images))
        return Scores(probability[kept].astype(np.float64), change[kept].astype(np.float64))

    def decide(self, probability: Floats, groups: Sequence[str]) -> Verdicts:
        """Apply the card's rule and threshold.

        Args:
            probability: Of each class, shape (n, classes).
            groups: The group of each, n of them; not used unless the rule needs it.

        Returns:
            Scores and decisions.
        """
        if len(self.card.classes) > 2:
            return Verdicts(probability, probability.argmax(axis=1))
        score, rule = probability[:, 1], self.card.rule
        if rule is not None:
            score = changed_scores(rule, score, np.array(groups, dtype=object))
        if self.threshold is None:
            return Verdicts(score[:, None], (score > 0.5).astype(np.int64))
        return Verdicts(score[:, None], (score >= self.threshold).astype(np.int64))

    def cautions(self, images: NDArray[np.uint8], change: Floats) -> list[tuple[str, ...]]:
        """Say in what images differ from those that the mask was trained on.

        Args:
            images: uint8 of shape (n, C, H, W).
            change: Of each, shape (n,).

        Returns:
            For each image words of `CAUTIONS`; none where it is like the training images.
        """
        if not self.card.familiar or not len(images):
            return [()] * len(images)
        measured = {**brightness(images), "change": change}
        found = [list[str]() for _ in images]
        for name, (below, above) in CAUTIONS.items():
            if name in self.card.familiar:
                known = self.card.familiar[name]
                for words, value in zip(found, measured[name], strict=True):
                    words.extend([below] * bool(value < known.low) + [above] * bool(value > known.high))
        return [tuple(words) for words in found]


def brightness(images: NDArray[np.uint8]) -> dict[str, Floats]:
    """Measure images as the card's `familiar` does.

    Args:
        images: uint8 of shape (n, C, H, W).

    Returns:
        Of the pixels of each image in [0, 1] their `mean`, and as `spread` their standard deviation, of
        n - 1; each of shape (n,).
    """
    value = np.arange(256) / 255
    # Pillow's counts of a grey picture are many times faster than NumPy's of an array.
    counts = np.array([Image.fromarray(image.reshape(-1, image.shape[-1])).histogram() for image in images])
    number = counts.sum(axis=1, keepdims=True)
    mean = (counts / number) @ value
    squares = (counts * (value - mean[:, None]) ** 2).sum(axis=1, keepdims=True)
    return {"mean": mean, "spread": np.sqrt(squares / (number - 1))[:, 0]}


def open_model(
    folder: Path,
    *,
    threshold: float | None = None,
    batch_size: int = 16,
    threads: int = 1,
    device: str = "cpu",
) -> DeployedModel:
    """Open a model folder for prediction.

    Args:
        folder: A model folder, or the folder of a run.
        threshold: Used instead of the card's.
        batch_size: Images at a time.
        threads: Of ONNX Runtime, on a processor.
        device: `cpu` or `cuda`.

    Returns:
        The model, after a first run on black images.

    Raises:
        InputError: The folder or its ONNX file cannot be used, or ONNX Runtime or its device is missing.
    """
    card = read_card(folder, check=())
    place = model_folder(folder)
    exported = card.exports.get("onnx")
    if exported is None:
        raise InputError(
            f"{place} has no model as ONNX: run `fairdx export {folder} --format onnx`, which takes PyTorch"
        )
    if exported.content != "model":
        raise InputError(
            f"{place / exported.file} is the mask alone, which gives no scores: export the model"
        )
    # Large weights lie in a second file, which has the name of the first in its own.
    read_card(folder, check=(exported.file, *(n for n in card.files if n.startswith(f"{exported.file}."))))
    _check_decision(card, threshold, place)
    session = _session(place / exported.file, threads, device)
    chosen = card.threshold if threshold is None else threshold
    model = DeployedModel(card, chosen, batch_size, session)
    image = card.image
    model.score(np.zeros((1, image.channels, image.size, image.size), np.uint8))
    return model


def _check_decision(card: ModelCard, threshold: float | None, place: Path) -> None:
    """Refuse a card whose rule or threshold has no one meaning."""
    if threshold is not None and len(card.classes) > 2:
        raise InputError(
            f"{place} has {len(card.classes)} classes, and the largest score decides: leave the threshold out"
        )
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"the threshold {threshold:g} is not in [0, 1]")
    rule = card.rule
    if rule is None:
        if card.needs_group:
            raise InputError(
                f"{place} has to be told the group in a way that its card does not describe: "
                "it cannot be used without the run that made it"
            )
        return
    lengths = {len(rule.score), *map(len, rule.changed.values())}
    if len(card.classes) > 2 or len(lengths) > 1 or not (rule.score and rule.changed):
        raise InputError(
            f"{place / CARD}: `rule` is not a list of scores and what they become, for two classes"
        )


def _session(file: Path, threads: int, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("prediction needs ONNX Runtime: pip install 'fairdx[predict]'") from None
    providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    if device not in providers:
        raise InputError(f"there is no device {device!r} to predict on: give cpu or cuda")
    if providers[device] not in onnxruntime.get_available_providers():
        raise InputError(
            f"this ONNX Runtime cannot use {device}: install onnxruntime-gpu in place of onnxruntime"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait in a loop would take the processors from the decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=[providers[device]])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        text = str(error).strip().splitlines()[0]
        raise InputError(f"{file} cannot be loaded by ONNX Runtime: {text}") from error
    inputs, outputs = (
        {value.name for value in side} for side in (session.get_inputs(), session.get_outputs())
    )
    if inputs != {INPUT} or not set(OUTPUTS) <= outputs:
        raise InputError(
            f"{file} takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))}, not {INPUT} "
            f"and {' and '.join(OUTPUTS)}: it is no model that fairdx exported"
        )
    return session
