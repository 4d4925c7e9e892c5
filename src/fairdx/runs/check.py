"""Does a model that was trained elsewhere fit the images it will be given? Asked before anybody trains."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import interpolate

from fairdx.auditing import audit
from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.task import Task
from fairdx.data.verify import verified
from fairdx.metrics.reliability import calibration
from fairdx.metrics.scores import auroc, brier_score
from fairdx.metrics.threshold import youden_threshold
from fairdx.models.contract import Contract
from fairdx.models.diagnosis import weights_hash
from fairdx.models.frozen import FrozenModel
from fairdx.models.loading import to_unit_range
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.models.scoring import Place, apply
from fairdx.models.sources import GivenModel, load_given, onnx_difference

MOST_IMAGES: Final = 2000
"""Images that are looked at."""
CLOSE: Final = 0.01
"""A contract fits if no usual one has an AUC that is larger by more."""
GRADIENT_IMAGES: Final = 16
BLOCK: Final = 64
BLACK: Final = 2
"""Grey levels up to which a pixel at the edge belongs to a bar."""
SOME: Final = 0.1
"""Share of images with bars from which on they are worth a look."""
NO_BARS: Final = "bars cut off (prepare with --geometry stretch)"
_IMAGENET: Final = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Tried:
    """One contract on the same images.

    Attributes:
        name: What it is.
        auroc: Area under the ROC curve; of more than two classes the macro average.
        brier: Brier score; None with more than two classes.
    """

    name: str
    auroc: float
    brier: float | None


@dataclass(frozen=True)
class ModelCheck:
    """What was found.

    Attributes:
        source: The model.
        kind: How it was loaded.
        parameters: Number of parameters and buffers' entries.
        weights_sha256: Hash of its weights.
        layer: The layer whose input is the embedding; None where there is none.
        features: Length of the embedding.
        trainable: Whether a method may train it anew.
        images: Number of images that were looked at.
        split: Their split.
        lost: Images of which the model gives no number.
        given: The contract as it was given, on these images.
        usual: Usual contracts on the same images, the best first.
        fits: Whether no usual contract is clearly better.
        calibration: Slope, intercept and expected calibration error; None with more than two
            classes, or where it is not defined.
        gradient: Share of images from whose score a gradient flows to the pixels.
        onnx_difference: Largest difference to ONNX Runtime on these images; None for other sources.
        findings: What the audit says first about these scores.
    """

    source: str
    kind: str
    parameters: int
    weights_sha256: str
    layer: str | None
    features: int | None
    trainable: bool
    images: int
    split: str
    lost: int
    given: Tried
    usual: list[Tried]
    fits: bool
    calibration: dict[str, float] | None
    gradient: float
    onnx_difference: float | None
    findings: list[str]

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def check_model(
    config: GivenModel,
    root: Path,
    *,
    label: str | None = None,
    attribute: str | None = None,
    network: nn.Module | None = None,
) -> ModelCheck:
    """Runs a model on prepared validation images and says whether its contract fits.

    Args:
        config: Where it is and what it takes.
        root: A prepared data set.
        label: Label Y; the data set's first by default.
        attribute: Sensitive attribute S; the data set's first by default.
        network: The model itself, where `config` says that it is in memory.

    Raises:
        InputError: The model or the data set cannot be used.
    """
    dataset = verified(root)
    task = dataset.task(label, attribute)
    split, indices = _chosen(task, root)
    model = load_given(config, classes=len(task.class_names), size=dataset.meta.size, network=network)
    model.requires_grad_(False)
    fabric = make_fabric(TrainerSettings(precision="fp32"))
    model.to(fabric.device)
    truth = task.label[indices]
    pixels = dataset.read(indices)
    scores, given, usual = _try_contracts(model, config.contract, pixels, truth, fabric)
    few = to_unit_range(pixels[:GRADIENT_IMAGES], fabric.device)
    return ModelCheck(
        source=config.source,
        kind=config.kind,
        parameters=sum(tensor.numel() for tensor in model.network.state_dict().values()),
        weights_sha256=weights_hash(model),
        layer=model.layer_name,
        features=model.features,
        trainable=model.trainable,
        images=len(indices),
        split=split,
        lost=int((~np.isfinite(scores).all(1)).sum()),
        given=given,
        usual=usual,
        fits=given.auroc >= max(one.auroc for one in usual) - CLOSE,
        calibration=_calibration(truth, scores),
        gradient=_gradient_share(model, few),
        onnx_difference=onnx_difference(config, model, few) if config.kind == "onnx" else None,
        findings=_findings(task, indices, scores),
    )


def _try_contracts(
    model: FrozenModel,
    contract: Contract,
    pixels: NDArray[np.uint8],
    truth: NDArray[np.int64],
    place: Place,
) -> tuple[NDArray[np.float64], Tried, list[Tried]]:
    """Scores under the contract as given, how good they are, and how good the usual contracts, best first."""
    trials = {"as given": (contract, pixels)}
    trials |= {name: (usual, pixels) for name, usual in _usual(contract, pixels.shape[1])}
    if (cut := _without_bars(pixels)) is not None:
        trials[NO_BARS] = (contract, cut)
    tried, scores = [], np.empty((0, 0))
    with Reporter("contracts", len(trials), unit="contracts") as bar:
        for name, (one, seen) in trials.items():
            found = _scores(model, one, seen, place)
            scores = found if name == "as given" else scores
            tried.append(_tried(name, truth, found))
            bar.advance()
    return scores, tried[0], sorted(tried[1:], key=lambda one: -one.auroc)


def _chosen(task: Task, root: Path) -> tuple[str, NDArray[np.int64]]:
    """Validation images, or training images where there are none, evenly spread."""
    for split in ("validation", "train"):
        indices = task.indices(split)
        if len(indices):
            rows = np.linspace(0, len(indices) - 1, min(len(indices), MOST_IMAGES)).astype(np.int64)
            chosen = indices[rows]
            if len(np.unique(task.label[chosen])) < len(task.class_names):
                raise InputError(f"{root} has no {split} images of every class of {task.label_name}")
            return split, chosen
    raise InputError(f"{root} has neither validation nor training images whose label and group are known")


def _usual(contract: Contract, channels: int) -> Iterator[tuple[str, Contract]]:
    """The contracts that models in the wild mostly have, by name; what is not varied is as given."""
    ranges = {"0 to 1": (0.0, 1.0), "0 to 255": (0.0, 255.0), "-1 to 1": (-1.0, 1.0)}
    ranges["-1024 to 1024"] = (-1024.0, 1024.0)
    plain = {"mean": (0.0,), "std": (1.0,)}
    for name, (low, high) in ranges.items():
        yield name, contract.model_copy(update={"low": low, "high": high, **plain})
    zero_one = {"low": 0.0, "high": 1.0}
    imagenet: dict[str, tuple[float, ...]] = dict(_IMAGENET)
    if contract.channels == 1:
        imagenet = {key: (sum(values) / 3,) for key, values in _IMAGENET.items()}
    yield "ImageNet mean and deviation", contract.model_copy(update={**zero_one, **imagenet})
    yield "white for black", contract.model_copy(update={"low": contract.high, "high": contract.low})
    if contract.channels == 3 and channels == 3:
        other = "BGR" if contract.colours == "RGB" else "RGB"
        yield f"{other} in place of {contract.colours}", contract.model_copy(update={"colours": other})


def _scores(
    model: FrozenModel, contract: Contract, pixels: NDArray[np.uint8], place: Place
) -> NDArray[np.float64]:
    blocks = (pixels[start : start + BLOCK] for start in range(0, len(pixels), BLOCK))
    with model.under(contract):
        (scores,) = apply(lambda image: (model(image).logit.float().softmax(1),), blocks, place)
    return scores


def _without_bars(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Images cut to what is not black at their edges, and stretched; None where hardly any has bars."""
    bright = pixels.max(1) > BLACK
    size, changed = pixels.shape[-1], []
    result = np.empty_like(pixels)
    for image, seen, out in zip(pixels, bright, result, strict=True):
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        whole = len(rows) == 0 or (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) == (size, size)
        changed.append(not whole)
        out[:] = image
        if not whole:
            part = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            scaled = interpolate(torch.from_numpy(part)[None].float(), (size, size), mode="bilinear")
            out[:] = scaled[0].round().to(torch.uint8).numpy()
    return result if np.mean(changed) > SOME else None


def _tried(name: str, truth: NDArray[np.int64], scores: NDArray[np.float64]) -> Tried:
    if not np.isfinite(scores).all():
        return Tried(name, 0.5, None)  # such input makes no scores at all
    binary = scores.shape[1] == 2
    ranking = scores[:, 1] if binary else scores
    return Tried(name, float(auroc(truth, ranking)), float(brier_score(truth, ranking)) if binary else None)


def _calibration(truth: NDArray[np.int64], scores: NDArray[np.float64]) -> dict[str, float] | None:
    """Of two classes, where all scores are numbers and it is defined."""
    if scores.shape[1] != 2 or not np.isfinite(scores).all():
        return None
    found = {name: float(value) for name, value in calibration(truth, scores[:, 1]).items()}
    return found if np.isfinite(list(found.values())).all() else None


def _gradient_share(model: FrozenModel, pixels: torch.Tensor) -> float:
    """The share of images whose score answers to the pixels."""
    image = pixels.detach().clone().requires_grad_()
    logit = model(image).logit
    if not logit.requires_grad:
        return 0.0
    (slope,) = torch.autograd.grad((logit[:, -1] - logit[:, 0]).sum(), image)
    flat = slope.flatten(1)
    return float(((flat != 0).any(1) & flat.isfinite().all(1)).float().mean())


def _findings(task: Task, indices: NDArray[np.int64], scores: NDArray[np.float64]) -> list[str]:
    """What the audit says first."""
    if not np.isfinite(scores).all():
        return []
    truth, binary = task.label[indices], scores.shape[1] == 2
    ranking = scores[:, 1] if binary else scores
    groups = np.array(task.group_names)[task.group[indices]]
    result = audit(
        truth,
        ranking,
        sensitive_features={task.attribute_name: groups},
        patients=task.patient[indices],
        threshold=youden_threshold(truth, ranking) if binary else 0.5,
        n_replicates=500,
    )
    return [note.text for note in result.notes if note.kind in ("finding", "caution")]
