"""What the cells of a table mean: codes, groups, numbers, ages, and words that say that nothing is known."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from fairdx.core.bins import bin_names
from fairdx.core.errors import InputError
from fairdx.core.missing import OLDEST, unknown_attribute
from fairdx.data.checks import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


MOST_GROUPS: Final = 50
"""A column of more words than this is no sensitive attribute, but a name."""
MOST_NUMBERS: Final = 20
"""A column of more numbers than this is to be divided: skin types and centres have fewer, ages more."""

_AGE = re.compile(r"(?<![a-z])(ages?|years)(?![a-z])")
_SEXES = (("m", "male"), ("f", "female"), ("m", "man"), ("f", "woman"), ("male", "man"), ("female", "woman"))
_UNITS = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}


def row_of(table: pd.DataFrame, wrong: pd.Series[bool]) -> str:
    """Name the first row at fault as an editor shows it: the header is row 1.

    Args:
        table: As read, with its first index.
        wrong: Which rows are at fault.

    Returns:
        Its number, as text.
    """
    return str(int(table.index[wrong.to_numpy(bool)][0]) + 2)


def parse_codes(
    table: pd.DataFrame, column: str, codes: Mapping[str, int | None], file: Path
) -> pd.Series[int]:
    """Turn the words of a label column into codes.

    Args:
        table: As read, all text.
        column: The label column.
        codes: What each word means; null for words that say it is unknown.
        file: Where the table came from.

    Returns:
        Codes (Int16), null where the cell is blank or unknown.

    Raises:
        InputError: A cell has another value; the message names its row.
    """
    words = table[column]
    require_words(table, column, codes, file)
    return words.map(codes).astype("Int16")


def parse_groups(
    table: pd.DataFrame, column: str, groups: Mapping[str, str | None], file: Path
) -> pd.Series[str]:
    """Turn the words of an attribute column into group names.

    Args:
        table: As read, all text.
        column: The attribute column.
        groups: The group that each word means; null for words that say it is unknown.
        file: Where the table came from.

    Returns:
        Group names, null where the cell is blank or unknown.

    Raises:
        InputError: A cell has another value; the message names its row.
    """
    require_words(table, column, groups, file)
    return table[column].map(groups).astype(pd.StringDtype(na_value=np.nan))


def require_words(table: pd.DataFrame, column: str, words: Iterable[str], file: Path) -> None:
    """Check that a column has no other values than these, or blanks.

    Args:
        table: As read, all text.
        column: The column.
        words: What it may hold.
        file: Where the table came from.

    Raises:
        InputError: A cell has another value; the message names its row.
    """
    valid = list(words)
    wrong = ~table[column].isin(valid) & table[column].notna()
    if wrong.any():
        value = str(table.loc[wrong, column].iloc[0])
        raise InputError(
            f"{file} row {row_of(table, wrong)}: {column!r} is {value!r} ({nearest(value, valid)})"
        )


def parse_numbers(table: pd.DataFrame, column: str, file: Path) -> pd.Series[float]:
    """Turn a column into numbers.

    Args:
        table: As read, all text.
        column: The column.
        file: Where the table came from.

    Returns:
        float64, NaN where the cell is blank.

    Raises:
        InputError: A cell is no finite number; the message names its row.
    """
    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    wrong = ~numbers.abs().lt(np.inf) & table[column].notna()
    if wrong.any():
        value = table.loc[wrong, column].iloc[0]
        raise InputError(f"{file} row {row_of(table, wrong)}: {column!r} is {value!r}, not a number")
    return numbers


def is_age(column: str) -> bool:
    """Tell by its name whether a column holds ages in years.

    Args:
        column: As `Patient Age`, `PatientAge`, `AGE_AT_CXR`, `age_approx`, `years`; not `stage`.

    Returns:
        Whether `age`, `ages` or `years` is one of its words.

    Example:
        >>> [is_age(name) for name in ("PatientAge", "age_approx", "stage", "Image Index")]
        [True, True, False, False]
    """
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", column).replace("_", " ")
    return _AGE.search(words.lower()) is not None


def parse_ages(table: pd.DataFrame, column: str, file: Path) -> tuple[pd.Series[float], int]:
    """Turn a column into ages, by the one rule of all readers.

    Args:
        table: As read, all text.
        column: The column: `58`, `58.5`, or as in DICOM `058Y`, `011M`, `003W`, `005D`.
        file: Where the table came from.

    Returns:
        Years, NaN where the cell is blank or the age is one that nobody has, and how many the latter are.

    Raises:
        InputError: A cell is no age; the message names its row.
    """
    years = pd.to_numeric(table[column], errors="coerce").astype(float)
    others = table.loc[years.isna() & table[column].notna(), column].astype(str)
    parts = others.str.extract(r"^(\d{1,4})([YMWD])$")
    years = years.fillna(parts[0].astype(float) / parts[1].map(_UNITS).astype(float))
    wrong = (years.isna() | np.isinf(years)) & table[column].notna()
    if wrong.any():
        value = table.loc[wrong, column].iloc[0]
        raise InputError(f"{file} row {row_of(table, wrong)}: {column!r} is {value!r}, not an age")
    return known_ages(years)


def known_ages(age: pd.Series[float]) -> tuple[pd.Series[float], int]:
    """Take ages that nobody has as unknown.

    Args:
        age: Ages in years, NaN where unknown.

    Returns:
        The ages, NaN also where they are below 0 or above `OLDEST`, and how many of these there are.
    """
    impossible = (age < 0) | (age > OLDEST)
    return age.mask(impossible), int(impossible.sum())


def without_missing(
    values: pd.Series[str], more: Iterable[str] = (), *, named: Iterable[str] = ()
) -> tuple[pd.Series[str], int]:
    """Take words that say that nothing is known as unknown.

    Args:
        values: The cells of an attribute.
        more: Further such words, besides those of `fairdx.core.missing`; upper and lower case are the same.
        named: Words that are groups because somebody named them, whatever they say.

    Returns:
        The values, null where they are such a word, and how many these were.
    """
    words = unknown_attribute(map(str, values.dropna().unique()), more, codes=True)
    missing = values.isin(words - set(named))
    return values.mask(missing), int(missing.sum())


def look_of(word: str) -> str:
    """What a person sees of a word: without case, width, kinds of blanks, and signs that are not seen.

    Args:
        word: Any text.

    Returns:
        The same for words that a person would take for one.

    Example:
        >>> look_of(" Not\u00a0Said ") == look_of("not said")
        True
    """
    if not word.isascii():
        known = unicodedata.normalize("NFKC", word)
        word = "".join(c for c in known if unicodedata.category(c) != "Cf")
    return " ".join(word.casefold().split())


def first_alike(words: Iterable[str]) -> tuple[str, str] | None:
    """Find two words that a person would take for one.

    Args:
        words: Different words.

    Returns:
        The first two that look the same.

    Example:
        >>> first_alike(["Male", "female", "male"])
        ('Male', 'male')
    """
    seen: dict[str, str] = {}
    for word in words:
        before = seen.setdefault(look_of(word), word)
        if before != word:
            return before, word
    return None


def _one_sex(names: Iterable[str]) -> tuple[str, str] | None:
    """Two words for one sex, a letter and a word, as of tables that were joined."""
    seen = {look_of(name): name for name in names}
    return next(((seen[a], seen[b]) for a, b in _SEXES if a in seen and b in seen), None)


def each_value_a_group(values: pd.Series[str], column: str, where: object) -> tuple[str, ...]:
    """Name the groups of an attribute whose every value is one.

    Args:
        values: The cells, null where unknown.
        column: The column, for the message.
        where: Where it came from, for the message.

    Returns:
        The values in alphabetical order.

    Raises:
        InputError: They are too many, numbers to be divided, or two of them are one word or one sex.
    """
    names = tuple(sorted(map(str, values.dropna().unique())))
    alike = first_alike(names)
    if alike:
        raise InputError(
            f"{where}: {column!r} has the values {alike[0]!r} and {alike[1]!r}, which differ in case or in "
            f"unseen signs alone: merge them, as {column}:first=a,A|second=b does in `prepare table`"
        )
    one_sex = _one_sex(names)
    if one_sex:
        raise InputError(
            f"{where}: {column!r} has the values {one_sex[0]!r} and {one_sex[1]!r}, which are one sex: merge "
            f"them, as {column}:{one_sex[1]}={one_sex[0]},{one_sex[1]}|... does in `prepare table`"
        )
    numeric = pd.to_numeric(pd.Series(names, dtype=object), errors="coerce").notna().all()
    if numeric and len(names) > MOST_NUMBERS:
        raise InputError(
            f"{where}: {column!r} has {len(names)} different numbers, too many to be groups: divide them, as "
            f"{column}@40,60 does in `prepare table`"
        )
    if len(names) > MOST_GROUPS:
        raise InputError(
            f"{where}: {column!r} has {len(names)} values, over {MOST_GROUPS} groups: divide it first, as "
            f"{column}:first=a,b|second=c does in `prepare table`"
        )
    return names


def age_groups(age: pd.Series[float], bins: Sequence[float]) -> tuple[pd.Series[str], tuple[str, ...]]:
    """Divide ages into groups.

    Args:
        age: Ages in years, NaN where unknown.
        bins: Ages at which a new group begins, ascending, at least one.

    Returns:
        The group of each age, null where it is unknown, and the names of the groups from young to old.

    Raises:
        InputError: No bin, or not ascending ones.

    Example:
        >>> age_groups(pd.Series([39, 40, 70]), (40, 60))[0].tolist()
        ['under 40', '40 to 59', '60 and over']
    """
    edges = list(bins)
    if not edges or edges != sorted(set(edges)) or edges[0] <= 0:
        raise InputError(f"age bins {edges} are not possible: give ascending ages above 0, such as 40 and 60")
    # Somebody of 59 and a half is 59: ages are spoken of in whole years, whatever a file holds.
    names = bin_names(edges, whole=all(edge == round(edge) for edge in edges))
    group = np.array([*names, None], dtype=object)[
        np.where(age.isna(), len(names), np.searchsorted(edges, age, side="right"))
    ]
    return pd.Series(group, index=age.index, dtype=pd.StringDtype(na_value=np.nan)), names
