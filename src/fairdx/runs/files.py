"""The files in a run folder: `experiment` writes them, `report` reads them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from fairdx.core.errors import InputError, writing_to
from fairdx.core.files import parse_json, write_whole

logger = logging.getLogger(__name__)

RESULTS: Final = "results.json"
"""Every figure with its interval."""
PREDICTIONS: Final = "predictions.parquet"
"""One row for each image and method."""
HISTORY: Final = "history.parquet"
"""Losses and validation scores of every epoch."""
HISTORY_CSV: Final = "history.csv"
"""The same, written after every epoch."""
TRACKING: Final = "tracking.json"
"""By what name each service knows the run that shows it."""
SAMPLES: Final = "samples.npz"
"""A few test images and what the model is shown instead."""
CONFIG: Final = "config.json"
"""Every setting of the run."""
CONFIG_TOML: Final = "config.toml"
"""The same as `fairdx run` reads it, to repeat the run."""
STAGES: Final = "stages"
"""The weights of each stage, where runs do not share them."""
MODEL: Final = "model"
"""The fair model, ready to be used elsewhere: a folder."""
LOG: Final = "log.txt"
"""What a run printed that had a process of its own."""
LATER: Final = {"nodes": 1, "accumulate_grad_batches": 1}
"""Settings that earlier versions did not have, with what these did: so what they trained keeps its key."""
ALL: Final = (RESULTS, CONFIG, PREDICTIONS, HISTORY, SAMPLES)


def check_free(folder: Path, settings: BaseModel, results: str) -> None:
    """Makes a folder for results, unless it holds those of other settings, or stages begun for them.

    Args:
        folder: The folder.
        settings: Everything that the results depend on, as `CONFIG` has or will have it.
        results: Name of the file of results.

    Raises:
        InputError: It holds others', or cannot be written to.
    """
    file = folder / CONFIG
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        begun = (folder / results).exists() or (folder / STAGES).exists()
        if begun and _other_settings(file, settings):
            raise InputError(f"{folder} holds a run with other settings; give another --out, or delete it")


def _other_settings(file: Path, settings: BaseModel) -> bool:
    """Whether a run's folder is of other settings; a file that says nothing of them is damaged."""
    if not file.exists():
        return False
    try:
        found = parse_json(file.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        logger.warning("%s is damaged and written again; stages of other settings stay unused", file)
        return False
    return bool(decisive(found) != decisive(settings.model_dump(mode="json")))


def decisive(values: Any) -> Any:
    """What results depend on of the settings of a run, or of what has such settings under `run`.

    Args:
        values: As `CONFIG` has them.

    Returns:
        The same without what says only where a run is shown and how often it is saved.
    """
    if not isinstance(values, dict):
        return values
    kept = {name: value for name, value in values.items() if name != "track"}
    if "run" in kept:
        kept["run"] = decisive(kept["run"])
    for table in ("trainer", "model", "method"):
        if isinstance(kept.get(table), dict):
            kept[table] = {name: v for name, v in as_before(kept[table]).items() if name != "save_minutes"}
    return kept


def as_before(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings without those that earlier versions did not have, where they change nothing."""
    return {name: value for name, value in table.items() if LATER.get(name, ...) != value}


def save_settings(folder: Path, settings: BaseModel) -> None:
    """Writes `CONFIG`.

    Args:
        folder: An existing folder.
        settings: Everything that its results depend on.

    Raises:
        InputError: It cannot be written.
    """
    with writing_to(folder):
        write_whole(folder / CONFIG, settings.model_dump_json(indent=2).encode())
