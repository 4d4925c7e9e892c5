"""Turn what users hold (lists, NumPy, pandas, polars, torch) into arrays, or say in one sentence why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdx.core.errors import InputError
from fairdx.metrics.positive import positive_of_two

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Codes:
    """A categorical column: integer codes and the names they stand for.

    Attributes:
        codes: Shape (n,), values 0 to len(names) - 1.
        names: The categories as text, in the order of their sorted values.
        values: The categories as they were given, in the same order.
    """

    codes: Ints
    names: tuple[str, ...]
    values: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: NDArray[np.bool_]) -> "Codes":
        """Some of the rows, (n,), with the categories that occur there."""
        found, codes = np.unique(self.codes[rows], return_inverse=True)
        return Codes(
            codes.astype(np.int64), tuple(self.names[i] for i in found), tuple(self.values[i] for i in found)
        )

    def reordered(self, order: Sequence[int]) -> "Codes":
        """The same column with its categories in another order."""
        place = np.argsort(np.asarray(order))
        return Codes(
            place[self.codes], tuple(self.names[i] for i in order), tuple(self.values[i] for i in order)
        )


def plain(values: Any) -> Any:
    """The values behind a tensor, a lazy frame or an Arrow table, in a form with columns or an array.

    No library is imported for it: what is given says by its attributes what it is.
    """
    if hasattr(values, "detach"):  # a torch tensor on any device
        values = values.detach().cpu()
        return values.float() if str(values.dtype) == "torch.bfloat16" else values  # which NumPy has not
    if hasattr(values, "collect") and hasattr(values, "lazy"):  # a lazy frame of polars
        return values.collect()
    if hasattr(values, "to_pandas") and type(values).__module__.partition(".")[0] == "pyarrow":
        return values.to_pandas()
    return values


def to_numpy(values: Any, name: str) -> NDArray[Any]:
    """Convert any array-like to NumPy without importing the library it comes from.

    Args:
        values: A list, NumPy array (masked or not), pandas or polars column or frame, Arrow array or table,
            or a torch tensor on any device.
        name: What to call it in an error.

    Returns:
        The values as a NumPy array; None or nan where a mask or a library says that one is missing. A single
        column of shape (n, 1) has shape (n,).

    Raises:
        InputError: If the values are a single number or text, or rows of different lengths.
    """
    values = plain(values)
    if isinstance(values, Codes):
        return np.array(values.values, dtype=object)[values.codes]
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        values = np.where(mask, np.array(None), values.data) if mask.any() else values.data
    if isinstance(values, list | tuple) and len({type(v) for v in values} & {str, int, float, bool}) > 1:
        values = np.array(values, dtype=object)  # NumPy would make text of numbers beside text
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} has rows of different lengths; give one value per image.") from error
    if array.ndim == 0:
        raise InputError(f"{name} is a single value; give one value per image.")
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


ROUNDING = 1e-6
"""How far a probability may lie outside [0, 1] by rounding."""


def to_scores(values: Any, name: str = "y_score", *, bounded: bool = True) -> Floats:
    """Check and convert scores.

    Args:
        values: Shape (n,) for P(Y=1), or (n, K) for K classes or labels.
        name: What to call it in an error.
        bounded: Whether values must lie in [0, 1]; up to `ROUNDING` outside they are taken for its ends.

    Returns:
        The scores as float64, of the shape given.

    Raises:
        InputError: If a score is no number, is missing, or lies outside [0, 1]; the message names its row.
    """
    array = to_numpy(values, name)
    if array.ndim > 2:
        raise InputError(f"{name} has {array.ndim} dimensions; give shape (n,) or (n, classes).")
    scores = _numbers(array, name)
    if not np.isfinite(scores).all():
        bad = np.flatnonzero(~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1))
        raise InputError(
            f"{name} is missing or not finite in {len(bad)} rows (first: row {bad[0]}); remove or fill them."
        )
    return within_bounds(scores, name) if bounded else scores


def _numbers(array: NDArray[Any], name: str) -> Floats:
    """As float64; nan where a value is missing."""
    if array.dtype.kind in "OT":
        array = np.where(is_missing(array), np.nan, array)
    try:
        scores: Floats = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        row = next(i for i, v in enumerate(array.ravel()) if not _is_number(v))
        raise InputError(
            f"{name} holds {str(array.ravel()[row])!r} at position {row}, which is no number."
        ) from error
    return scores


def within_bounds(scores: Floats, name: str) -> Floats:
    """The scores, those outside [0, 1] by rounding alone moved to its ends.

    Raises:
        InputError: One lies further outside.
    """
    if not scores.size or (scores.min() >= 0 and scores.max() <= 1):
        return scores
    outside = (scores < -ROUNDING) | (scores > 1 + ROUNDING)
    if outside.any():
        row = int(np.flatnonzero(outside.reshape(len(scores), -1).any(axis=1))[0])
        raise InputError(
            f"{name} must lie in [0, 1], but {int(outside.sum())} values do not "
            f"(first: {scores[outside][0]:g} in row {row}); give probabilities, not logits or percentages."
        )
    return np.clip(scores, 0.0, 1.0)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def to_codes(values: Any, name: str) -> Codes:
    """Check and encode a categorical column.

    Args:
        values: Shape (n,): text, integers, booleans, or whole-numbered floats.
        name: What to call it in an error.

    Returns:
        Codes in the sorted order of the values; in the order of its categories for an ordered categorical.

    Raises:
        InputError: If the column is not one-dimensional, has missing values or mixes numbers and text.
    """
    if isinstance(values, Codes):
        return values
    values = plain(values)
    array = to_numpy(values, name)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}; give one value per image.")
    missing = is_missing(array)
    if missing.any():
        raise InputError(
            f"{name} is missing in {int(missing.sum())} rows (first: row {int(np.flatnonzero(missing)[0])}); "
            "remove these rows or give the missing value a name of its own."
        )
    if array.dtype.kind == "f":
        array = _whole(array, name)
    try:
        categories, codes = _factorize(array)
    except TypeError as error:
        kinds = sorted({type(v).__name__ for v in array})
        raise InputError(
            f"{name} mixes values of different types ({', '.join(kinds)}); use one type."
        ) from error
    found = Codes(codes.astype(np.int64).reshape(-1), tuple(map(str, categories)), tuple(categories.tolist()))
    return _in_order(found, values)


def _whole(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Floating-point numbers as whole ones, if all of them are.

    Raises:
        InputError: They are so large that neighbouring whole numbers, such as those of patients, are one.
    """
    bits = np.finfo(array.dtype).nmant + 1
    if array.size and not np.abs(array).max() < 2.0**bits:
        raise InputError(
            f"{name} holds floating-point numbers beyond 2^{bits}, where neighbouring numbers are one; give "
            "text or whole numbers."
        )
    return array.astype(np.int64) if np.all(array == np.round(array)) else array


def _in_order(column: Codes, values: Any) -> Codes:
    """The codes in the order of the categories, if `values` is an ordered categorical of pandas."""
    dtype = getattr(values, "dtype", None)
    if not getattr(dtype, "ordered", False):
        return column
    levels = dtype.categories.tolist()  # type: ignore[union-attr]
    return column.reordered(sorted(range(len(column.values)), key=lambda i: levels.index(column.values[i])))


def _factorize(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sorted categories and codes; by hashing for text, which is many times faster than sorting it."""
    if array.dtype.kind not in "OUST":
        return np.unique(array, return_inverse=True)
    import pandas as pd

    types = {type(v) for v in array} if array.dtype.kind == "O" else {str}
    if len(types - {int, float, bool, np.int64, np.float64, np.bool_}) and len(types) > 1:
        raise TypeError
    codes, categories = pd.factorize(array, sort=True)
    return np.asarray(categories), codes


def is_missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each value is missing: None, nan or NA; of the shape of the array."""
    if array.dtype.kind == "f":
        array = array.astype(float)
        unknown: NDArray[np.bool_] = np.isnan(array)
        return unknown
    if array.dtype.kind in "mM":
        return np.asarray(np.isnat(array))
    if array.dtype.kind != "O":
        return np.zeros(array.shape, dtype=bool)
    import pandas as pd

    missing: NDArray[np.bool_] = np.asarray(pd.isna(array), dtype=bool)
    return missing


def to_weights(values: Any | None, n: int) -> Floats:
    """Check sample weights; ones when none are given.

    Args:
        values: Shape (n,), non-negative, or None.
        n: Number of rows expected.

    Returns:
        Weights of shape (n,).

    Raises:
        InputError: If a weight is negative or missing, all are zero, or the length differs.
    """
    if values is None:
        return np.ones(n)
    weights = to_scores(values, "sample_weight", bounded=False)
    same_length(sample_weight=weights, y_true=np.empty(n))
    if (weights < 0).any() or weights.sum() <= 0:
        raise InputError("sample_weight must not be negative, and not all of it zero.")
    return weights


def same_length(**columns: Any) -> int:
    """Check that columns belong together.

    Args:
        **columns: Arrays by name.

    Returns:
        The common number of rows.

    Raises:
        InputError: If lengths differ, or there are no rows; the message names the columns.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(f"Columns differ in length: {told} rows; give one value per image in each.")
    n = next(iter(lengths.values()))
    if n == 0:
        raise InputError("There are no rows: nothing can be audited.")
    return n


def to_attributes(sensitive_features: Any) -> dict[str, Codes]:
    """Read one or several sensitive attributes.

    Args:
        sensitive_features: One column (named by its `name`, else "group"), a mapping from name to column,
            or a data frame.

    Returns:
        Encoded columns by attribute name.

    Raises:
        InputError: As `to_codes`, naming the attribute.
    """
    given = plain(sensitive_features)
    if isinstance(given, Mapping):
        columns = {str(name): column for name, column in given.items()}
    elif hasattr(given, "columns"):
        names = distinct_names(given, "sensitive_features")
        columns = {name: given[c] for name, c in zip(names, given.columns, strict=True)}
    else:
        columns = {str(getattr(given, "name", None) or "group"): given}
    if not columns:
        raise InputError("sensitive_features names no attribute; give at least one column.")
    return {name: to_codes(column, f"sensitive feature {name!r}") for name, column in columns.items()}


def distinct_names(frame: Any, name: str) -> list[str]:
    """Names of a frame's columns as text; none if it has no names.

    Raises:
        InputError: Two columns have the same name.
    """
    names = [str(c) for c in getattr(frame, "columns", [])]
    if twice := [c for i, c in enumerate(names) if c in names[:i]]:
        raise InputError(f"{name} has more than one column {twice[0]!r}; rename one.")
    return names


def to_labels(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Ints, Ints, tuple[Any, ...]]:
    """Encode truth and decision over their common set of classes.

    Args:
        y_true: Shape (n,), classes.
        y_pred: Shape (n,), decided classes.

    Returns:
        Codes of the truth, codes of the decision, and the classes as given, sorted; of two classes the
        positive one is the last where the classes say which it is. When every value is 0 or 1 the classes are
        (0, 1) even if only one of them occurs.

    Raises:
        InputError: As `to_codes`, if the lengths differ, or if there are scores where classes belong.
    """
    truth, decision = to_codes(y_true, "y_true"), to_codes(y_pred, "y_pred")
    same_length(y_true=truth.codes, y_pred=decision.codes)
    for name, column in (("y_true", truth), ("y_pred", decision)):
        if part := next((v for v in column.values if isinstance(v, float) and v != round(v)), None):
            raise InputError(f"{name} holds {part:g}, a score; give classes, as {name} >= threshold does.")
    try:
        classes = sorted(set(truth.values) | set(decision.values))
    except TypeError as error:
        raise InputError(
            f"y_true holds {truth.values[:3]} and y_pred {decision.values[:3]}: use one type."
        ) from error
    unknown = set(classes) - set(truth.values)
    if len(unknown) > max(len(truth.values), 2):
        raise InputError(
            f"y_pred holds {len(unknown)} values that y_true never has, such as {min(unknown)!r}: these look "
            "like scores or percentages; give decided classes."
        )
    if set(classes) <= {0, 1}:
        classes = [0, 1]
    place = {value: i for i, value in enumerate(positive_last(classes))}

    def recode(column: Codes) -> Ints:
        return np.array([place[v] for v in column.values], dtype=np.int64)[column.codes]

    return recode(truth), recode(decision), tuple(place)


def positive_last(classes: list[Any]) -> list[Any]:
    """Two classes with the positive one last, if they say which that is; all others as they are."""
    if len(classes) == 2:
        try:
            positive = positive_of_two(classes, what="", how="")
        except InputError:
            return classes
        return [classes[1 - positive], classes[positive]]
    return classes
