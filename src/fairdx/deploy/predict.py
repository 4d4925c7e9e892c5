"""Score image files with an exported model: decoding beside scoring, resumable; needs no torch."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fairdx import __version__
from fairdx.core.errors import InputError, writing_to
from fairdx.core.locks import locked
from fairdx.core.progress import Reporter
from fairdx.data.pool import available_cpus, ordered_map
from fairdx.deploy.decoding import UIDS, Decoded, ImageFile, Job, Reading, decode_batch
from fairdx.deploy.groups import FileGroups, header_groups
from fairdx.deploy.inputs import Inputs, find_inputs, part_of, read_list, stamp_of
from fairdx.deploy.onnx_model import DeployedModel, open_model
from fairdx.deploy.record import Record, Settings, errors_of
from fairdx.deploy.structured_report import Device, Result, require_highdicom, write_report
from fairdx.deploy.writer import Batch, ScoreWriter, csv_lines, finished

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FEW: Final = 8
"""Batches that are not worth a process of their own."""


@dataclass(frozen=True)
class PredictOptions:
    """How files are scored."""

    threshold: float | None = None
    """Used instead of the card's."""
    batch_size: int = 16
    """Images at a time."""
    workers: int | None = None
    """Processes that decode, and threads that score; one for each processor by default."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    groups: Path | None = None
    """Table of the groups (columns `path` and `group`), for rules that have to be told them."""
    keep_patient_id: bool = False
    """Whether to write the patient's ID of DICOM files."""
    part: tuple[int, int] | None = None
    """Number of the part to score, from 1, and of all parts."""
    reports: Path | None = None
    """Folder for DICOM reports."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    record: Record
    """What was written."""
    inputs: Inputs
    """What was found."""


@dataclass(frozen=True)
class _Scored:
    """A batch with what the model says of it."""

    job: Job
    files: tuple[ImageFile, ...]
    results: tuple[Result, ...]
    broken: tuple[tuple[str, str], ...]
    reports: int = 0


def predict(
    folder: Path,
    paths: Sequence[str],
    out: Path,
    options: PredictOptions | None = None,
    *,
    listing: Path | None = None,
) -> Outcome:
    """Score image files.

    Stopped at any moment, even by `kill -9`, the same call goes on where it was and ends with the same bytes;
    repeated after it has finished, it says what is there. The work is spread over fresh processes, which
    import the calling script: a script must call this below `if __name__ == "__main__":`.

    Args:
        folder: A model folder with an exported model, or the folder of a run.
        paths: PNG, JPEG, TIFF, WebP, DICOM and NIfTI files, and folders of them.
        out: The table of scores to write; the list of broken files and the record stand beside it.
        options: How; the defaults of `PredictOptions` if left out.
        listing: A file with further paths, one in each line; `-` for the standard input.

    Returns:
        What was written and what was found.

    Raises:
        InputError: The model, a path or an option cannot be used, the output is of something else, or the
            reports of what an earlier call scored are gone or in another folder.
    """
    chosen = options or PredictOptions()
    _check_options(out, paths, chosen)
    workers = chosen.workers or available_cpus()
    model = open_model(
        folder,
        threshold=chosen.threshold,
        batch_size=chosen.batch_size,
        threads=workers,
        device=chosen.device,
    )
    inputs = find_inputs(paths, read_list(listing) if listing else ())
    run = _Run(model, inputs, chosen, workers)
    if chosen.reports:
        with writing_to(chosen.reports):
            chosen.reports.mkdir(parents=True, exist_ok=True)
    with writing_to(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out, clear=True):
            record = finished(out, run.settings, run.stamp) or run.write(out)
            if chosen.reports:
                _require_reports(out, chosen.reports)
    return Outcome(record, inputs)


def _check_options(out: Path, paths: Sequence[str], options: PredictOptions) -> None:
    if out.is_dir():
        raise InputError(f"{out} is a folder: give the name of a table, such as {out / 'scores.csv'}")
    for name, value in (("batch size", options.batch_size), ("number of workers", options.workers)):
        if value is not None and value < 1:
            raise InputError(f"a {name} of {value} is not possible: give 1 or more")
    number, parts = options.part or (1, 1)
    if parts < 1:
        raise InputError(f"part {number}/{parts} is not possible: there is at least one part, 1/1")
    if not 1 <= number <= parts:
        raise InputError(f"part {number}/{parts} is not possible: give 1/{parts} to {parts}/{parts}")
    if options.reports is None:
        return
    require_highdicom()
    place = os.path.realpath(options.reports)
    for path in paths:
        if os.path.isdir(path) and os.path.commonpath((place, os.path.realpath(path))) == os.path.realpath(
            path
        ):
            raise InputError(
                f"reports in {options.reports} would be taken for images of {path}: choose a folder outside"
            )


def _require_reports(out: Path, folder: Path) -> None:
    """What an earlier call scored has its reports in the folder of that call, if they are still there."""
    rows = partial(open, encoding="utf-8", newline="")
    with rows(errors_of(out)) as file:
        lost = {row["path"] for row in csv.DictReader(file)}
    with rows(out) as file:
        reported = {row["SOPInstanceUID"] for row in csv.DictReader(file) if row["path"] not in lost} - {""}
    there = sum(1 for _ in folder.glob("*.dcm"))
    if there < len(reported):
        raise InputError(
            f"{out} is finished, but {folder} has {there} of its {len(reported)} DICOM reports: give the "
            f"folder that they were written to, or delete {out.name}* to write them again"
        )


class _Run:
    """One call of `predict`, checked."""

    def __init__(self, model: DeployedModel, inputs: Inputs, options: PredictOptions, workers: int) -> None:
        self._model, self._options, self._workers = model, options, workers
        self._part = [inputs.files[place] for place in part_of(len(inputs.files), options.part)]
        self._needs_group = model.card.rule is not None and model.card.rule.needs_group
        self._groups, header = self._sources(inputs)
        self._reading = Reading(model.form, header, self._needs_group, options.keep_patient_id)
        self._multiclass = len(model.card.classes) > 2
        self.settings = self._settings(inputs)

    def _sources(self, inputs: Inputs) -> tuple[FileGroups | None, Any]:
        """Where the groups come from: a table, the header, or both."""
        card, table = self._model.card, self._options.groups
        if not self._needs_group or card.rule is None:
            if table is not None:
                raise InputError(f"the model needs no group: leave {table} out")
            return None, None
        known = tuple(card.rule.changed)
        header = header_groups(card.attribute, known)
        if table is None and header is None:
            raise InputError(
                f"the model's rule has to be told {card.attribute} ({', '.join(known)}): give a table with "
                "the columns path and group as --groups"
            )
        return (FileGroups(table, known, inputs.files) if table else None), header

    def _settings(self, inputs: Inputs) -> Settings:
        card, options = self._model.card, self._options
        scores = [f"score_{name}" for name in card.classes] if self._multiclass else ["score"]
        columns = ["path", *scores, "decision", "threshold", "mask_change", "caution", "note", *UIDS]
        columns += ["group"] * self._needs_group + ["patient"] * options.keep_patient_id
        table = options.groups
        return Settings(
            fairdx=__version__,
            model=card.seal,
            label=card.label,
            classes=card.classes,
            threshold=self._model.threshold,
            batch_size=options.batch_size,
            device=options.device,
            groups=hashlib.sha256(table.read_bytes()).hexdigest() if table else None,
            keep_patient_id=options.keep_patient_id,
            reports=options.reports is not None,
            files=len(inputs.files),
            digest=inputs.digest,
            part=options.part,
            columns=tuple(columns),
        )

    def stamp(self) -> str:
        """What the record says of sizes and times of change, of the files as they are now."""
        return stamp_of(self._part)

    def write(self, out: Path) -> Record:
        """Score all files that an earlier run has not."""
        files = self._part
        stamp = lambda start, end: stamp_of(files[start:end])  # noqa: E731
        with (
            ScoreWriter(out, self.settings, stamp) as writer,
            Reporter("predict", len(files), unit="files", done=writer.done) as bar,
        ):
            for scored in self._results(writer.done):
                writer.add(self._batch(scored))
                bar.advance(len(scored.job.files))
            return writer.finish()

    def _results(self, done: int) -> Iterator[_Scored]:
        """Decode, score and report: each step takes only a few batches ahead of the next."""
        starts = range(done, len(self._part), self._options.batch_size)
        apart = len(starts) >= FEW  # to start a process takes a second
        workers = min(self._workers, len(starts) // FEW) if apart else 1
        decode = partial(decode_batch, reading=self._reading)
        scored = map(self._score, ordered_map(decode, self._jobs(starts), workers=workers, apart=apart))
        folder = self._options.reports
        if folder is None:
            return scored
        report = partial(_report, device=self._device(), folder=folder)
        return ordered_map(report, scored, workers=workers, apart=apart)

    def _jobs(self, starts: range) -> Iterator[Job]:
        for start in starts:
            files = tuple(self._part[start : start + starts.step])
            groups = tuple(self._groups.find(file) if self._groups else None for file in files)
            yield Job(files, stamp_of(files), groups)

    def _score(self, decoded: Decoded) -> _Scored:
        """Run the model; images of which it gives no number are broken."""
        if not decoded.files:
            return _Scored(decoded.job, (), (), decoded.broken)
        model = self._model
        scores = model.score(decoded.images)
        usable = np.isfinite(scores.probability).all(axis=1) & np.isfinite(scores.change)
        files = tuple(file for file, good in zip(decoded.files, usable, strict=True) if good)
        lost = tuple(
            (file.path, "gets no number from the model as its score")
            for file, good in zip(decoded.files, usable, strict=True)
            if not good
        )
        verdicts = model.decide(scores.probability[usable], [file.group for file in files])
        change = scores.change[usable]
        results = tuple(
            Result(tuple(score), decision, model.threshold, size, words)
            for score, decision, size, words in zip(
                verdicts.score.tolist(),
                verdicts.decision.tolist(),
                change.tolist(),
                model.cautions(decoded.images[usable], change),
                strict=True,
            )
        )
        return _Scored(decoded.job, files, results, decoded.broken + lost)

    def _batch(self, scored: _Scored) -> Batch:
        rows = [self._row(file, result) for file, result in zip(scored.files, scored.results, strict=True)]
        counts = Counter({"scored": len(rows), "broken": len(scored.broken), "reports": scored.reports})
        for result in scored.results:
            counts.update(f"caution: {words}" for words in ("any", *result.cautions) if result.cautions)
        counts["noted"] = sum(bool(file.note) for file in scored.files)
        return Batch(
            len(scored.job.files),
            scored.job.stamp,
            csv_lines(rows),
            csv_lines(scored.broken),
            {name: number for name, number in counts.items() if number},
        )

    def _row(self, file: ImageFile, result: Result) -> list[Any]:
        # The shortest text that reads back as the same number, so that decisions can be checked.
        row = [file.path, *map(repr, result.scores), result.decision]
        row += ["" if result.threshold is None else repr(result.threshold), repr(result.change)]
        row += ["; ".join(result.cautions), file.note, *file.uids]
        return row + [file.group] * self._needs_group + [file.patient] * self._options.keep_patient_id

    def _device(self) -> Device:
        card = self._model.card
        facts = {"threshold chosen on": card.threshold_chosen_on, "attribute": card.attribute}
        if card.mask is not None:
            facts |= {"largest change of a pixel by the mask": f"{card.mask.eta:g}"}
        facts |= {"model behind the mask": card.frozen.source, "its weights": card.frozen.weights_sha256}
        parameters = tuple(f"{name}={value}" for name, value in facts.items() if value)
        return Device(card.identity, __version__, card.method, card.label, card.classes, parameters)


def _report(scored: _Scored, device: Device, folder: Path) -> _Scored:
    """Write the reports of a batch; what could be scored but not reported is listed."""
    lost, written = list(scored.broken), 0
    for file, result in zip(scored.files, scored.results, strict=True):
        if file.dicom:
            try:
                write_report(file.path, result, device, folder)
                written += 1
            except InputError as error:
                lost.append((file.path, f"was scored, but there is no report: the file {error}"))
    return _Scored(scored.job, scored.files, scored.results, tuple(lost), written)
