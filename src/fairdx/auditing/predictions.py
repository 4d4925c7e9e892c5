"""Read anybody's table of predictions, and say in one sentence what is wrong with it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairdx.auditing.design import MOST_GROUPS
from fairdx.auditing.table import read_table, require, rows, select, texts
from fairdx.core.errors import InputError
from fairdx.metrics.inputs import Floats

if TYPE_CHECKING:
    import pandas as pd

MISSING = "(missing)"
"""Name of the group whose attribute is missing."""


@dataclass(frozen=True)
class Predictions:
    """Columns of a table of predictions, checked, as `fairdx.auditing.engine` takes them.

    Attributes:
        y_true: Truth: classes, shape (n,), whose sorted order is that of the columns of scores; or a data
            frame of 0/1 findings, shape (n, L).
        y_score: Scores in [0, 1], shape (n,); (n, K); or (n, L).
        sensitive_features: Groups by attribute, as text, each of shape (n,).
        patients: Patient of each image as text, shape (n,), or None.
        covariates: Covariates by name, as text, each of shape (n,).
        compare_to: A second score of the same images, of the shape of `y_score`, or None.
        notes: What a reader of the audit should know about the table.
    """

    y_true: "np.ndarray[Any, Any] | pd.DataFrame"
    y_score: Floats
    sensitive_features: dict[str, np.ndarray[Any, Any]]
    patients: np.ndarray[Any, Any] | None
    covariates: dict[str, np.ndarray[Any, Any]]
    compare_to: Floats | None
    notes: tuple[str, ...]


def read_predictions(  # noqa: PLR0913 - one for each kind of column, and all but the path are keywords
    path: str | Path,
    *,
    label: str | Sequence[str],
    score: str | Sequence[str],
    groups: str | Sequence[str],
    patient: str | None = None,
    covariates: Sequence[str] = (),
    identifier: str | None = None,
    compare_to: str | Path | None = None,
    where: Mapping[str, str] | None = None,
) -> Predictions:
    """Read a CSV or Parquet file of predictions.

    CSV may be separated by commas, semicolons (with decimal commas) or tabs, in UTF-8, UTF-16 or Latin-1.

    Args:
        path: The file; `.parquet` is read as Parquet, all else as CSV.
        label: Column of the truth; or a column of 0 and 1 for each finding.
        score: Column of P(Y=1); or, for one label of several classes, a column for each class, named like the
            class or ending in it (as `score_benign`), or written `CLASS=COLUMN`; or, for several findings, a
            column for each, in their order.
        groups: Columns of sensitive attributes; a missing value makes a group "(missing)" of its own.
        patient: Column of the patient.
        covariates: Columns to standardise effects over.
        identifier: Column that names the image; it must then be unique.
        compare_to: Column of a second score; or a second file with the same score columns, whose rows are
            matched by `identifier`.
        where: Value by column: only rows that have all of them are read.

    Returns:
        The columns.

    Raises:
        InputError: One sentence naming the file and the column or row at fault: no such file or column (with
            the nearest name), no rows, missing or non-numeric scores, scores outside [0, 1], missing labels,
            a single class, a single group, too many groups, duplicate identifiers, images that the second
            file lacks or labels otherwise.
    """
    path, notes = Path(path), list[str]()
    attributes, labels, scores = _names(groups), _names(label), _names(score)
    frame = select(read_table(path), where or {}, path, notes)
    for column in [*labels, *attributes, *covariates, patient, identifier]:
        if column is not None:
            require(frame, column, path)
    if identifier is not None:
        _unique(frame[identifier], path)
    columns = [c if c in frame.columns else c.partition("=")[2] or c for c in scores]
    truth, order = _truth(frame, labels, scores, path)
    columns = [columns[k] for k in order]
    after = None
    if compare_to is not None:
        second = (frame, path, [str(compare_to)])
        if str(compare_to) not in frame.columns:
            second = _second_table(frame, path, Path(compare_to), identifier, (labels, columns), notes)
        after = _score_columns(*second, like=columns)
    return Predictions(
        truth,
        _score_columns(frame, path, columns, like=columns),
        {name: _groups(frame[name], path, notes) for name in attributes},
        None if patient is None else _complete(frame[patient], path, "patient"),
        {name: _complete(frame[name], path, "covariate") for name in covariates},
        after,
        tuple(notes),
    )


def _names(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _truth(
    frame: "pd.DataFrame", labels: list[str], scores: list[str], path: Path
) -> tuple["np.ndarray[Any, Any] | pd.DataFrame", list[int]]:
    """The truth, and the order of the score columns that goes with it."""
    import pandas as pd

    if len(labels) == len(scores) == 1:
        return _labels(frame[labels[0]], path), [0]
    if len(labels) == len(scores):
        findings = {name: _finding(frame[name], path) for name in labels}
        return pd.DataFrame(findings), list(range(len(scores)))
    if len(labels) > 1:
        raise InputError(
            f"there are {len(labels)} labels but {len(scores)} scores; give one score for each finding."
        )
    names = _complete(frame[labels[0]], path, "label")
    return names, _class_columns(sorted(set(names)), scores, labels[0], path)


def _class_columns(classes: list[str], scores: list[str], label: str, path: Path) -> list[int]:
    """Which of the score columns belongs to each class."""
    if len(classes) != len(scores):
        raise InputError(
            f"{path}: label column {label!r} has {len(classes)} classes ({', '.join(classes[:8])}) but "
            f"{len(scores)} scores are given; give one for each class."
        )
    order = []
    for c in classes:
        own = re.compile(rf"(.*[\W_])?{re.escape(c)}|{re.escape(c)}=.*", re.IGNORECASE)
        found = [k for k, name in enumerate(scores) if own.fullmatch(name)]
        if len(found) != 1:
            raise InputError(
                f"which of the scores {', '.join(scores)} is that of class {c!r}? Say so as {c}=COLUMN."
            )
        order += found
    return order


def _finding(column: "pd.Series[Any]", path: Path) -> np.ndarray[Any, Any]:
    codes = _labels(column, path)
    if codes.dtype.kind != "i":
        raise InputError(f"{path}: label column {column.name!r} must be 0 or 1 for one of several findings.")
    return codes


def _second_table(
    frame: "pd.DataFrame",
    path: Path,
    other: Path,
    identifier: str | None,
    columns: tuple[list[str], list[str]],
    notes: list[str],
) -> tuple["pd.DataFrame", Path, list[str]]:
    """The rows of a second file in the order of the first."""
    import pandas as pd

    labels, scores = columns
    if not other.is_file():
        raise InputError(f"{path} has no column {str(other)!r} to compare with, and there is no such file.")
    if identifier is None:
        raise InputError(f"to compare with {other}, name the column of both that identifies an image.")
    second = read_table(other)
    for column in [identifier, *scores]:
        require(second, column, other)
    _unique(second[identifier], other)
    wanted = texts(frame[identifier])
    place = pd.Index(texts(second[identifier])).get_indexer(wanted)
    absent = place < 0
    if absent.any():
        raise InputError(
            f"{other} lacks {int(absent.sum()):,} of the {len(wanted):,} images of {path}, such as "
            f"{wanted[absent][0]!r}; compare tables of the same images."
        )
    if len(second) > len(wanted):
        notes.append(f"{len(second) - len(wanted):,} rows of {other} are not among the images audited.")
    second = second.iloc[place]
    for name in [name for name in labels if name in second.columns]:
        differ = texts(second[name]) != texts(frame[name])
        if differ.any():
            raise InputError(
                f"{other}: column {name!r} differs from that of {path} for {int(differ.sum()):,} images, "
                f"such as {wanted[differ][0]!r}; the identifiers do not name the same images."
            )
    return second, other, scores


def _score_columns(frame: "pd.DataFrame", path: Path, columns: list[str], *, like: list[str]) -> Floats:
    if len(columns) != len(like):
        raise InputError(
            f"{columns[0]!r} is one column, but there are {len(like)} scores; compare with a second file."
        )
    for column in columns:
        require(frame, column, path)
    found = [_scores(frame[column], path) for column in columns]
    return found[0] if len(found) == 1 else np.stack(found, axis=1)


def _unique(column: "pd.Series[Any]", path: Path) -> None:
    twice = column.duplicated()
    if twice.any():
        raise InputError(
            f"{path}: column {column.name!r} repeats identifiers in {rows(column, twice)}, such as "
            f"{column[twice].iloc[0]!r}; each image must occur once."
        )


def _scores(column: "pd.Series[Any]", path: Path) -> Floats:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    wrong = np.isnan(numbers) & ~column.isna().to_numpy()
    if wrong.any():
        example = column[wrong].iloc[0]
        raise InputError(
            f"{path}: column {column.name!r} holds {example!r}, no number, in {rows(column, wrong)}."
        )
    missing = ~np.isfinite(numbers)
    if missing.any():
        raise InputError(
            f"{path}: column {column.name!r} has no finite score in {rows(column, missing)}; remove them."
        )
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        raise InputError(
            f"{path}: column {column.name!r} lies outside [0, 1] in {rows(column, outside)}, with "
            f"{numbers[outside][0]:g}; give probabilities, not logits or percentages."
        )
    return numbers


def _complete(column: "pd.Series[Any]", path: Path, what: str) -> np.ndarray[Any, Any]:
    missing = column.isna().to_numpy(dtype=bool)
    if missing.any():
        raise InputError(
            f"{path}: {what} column {column.name!r} is empty in {rows(column, missing)}; fill or remove them."
        )
    return texts(column)


def _labels(column: "pd.Series[Any]", path: Path) -> np.ndarray[Any, Any]:
    names = _complete(column, path, "label")
    classes = sorted(set(names))
    if len(classes) == 1:
        raise InputError(
            f"{path}: label column {column.name!r} holds the single class {classes[0]!r}; two are needed."
        )
    known = {"0": 0, "1": 1, "False": 0, "True": 1, "false": 0, "true": 1}
    if set(classes) <= set(known):
        return np.array([known[v] for v in names], dtype=np.int64)
    if len(classes) > 2:
        raise InputError(
            f"{path}: label column {column.name!r} has {len(classes):,} distinct values "
            f"({', '.join(classes[:6])}); code a truth of two classes as 0 and 1, or give a column of scores "
            "for each class."
        )
    return names


def _groups(column: "pd.Series[Any]", path: Path, notes: list[str]) -> np.ndarray[Any, Any]:
    missing = column.isna().to_numpy(dtype=bool)
    names = texts(column, MISSING)
    if missing.any():
        notes.append(
            f"{column.name} is missing in {rows(column, missing)}; these images form the group '{MISSING}'."
        )
    distinct, counts = np.unique(names.astype(str), return_counts=True)
    distinct = distinct.astype(object)  # Python's own text, which prints without NumPy's type
    if len(distinct) == 1:
        raise InputError(f"{path}: group column {column.name!r} holds the single value {distinct[0]!r}.")
    if len(distinct) > MOST_GROUPS:
        raise InputError(
            f"{path}: group column {column.name!r} has {len(distinct):,} distinct values, more than "
            f"{MOST_GROUPS}; it looks like an identifier or a measurement, so bin it first."
        )
    notes.extend(f"{column.name}: group {name!r} has a single image." for name in distinct[counts == 1][:5])
    return names
