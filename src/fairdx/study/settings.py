"""A study file: one TOML format for `fairdx compare`, `fairdx ablate` and `fairdx tune`."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fairdx.core.config import Config, override, read_toml, validate
from fairdx.core.errors import InputError

Command = Literal["compare", "ablate", "tune"]


class StudyInfo(Config):
    """What the study is: `[study]`."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """Its name, in databases and for the folder; the first sign is a letter or a digit."""
    mirrors: str | None = None
    """Table of the paper to show beside ours, as `table1_main`."""
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    """Every run is repeated with each of these seeds."""
    redraw: bool = False
    """Whether each seed has a phantom of its own (`data.phantom.seed`), so that intervals over seeds are
    about other patients as well as about another training. Of phantoms only."""
    folds: int = Field(0, ge=0)
    """Folds of a cross-validation by patient, pooled in the tables; 0 for the data set's own split."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("`seeds` are different numbers from 0 on")
        if self.folds == 1:
            raise ValueError("`folds` is 0, for none, or at least 2")
        if self.folds and len(self.seeds) > 1:
            raise ValueError(
                "with `folds` give one seed: every image is tested once, and intervals are over patients"
            )
        return self


class Span(Config):
    """A range of numbers to tune in, both ends included."""

    low: int | float
    """The smallest; whole numbers are tuned where both ends are."""
    high: int | float
    """The largest."""
    log: bool = False
    """Whether to search evenly in the logarithm."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("`low` is below `high`, and above 0 where `log` is set")
        return self


class Choices(Config):
    """Values to tune among."""

    choices: tuple[bool | int | float | str, ...] = Field(min_length=2)
    """The values."""


class TuneSettings(Config):
    """The search of `fairdx tune`: `[tune]`."""

    space: dict[str, Span | Choices] = Field(min_length=1)
    """Dotted setting -> where to search it."""
    trials: int = Field(30, ge=1)
    """Points to try."""
    budget: float = Field(0.01, ge=0)
    """AUROC on validation that the chosen point may lose against vanilla, as a fraction."""
    sampler: Literal["tpe", "nsga2"] = "tpe"
    """How the next point is chosen."""
    seed: int = Field(0, ge=0)
    """Seed of the sampler."""

    @field_validator("space", mode="before")
    @classmethod
    def _kinds(cls, space: Any) -> Any:
        # Told apart here, so that a mistake is reported of the one that was meant.
        if not isinstance(space, dict):
            return space
        return {
            key: (Choices if "choices" in value else Span).model_validate(value)
            if isinstance(value, dict)
            else value
            for key, value in space.items()
        }


class StudySettings(Config):
    """What a study file holds."""

    study: StudyInfo
    """What the study is."""
    run: dict[str, Any] = Field({})
    """Settings that all runs share, as in a run's file. Beside `[[method]]` there is no `run.method`."""
    data: tuple[dict[str, Any], ...] = ()
    """Data sets: `name`, and what differs from `run.data`."""
    method: tuple[dict[str, Any], ...] = ()
    """Methods: `label` for tables (by default the name), `name`, `preset`, their own settings, and `vary`."""
    vary: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field({})
    """Dotted setting -> its values. A value may be a table: `value` is what tables show and `set` what is
    changed instead."""
    tune: TuneSettings | None = None
    """The search of `fairdx tune`."""


def load_study(path: Path, command: Command, assignments: tuple[str, ...] = ()) -> StudySettings:
    """Reads a study file.

    Args:
        path: The file.
        command: Which command is to run it.
        assignments: Changes of the form `key=value`, as `study.seeds=[0]` or `run.data.root=prepared/nih`.

    Raises:
        InputError: The file, a key or a value cannot be used, or the file is for another command.
    """
    values = override(read_toml(path), assignments)
    study = validate(StudySettings, values, where=str(path))
    varies = bool(study.vary) or any("vary" in method for method in study.method)
    meant: Command = "tune" if study.tune else "ablate" if varies else "compare"
    if study.tune and varies:
        raise InputError(f"{path} has both [vary], for a grid, and [tune], for a search: keep one of them")
    if meant != command:
        reason = {
            "tune": "it has [tune]",
            "ablate": "it varies settings",
            "compare": "it has neither [vary] nor [tune]",
        }
        raise InputError(f"{path} is for `fairdx {meant}`, not `fairdx {command}`: {reason[meant]}")
    return study
