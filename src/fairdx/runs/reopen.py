"""Opens a finished run again: its data, its model and its method with their final weights; trains nothing."""

from dataclasses import dataclass
from pathlib import Path

from fairdx.core.errors import InputError
from fairdx.core.files import parse_json
from fairdx.methods import Method
from fairdx.models.runtime import make_fabric
from fairdx.runs.data import RunData, open_data
from fairdx.runs.files import CONFIG, RESULTS, STAGES
from fairdx.runs.precision import recalled
from fairdx.runs.results import read_results
from fairdx.runs.settings import RunSettings, build_settings
from fairdx.runs.trained import Obtained, StageFolders, obtain_model, train_method

SHARED_DATA = "data"
"""Where the runs of a study share their phantoms, beside the stages that they share."""


@dataclass(frozen=True)
class Reopened:
    """A finished run.

    Attributes:
        current: Data, settings, device.
        obtained: The diagnosis model.
        method: The method with its final weights.
        thresholds: By name of the model, where it decides.
    """

    current: RunData
    obtained: Obtained
    method: Method
    thresholds: dict[str, float | None]


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a finished run."""
    return (folder / CONFIG).is_file() and (folder / RESULTS).is_file()


def reopen(folder: Path) -> Reopened:
    """Opens a finished run.

    Args:
        folder: The run's folder, alone or as one of a study's.

    Raises:
        InputError: It is not the folder of a finished run, or its data or stages are gone.
    """
    if not is_run(folder):
        raise InputError(f"{folder} has no {CONFIG} and {RESULTS}: it is not the folder of a finished run")
    settings, results = read_settings(folder), read_results(folder / RESULTS)
    study = folder.resolve().parent.parent
    own = (folder / STAGES).exists()
    place = StageFolders(folder / STAGES if own else study / STAGES, resume=True, shared=False, finished=True)
    settings = recalled(settings, place.folder)
    fabric = make_fabric(settings.trainer)
    shared = study / SHARED_DATA if not own and (study / SHARED_DATA).exists() else None
    current = open_data(settings, folder, shared, fabric)
    obtained = obtain_model(current, place)
    method, _ = train_method(current, place, obtained)
    return Reopened(
        current, obtained, method, {name: found.threshold for name, found in results.methods.items()}
    )


def read_settings(folder: Path) -> RunSettings:
    """Reads the settings of a run from its folder.

    Raises:
        InputError: They cannot be read, or another version of fairdx wrote them.
    """
    path = folder / CONFIG
    try:
        values = parse_json(path.read_bytes())
        name = values.pop("method_name")
        values["method"] = {"name": name, **values["method"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} does not hold the settings of a run: {error}") from error
    return build_settings(values, where=str(path))
