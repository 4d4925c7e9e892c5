"""Everything that a run depends on, as typed settings, and how they are read from a file."""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SerializeAsAny

from fairdx.core.config import Config, merge, override, read_toml, validate
from fairdx.core.errors import InputError
from fairdx.data.phantom import PhantomSettings
from fairdx.methods import METHODS, MethodConfig
from fairdx.methods.pretraining import PretrainingConfig
from fairdx.models.runtime import TrainerSettings
from fairdx.models.sources import GivenModel

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
DEFAULT_METHOD: Final = "fair_diagnosis"
"""The method where none is named."""


class DataSettings(Config):
    """What to train and to measure on."""

    root: Path | None = None
    """A prepared data set; without one the phantom is used."""
    phantom: PhantomSettings = PhantomSettings()
    """The phantom's settings, where `root` is not given."""
    label: str | None = None
    """Label Y; the data set's first by default."""
    attribute: str | None = None
    """Sensitive attribute S; the data set's first by default."""
    fold: int | None = Field(None, ge=0)
    """The fold to test on, counted from 0, in place of the data set's own split."""
    folds: int = Field(5, ge=2)
    """Folds of a cross-validation by patient, where `fold` is given."""
    fold_seed: int = Field(0, ge=0)
    """Seed of the folds."""
    fold_validation: float = Field(0.2, ge=0, lt=1)
    """Fraction of the other folds' patients who choose epoch and threshold, where `fold` is given."""


class EvaluationSettings(Config):
    """How results are measured."""

    reference: str | None = None
    """Group s- of the effects; the attribute's first group by default."""
    level: float = Field(0.95, gt=0, lt=1)
    """Nominal coverage of the intervals."""
    replicates: int = Field(1000, ge=2)
    """Bootstrap replicates, by patient."""
    true_effect_patients: int = Field(3000, ge=0)
    """Patients of the phantom that are drawn under interventions; 0 leaves the true effects out."""


class RunSettings(Config):
    """Everything that a run depends on."""

    method_name: str = DEFAULT_METHOD
    """Name of the method."""
    method: SerializeAsAny[MethodConfig]
    """The method's own settings."""
    model: PretrainingConfig | GivenModel = PretrainingConfig()
    """The diagnosis model: how stage 1 trains it, or where it is, if it was trained elsewhere."""
    data: DataSettings = DataSettings()
    """Data."""
    trainer: TrainerSettings = TrainerSettings()
    """Device, precision, augmentation."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Intervals and true effects."""
    seed: int = Field(0, ge=0)
    """Seed of weights, order and bootstrap; the split has its own."""
    track: tuple[TrackerName, ...] = ()
    """Where else the course of the run is shown, as `["tensorboard"]`: each needs the extra of its name."""


def load_settings(path: Path | None, assignments: tuple[str, ...] = ()) -> RunSettings:
    """Reads a run's settings.

    Args:
        path: A TOML file, or None for all defaults. `[method]` has `name`, `preset` and the method's own
            keys; `[model]` those of stage 1, or with a `source` those of a model that was trained elsewhere.
            A relative `data.root` starts from the working directory.
        assignments: Changes of the form `key=value`, as `method.eta=0.1`.

    Raises:
        InputError: The file, a key or a value cannot be used.
    """
    values = override(read_toml(path) if path else {}, assignments)
    return build_settings(values, where=str(path) if path else "settings")


def build_settings(values: dict[str, Any], *, where: str) -> RunSettings:
    """Returns the settings of a run, checked.

    Args:
        values: What a run's file holds, as nested dictionaries.
        where: What to call them in an error: a file name, or `settings`.

    Raises:
        InputError: A key or a value cannot be used.
    """
    values = dict(values)
    if "method_name" in values:
        raise InputError(f"{where}: there is no key `method_name`; use `name` in [method], or method.name")
    own = _table(values, "method", 'as in [method] with name = "fair_diagnosis"', where)
    name = str(own.pop("name", DEFAULT_METHOD))
    try:
        method = METHODS[name]
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    preset = str(own.pop("preset", "default"))
    presets = {"default": {}, **method.presets}
    if preset not in presets:
        raise InputError(f"{where}: method `{name}` has no preset `{preset}`, only {', '.join(presets)}")
    chosen = dict(presets[preset])
    model = _model(_table(values, "model", 'as in [model] with encoder = "resnet18"', where), chosen, where)
    config = validate(method.config_class, merge(chosen, own), where=f"{where} [method]")
    config = config.resolved(model if isinstance(model, PretrainingConfig) else PretrainingConfig())
    return validate(
        RunSettings, {**values, "method_name": name, "method": config, "model": model}, where=where
    )


def _table(values: dict[str, Any], key: str, example: str, where: str) -> dict[str, Any]:
    """Takes a table out of `values`."""
    table = values.pop(key, {})
    if not isinstance(table, dict):
        raise InputError(f"{where}: `{key}` is a table, {example}")
    return dict(table)


def _model(own: dict[str, Any], preset: dict[str, Any], where: str) -> PretrainingConfig | GivenModel:
    """The settings of the diagnosis model; a preset's apply to a model that is trained here."""
    of_preset = preset.pop("model", {})
    if "source" in own:
        return validate(GivenModel, own, where=f"{where} [model]")
    return validate(PretrainingConfig, merge(of_preset, own), where=f"{where} [model]")
