"""From a study file to a list of runs, each with all its settings, checked before the first one starts."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from fairdx.core.config import merge, set_key
from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.runs.files import decisive
from fairdx.runs.settings import DEFAULT_METHOD, RunSettings, build_settings
from fairdx.study.settings import StudySettings
from fairdx.study.summary import VANILLA

Values = dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        key: Hash of everything that the run depends on; the name of its folder.
        data: Name of the data set.
        method: Label of the method.
        seed: Its seed.
        fold: Its fold; None without cross-validation.
        varied: The varied settings, as tables show them.
        settings: All settings.
    """

    key: str
    data: str
    method: str
    seed: int
    fold: int | None
    varied: Mapping[str, Any]
    settings: RunSettings

    @property
    def title(self) -> str:
        """What the run is called in lists."""
        varied = (f"{key.removeprefix('method.')}={value}" for key, value in self.varied.items())
        fold = () if self.fold is None else (f"fold {self.fold}",)
        return ", ".join((self.method, self.data, *varied, f"seed {self.seed}", *fold))


@dataclass(frozen=True)
class Entry:
    """A method on a data set, before settings are varied and seeds are given.

    Attributes:
        data: Name of the data set.
        method: Label of the method.
        values: Settings as in a run's file.
        vary: Dotted setting -> its values, for this method.
        where: What to call it in an error.
    """

    data: str
    method: str
    values: Values
    vary: Mapping[str, tuple[Any, ...]]
    where: str


def plan_runs(study: StudySettings, path: Path) -> tuple[PlannedRun, ...]:
    """Makes the runs of `compare` and `ablate`: methods x data sets x grid x seeds x folds.

    Seeds change fastest, so that workers who start together train different first stages.

    Raises:
        InputError: A setting of any run cannot be used, a data set cannot be opened, or two runs are the
            same; the message names the file and the key.
    """
    runs = [
        run
        for entry in entries(study, path)
        for point in product(*(range(len(values)) for values in entry.vary.values()))
        for run in point_runs(
            study, entry, {key: entry.vary[key][at] for key, at in zip(entry.vary, point, strict=True)}
        )
    ]
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        if run.key in seen:
            raise InputError(f"{path}: two runs are the same: `{seen[run.key].title}` and `{run.title}`")
        seen[run.key] = run
    return tuple(runs)


def varied_settings(study: StudySettings) -> tuple[str, ...]:
    """The dotted settings that a grid varies, in order."""
    own = [dict.fromkeys(method.get("vary", {})) for method in study.method]
    return tuple(dict.fromkeys([*study.vary, *(key for keys in own for key in keys)]))


def entries(study: StudySettings, path: Path) -> list[Entry]:
    """Every method on every data set.

    Raises:
        InputError: An entry cannot be read, or two have the same name.
    """
    shared = study.run.get("method", {})
    if not isinstance(shared, dict):
        raise InputError(f"{path}: `run.method` is a table")
    if study.method and shared:
        raise InputError(f"{path}: beside [[method]], `run.method` cannot have settings, as `{min(shared)}`")
    for key in ("seed", "data.fold", "data.folds"):
        if key in study.run or key.removeprefix("data.") in study.run.get("data", {}):
            raise InputError(f"{path}: `run.{key}` is given by `seeds` and `folds` of [study]")
    found = []
    for name, data in _data(study, path):
        for label, method, vary in _methods(study, shared, path):
            values = merge(study.run, {"data": data})
            values["method"] = method
            found.append(Entry(name, label, values, {**study.vary, **vary}, f"{path} (`{label}` on {name})"))
    for place, entry in enumerate(found):
        if any((e.data, e.method) == (entry.data, entry.method) for e in found[:place]):
            raise InputError(f"{entry.where}: there are two of that name; give one of them another `label`")
    return found


def _data(study: StudySettings, path: Path) -> Iterator[tuple[str, Values]]:
    for entry in study.data or ({},):
        own = dict(entry)
        root = own.get("root", study.run.get("data", {}).get("root"))
        name = own.pop("name", Path(str(root)).name if root else "phantom")
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: `name` of [[data]] is a text")
        if study.study.redraw:
            name = f"{name}, drawn for each seed"  # tables have to say it
        yield name, own


def _methods(
    study: StudySettings, shared: Values, path: Path
) -> Iterator[tuple[str, Values, dict[str, tuple[Any, ...]]]]:
    """Label, settings and own grid of each method."""
    for entry in study.method or (shared,):
        own = dict(entry)
        vary = own.pop("vary", {})
        label = own.pop("label", own.get("name", DEFAULT_METHOD))
        if str(label).casefold() == VANILLA != own.get("name", DEFAULT_METHOD):
            raise InputError(
                f"{path}: `{label}` is what all methods are compared with, and cannot be the label of another"
            )
        if not isinstance(vary, dict) or not all(isinstance(v, list | tuple) and v for v in vary.values()):
            raise InputError(f"{path}: `vary` of [[method]] `{label}` has a list of values for each setting")
        yield str(label), own, vary


def point_runs(study: StudySettings, entry: Entry, point: Mapping[str, Any]) -> list[PlannedRun]:
    """The runs of one point of a grid or search: one for each seed and fold.

    Args:
        study: The study.
        entry: Method and data set.
        point: Dotted setting -> its value, or a table with `value` and `set`.

    Raises:
        InputError: A setting cannot be used.
    """
    values, shown = merge(entry.values, {}), {}
    for key, given in point.items():
        if isinstance(given, dict) and (set(given) != {"value", "set"} or not isinstance(given["set"], dict)):
            raise InputError(f"{entry.where}: a table in `vary` has `value` and the table `set`: `{key}`")
        value, changes = (given["value"], given["set"]) if isinstance(given, dict) else (given, {})
        shown[key] = value
        # What is shown is what the run has, unless the changes win, or the method has no such setting.
        set_key(values, key, value, where=entry.where)
        values = _changed(values, changes)
    if study.study.redraw:
        _check_redrawn(values["data"], entry.where)
    folds: list[int | None] = list(range(study.study.folds)) or [None]
    found = []
    for seed, fold in product(study.study.seeds, folds):
        data: Values = {} if fold is None else {"fold": fold, "folds": study.study.folds}
        if study.study.redraw:
            data["phantom"] = {"seed": seed}
        settings = build_settings(merge(values, {"seed": seed, "data": data}), where=entry.where)
        if settings.trainer.processes * settings.trainer.nodes > 1:
            raise InputError(
                f"{entry.where}: the runs of a study use one process; start the command several times with "
                "one --storage instead of setting `trainer.processes` or `trainer.nodes`"
            )
        found.append(PlannedRun(_key(settings), entry.data, entry.method, seed, fold, shown, settings))
    return found


def _check_redrawn(data: Values, where: str) -> None:
    if data.get("root") is not None:
        raise InputError(f"{where}: `study.redraw` draws phantoms anew, and `data.root` has fixed images")
    if "seed" in data.get("phantom", {}):
        raise InputError(f"{where}: with `study.redraw` each seed is its phantom's; leave out `phantom.seed`")


def _changed(values: Values, changes: Values) -> Values:
    """Lays changes over settings; those of another method do not apply."""
    method = values["method"]
    name = changes.get("method", {}).get("name", method.get("name", DEFAULT_METHOD))
    if name != method.get("name", DEFAULT_METHOD):
        values = {**values, "method": {}}
    return merge(values, changes)


def _key(settings: RunSettings) -> str:
    values = decisive(settings.model_dump(mode="json"))
    if settings.data.root is not None:
        # What is in the data set counts, not where one of several machines keeps it.
        values["data"]["root"] = _content(settings.data.root, settings.data.label, settings.data.attribute)
        values["data"].pop("phantom")
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _content(root: Path, label: str | None, attribute: str | None) -> str:
    dataset = PreparedDataset.open(root)
    dataset.task(label, attribute)
    return dataset.meta.hash
