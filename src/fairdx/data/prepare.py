"""From a source to a prepared data set: split, decode, write; resumable, checked and counted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from fairdx import __version__
from fairdx.core.cells import as_text
from fairdx.core.errors import InputError, writing_to
from fairdx.core.files import write_whole
from fairdx.core.locks import locked
from fairdx.core.progress import Reporter
from fairdx.data.base import EXCLUSIONS, META, TABLE, WARNINGS, Meta, PreparedDataset, sealed, table_bytes
from fairdx.data.checks import require_choice
from fairdx.data.decode import Decoded, Form, Geometry, decode_files
from fairdx.data.pool import available_cpus, ordered_map
from fairdx.data.source import PathFinder, Source, check_source, file_stamp, with_attributes
from fairdx.data.split import SPLITS, check_disjoint, cut_validation, split_patients
from fairdx.data.verify import content_hash
from fairdx.data.writer import JOURNAL, Block, ImageWriter

__all__ = ["OnError", "PrepareOptions", "Source", "prepare"]

if TYPE_CHECKING:
    from collections.abc import Iterator

OnError = Literal["stop", "skip", "warn"]

log = logging.getLogger(__name__)

_BLOCK_BYTES = 4 << 20
_BLOCK_ROWS = 64
_SKIP = " (with on-error skip such images are left out, listed and counted)"


@dataclass(frozen=True)
class PrepareOptions:
    """How a source becomes a prepared data set."""

    size: int | None = None
    """Height and width of the images, in pixels; 224 by default."""
    channels: int | None = None
    """1 (grey) or 3 (RGB); by default what the source is by nature."""
    geometry: Geometry = "pad"
    """What becomes of images that are not square: black bars, the centre alone, or stretched."""
    bits: int = 16
    """Significant bits of 16-bit grey images."""
    frame: int | None = None
    """Which frame of files with several (or axial slice of NIfTI), from 1; by default these are refused."""
    window: tuple[float, float] | None = None
    """Centre and width of the window for DICOM, in rescaled units; the source's by default."""
    seed: int = 0
    """Seed of the split."""
    test: float = 0.1
    """Fraction of patients in the test split (the paper's), where the source supplies no split."""
    validation: float = 0.1
    """Fraction of training patients cut off for validation, where the source supplies no validation."""
    on_error: OnError = "stop"
    """At a file that cannot be used: stop; skip (leave it out, list and count it); or warn (as skip, but take
    files with odd bytes behind their last pixel, list and count them)."""
    workers: int | None = None
    """Number of processes; one per processor by default."""
    outside: bool = False
    """Whether paths may lead out of the root."""
    attribute: tuple[str, ...] = ()
    """Further columns of the source's table to take as sensitive attributes, each value being a group."""

    def form(self, source: Source) -> Form:
        """Settle what images are brought to.

        Args:
            source: Whose images.

        Returns:
            The form, with the source's own size and channels where none were given.

        Raises:
            InputError: An impossible value, or another than the one that the source renders.
        """
        size, channels = self.size or 224, self.channels or source.channels
        if source.render is not None:
            _, channels, size, _ = source.render(np.zeros(1, dtype=np.int64)).shape
            if size != (self.size or size) or channels != (self.channels or channels):
                raise InputError(
                    f"{source.name} is rendered at size {size} with {channels} channels, not at "
                    f"size={self.size}, channels={self.channels}: change its settings instead"
                )
        return Form(
            size=size,
            channels=channels,
            geometry=self.geometry,
            bits=self.bits,
            window=self.window or source.window,
            frame=self.frame,
            lenient=self.on_error == "warn",
        )


def prepare(
    source: Source, out: str | Path, options: PrepareOptions | None = None, *, wait: bool = False
) -> PreparedDataset:
    """Split, decode and cache a source.

    The work is spread over fresh processes, which import the calling script: a script must call this below
    `if __name__ == "__main__":`. Stopped at any moment, even by `kill -9`, the same call goes on where it was
    and ends with the same bytes; repeated after it has finished, it opens what is there.

    Args:
        source: What a reader returned.
        out: Folder to write to; made if missing.
        options: How; the defaults of `PrepareOptions` if left out.
        wait: Whether to wait for another process that writes to the folder, instead of refusing.

    Returns:
        The finished data set, opened.

    Raises:
        InputError: The source contradicts itself, a patient is in two splits, a file cannot be used (unless
            these are skipped), the folder is in use, holds something else or cannot be written.
    """
    chosen = options or PrepareOptions()
    require_choice("on_error", chosen.on_error, get_args(OnError))
    form = chosen.form(source)
    source = with_attributes(source, chosen.attribute)
    check_source(source)
    table = _with_split(source.table.reset_index(drop=True), chosen)
    table = table.astype(dict.fromkeys(source.labels, "Int16"))
    folder = Path(out)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=wait):
            meta = _describe(source, table, form, chosen)
            if (folder / META).exists():
                return _reopen(folder, meta)
            _require_space(folder, len(table) * form.channels * form.size**2)
            _write(source, table, folder, meta, chosen)
            (folder / JOURNAL).unlink()
    return PreparedDataset.open(folder)


def _with_split(table: pd.DataFrame, options: PrepareOptions) -> pd.DataFrame:
    """Check the split that the source supplies, or make one."""
    seed, validation = options.seed, options.validation
    if "split" not in table:
        split = split_patients(table["patient"], seed=seed, test=options.test, validation=validation)
        return table.assign(split=split)
    check_disjoint(table)
    if validation and not (table["split"] == "validation").any():
        split = cut_validation(table["patient"], table["split"], seed=seed, validation=validation)
        return table.assign(split=split)
    return table


def _describe(source: Source, table: pd.DataFrame, form: Form, options: PrepareOptions) -> Meta:
    """What is known before the first image is decoded; counts and hash follow."""
    policies: dict[str, Any] = {
        **source.policies,
        "split": "supplied" if "split" in source.table else "by patient",
        "test": options.test,
        "validation": options.validation,
    }
    if source.render is None:
        policies |= {
            "geometry": form.geometry,
            "bits": form.bits,
            "window": form.window and list(form.window),
            "frame": form.frame,
            "lenient": form.lenient,
        }
    meta = Meta(
        source=source.name,
        version=__version__,
        created="",
        size=form.size,
        channels=form.channels,
        labels={label: list(names) for label, names in source.labels.items()},
        attributes={attribute: list(names) for attribute, names in source.attributes.items()},
        policies=policies,
        counts={},
        exclusions={},
        seed=options.seed,
        settings=dict(source.settings),
        fingerprint="",
        hash="",
    )
    digest = hashlib.sha256(meta.model_dump_json(exclude={"seal"}).encode())
    digest.update(table_bytes(table))
    digest.update(table_bytes(source.exclusions))
    return meta.model_copy(update={"fingerprint": digest.hexdigest()})


def _reopen(folder: Path, meta: Meta) -> PreparedDataset:
    """Open a finished data set if the same command made it."""
    dataset = PreparedDataset.open(folder)
    if dataset.meta.fingerprint != meta.fingerprint:
        raise InputError(
            f"{folder} already holds a prepared data set made from another source, with other options or by "
            "another version: delete it or choose another output"
        )
    (folder / JOURNAL).unlink(missing_ok=True)
    return dataset


def _write(source: Source, table: pd.DataFrame, folder: Path, meta: Meta, options: PrepareOptions) -> None:
    """Write the four files, meta.json last."""
    shape = (meta.channels, meta.size, meta.size)
    paths = table["path" if source.render is None else "image"]
    files = _files(source, table, options)
    with (
        ImageWriter(
            folder, meta.fingerprint, shape, lambda start, end: file_stamp(files[start:end])
        ) as writer,
        Reporter(source.name, len(table), unit="images", done=writer.rows) as bar,
    ):
        _stop_at(writer.failures, source, paths, options)
        for block in _blocks(source, files, (writer.rows, len(table)), meta, options):
            failed = [(writer.rows + place, problem) for place, problem in block.failures]
            _stop_at(failed, source, paths, options)
            writer.add(block)
            bar.advance(block.rows)
        lost = [row for row, _ in writer.failures]
        kept = table.drop(index=lost).drop(columns="path", errors="ignore").reset_index(drop=True)
        if kept.empty:
            row, problem = writer.failures[0]
            raise InputError(f"not one image could be used: {source.root / paths.iloc[row]} {problem}")
        failures = _listed(table, paths, writer.failures, "file ")
        exclusions = pd.concat([source.exclusions, failures], ignore_index=True)
        noted = _listed(table, paths, writer.notes)
        write_whole(folder / TABLE, kept.to_parquet())
        write_whole(folder / EXCLUSIONS, table_bytes(exclusions.map(as_text)))
        if not noted.empty:
            write_whole(folder / WARNINGS, table_bytes(noted.map(as_text)))
        writer.finish()
        final = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": _counts(kept),
            "exclusions": _by_reason(exclusions),
            "warnings": _by_reason(noted),
            "hash": content_hash(writer.digest, kept, meta),
        }
        text = json.dumps(sealed(meta.model_copy(update=final).model_dump()), indent=2, ensure_ascii=False)
        write_whole(folder / META, text.encode() + b"\n")
    for reason, number in _by_reason(noted).items():
        first = noted.loc[noted["reason"] == reason, "detail"].iloc[0]
        log.warning("%s (%s such images, listed in %s)", first, f"{number:,}", folder / WARNINGS)


def _by_reason(listed: pd.DataFrame) -> dict[str, int]:
    return {str(reason): int(number) for reason, number in listed["reason"].value_counts().items()}


def _counts(table: pd.DataFrame) -> dict[str, int]:
    splits: dict[str, int] = {split: int((table["split"] == split).sum()) for split in SPLITS}
    return {"images": len(table), "patients": int(table["patient"].nunique()), **splits}


def _stop_at(
    failed: list[tuple[int, str]], source: Source, paths: pd.Series[str], options: PrepareOptions
) -> None:
    if failed and options.on_error == "stop":
        row, problem = failed[0]
        raise InputError(f"{source.root / paths.iloc[row]} {problem}{_SKIP}")


def _listed(
    table: pd.DataFrame, paths: pd.Series[str], found: list[tuple[int, str]], what: str = ""
) -> pd.DataFrame:
    """List files that could not be used, or with a warning; the reason is the problem without details."""
    rows = [row for row, _ in found]
    return pd.DataFrame(
        {
            "image": table["image"].iloc[rows].tolist(),
            "reason": [f"{what}{problem.partition(' (')[0]}" for _, problem in found],
            "detail": [f"{paths.iloc[row]} {problem}" for row, problem in found],
        },
        dtype=str,
    )


def _files(source: Source, table: pd.DataFrame, options: PrepareOptions) -> list[str]:
    """The absolute paths of all image files; none where images are rendered."""
    if source.render is not None:
        return []
    finder = PathFinder(source.root, outside=options.outside)
    files = [finder.find(path) for path in table["path"]]
    if options.on_error == "stop":
        _require_files(files)
    return files


def _blocks(
    source: Source, files: list[str], rows: tuple[int, int], meta: Meta, options: PrepareOptions
) -> Iterator[Block]:
    """Make the images of a range of rows, in order: rows covered, images, failures, stamp of the files."""
    length = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (meta.channels * meta.size**2)))
    spans = [(start, min(start + length, rows[1])) for start in range(*rows, length)]
    if source.render is not None:
        # A renderer uses the processors itself; processes would only add their start to every run.
        for images in map(source.render, (np.arange(*span) for span in spans)):
            yield Block(len(images), images, stamp=file_stamp([]))
        return
    workers = min(options.workers or available_cpus(), max(1, len(spans) // 4))
    decode = partial(_decode, form=options.form(source))
    results = ordered_map(decode, (files[start:end] for start, end in spans), workers=workers)
    for (start, end), (stamp, decoded) in zip(spans, results, strict=True):
        yield Block(end - start, decoded.images, decoded.failures, decoded.notes, stamp)


def _decode(files: list[str], form: Form) -> tuple[str, Decoded]:
    """Decode a block; its stamp is taken first, so that a file replaced meanwhile does not match it."""
    return file_stamp(files), decode_files(files, form)


def _require_files(paths: list[str]) -> None:
    """Look for every file before hours of decoding, not after."""
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        others = f" and {len(missing) - 1} other files do" if len(missing) > 1 else " does"
        raise InputError(f"{missing[0]}{others} not exist{_SKIP}")


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free + sum(f.stat().st_size for f in folder.iterdir() if f.is_file())
    if needed > free:
        raise InputError(f"{folder} needs {_bytes(needed)} and its disk has {_bytes(free)} free")


def _bytes(number: float) -> str:
    """A number of bytes as people say it.

    Example:
        >>> _bytes(2_400_000), _bytes(310e9)
        ('2.4 MB', '310.0 GB')
    """
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"
