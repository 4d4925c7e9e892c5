"""`fairdx explain`: opens a run or a model folder, looks at its models, and writes what was found."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fairdx.core.errors import InputError, writing_to
from fairdx.core.files import write_whole
from fairdx.core.locks import locked
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.verify import verified
from fairdx.explain.charts import charts
from fairdx.explain.explain import Explained, choose_images, explain, explains
from fairdx.explain.figure import draw_figure
from fairdx.explain.result import OVERLAP
from fairdx.explain.settings import ExplainSettings
from fairdx.explain.subject import Subject, row_by_row
from fairdx.methods import METHODS
from fairdx.models.card import CARD, ModelCard, read_card, write_card
from fairdx.models.fair import FairModel
from fairdx.models.loading import TaskImages
from fairdx.models.store import load_model
from fairdx.runs.card import TEXT
from fairdx.runs.card_text import card_text
from fairdx.runs.explained_page import MAPS, write_explanation_page
from fairdx.runs.files import MODEL
from fairdx.runs.page import write_run_report
from fairdx.runs.reopen import is_run, reopen

PAGE: Final = "explain.html"


@dataclass(frozen=True)
class ExplainRequest:
    """What a command line asks for.

    Attributes:
        place: A run's folder, or a model folder.
        settings: What is looked at, and how closely.
        chosen: Images to show, by their name in the data set's table or by row number.
        data: A prepared data set in place of the run's own; a model folder needs one.
        out: Folder to write to; the run's or `explain` beside the model by default.
        trust: Whether a frozen model's file may run code of its own.
        source: Where the frozen model is now, if its file has moved.
    """

    place: Path
    settings: ExplainSettings
    chosen: Sequence[str] = ()
    data: Path | None = None
    out: Path | None = None
    trust: bool = False
    source: str | None = None


@dataclass(frozen=True)
class _Opened:
    subjects: tuple[Subject, ...]
    images: TaskImages
    phantom: Phantom | None
    folder: Path
    model: Path | None


def explain_folder(request: ExplainRequest) -> tuple[Explained, Path]:
    """Explains the models of a run or of a model folder, and writes `overlap.json`, a figure and a page.

    Args:
        request: What to do.

    Returns:
        What was found, and the folder that it was written to.

    Raises:
        InputError: The folder, the data or the images cannot be used.
    """
    opened = _open_run(request) if is_run(request.place) else _open_model(request)
    with writing_to(opened.folder):  # found out now, and not when all is computed
        opened.folder.mkdir(parents=True, exist_ok=True)
    chosen = rows_of(opened.images, request.chosen)
    device = next(opened.subjects[0].fair.parameters()).device
    asked = choose_images(opened.images, request.settings, device)
    explained = explain(opened.subjects, asked, opened.phantom, request.settings)
    _write(explained, draw_figure(explained, chosen), opened)
    return explained, opened.folder


def _write(explained: Explained, figure: bytes, opened: _Opened) -> None:
    folder, explanation = opened.folder, explained.explanation
    with writing_to(folder), ExitStack() as stack:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for place in (folder, opened.model):
            if place is not None:
                stack.enter_context(locked(place, wait=True, required=False, clear=True))
        write_whole(folder / MAPS, figure)
        for chart in charts(explanation):
            write_whole(folder / "figures" / f"{chart.name}.svg", chart.file().encode())
        write_whole(folder / OVERLAP, explanation.json())
        if opened.model is not None:
            write_whole(opened.model / OVERLAP, explanation.json())
            card = read_card(opened.model, check=())  # now: something may have been exported in the meantime
            card = write_card(opened.model, card.model_copy(update={"files": {**card.files, OVERLAP: ""}}))
            write_whole(opened.model / TEXT, card_text(card, explanation.sentences).encode())
    if is_run(folder):
        write_run_report(folder)
    else:
        write_explanation_page(explanation, figure, folder / PAGE)


def _open_run(request: ExplainRequest) -> _Opened:
    folder = request.place
    found = reopen(folder)
    settings, images, phantom = found.current.settings, found.current.images, found.current.phantom
    if request.data is not None:
        images, phantom = _given_data(request.data, images.task.label_name, images.task.attribute_name)
        meta, own = images.dataset.meta, found.current.images.dataset.meta
        if (meta.size, meta.channels) != (own.size, own.channels):
            raise InputError(
                f"{request.data} has images of {meta.size} pixels and {meta.channels} channels, and the run "
                f"was trained on {own.size} and {own.channels}"
            )
    name, method = settings.method_name, found.method
    vanilla = Subject("vanilla", FairModel(found.obtained.model), threshold=found.thresholds.get("vanilla"))
    subjects = [vanilla]
    if name != "vanilla":
        subjects.append(Subject(name, method.fair, method.discriminator, found.thresholds.get(name)))
    for subject in subjects:
        for part in (subject.fair, subject.discriminator):
            if part is not None:
                row_by_row(part.to(found.current.fabric.device).eval().requires_grad_(False))
    model = folder / MODEL if (folder / MODEL / CARD).exists() else None
    if request.out is not None or request.data is not None:
        model = None  # the run's own folders say what its own images showed
    out = request.out or (folder if request.data is None else folder / "explain")
    return _Opened(tuple(subjects), images, explains(phantom, images), out, model)


def _open_model(request: ExplainRequest) -> _Opened:
    if request.place.is_file():
        raise InputError(
            f"{request.place} is a file: give the folder of a run or of a model, or a .toml file; "
            "of a network from elsewhere make a run with `fairdx run` first"
        )
    stored = load_model(request.place, trust=request.trust, source=request.source)
    card = stored.card
    if request.data is None:
        raise InputError(f"{request.place} is a model without images: say which, as in --data prepared/nih")
    images, phantom = _given_data(request.data, card.label, card.attribute)
    _check_form(card, images, request.data)
    subjects = []
    fair = stored.fair
    retrained = card.method in METHODS and METHODS[card.method].retrains
    if not retrained and card.method != "vanilla":
        subjects.append(Subject("vanilla", FairModel(fair.model), threshold=_threshold(card, "vanilla")))
    subjects.append(Subject(card.method, fair, threshold=card.threshold))
    row_by_row(fair)
    out = request.out or request.place / "explain"
    return _Opened(tuple(subjects), images, explains(phantom, images), out, None)


def _threshold(card: ModelCard, name: str) -> float | None:
    found = card.metrics.get(name, {}).get("threshold", card.threshold)
    return None if found is None else float(found)


def _given_data(root: Path, label: str, attribute: str) -> tuple[TaskImages, Phantom | None]:
    dataset = verified(root)
    own = dataset.meta.source == "phantom"
    phantom = Phantom(PhantomSettings(**dataset.meta.settings)) if own else None
    return TaskImages(dataset, dataset.task(label, attribute)), phantom


def _check_form(card: ModelCard, images: TaskImages, root: Path) -> None:
    meta, task = images.dataset.meta, images.task
    if (meta.size, meta.channels) != (card.image.size, card.image.channels):
        raise InputError(
            f"{root} has images of {meta.size} pixels and {meta.channels} channels, and the model takes "
            f"{card.image.size} and {card.image.channels}"
        )
    if task.class_names != card.classes:
        raise InputError(
            f"{root}: {task.label_name} has the classes {', '.join(task.class_names)}, and the model "
            f"{', '.join(card.classes)}"
        )


def rows_of(images: TaskImages, chosen: Sequence[str]) -> NDArray[np.int64]:
    """Finds images by name or by row number.

    Args:
        images: Where they are.
        chosen: Names in the column `image` of the table, or numbers from 0.

    Returns:
        Their rows, shape (n,).

    Raises:
        InputError: There is no such image, or its label or group is unknown.
    """
    names = images.dataset.table["image"].astype(str).to_numpy()
    place = {name: row for row, name in enumerate(names)}
    rows = []
    for name in chosen:
        row = place.get(name, int(name) if name.isdecimal() and int(name) < len(names) else None)
        if row is None:
            raise InputError(
                f"{images.dataset.root} has no image `{name}`; give a name of its column `image`, as "
                f"{names[0]}, or a row number up to {len(names) - 1}"
            )
        if not images.task.usable[row]:
            raise InputError(f"image `{name}`: its {images.task.label_name} or group is not known")
        rows.append(row)
    return np.array(rows, dtype=np.int64)
