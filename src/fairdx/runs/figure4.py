"""Figure 4 of the paper over several seeds: each is trained, explained, and they are put together."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import Field

from fairdx.core.config import Config, override, read_toml, validate
from fairdx.core.errors import InputError, writing_to
from fairdx.core.files import write_whole
from fairdx.core.progress import Reporter
from fairdx.data.pool import ordered_map
from fairdx.explain.result import OVERLAP, Explanation, read_explanation
from fairdx.explain.settings import ExplainSettings
from fairdx.explain.words import TITLES, side_of, with_interval
from fairdx.inference.clustered import clustered_mean
from fairdx.inference.uncertainty import Estimate
from fairdx.models.runtime import environment, share
from fairdx.runs.explain import ExplainRequest, explain_folder
from fairdx.runs.files import CONFIG, LOG, RESULTS, check_free, save_settings
from fairdx.runs.run import run
from fairdx.runs.settings import RunSettings, build_settings

SEEDS: Final = "figure4.json"
TABLE: Final = "figure4.md"


class Figure4Options(Config):
    """Over what is repeated; the table `[figure4]` of a file."""

    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    """Seeds of the training; of the phantom too, so that each has patients of its own."""


class Figure4Settings(Config):
    """Everything that the figure depends on."""

    run: RunSettings
    """The method that is compared with no mitigation."""
    explain: ExplainSettings = ExplainSettings()
    """How closely to look."""
    figure4: Figure4Options = Figure4Options()
    """Over what is repeated."""


@dataclass(frozen=True)
class Line:
    """One quantity over the seeds.

    Attributes:
        name: What it is.
        values: One estimate a seed.
        mean: Mean over seeds, with Student's interval over them; without one for a single seed.
    """

    name: str
    values: Sequence[Estimate]
    mean: Estimate

    @property
    def apart(self) -> tuple[int, int]:
        """In how many seeds the interval over patients is above zero, and in how many below."""
        sides = [side_of(value) for value in self.values]
        return sides.count(1), sides.count(-1)


def load_figure4(path: Path, assignments: tuple[str, ...] = ()) -> Figure4Settings:
    """Reads a run's file with the tables `[explain]` and `[figure4]` beside the run's own.

    Args:
        path: A TOML file.
        assignments: Changes of the form `key=value`, as `figure4.seeds=[0]`.

    Raises:
        InputError: The file, a key or a value cannot be used.
    """
    values: dict[str, Any] = override(read_toml(path), assignments)
    own = {key: values.pop(key, {}) for key in ("explain", "figure4")}
    return Figure4Settings(
        run=build_settings(values, where=str(path)),
        explain=validate(ExplainSettings, own["explain"], where=f"{path} [explain]"),
        figure4=validate(Figure4Options, own["figure4"], where=f"{path} [figure4]"),
    )


def figure4(settings: Figure4Settings, folder: Path, *, processes: int = 1) -> tuple[Line, ...]:
    """Trains and explains each seed, unless that is done, and puts them together.

    Args:
        settings: Everything that the figure depends on.
        folder: Where to write: a run for each seed, `figure4.json` and `figure4.md`.
        processes: Seeds at a time. More than one are done in processes of their own, which print to `log.txt`
            in the folder of their seed.

    Returns:
        What changes from no mitigation to the method, over the seeds.

    Raises:
        InputError: The settings or the data cannot be used, or `folder` holds those of other settings.
        RuntimeError: One of several processes was killed.
    """
    if settings.run.method_name == "vanilla":
        raise InputError("figure 4 compares a method with no mitigation, and `method.name` is vanilla")
    check_free(folder, settings, SEEDS)
    save_settings(folder, settings)
    seeds = settings.figure4.seeds
    if processes == 1:
        for seed in seeds:
            _do_seed(settings, folder, seed)
    else:
        _do_seeds(settings, folder, min(processes, len(seeds)))
    found = {seed: read_explanation(_place(folder, seed) / OVERLAP) for seed in seeds}
    lines = lines_of(list(found.values()), level=settings.explain.level)
    with writing_to(folder):
        write_whole(folder / TABLE, table_of(lines, list(found)).encode())
        write_whole(folder / SEEDS, _json(lines, found))
    return lines


def _place(folder: Path, seed: int) -> Path:
    return folder / f"seed_{seed}"


def _do_seed(settings: Figure4Settings, folder: Path, seed: int) -> None:
    place = _place(folder, seed)
    if not (place / RESULTS).exists():
        run(_of_seed(settings.run, seed), place, resume=(place / CONFIG).exists())
    if not (place / OVERLAP).exists():
        explain_folder(ExplainRequest(place, settings.explain))


@dataclass(frozen=True)
class _Job:
    settings: Figure4Settings
    folder: Path
    seed: int
    share: Mapping[str, str]


def _do_seeds(settings: Figure4Settings, folder: Path, processes: int) -> None:
    jobs = [
        _Job(settings, folder, seed, share(i % processes, processes))
        for i, seed in enumerate(settings.figure4.seeds)
    ]
    # Threads are counted when torch is imported: before a process gets its first job.
    with Reporter("figure 4", len(jobs), unit="seeds") as bar, environment(share(0, processes)):
        for _ in ordered_map(_do_apart, jobs, workers=processes):
            bar.advance()


def _do_apart(job: _Job) -> None:
    """Does a seed in a process of its own, with its share of the GPUs."""
    os.environ.update(job.share)
    place = _place(job.folder, job.seed)
    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
        log = (place / LOG).open("a", encoding="utf-8")
    with log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    _do_seed(job.settings, job.folder, job.seed)


def _of_seed(settings: RunSettings, seed: int) -> RunSettings:
    data = settings.data
    if data.root is None:
        data = data.model_copy(update={"phantom": data.phantom.model_copy(update={"seed": seed})})
    return settings.model_copy(update={"seed": seed, "data": data})


def lines_of(explanations: Sequence[Explanation], *, level: float) -> tuple[Line, ...]:
    """Puts what changed between the models together over several explanations.

    Args:
        explanations: One for each seed.
        level: Nominal coverage.
    """
    names = [
        (way, quantity)
        for way, quantities in explanations[0].changes.items()
        for quantity in quantities
        if all(quantity in one.changes.get(way, {}) for one in explanations)
    ]
    made = []
    for way, quantity in names:
        values = [one.changes[way][quantity] for one in explanations]
        column = np.array([value.value for value in values])
        known = column[np.isfinite(column)]
        mean = clustered_mean(known, np.arange(len(known)), level=level)
        made.append(Line(f"{TITLES.get(way, way)}: {quantity}", values, mean))
    return tuple(made)


def table_of(lines: Sequence[Line], seeds: Sequence[int]) -> str:
    """The lines as a table in Markdown."""
    head = (
        f"| change, the method less no mitigation | mean over {len(seeds)} seeds | seeds above / below zero |"
    )
    rows = [
        f"| {line.name} | {with_interval(line.mean, signed=True)} | {line.apart[0]} / {line.apart[1]} |"
        for line in lines
    ]
    return "\n".join([head, "| --- | --- | --- |", *rows]) + "\n"


def _json(lines: Sequence[Line], found: Mapping[int, Explanation]) -> bytes:
    def plain(estimate: Estimate) -> dict[str, float | None]:
        ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
        return {name: value if np.isfinite(value) else None for name, value in ends.items()}

    content = {
        "seeds": list(found),
        "changes": {
            line.name: {"mean": plain(line.mean), "by_seed": [plain(value) for value in line.values]}
            for line in lines
        },
    }
    return json.dumps(content, indent=2, allow_nan=False).encode()
