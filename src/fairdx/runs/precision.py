"""One precision for all of a run: where it is measured, a later process must not come to another one."""

import json
from pathlib import Path
from typing import Final

from fairdx.core.errors import writing_to
from fairdx.core.files import parse_json, write_whole
from fairdx.models.runtime import PRECISIONS, precision_of, processor
from fairdx.runs.settings import RunSettings

FILE: Final = "precision.json"
"""Beside the stages: what was measured, and on which processor."""


def recalled(settings: RunSettings, stages: Path) -> RunSettings:
    """Returns settings that come to the precision in which stages were begun on such a processor.

    Args:
        settings: Of the run.
        stages: The folder of its stages.
    """
    try:
        found = parse_json((stages / FILE).read_bytes())
        same = found["processor"] == processor() and found["precision"] in PRECISIONS
    except (OSError, ValueError, KeyError, TypeError):
        return settings  # nothing was begun, or what was is of an earlier version
    if settings.trainer.precision != "auto" or not same:
        return settings
    return settings.model_copy(update={"trainer": settings.trainer.measured(found["precision"])})


def remember(settings: RunSettings, stages: Path) -> None:
    """Writes down what `recalled` reads.

    Args:
        settings: Of the run.
        stages: The folder of its stages; made if needed.
    """
    if settings.trainer.precision != "auto":
        return
    found = {"precision": precision_of(settings.trainer), "processor": processor()}
    with writing_to(stages):
        stages.mkdir(parents=True, exist_ok=True)
        write_whole(stages / FILE, json.dumps(found, indent=1).encode())
