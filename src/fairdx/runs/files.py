"""The files in a run folder: `experiment` writes them, `report` reads them."""

import json
import logging
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from fairdx.core.errors import InputError, writing_to
from fairdx.core.files import write_whole

logger = logging.getLogger(__name__)

RESULTS: Final = "results.json"
"""Every figure with its interval."""
PREDICTIONS: Final = "predictions.parquet"
"""One row for each image and method."""
HISTORY: Final = "history.parquet"
"""Losses and validation scores of every epoch."""
SAMPLES: Final = "samples.npz"
"""A few test images and what the model is shown instead."""
CONFIG: Final = "config.json"
"""Every setting of the run."""
STAGES: Final = "stages"
"""The weights of each stage, where runs do not share them."""
MODEL: Final = "model"
"""The fair model, ready to be used elsewhere: a folder."""
LOG: Final = "log.txt"
"""What a run printed that had a process of its own."""
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
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        json.loads(text)
    except ValueError:
        logger.warning("%s is damaged and written again; stages of other settings stay unused", file)
        return False
    return text != settings.model_dump_json(indent=2)


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
