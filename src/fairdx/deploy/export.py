"""`fairdx export`: a model folder becomes a file that other software runs, checked against PyTorch."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

from torch import nn

from fairdx.core.errors import InputError, writing_to
from fairdx.core.locks import locked
from fairdx.deploy.comparison import Run, Samples, noise, reference_of
from fairdx.deploy.monai_bundle import SCRIPT, write_bundle
from fairdx.deploy.onnx_export import OPSET, open_onnx, write_onnx
from fairdx.deploy.program import Content, Program
from fairdx.deploy.torch_export import (
    open_program,
    open_script,
    open_weights,
    write_program,
    write_weights,
)
from fairdx.deploy.triton import REPOSITORY, triton_name, write_triton
from fairdx.models.card import CARD, ExportCard, ModelCard, model_folder, read_card, write_card
from fairdx.models.store import load_model

FormatName = Literal["onnx", "torch-export", "safetensors", "triton", "monai"]


@dataclass(frozen=True)
class Format:
    """How a program is written and read back.

    Attributes:
        top: The file or folder that it becomes, as a path from the folder of the card.
        write: Writes it to that path, with an opset of ONNX.
        load: Reads back the file that runs.
        inner: That file, as a path from `top`, where `top` is a folder.
        outputs: How many outputs it keeps, from the first on.
        opset: That of ONNX where none is asked for; None where there is no ONNX in it.
    """

    top: Callable[[Program], str]
    write: Callable[[Program, Path, int | None], object]
    load: Callable[[Program, Path], Run]
    inner: str = ""
    outputs: int = 2
    opset: int | None = None

    def main(self, program: Program) -> Path:
        """Returns the file that runs, as a path from the folder of the card."""
        return Path(self.top(program)) / self.inner


def _file(ending: str) -> Callable[[Program], str]:
    return lambda program: f"{'model' if program.content == 'model' else 'mask-only'}{ending}"


FORMATS: Final[dict[FormatName, Format]] = {
    "onnx": Format(_file(".onnx"), write_onnx, lambda _, file: open_onnx(file), opset=OPSET),
    "torch-export": Format(
        _file(".pt2"),
        lambda program, file, _: write_program(program, file),
        lambda _, file: open_program(file),
    ),
    "safetensors": Format(
        _file(".safetensors"), lambda program, file, _: write_weights(program, file), open_weights
    ),
    "triton": Format(
        lambda program: f"{REPOSITORY}/{triton_name(program)}",
        write_triton,
        lambda _, file: open_onnx(file),
        inner="1/model.onnx",
        opset=OPSET,
    ),
    "monai": Format(
        lambda program: f"monai_bundle{'' if program.content == 'model' else '_mask'}",
        lambda program, folder, _: write_bundle(program, folder),
        lambda _, file: open_script(file),
        inner=SCRIPT,
        outputs=1,
    ),
}
"""By name; everything that differs between formats is here."""


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        folder: A model folder, or a run's folder.
        format: One of `FORMATS`.
        content: Mask and model, or the mask alone.
        out: Where to; the model folder by default. Another folder gets a card of its own.
        opset: Of ONNX.
        trust: Whether a foreign model's file may run code of its own; see `load_model`.
        source: Where a foreign model's file is now.
        network: The foreign model itself, where it came from memory.
        samples: Images to compare on; noise by default.
    """

    folder: Path
    format: FormatName
    content: Content = "model"
    out: Path | None = None
    opset: int | None = None
    trust: bool = False
    source: str | None = None
    network: nn.Module | None = None
    samples: Samples | None = None


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file that runs.
        card: The card beside it.
        entry: What the card says of it.
        notes: Sentences that whoever deploys it should read.
    """

    path: Path
    card: ModelCard
    entry: ExportCard
    notes: tuple[str, ...] = field(default=())


def export(request: Request) -> Exported:
    """Exports a model, compares it with PyTorch, and keeps it if it is the same.

    Args:
        request: What, how and where to.

    Raises:
        InputError: The model cannot be loaded, exported or written, or the export differs from it.
    """
    form = _format(request)
    stored = load_model(request.folder, trust=request.trust, source=request.source, network=request.network)
    program = Program.of(stored.card, stored.fair, request.content)
    samples = request.samples or noise(stored.card)
    reference = reference_of(stored, program.module, request.content, samples)
    place = model_folder(request.out or request.folder)  # a run's folder keeps its model inside
    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
    with (
        locked(place, wait=True, required=False, clear=True),
        writing_to(place),
        _aside(place, request.format) as partial,
    ):
        card = _card_of(place, stored.card)
        (partial / form.top(program)).parent.mkdir(parents=True, exist_ok=True)
        form.write(program, partial / form.top(program), request.opset)
        outcome = reference.compare(form.load(program, partial / form.main(program)), form.outputs)
        outcome.check(request.format)
        entry = ExportCard(
            file=form.main(program).as_posix(),
            content=program.content,
            images=len(samples.images),
            compared_on=samples.kind,
            opset=request.opset or form.opset,
            **asdict(outcome),
        )
        card = _keep(place, partial, card, (request.format, entry), form.top(program))
    return Exported(place / entry.file, card, entry, _notes(card, request, entry))


@contextmanager
def _aside(place: Path, name: str) -> Iterator[Path]:
    """An empty folder inside `place` that is gone afterwards: what is not kept leaves no trace."""
    partial = place / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _format(request: Request) -> Format:
    if request.format not in FORMATS:
        raise InputError(f"there is no format `{request.format}`; there are {', '.join(FORMATS)}")
    if request.opset is not None and FORMATS[request.format].opset is None:
        raise InputError(f"--opset is for onnx and triton, not for {request.format}")
    return FORMATS[request.format]


def _card_of(place: Path, card: ModelCard) -> ModelCard:
    """The card to enter an export on, as it is by now: the model's, or that of a folder of exports alone."""
    if (place / CARD).exists():
        known = read_card(place)
        if (known.created, known.frozen.weights_sha256) != (card.created, card.frozen.weights_sha256):
            raise InputError(f"{place} holds another model; give another --out")
        return known
    frozen = card.frozen
    if frozen.sha256 is not None:  # a file: the folder may go anywhere, and names no path of this machine
        frozen = frozen.model_copy(update={"source": Path(frozen.source).name})
    return card.model_copy(update={"frozen": frozen, "exports": {}, "files": {}})


def _keep(place: Path, partial: Path, card: ModelCard, named: tuple[str, ExportCard], top: str) -> ModelCard:
    """Moves an export to its place and enters it on the card, which never lists a file that is not there."""
    key = named[0] if named[1].content == "model" else f"{named[0]}-mask"
    old = [name for name in card.files if _belongs(name, top)]
    written = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    for path in written:
        if (place / path).exists() and path.as_posix() not in old:
            raise InputError(f"{place / path} is there and not on the card: move it away, or give --out")
    if old:
        files = {name: digest for name, digest in card.files.items() if name not in old}
        exports = {name: entry for name, entry in card.exports.items() if name != key}
        card = write_card(place, card.model_copy(update={"files": files, "exports": exports}))
    for name in old:
        (place / name).unlink()
    for path in written:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (partial / path).replace(place / path)
    files = {**card.files, **{path.as_posix(): "" for path in written}}
    return write_card(
        place, card.model_copy(update={"files": files, "exports": {**card.exports, key: named[1]}})
    )


def _belongs(name: str, top: str) -> bool:
    return name == top or name.startswith((f"{top}/", f"{top}.data"))


def _notes(card: ModelCard, request: Request, entry: ExportCard) -> tuple[str, ...]:
    """What is not in the file, and what is different in it."""
    notes = []
    if request.content == "mask":
        notes.append("The file holds the mask alone: images in, masked images out, both in [0, 1].")
    elif card.threshold is not None:
        notes.append(f"The threshold is on the card, not in the file: positive from {card.threshold:.6g} on.")
    if card.rule is not None:
        told = " and has to be told the group" if card.rule.needs_group else ""
        notes.append(
            f"The rule of method `{card.method}` works on finished scores{told}: it is on the card, not in "
            "the file. `fairdx predict` applies it; other software must do it."
        )
    if request.format == "monai" and request.content == "model":
        notes.append("A MONAI bundle gives the probabilities alone, not the mask's change.")
    if entry.equal_to_measured is not None:
        notes.append(
            f"The model was measured in {card.precision}, and the file computes in fp32: "
            f"{entry.equal_to_measured:.1%} of the decisions are the same."
        )
    return tuple(notes)
