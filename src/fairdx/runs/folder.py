"""Read what a run left in its folder."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdx.core.errors import InputError
from fairdx.core.files import parse_json
from fairdx.runs import files as run_files

Array = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class RunFolder:
    """The files of a finished run.

    Attributes:
        path: The folder.
        results: `results.json`.
        config: `config.json`.
        predictions: `predictions.parquet`.
        history: `history.parquet`.
        samples: `samples.npz`: image and masked in [0, 1], shape (n, C, H, W); label and
            group, shape (n,).
    """

    path: Path
    results: dict[str, Any]
    config: dict[str, Any]
    predictions: pd.DataFrame
    history: pd.DataFrame
    samples: dict[str, Array]

    @classmethod
    def read(cls, path: Path) -> "RunFolder":
        """Read a run folder.

        Raises:
            InputError: A file is missing or cannot be read.
        """
        for name in run_files.ALL:
            if not (path / name).is_file():
                raise InputError(f"{path} has no {name}: it is not the folder of a finished run")
        return cls(
            path,
            _read(path / run_files.RESULTS, _table_of),
            _read(path / run_files.CONFIG, _table_of),
            _read(path / run_files.PREDICTIONS, pd.read_parquet),
            _read(path / run_files.HISTORY, pd.read_parquet),
            _read(path / run_files.SAMPLES, _samples),
        )

    @classmethod
    def of_results(cls, results: dict[str, Any]) -> "RunFolder":
        """A run of which only the figures are known."""
        return cls(Path(), results, {}, pd.DataFrame(), pd.DataFrame(), {})

    @property
    def data(self) -> dict[str, Any]:
        """What the run was trained and measured on."""
        described: dict[str, Any] = self.results["data"]
        return described

    @property
    def methods(self) -> list[str]:
        """Names of the methods, unmitigated first."""
        return list(self.results["methods"])

    def estimate(self, method: str, name: str) -> dict[str, Any] | None:
        """An estimate with "value", "low" and "high", or None if the run has none of this name."""
        found: dict[str, Any] | None = self.results["methods"][method].get(name)
        return found

    def test_rows(self, method: str) -> pd.DataFrame:
        """The test predictions of a method."""
        table = self.predictions
        return table[(table["method"] == method) & (table["split"] == "test")].reset_index(drop=True)


def read_predictions(path: Path) -> pd.DataFrame:
    """Reads the predictions of a run.

    Args:
        path: `predictions.parquet`.

    Raises:
        InputError: It cannot be read; the message names it.
    """
    return _read(path, pd.read_parquet)


def _read(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}): do the run again with --resume") from error


def _table_of(path: Path) -> dict[str, Any]:
    found = parse_json(path.read_bytes())
    if not isinstance(found, dict):
        raise TypeError(f"it holds a {type(found).__name__}, not a table")
    return found


def _samples(path: Path) -> dict[str, Array]:
    with path.open("rb") as file, np.load(file) as stored:
        return {key: stored[key] for key in ("image", "masked", "label", "group")}


def to_toml(config: dict[str, Any]) -> str:
    """The settings of a run as the TOML file that `fairdx run` reads; settings that are None are left out."""
    own = dict(config)
    method = {"name": own.pop("method_name"), **own.pop("method")}
    lines: list[str] = []
    _table({**own, "method": method}, "", lines)
    return "\n".join(lines).strip() + "\n"


def _table(values: dict[str, Any], prefix: str, lines: list[str]) -> None:
    for key, value in values.items():
        if value is not None and not isinstance(value, dict):
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in values.items():
        if isinstance(value, dict) and value:
            name = f"{prefix}{_key(key)}"
            lines += ["", f"[{name}]"]
            _table(value, f"{name}.", lines)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    """A TOML value; strings, numbers and true/false are written as in JSON."""
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}"
    return json.dumps(value, ensure_ascii=False)
