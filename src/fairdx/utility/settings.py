"""Settings of a measurement of data utility."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fairdx.core.config import Config, override, read_toml, validate
from fairdx.core.errors import InputError
from fairdx.methods.pretraining import PretrainingConfig
from fairdx.runs.settings import RunSettings, build_settings


class UtilityOptions(Config):
    """What is asked of the embeddings; the table `[utility]` of a file."""

    findings: tuple[str, ...] = ()
    """Labels to diagnose from the embeddings; all but the main one by default. The paper has eight."""
    fewest: int = Field(20, ge=2)
    """Images with and without a finding that each split needs; a rarer finding is listed and left out."""
    penalties: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.001, 0.01, 0.1, 1.0), min_length=1)
    """Inverse penalties of the new heads to choose from, on validation images."""


class UtilitySettings(Config):
    """Everything that the measurement depends on."""

    run: RunSettings
    """The method whose encoder and mask are used."""
    utility: UtilityOptions = UtilityOptions()
    """What is asked of them."""


def load_utility_settings(path: Path, assignments: tuple[str, ...] = ()) -> UtilitySettings:
    """Reads a run's file with a table `[utility]` beside the run's own.

    Args:
        path: A TOML file.
        assignments: Changes of the form `key=value`, as `method.eta=0.1` or `utility.fewest=5`.

    Raises:
        InputError: The file, a key or a value cannot be used.
    """
    values: dict[str, Any] = override(read_toml(path), assignments)
    options = values.pop("utility", {})
    if not isinstance(options, dict):
        raise InputError(f"{path}: `utility` is a table, as in [utility] with findings = []")
    checked = validate(UtilityOptions, options, where=f"{path} [utility]")
    run = build_settings(values, where=str(path))
    if not isinstance(run.model, PretrainingConfig):
        raise InputError(f"{path}: `model.source`: data utility trains stage 1 itself, twice; leave it out")
    if run.model.mutual_information == 0:
        raise InputError(
            f"{path}: `model.mutual_information` is 0, and there is nothing to leave out; give its weight"
        )
    return UtilitySettings(run=run, utility=checked)
