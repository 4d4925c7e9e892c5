"""Read anybody's table of predictions, and say in one sentence what is wrong with it."""

import csv
import io
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairdx.errors import InputError
from fairdx.fairness.design import MOST_GROUPS
from fairdx.fairness.inputs import Floats

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """Columns of a table of predictions, checked.

    Attributes:
        y_true: Truth, shape (n,), two values or more.
        y_score: Scores in [0, 1], shape (n,).
        sensitive_features: Groups by attribute, as text, each of shape (n,).
        patients: Patient of each image as text, shape (n,), or None.
        covariates: Covariates by name, as text, each of shape (n,).
        notes: What a reader of the audit should know about the table.
    """

    y_true: np.ndarray[Any, Any]
    y_score: Floats
    sensitive_features: dict[str, np.ndarray[Any, Any]]
    patients: np.ndarray[Any, Any] | None
    covariates: dict[str, np.ndarray[Any, Any]]
    notes: tuple[str, ...]


def read_predictions(
    path: str | Path,
    *,
    label: str,
    score: str,
    groups: list[str] | tuple[str, ...] | str,
    patient: str | None = None,
    covariates: list[str] | tuple[str, ...] = (),
    identifier: str | None = None,
) -> Predictions:
    """Read a CSV or Parquet file of predictions.

    CSV may be separated by commas, semicolons (with decimal commas) or tabs, in UTF-8, UTF-16 or Latin-1.

    Args:
        path: The file; `.parquet` is read as Parquet, all else as CSV.
        label: Column of the truth.
        score: Column of P(Y=1).
        groups: Columns of sensitive attributes; a missing value makes a group "(missing)" of its own.
        patient: Column of the patient.
        covariates: Columns to standardise effects over.
        identifier: Column that names the image; it must then be unique.

    Returns:
        The columns.

    Raises:
        InputError: One sentence naming the file and the column or row at fault: no such file or column (with
            the nearest name), no rows, missing or non-numeric scores, scores outside [0, 1], missing labels,
            a single class, a single group, too many groups, duplicate identifiers.
    """
    path = Path(path)
    frame = _read(path)
    attributes = [groups] if isinstance(groups, str) else list(groups)
    others = [name for name in (patient, identifier) if name is not None]
    for column in [label, score, *attributes, *others, *covariates]:
        _require(frame, column, path)
    if frame.empty:
        raise InputError(f"{path}: the table has no rows.")
    if identifier is not None:
        _unique(frame[identifier], path)
    notes: list[str] = []
    return Predictions(
        _labels(frame[label], path),
        _scores(frame[score], path),
        {name: _groups(frame[name], path, notes) for name in attributes},
        None if patient is None else _complete(frame[patient], path, "patient"),
        {name: _complete(frame[name], path, "covariate") for name in covariates},
        tuple(notes),
    )


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as Parquet: {error}.") from error
    text = _decode(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    separator = _separator(text)
    try:
        return pd.read_csv(
            io.StringIO(text),
            sep=separator,
            decimal="," if separator == ";" else ".",
            dtype_backend="numpy_nullable",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).splitlines()[0].removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{path} is no regular table: {reason}.") from error


def _decode(path: Path) -> str:
    """Decode by byte-order mark, else as UTF-8, else as Latin-1 (which cannot fail)."""
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return raw.decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} starts like UTF-16 but is not: {error.reason}.") from error
    if b"\0" in raw[:1000]:
        raise InputError(f"{path} is no text file; give CSV, or Parquet with the ending .parquet.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _separator(text: str) -> str:
    """The separator that cuts the header into most fields."""
    header = text.lstrip().splitlines()[0]
    return max(",;\t", key=lambda s: len(next(csv.reader([header], delimiter=s))))


def _require(frame: "pd.DataFrame", column: str, path: Path) -> None:
    if column in frame.columns:
        if list(frame.columns).count(column) > 1:
            raise InputError(f"{path} has more than one column {column!r}; rename one.")
        return
    names = [str(c) for c in frame.columns]
    near = get_close_matches(column.lower(), [n.lower() for n in names], n=1)
    hint = next((n for n in names if near and n.lower() == near[0]), None)
    did = f"did you mean {hint!r}?" if hint else f"it has {', '.join(map(repr, names[:12]))}."
    raise InputError(f"{path} has no column {column!r}; {did}")


def _row(bad: "pd.Series[Any] | np.ndarray[Any, Any]") -> str:
    """How many rows are bad and which is the first, counted as in a text editor (the header is row 1)."""
    where = np.flatnonzero(np.asarray(bad, dtype=bool))
    return f"{len(where)} row{'s' * (len(where) > 1)} (first: row {where[0] + 2})"


def _unique(column: "pd.Series[Any]", path: Path) -> None:
    twice = column.duplicated()
    if twice.any():
        raise InputError(
            f"{path}: column {column.name!r} repeats identifiers in {_row(twice)}, such as "
            f"{column[twice].iloc[0]!r}; each image must occur once."
        )


def _scores(column: "pd.Series[Any]", path: Path) -> Floats:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    wrong = np.isnan(numbers) & ~column.isna().to_numpy()
    if wrong.any():
        example = column[wrong].iloc[0]
        raise InputError(f"{path}: column {column.name!r} holds {example!r}, no number, in {_row(wrong)}.")
    missing = ~np.isfinite(numbers)
    if missing.any():
        raise InputError(
            f"{path}: column {column.name!r} has no finite score in {_row(missing)}; remove them."
        )
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        raise InputError(
            f"{path}: column {column.name!r} lies outside [0, 1] in {_row(outside)}, with "
            f"{numbers[outside][0]:g}; give probabilities, not logits or percentages."
        )
    return numbers


def _complete(column: "pd.Series[Any]", path: Path, what: str) -> np.ndarray[Any, Any]:
    missing = column.isna().to_numpy(dtype=bool)
    if missing.any():
        raise InputError(
            f"{path}: {what} column {column.name!r} is empty in {_row(missing)}; fill or remove them."
        )
    return np.asarray([_name(v) for v in column], dtype=object)


def _name(value: Any) -> str:
    """Text of a value, the same for 1, 1.0 and "1": a column with holes reads whole numbers as decimals."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _labels(column: "pd.Series[Any]", path: Path) -> np.ndarray[Any, Any]:
    names = _complete(column, path, "label")
    classes = sorted(set(names))
    if len(classes) == 1:
        raise InputError(
            f"{path}: label column {column.name!r} holds the single class {classes[0]!r}; two are needed."
        )
    if len(classes) > MOST_GROUPS:
        raise InputError(
            f"{path}: label column {column.name!r} has {len(classes)} distinct values; give classes."
        )
    known = {"0": 0, "1": 1, "False": 0, "True": 1, "false": 0, "true": 1}
    if set(classes) <= set(known):
        return np.array([known[v] for v in names], dtype=np.int64)
    if len(classes) == 2 or all(not c.lstrip("-").isdigit() for c in classes):
        return names
    raise InputError(
        f"{path}: label column {column.name!r} holds {', '.join(classes[:6])}; code a truth of two classes "
        "as 0 and 1."
    )


def _groups(column: "pd.Series[Any]", path: Path, notes: list[str]) -> np.ndarray[Any, Any]:
    missing = column.isna().to_numpy(dtype=bool)
    named = ("(missing)" if m else _name(v) for v, m in zip(column, missing, strict=True))
    names = np.asarray(list(named), dtype=object)
    if missing.any():
        notes.append(f"{column.name} is missing in {_row(missing)}; these images form the group '(missing)'.")
    distinct, counts = np.unique(names.astype(str), return_counts=True)
    distinct = distinct.astype(object)  # Python's own text, which prints without NumPy's type
    if len(distinct) == 1:
        raise InputError(f"{path}: group column {column.name!r} holds the single value {distinct[0]!r}.")
    if len(distinct) > MOST_GROUPS:
        raise InputError(
            f"{path}: group column {column.name!r} has {len(distinct)} distinct values, more than "
            f"{MOST_GROUPS}; it looks like an identifier or a measurement, so bin it first."
        )
    notes.extend(f"{column.name}: group {name!r} has a single image." for name in distinct[counts == 1][:5])
    return names
