"""What `results.json` of a run holds: its form, its version, and its JSON schema."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fairdx.core.errors import InputError

SCHEMA_VERSION = "1.2"
"""Version of the JSON form; the first number changes when a field is renamed or removed."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Figure(_Part):
    """An estimate with its interval, as in an audit; null where it is not defined."""

    value: float | None
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""
    level: float
    """Nominal coverage of the interval."""
    method: str
    """How the interval was computed."""
    n: int
    """Images that the value rests on."""


class TrueFigure(_Part):
    """An effect measured by drawing the same patients under interventions."""

    value: float
    low: float
    high: float


class TrueEffects(_Part):
    """The true effects on one group, as fractions, each with its Monte-Carlo standard error."""

    total_effect: float
    direct_effect: float
    indirect_effect: float
    total_effect_error: float
    direct_effect_error: float
    indirect_effect_error: float
    patients: int
    """Patients that were drawn under each intervention."""


class Figures(_Part):
    """Every metric at one threshold, of test images: what `fairdx audit` says of the same predictions."""

    auroc: Figure
    accuracy: Figure
    demographic_parity_difference: Figure
    equal_opportunity_difference: Figure
    equalized_odds_difference: Figure
    approximate_diagnosis_fairness: Figure
    """Plug-in, in nats."""
    approximate_diagnosis_fairness_corrected: Figure
    """Less its bias, in nats."""
    direct_effect: Figure
    indirect_effect: Figure
    total_effect: Figure


class MethodFigures(Figures):
    """A method at the threshold that was chosen for it."""

    threshold: float | None
    """A decision is score >= threshold; null if the largest score of several classes decides."""
    threshold_chosen_on: Literal["validation", "train"] | None
    at_half: Figures | None = None
    """The same at the threshold 0.5; only where there is a threshold."""
    true_direct_effect: TrueFigure | None = None
    """Only on the phantom, for the group with the largest estimated direct effect."""
    true_indirect_effect: TrueFigure | None = None
    true_total_effect: TrueFigure | None = None
    true_effects_by_group: dict[str, TrueEffects] | None = None


class Data(_Part):
    """What was trained and measured on."""

    source: str
    hash: str
    size: int
    """Side of the images, in pixels."""
    channels: int
    label: str
    classes: tuple[str, ...]
    attribute: str
    groups: tuple[str, ...]
    reference: str
    images: dict[str, int]
    """By split."""
    left_out: int
    """Images without a known label or group."""
    test_patients: int
    prevalence: dict[str, float | None]
    """Share of test images of the second class, by group."""


class MadeWith(_Part):
    """What a run was made with: where all of it is the same, the same comes out bit for bit."""

    versions: dict[str, str]
    """Of Python, fairdx and the packages that numbers depend on."""
    code: str
    """Hash of the source of fairdx."""
    data: str
    """Hash of the data."""
    system: str
    cpu: str
    cpu_capability: str
    """The widest instructions that torch uses there."""
    gpu: str | None
    device: str
    """What it was computed on: cpu, cuda or mps."""
    precision: str
    """What it was trained in."""
    threads: int
    processes: int


class Fingerprints(_Part):
    """Hashes of what came out."""

    weights: str
    """Of the finished model."""
    predictions: str
    """Of the predictions table."""


class Repeats(_Part):
    """How a run compares with the one that it repeats."""

    run: str
    """The folder of the earlier run."""
    differences: list[str]
    """What it was made with and this one is not; empty where nothing differs."""
    same_weights: bool | None
    """Null where an older version made the earlier run."""
    same_predictions: bool | None


class RunResults(_Part):
    """Everything that a run found; fractions are in [0, 1], information is in nats."""

    schema_version: str
    fairdx_version: str
    created: str
    """Date and time (UTC, ISO 8601)."""
    seconds: float
    data: Data
    notes: list[str]
    """What a method says of the data, such as that they could not carry it."""
    kept_epochs: dict[str, int]
    """By stage, the epoch whose weights were kept."""
    methods: dict[str, MethodFigures]
    """By name; `vanilla` is the model without mitigation."""
    made_with: MadeWith | None = None
    fingerprints: Fingerprints | None = None
    repeats: Repeats | None = None
    """Only where the settings are those that an earlier run left in its folder."""

    def as_json(self) -> dict[str, Any]:
        """The content of `results.json`; what does not apply to a run is left out of it."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_results(path: Path) -> RunResults:
    """Reads `results.json`.

    Args:
        path: The file.

    Raises:
        InputError: It is missing, damaged, or from another version.
    """
    try:
        return RunResults.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path.parent} holds no finished run: {path.name}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path} is not what `fairdx run` writes: {where}: {first['msg']}") from error


def run_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of `results.json`."""
    schema = RunResults.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "version": SCHEMA_VERSION, **schema}
