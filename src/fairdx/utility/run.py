"""Figure 3 of the paper: one finding's encoder, frozen, diagnoses others, with and without its extras."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.split import SPLITS, Split
from fairdx.methods import Method
from fairdx.models.runtime import make_fabric
from fairdx.models.scoring import apply_to
from fairdx.runs.data import RunData
from fairdx.runs.files import STAGES, check_free, save_settings
from fairdx.runs.run import train
from fairdx.runs.settings import RunSettings
from fairdx.runs.together import held
from fairdx.utility.heads import MEAN, Answer, Figure, compare, fit_head
from fairdx.utility.settings import UtilityOptions, UtilitySettings
from fairdx.utility.tables import RESULTS, write_utility

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]
Embeddings = Mapping[Split, NDArray[np.float64]]

MI, NO_MI = "with MI", "without MI"
UNMASKED, MASKED = "unmasked", "masked"
DIFFERENCES = {
    f"{MI} less {NO_MI}, {UNMASKED}": (f"{MI}, {UNMASKED}", f"{NO_MI}, {UNMASKED}"),
    f"{MI} less {NO_MI}, {MASKED}": (f"{MI}, {MASKED}", f"{NO_MI}, {MASKED}"),
    f"{MASKED} less {UNMASKED}, {MI}": (f"{MI}, {MASKED}", f"{MI}, {UNMASKED}"),
    f"{MASKED} less {UNMASKED}, {NO_MI}": (f"{NO_MI}, {MASKED}", f"{NO_MI}, {UNMASKED}"),
}
"""What is compared, finding by finding on the same patients."""


def data_utility(
    settings: UtilitySettings, folder: Path, *, stages: Path | None = None
) -> list[Figure] | None:
    """Measures what the frozen embeddings are good for beside the main finding (Sec. 4.4, Fig. 3).

    The method is trained twice, with and without the mutual-information term of stage 1, and each encoder
    sees images with and without the method's mask. On each of the four kinds of embeddings a new head is
    fitted for every other finding. Stages that are finished or begun in `stages` are not trained again.

    Args:
        settings: Everything that the measurement depends on.
        folder: Where to write: `utility.parquet`, `utility.csv`, `utility.md`, `utility.tex`, `figure3.svg`.
        stages: Where to keep trained stages; in `folder` by default.

    Returns:
        All figures; None in all but the first of several processes.

    Raises:
        InputError: The settings or the data cannot be used, or `folder` holds a run with other settings, or
            another process writes to it.
        fairdx.training.fit.TrainingError: A loss is no longer finite.
    """
    fabric = make_fabric(settings.run.trainer)
    with held(folder, fabric):
        if fabric.is_global_zero:
            check_free(folder, settings, RESULTS)
            save_settings(folder, settings)
        return _data_utility(settings, folder, stages or folder / STAGES)


def _data_utility(settings: UtilitySettings, folder: Path, stages: Path) -> list[Figure] | None:
    answers: list[Answer] = []
    left_out: dict[str, str] = {}
    notes: list[str] = []
    current, unmasked = None, np.empty(0)
    for name, run in ((MI, settings.run), (NO_MI, _without(settings.run))):
        place = folder / name.replace(" ", "_")
        check = partial(check_measurable, options=settings.utility) if name == MI else None
        current, method = train(run, place, stages=stages, phantoms=folder, check=check)
        findings, left_out = chosen_findings(current, settings.utility)
        parts = {split: _split(current, split) for split in SPLITS}
        for masked in (UNMASKED, MASKED):
            seen = {s: embed(current, method, i, masked=masked == MASKED) for s, i in parts.items()}
            arm = f"{name}, {masked}"
            if masked == MASKED and np.array_equal(seen["test"], unmasked):
                notes.append(f"{name}: the method masks nothing, and masked images are the unmasked ones")
            unmasked = seen["test"]
            answers += _answers(current, findings, parts, seen, arm, settings.utility)
    assert current is not None
    if not current.fabric.is_global_zero:
        return None
    test = _split(current, "test")
    evaluation = settings.run.evaluation
    figures = compare(
        answers,
        current.images.task.patient[test].tolist(),
        DIFFERENCES,
        replicates=evaluation.replicates,
        level=evaluation.level,
        seed=settings.run.seed,
    )
    heads = pd.DataFrame({"finding": a.finding, "arm": a.arm, "penalty": a.head.penalty} for a in answers)
    table = pd.DataFrame([asdict(figure) for figure in figures]).merge(heads, "left", ["finding", "arm"])
    table["frequent"] = table["finding"].map(_more_frequent(answers))
    write_utility(
        table,
        folder,
        main=current.images.task.label_name,
        notes=[*notes, *(f"{name} is left out: {why}" for name, why in left_out.items())],
        level=evaluation.level,
    )
    return figures


def _more_frequent(answers: Sequence[Answer]) -> dict[str, float]:
    """By finding, the accuracy of always deciding what is more frequent; for the mean, theirs."""
    shares = {a.finding: float(max(a.truth.mean(), 1 - a.truth.mean())) for a in answers}
    return {**shares, MEAN: float(np.mean(list(shares.values())))}


def _without(run: RunSettings) -> RunSettings:
    """The same run without the mutual-information term."""
    return run.model_copy(update={"model": run.model.model_copy(update={"mutual_information": 0.0})})


def _split(current: RunData, split: str) -> Indices:
    """All images of a split, whatever is known of the main finding and the group."""
    return np.flatnonzero(current.images.task.split == split)


def check_measurable(current: RunData, options: UtilityOptions) -> None:
    """Refuse, before hours of training, data that nothing can be measured with, and list what is left out.

    Args:
        current: The data.
        options: What is asked of the embeddings.

    Raises:
        InputError: All test images are of one patient, or there is no finding to diagnose.
    """
    patients = np.unique(current.images.task.patient[_split(current, "test")].astype(str))
    if len(patients) < 2:
        raise InputError(
            f"{current.images.dataset.root}: all test images are of one patient, and nothing says how "
            "figures vary from patient to patient: give test images of more patients"
        )
    _, left_out = chosen_findings(current, options)
    for name, reason in left_out.items():
        logger.warning("%s is left out: %s", name, reason)


def chosen_findings(current: RunData, options: UtilityOptions) -> tuple[dict[str, Indices], dict[str, str]]:
    """The findings to diagnose, as codes of every image (-1 where unknown), and why others are left out.

    Raises:
        InputError: A finding is not a label of the data, is the main one, or none is left.
    """
    dataset, task = current.images.dataset, current.images.task
    found: dict[str, Indices] = {}
    left_out: dict[str, str] = {}
    for name in options.findings or [one for one in dataset.meta.labels if one != task.label_name]:
        if name not in dataset.meta.labels or name == task.label_name:
            known = ", ".join(one for one in dataset.meta.labels if one != task.label_name)
            raise InputError(
                f"`utility.findings`: `{name}` is not one of the other labels: {known or 'none'}"
            )
        codes = np.asarray(dataset.table[name].astype("Int64").fillna(-1), dtype=np.int64)
        reason = _unusable(current, name, codes, options.fewest)
        if reason:
            left_out[name] = reason
        else:
            found[name] = codes
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InputError(f"{dataset.root} has no other finding to diagnose ({reasons or 'no other label'})")
    return found, left_out


def _unusable(current: RunData, name: str, codes: Indices, fewest: int) -> str:
    classes = current.images.dataset.meta.labels[name]
    if len(classes) != 2:
        return f"it has {len(classes)} classes, and a head is for two"
    for split in SPLITS:
        counts = np.bincount(codes[(current.images.task.split == split) & (codes >= 0)], minlength=2)
        if counts.min() < fewest:
            return f"{counts[1]} {split} images with it and {counts[0]} without; each needs {fewest}"
    return ""


def embed(current: RunData, method: Method, indices: Indices, *, masked: bool) -> NDArray[np.float64]:
    """Embeddings E = f_theta(X) (Eq. 4) of images in order, masked by the method or as they are.

    Returns:
        Shape (n, D).
    """

    def embedding(image: Tensor) -> tuple[Tensor, ...]:
        found = method.fair.model(method.fair.masked(image) if masked else image).embedding
        return (found,)

    title = "embeddings" if current.fabric.is_global_zero else None
    found = apply_to(embedding, current.images, indices, current.fabric, title=title)
    return found[0] if found else np.empty((0, 0))


def _answers(
    current: RunData,
    findings: dict[str, Indices],
    parts: Mapping[Split, Indices],
    seen: Embeddings,
    arm: str,
    options: UtilityOptions,
) -> list[Answer]:
    """A head for each finding on one arm's embeddings."""
    made = []
    with Reporter(f"heads {arm}", len(findings), enabled=current.fabric.is_global_zero) as reporter:
        for name, codes in findings.items():
            known = {split: np.flatnonzero(codes[rows] >= 0) for split, rows in parts.items()}
            labels = {split: codes[parts[split]][rows] for split, rows in known.items()}
            own = {split: seen[split][rows] for split, rows in known.items()}
            head = fit_head(own, labels, options.penalties)
            made.append(Answer(name, arm, labels["test"], known["test"], head))
            reporter.advance()
    return made
