"""Where else the course of a run is shown: TensorBoard, MLflow and Weights & Biases, each if it is asked for.

They hear figures and settings, and no images, patients or file names of images. What goes wrong there costs
the tracking and not the run.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from uuid import uuid4

from lightning_fabric import Fabric

from fairdx.core.errors import InputError
from fairdx.core.files import write_whole
from fairdx.runs.files import HISTORY_CSV, TRACKING
from fairdx.runs.settings import RunSettings, TrackerName
from fairdx.training.choice import Record
from fairdx.training.observers import CsvFile, Observer

logger = logging.getLogger(__name__)

PROJECT: Final = "fairdx"
"""Project (W&B) or experiment (MLflow), unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says otherwise."""
LONGEST: Final = 500
"""Characters of a setting that MLflow takes."""
Figures = Mapping[str, float]
Status = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True)
class Shown:
    """The run as a tracker shows it.

    Attributes:
        folder: The run's folder.
        name: What to call it.
        settings: Every setting, by dotted name.
        key: Names it among others, the same when it goes on; None at the first start.
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    key: str | None


class Tracker(Protocol):
    """One of the services."""

    key: str
    """Names the run there, to go on with it later."""

    def log(self, stage: str, epoch: int, figures: Figures) -> None:
        """Shows the figures of an epoch; the test figures are stage `test`."""

    def close(self, status: Status) -> None:
        """Hears how the run ended."""


class TensorBoard:
    """Event files in `tensorboard/` of the run's folder."""

    def __init__(self, run: Shown) -> None:
        import_module("tensorboard")  # which alone is needed, not tensorboardX, which the logger takes too
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        self.key = "tensorboard"
        self._logger = TensorBoardLogger(run.folder, name=self.key, version="")

    def log(self, stage: str, epoch: int, figures: Figures) -> None:
        """Adds scalars, one curve for each figure of each stage."""
        self._logger.log_metrics({f"{stage}/{name}": value for name, value in figures.items()}, epoch)
        self._logger.save()

    def close(self, status: Status) -> None:
        """Closes the file."""
        self._logger.finalize(status)


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says; by default in the working directory."""

    def __init__(self, run: Shown) -> None:
        mlflow = import_module("mlflow")
        self._entities = import_module("mlflow.entities")
        self._client = mlflow.MlflowClient()
        if run.key is not None:
            self.key = self._client.get_run(run.key).info.run_id
            self._client.update_run(self.key, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        place = found.experiment_id if found is not None else self._client.create_experiment(name)
        self.key = self._client.create_run(place, run_name=run.name).info.run_id
        params = [self._entities.Param(key, str(value)[:LONGEST]) for key, value in run.settings.items()]
        for start in range(0, len(params), 100):  # as many as it takes at once
            self._client.log_batch(self.key, params=params[start : start + 100])

    def log(self, stage: str, epoch: int, figures: Figures) -> None:
        """Logs metrics, with the epoch as step."""
        now = int(time.time() * 1000)
        metric = self._entities.Metric
        metrics = [metric(f"{stage}/{name}", value, now, epoch) for name, value in figures.items()]
        self._client.log_batch(self.key, metrics=metrics)

    def close(self, status: Status) -> None:
        """Ends the run."""
        words = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
        self._client.set_terminated(self.key, words[status])


class WeightsAndBiases:
    """A run of W&B; with WANDB_MODE=offline it stays on this machine, in `wandb/` of the run's folder."""

    def __init__(self, run: Shown) -> None:
        wandb = import_module("wandb")
        self.key = run.key or uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=self.key,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.settings),
            # What a run prints may name files; neither that nor code is anybody else's.
            settings=wandb.Settings(console="off", save_code=False),
        )
        self._stages: set[str] = set()

    def log(self, stage: str, epoch: int, figures: Figures) -> None:
        """Logs figures along the epochs of their stage: its own steps may not start again."""
        if stage not in self._stages:
            self._run.define_metric(f"{stage}/epoch")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
            self._stages.add(stage)
        self._run.log({f"{stage}/epoch": epoch, **{f"{stage}/{name}": v for name, v in figures.items()}})

    def close(self, status: Status) -> None:
        """Ends the run."""
        self._run.finish(exit_code=0 if status == "finished" else 1)


TRACKERS: Final[Mapping[TrackerName, Callable[[Shown], Tracker]]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


class Tracked:
    """The observer that tells a tracker, until something goes wrong there.

    Args:
        name: Of the tracker, for messages.
        tracker: The tracker.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self._tracker = name, tracker
        self._broken = False

    def begun(self, history: Sequence[Record]) -> None:
        """Shows the state before training; what an earlier process found, it has shown."""
        if len(history) == 1:
            self.recorded(history[0])

    def recorded(self, record: Record) -> None:
        """Shows an epoch."""
        self._told(lambda: self._tracker.log(record["stage"], record["epoch"], _figures(record)))

    def ended(self, history: Sequence[Record]) -> None:
        """Has heard of all of it."""

    def measured(self, results: Mapping[str, Any]) -> None:
        """Shows the test figures.

        Args:
            results: The content of `results.json`.
        """
        figures = {
            f"{method}/{name}": figure["value"]
            for method, found in results["methods"].items()
            for name, figure in found.items()
            if isinstance(figure, dict) and figure.get("value") is not None
        }
        self._told(lambda: self._tracker.log("test", 0, figures))

    def close(self, status: Status) -> None:
        """Says how the run ended."""
        self._told(lambda: self._tracker.close(status))

    def _told(self, say: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            say()
        except Exception as error:  # of a service that is no part of the run
            self._broken = True
            logger.warning("%s hears no more of this run, which goes on: %s", self.name, _reason(error))


def _figures(record: Record) -> dict[str, float]:
    """The numbers of a record that can be drawn."""
    return {
        name: float(value)
        for name, value in record.items()
        if name not in ("epoch", "kept") and isinstance(value, int | float) and math.isfinite(value)
    }


class Tracking:
    """All that hear of a run.

    Attributes:
        observers: Whom training tells; nobody in all but the first process.
    """

    def __init__(self, trackers: Sequence[Tracked], others: Sequence[Observer]) -> None:
        self.trackers = trackers
        self.observers: tuple[Observer, ...] = (*others, *trackers)

    def measured(self, results: Mapping[str, Any]) -> None:
        """Tells the trackers the test figures."""
        for tracker in self.trackers:
            tracker.measured(results)


@contextmanager
def tracking(settings: RunSettings, folder: Path, fabric: Fabric) -> Iterator[Tracking]:
    """Lets those hear of a run who are asked for in its settings, and its CSV file.

    Args:
        settings: Everything that the run depends on.
        folder: The run's folder, which exists.
        fabric: Processes; the first one alone tells.

    Returns:
        Who hears.

    Raises:
        InputError: A tracker is not installed, or cannot be started.
    """
    if not fabric.is_global_zero:
        yield Tracking((), ())
        return
    trackers: list[Tracked] = []
    status: Status = "failed"
    try:
        trackers += _started(settings, folder)
        yield Tracking(trackers, [CsvFile(folder / HISTORY_CSV)])
        status = "finished"
    except KeyboardInterrupt:
        status = "stopped"
        raise
    finally:
        for tracker in trackers:
            tracker.close(status)


def _started(settings: RunSettings, folder: Path) -> Iterator[Tracked]:
    keys, shown = _known(folder / TRACKING), dict(_flat(settings.model_dump(mode="json")))
    for name in settings.track:
        try:
            tracker = TRACKERS[name](Shown(folder, folder.resolve().name, shown, keys.get(name)))
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                raise InputError(
                    f"`track` asks for {name}, which is not installed: pip install 'fairdx[{name}]'"
                ) from error
            raise InputError(f"`track` asks for {name}, which cannot be started: {_reason(error)}") from None
        keys[name] = tracker.key
        write_whole(folder / TRACKING, json.dumps(keys).encode())
        yield Tracked(name, tracker)


def _reason(error: Exception) -> str:
    """What went wrong, without an address that could hold a password."""
    return f"{type(error).__name__} (its address is not shown)" if "@" in str(error) else str(error)


def _known(path: Path) -> dict[str, str]:
    """Under which keys earlier processes of this run are known."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value
