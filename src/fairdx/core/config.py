"""Typed configurations from TOML files and `key=value` overrides, with errors that name the key."""

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fairdx.core.errors import InputError

C = TypeVar("C", bound=BaseModel)


class Config(BaseModel):
    """Base of every typed configuration: immutable; an unknown key, nan and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file: one on disk, or one that ships with the package.

    Args:
        path: The file. `phantom.toml` or `configs/phantom.toml`, where there is no such file, is the one that
            ships.

    Raises:
        InputError: The file is missing or not TOML.
    """
    try:
        with _found(path).open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        shipped = ", ".join(sorted(entry.name for entry in files("fairdx").joinpath("configs").iterdir()))
        raise InputError(
            f"there is no configuration file {path}; these ship with fairdx: {shipped}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from error
    except RecursionError:
        raise InputError(f"{path} is not a TOML file of settings: it is nested too deeply") from None


def _found(path: Path) -> Traversable:
    shipped = files("fairdx").joinpath("configs", path.name)
    asked = path.parent in (Path(), Path("configs"))
    return shipped if asked and not path.exists() and shipped.is_file() else path


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Returns `values` with `a.b=value` assignments applied; values are read as TOML, bare words as text.

    Args:
        values: Nested dictionaries.
        assignments: As given to `--set`.

    Raises:
        InputError: An assignment has no `=`, or goes through something that is not a table.

    Example:
        >>> override({"method": {"eta": 0.2}}, ["method.eta=0.1", "method.name=vanilla"])
        {'method': {'eta': 0.1, 'name': 'vanilla'}}
    """
    result = merge(values, {})
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise InputError(f"`--set {assignment}` is not of the form key=value, as in method.eta=0.1")
        set_key(result, key.strip(), _value(text.strip()), where=f"`--set {assignment}`")
    return result


def set_key(values: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Sets a dotted key in nested dictionaries, in place.

    Args:
        values: Nested dictionaries.
        key: The key, as `method.eta`.
        value: Its value.
        where: What to call the change in an error.

    Raises:
        InputError: The key goes through something that is not a table.
    """
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise InputError(f"{where}: `{part}` is a value, not a table of settings")
    values[last] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns a deep copy of nested dictionaries with `changes` laid over them."""
    result = {key: merge(value, {}) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result


def validate(model: type[C], values: dict[str, Any], *, where: str) -> C:
    """Returns `values` as a typed configuration.

    Args:
        model: The configuration's class.
        values: Nested dictionaries.
        where: What to call them in an error: a file name, or `settings`.

    Raises:
        InputError: A key is unknown (the nearest valid one is named), missing, or has a value of the wrong
            kind.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        key = ".".join(path)
        if first["type"] == "extra_forbidden":
            known = _keys(model, path[:-1])
            near = get_close_matches(path[-1], known, n=1)
            hint = (
                f"did you mean `{'.'.join([*path[:-1], near[0]])}`?"
                if near
                else f"known are {', '.join(known)}"
            )
            raise InputError(f"{where}: unknown key `{key}`; {hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        received = f" (received {first['input']!r})" if key and first["type"] != "missing" else ""
        raise InputError(
            f"{where}: `{key}`: {message}{received}" if key else f"{where}: {message}"
        ) from error


def _keys(model: Any, path: list[str]) -> list[str]:
    """The valid keys of the table at `path`."""
    for part in path:
        field = (
            model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        )
        if field is None:
            return []
        candidates = (field.annotation, *get_args(field.annotation))
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return list(model.model_fields) if model is not None else []
