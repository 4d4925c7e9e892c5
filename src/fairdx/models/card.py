"""The card of a model folder (`card.json`): all that it takes to use the model, as JSON. Needs no torch.

A model folder holds `card.json`, weights as safetensors, and whatever was exported. The card lists every file
with its sha256; it is written last, so that a folder without it is unfinished.
"""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from fairdx.core.config import Config, validate
from fairdx.core.errors import InputError
from fairdx.core.files import parse_json, write_whole
from fairdx.models.contract import Contract

CARD: Final = "card.json"
FORMAT: Final = 1
"""Raised when an older fairdx could misread a newer folder."""
FROZEN_WEIGHTS: Final = "frozen.safetensors"
MASK_WEIGHTS: Final = "mask.safetensors"
CORRECTION_WEIGHTS: Final = "correction.safetensors"
_WEIGHTS: Final = (FROZEN_WEIGHTS, MASK_WEIGHTS, CORRECTION_WEIGHTS)
_REPORTED: Final = {"fairdx", "created", "data", "metrics", "familiar", "exports", "files", "seal"}
"""What is only said of a model, and changes none of its scores."""


class ImageCard(Config):
    """The images that the model takes: how `fairdx prepare` made them, so that new ones become the same."""

    size: int
    """Height and width, in pixels."""
    channels: Literal[1, 3]
    """1 (grey) or 3 (RGB)."""
    geometry: Literal["pad", "crop", "stretch"] = "pad"
    """What becomes of images that are not square."""
    bits: int = 16
    """Significant bits of 16-bit grey PNGs."""
    window: tuple[float, float] | None = None
    """Centre and width of the DICOM window; the file's own by default."""
    frame: int | None = None
    """Which frame of files with several, or slice of a volume, from 1; such files are refused by default."""
    lenient: bool = False
    """Whether a JPEG with odd bytes behind its last pixel is taken, with a warning."""


class FrozenCard(Config):
    """The model that was there before and stays as it is."""

    source: str
    """As in `[model]`: a file, `module:factory`, or the name of an architecture."""
    kind: Literal["architecture", "module", "memory", "torch-export", "torchscript", "onnx"]
    """How it is loaded. Of an `architecture` the weights are in the folder; of the others `source` is a file,
    or Python code, that must still be there."""
    sha256: str | None = None
    """Of the file, for a model that is loaded from one."""
    contract: Contract | None = None
    """What it takes; none for a model that fairdx trained, which takes the images as they are."""
    options: dict[str, Any] = Field(default_factory=dict)
    """How the architecture is built."""
    inside: bool = False
    """Whether its weights are in the folder."""
    weights_sha256: str
    """Of all parameters and buffers by name: the same before and after, or the model is refused."""


class MaskCard(Config):
    """The mask generator and its bound."""

    eta: float
    """Largest change of a pixel, in units of the full range."""
    steps: int
    """How often the mask is added."""
    channels: int
    """Channels of the images."""
    width: int
    """Channels of the generator at half resolution."""
    depth: int
    """Number of further halvings."""


class RealisationCard(Config):
    """How a corrected score becomes a mask."""

    steps: int
    """Steps along the gradient."""
    levels: int
    """Largest change of a value, in grey levels."""


class RuleCard(Config):
    """A change of the finished score, as numbers: monotone and piecewise linear, one for each group."""

    needs_group: bool
    """Whether the group has to be told; otherwise there is one entry, for everybody."""
    score: tuple[float, ...]
    """Ascending scores P(Y = 1) at which the rule is known."""
    changed: dict[str, tuple[float, ...]]
    """By group, what they become."""


class Range(Config):
    """Between what bounds the images lay that the mask was trained on: quantiles 0.001 and 0.999."""

    low: float
    high: float


def _inside(name: str) -> str:
    """A card may come from anybody, and what it lists is read, replaced and removed."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"`{name}` is no file inside the folder of the model")
    return name


Inside = Annotated[str, AfterValidator(_inside)]
"""A path with slashes that stays in the folder of the card."""


class ExportCard(Config):
    """One exported file, and how it compared with PyTorch when it was written."""

    file: Inside
    """Its path in the folder, with slashes."""
    content: Literal["model", "mask"]
    """Mask and model together, or the mask alone."""
    precision: Literal["fp32"] = "fp32"
    """What it computes with, whatever the model was measured with."""
    images: int
    """How many images were compared, all of them at a batch other than the traced one."""
    compared_on: Literal["validation", "noise"] = "validation"
    """What they were: validation images, or noise of the brightness and spread of the training images."""
    largest_difference: float
    """Of the scores (of the masked pixels in [0, 1], for the mask alone) from PyTorch in 32 bits."""
    equal_decisions: float
    """Share of the images with the same decision; with a rule that needs the group, in every group."""
    equal_to_measured: float | None = None
    """Share of the images with the decision that the model makes in the precision that it was measured with,
    where that is not fp32."""
    opset: int | None = None
    """Of ONNX."""


class ModelCard(Config):
    """Everything about a fair model but its weights."""

    format: Literal[1] = FORMAT
    """Version of the folder's format."""
    fairdx: str
    """Version that wrote it."""
    created: str
    """UTC time, ISO 8601."""
    method: str
    """Name of the method."""
    image: ImageCard
    """What it takes."""
    label: str
    """Name of the label Y."""
    classes: tuple[str, ...]
    """Its classes, in the order of the scores."""
    attribute: str
    """The sensitive attribute S."""
    groups: tuple[str, ...]
    """Its groups."""
    needs_group: bool = False
    """Whether the model has to be told the group of whoever it diagnoses."""
    threshold: float | None = None
    """Positive from this score on; none with more than two classes, where the largest score decides."""
    threshold_chosen_on: str | None = None
    """The split on which the threshold was chosen."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What it was measured with."""
    temperature: float = Field(1.0, gt=0)
    """Logits are divided by it."""
    frozen: FrozenCard
    """The model behind the mask."""
    mask: MaskCard | None = None
    """The mask in front of it, if any."""
    views: Literal["none", "mirror", "turns"] = "none"
    """Views of an image over which the frozen model's embedding and logits are averaged."""
    realisation: RealisationCard | None = None
    """How the correction becomes a mask, where it does: such a model needs gradients when it is used."""
    correction: dict[str, Any] | None = None
    """What is changed between embedding and score, if anything: its kind and shape."""
    rule: RuleCard | None = None
    """What is changed after the score, if anything."""
    data: dict[str, Any] = Field(default_factory=dict)
    """What it was made with: source, hash, counts."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """Test figures with their intervals, before and after, as in `results.json`."""
    familiar: dict[str, Range] = Field(default_factory=dict)
    """Of the training images: `mean` and `spread` of the pixels in [0, 1], and `change`, the mean size of the
    mask in [0, 1]. Images outside get a caution."""
    exports: dict[str, ExportCard] = Field(default_factory=dict)
    """By format: `onnx`, `onnx-mask`, `torch-export`, ..."""
    files: dict[Inside, str] = Field(default_factory=dict)
    """sha256 of every file of the folder but the card."""
    seal: str = ""
    """sha256 of everything above as it is written: a card that was edited by hand is refused."""

    @property
    def identity(self) -> str:
        """sha256 of what decides about scores and decisions: another export is the same device."""
        weights = {name: digest for name, digest in self.files.items() if name in _WEIGHTS}
        return _digest({**self.model_dump(mode="json", exclude=_REPORTED), "weights": weights})


def write_card(folder: Path, card: ModelCard) -> ModelCard:
    """Seals a card and writes it whole.

    Args:
        folder: A model folder, with every file that the card lists.
        card: The card; hashes of the files are taken here.

    Returns:
        The card as it was written.
    """
    files = {name: file_hash(folder / name) for name in card.files}
    card = card.model_copy(update={"files": files, "seal": ""})
    values = card.model_dump(mode="json")
    seal = _seal(values)
    write_whole(folder / CARD, json.dumps({**values, "seal": seal}, indent=2, allow_nan=False).encode())
    return card.model_copy(update={"seal": seal})


def _seal(values: dict[str, Any]) -> str:
    """Of the values as they are written, so that a field which a later version adds changes nothing."""
    return _digest({key: value for key, value in values.items() if key != "seal"})


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Returns the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_folder(folder: Path) -> Path:
    """Returns the model folder itself, where a run's folder may be given, which has it as `model`."""
    inner = folder / "model"
    return inner if not (folder / CARD).exists() and (inner / CARD).exists() else folder


def read_card(folder: Path, *, check: tuple[str, ...] | None = None) -> ModelCard:
    """Reads the card of a model folder and checks the files that it lists.

    Args:
        folder: The folder, or the folder of a run, which has it as `model`.
        check: Which files to check; all by default.

    Raises:
        InputError: There is no card, a newer fairdx wrote it, or a file is missing or was changed.
    """
    folder = model_folder(folder)
    file = folder / CARD
    try:
        values = parse_json(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{folder} holds no model: it has no {CARD}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is not the card of a model")
    if isinstance(values.get("format"), int) and values["format"] > FORMAT:
        raise InputError(
            f"{file} has format {values['format']}, and this fairdx reads up to {FORMAT}: install a newer one"
        )
    card = validate(ModelCard, values, where=str(file))
    if card.seal != _seal(values):
        raise InputError(f"{file} was edited after it was saved: what it says cannot be relied on")
    for name in card.files if check is None else check:
        _check_file(folder / name, card.files.get(name))
    return card


def _check_file(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing, and the card lists it")
    if file_hash(path) != expected:
        raise InputError(f"{path} is not the file that was saved: its hash differs from that on the card")
