"""A run done again from the settings in its folder: what differs from the first time, and what came out."""

import hashlib
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch

import fairdx
from fairdx.core.errors import InputError
from fairdx.core.files import parse_json
from fairdx.models.diagnosis import weights_hash
from fairdx.models.fair import FairModel
from fairdx.models.runtime import cpu_name, precision_of
from fairdx.runs.data import RunData
from fairdx.runs.files import CONFIG, CONFIG_TOML, RESULTS, STAGES, decisive
from fairdx.runs.results import Fingerprints, MadeWith, Repeats, RunResults, read_results
from fairdx.runs.settings import RunSettings

logger = logging.getLogger(__name__)

PACKAGES: Final = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "scipy", "scikit-learn")
"""Packages that a number of a run may depend on."""
WORDS: Final = {
    "code": "the code of fairdx",
    "cpu": "the processor",
    "cpu_capability": "the instructions that torch uses",
    "gpu": "the GPU",
    "system": "the operating system",
    "data": "the data (their hash)",
}
"""How parts of `MadeWith` are called; others by their own names."""


def made_with(current: RunData) -> MadeWith:
    """Says what a run is made with.

    Args:
        current: The run.
    """
    versions = {"python": platform.python_version(), "fairdx": fairdx.__version__}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    device, gpu = current.fabric.device, None
    if device.type == "cuda":
        gpu = torch.cuda.get_device_name(device)
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(cudnn)}
    return MadeWith(
        versions=versions,
        code=_code(),
        data=current.images.dataset.meta.hash,
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        gpu=gpu,
        device=device.type,
        precision=precision_of(current.settings.trainer),
        threads=torch.get_num_threads(),
        processes=current.fabric.world_size,
    )


@cache
def _code() -> str:
    """Hash of the package's source: its version says too little while it is being changed."""
    root = Path(fairdx.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def fingerprints(fair: FairModel, predictions: pd.DataFrame) -> Fingerprints:
    """Hashes of what came out of a run.

    Args:
        fair: The finished model.
        predictions: The predictions table.
    """
    text = predictions.to_csv(index=False, lineterminator="\n")  # floats in full, and no version of a format
    return Fingerprints(weights=weights_hash(fair), predictions=hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True)
class Earlier:
    """A finished run that is to be repeated.

    Attributes:
        folder: Its folder.
        results: Its `results.json`.
    """

    folder: Path
    results: RunResults

    @property
    def out(self) -> Path:
        """Where it is repeated, unless somebody says otherwise."""
        return self.folder.with_name(f"{self.folder.name}-again")

    def check(self, folder: Path, *, resume: bool) -> None:
        """Finds out whether a folder can take the repeated run.

        Args:
            folder: The folder.
            resume: Whether to go on from what was begun there.

        Raises:
            InputError: Stages are there already: they would be loaded, and nothing repeated.
        """
        if folder.resolve() == self.folder or ((folder / STAGES).exists() and not resume):
            raise InputError(f"{folder} holds a run already, and would repeat nothing: give another --out")

    def differences(self, now: MadeWith) -> list[str]:
        """Names what the run was made with and this one is not, a sentence each."""
        before = self.results.made_with
        if before is None:
            return ["what the earlier run was made with is not known: an older fairdx made it"]
        return list(_differences(before, now))

    def compared(self, now: MadeWith, found: Fingerprints) -> Repeats:
        """Says what differs, and whether the same came out."""
        before = self.results.fingerprints
        return Repeats(
            run=str(self.folder),
            differences=self.differences(now),
            same_weights=None if before is None else before.weights == found.weights,
            same_predictions=None if before is None else before.predictions == found.predictions,
        )


def _differences(before: MadeWith, now: MadeWith) -> Iterator[str]:
    for name in dict.fromkeys([*before.versions, *now.versions]):
        yield from _different(name, before.versions.get(name), now.versions.get(name))
    for name in MadeWith.model_fields:
        if name != "versions":
            yield from _different(WORDS.get(name, name), getattr(before, name), getattr(now, name))


def _different(name: str, before: Any, now: Any) -> Iterator[str]:
    if before != now:
        there, here = ("none" if value is None else str(value) for value in (before, now))
        yield f"{name}: {there} then, {here} now"


def earlier_run(config: Path, settings: RunSettings) -> Earlier | None:
    """Finds the finished run whose own settings a file holds.

    Args:
        config: A file of settings.
        settings: What was read from it, and changed.

    Returns:
        The run; None where the file is nobody's, the run was not finished, or the settings were changed.

    Raises:
        InputError: A file of the run is damaged.
    """
    folder = config.parent
    if config.name != CONFIG_TOML or not (folder / RESULTS).is_file() or not (folder / CONFIG).is_file():
        return None
    try:
        known: Mapping[str, Any] = parse_json((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise InputError(f"{folder / CONFIG} is damaged, and its run is to be repeated: {error}") from error
    results = read_results(folder / RESULTS)
    if decisive(known) != decisive(settings.model_dump(mode="json")):
        return None
    return Earlier(folder.resolve(), results)


def said(repeats: Mapping[str, Any]) -> Sequence[str]:
    """What to tell of a repeated run.

    Args:
        repeats: As in `results.json`.

    Returns:
        A sentence on what came out, and one for each difference.
    """
    same = [repeats["same_weights"], repeats["same_predictions"]]
    if None in same:
        verdict = "whether the same came out is not known: an older fairdx made the earlier run"
    elif all(same):
        verdict = "weights and predictions are the same, bit for bit"
    else:
        parts = [name for name, one in zip(("weights", "predictions"), same, strict=True) if not one]
        verdict = f"other {' and '.join(parts)} came out"
    return [f"Repeats {repeats['run']}: {verdict}.", *(f"Differs: {one}." for one in repeats["differences"])]
