"""The small language of `prepare table`: which column is a label or an attribute, and what its words mean.

`NAME` takes the column as it is. `NAME:a|b` lists the groups. `NAME:light=1,2|dark=5,6` merges words into
groups; `*` stands for all words that are not named. One group alone, as `diagnosis:malignant=mel,bcc`, stands
against all others. `age@40,60` divides numbers. `race=white+black` makes one of several columns of 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.cells import (
    age_groups,
    each_value_a_group,
    is_age,
    parse_ages,
    parse_groups,
    parse_numbers,
    row_of,
    without_missing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

YES_NO: Final = {
    **dict.fromkeys(("0", "0.0", "false", "no"), "0"),
    **dict.fromkeys(("1", "1.0", "true", "yes"), "1"),
}
"""What a column of 0 and 1 may hold, in lower case."""
OTHERS: Final = "*"
"""Stands for all words that are not named."""


@dataclass(frozen=True)
class Spec:
    """A label, an attribute or a split, and the column or columns that it comes from."""

    name: str
    """What it is called."""
    columns: tuple[str, ...]
    """Its column, or one for each group."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The words of each group, in the order of the groups; empty where every word is one."""
    edges: tuple[float, ...] = ()
    """Where numbers are divided."""

    @property
    def named(self) -> set[str]:
        """All words that are named."""
        return {word for words in self.words.values() for word in words} - {OTHERS}

    @property
    def exhaustive(self) -> bool:
        """Whether some group takes all words that are not named."""
        return any(OTHERS in words for words in self.words.values())

    @property
    def plain(self) -> bool:
        """Whether the column says no more than what becomes of it."""
        return not self.edges and self.columns == (self.name,) and not self.merges

    @property
    def merges(self) -> bool:
        """Whether a group is more than the word that it is called by."""
        return any(words != (group,) for group, words in self.words.items())


@dataclass(frozen=True)
class Groups:
    """What became of a column."""

    values: pd.Series[str]
    """The group of each row, null where unknown."""
    names: tuple[str, ...]
    """All groups, in their order."""
    counts: Mapping[str, int]
    """What was taken as unknown, counted."""


def parse_spec(text: str, columns: Iterable[str]) -> Spec:
    """Read a label, an attribute or a split as a person writes it.

    Args:
        text: See the module.
        columns: The columns of the table: a name that is there is one, whatever signs it holds.

    Returns:
        What is meant.

    Raises:
        InputError: It cannot be read.

    Example:
        >>> dict(parse_spec("diagnosis:malignant=mel,bcc", ["diagnosis"]).words)
        {'not malignant': ('*',), 'malignant': ('mel', 'bcc')}
    """
    if text in set(columns):
        return Spec(text, (text,))
    head, colon, listed = text.partition(":")
    if not colon:
        head, at, edges = text.partition("@")
        if at:
            return Spec(head, (head,), edges=_edges(text, edges))
    name, several, parts = head.partition("=")
    sources = tuple(part.strip() for part in parts.split("+")) if several else (head,)
    if not all((name, *sources)) or (several and colon):
        raise InputError(f"{text!r} cannot be read: give NAME, NAME:a|b, NAME:a=1,2|b=3, NAME@40 or NAME=a+b")
    return Spec(name.strip() if several else head, sources, words=_words(text, listed) if colon else {})


def _edges(text: str, edges: str) -> tuple[float, ...]:
    try:
        return tuple(float(edge) for edge in edges.split(","))
    except ValueError:
        raise InputError(f"{text!r} does not end in numbers, as age@40,60 does") from None


def _words(text: str, listed: str) -> dict[str, tuple[str, ...]]:
    words: dict[str, tuple[str, ...]] = {}
    for part in listed.split("|"):
        group, equals, named = part.partition("=")
        group = group.strip()
        if not group or group in words:
            raise InputError(f"{text!r} has a group without a name, or one twice")
        words[group] = tuple(word.strip() for word in named.split(",")) if equals else (group,)
    flat = [word for group in words.values() for word in group]
    if len(flat) > len(set(flat)) or "" in flat:
        raise InputError(f"{text!r} names a word twice, or none")
    return {f"not {next(iter(words))}": (OTHERS,), **words} if len(words) == 1 else words


def find_groups(data: pd.DataFrame, spec: Spec, file: Path, missing: Sequence[str]) -> Groups:
    """Tell the group of each row of a table.

    Args:
        data: The table, all text.
        spec: The attribute, or a label that lists its classes.
        file: Where the table came from.
        missing: Words that say that nothing is known, besides those that always do.

    Returns:
        The groups, and what was taken as unknown.

    Raises:
        InputError: A value that means nothing; the message names its row.
    """
    if len(spec.columns) > 1:
        return Groups(_one_of(data, spec, file), spec.columns, {})
    column = spec.columns[0]
    cells, lost = without_missing(data[column], missing, named=spec.named)
    found = {f"missing_words_of_{spec.name}": lost} if lost else {}
    known = data.assign(**{column: cells})
    if spec.edges:
        numbers, impossible = (
            parse_ages(known, column, file) if is_age(column) else (parse_numbers(known, column, file), 0)
        )
        found |= {f"impossible_ages_of_{spec.name}": impossible} if is_age(column) else {}
        return Groups(*age_groups(numbers, spec.edges), found)
    if not spec.words:
        names = each_value_a_group(cells, column, file)
        return Groups(parse_groups(known, column, {name: name for name in names}, file), names, found)
    return Groups(_mapped(known, spec, file), tuple(spec.words), found)


def find_classes(
    data: pd.DataFrame, spec: Spec, file: Path, missing: Sequence[str]
) -> tuple[pd.Series[int], Groups]:
    """Tell the class of each row of a table.

    Without a list of classes the column is one of 0 and 1. Other words for the unknown than blanks count only
    where they are given, or where one class takes all words that are not named.

    Args:
        data: The table, all text.
        spec: The label.
        file: Where the table came from.
        missing: Words that say that nothing is known.

    Returns:
        The codes, null where unknown, and the classes.

    Raises:
        InputError: A value that means nothing; the message names its row.
    """
    column = spec.columns[0]
    if len(spec.columns) == 1 and not spec.edges and not spec.exhaustive:
        words = {word.strip().casefold() for word in missing} - {word.casefold() for word in spec.named}
        unknown = data[column].str.casefold().isin(words)
        known = data.assign(**{column: data[column].mask(unknown)})
        found = {f"missing_words_of_{spec.name}": int(unknown.sum())} if unknown.any() else {}
        if spec.words:
            groups = Groups(_mapped(known, spec, file), tuple(spec.words), found)
        else:
            groups = Groups(_yes_no(known, column, file), ("0", "1"), found)
    else:
        groups = find_groups(data, spec, file, missing)
    codes = {name: code for code, name in enumerate(groups.names)}
    return groups.values.map(codes).astype("Int16"), groups


def _yes_no(data: pd.DataFrame, column: str, file: Path) -> pd.Series[str]:
    folded = data.assign(**{column: data[column].str.casefold()})
    return parse_groups(folded, column, YES_NO, file)


def _mapped(data: pd.DataFrame, spec: Spec, file: Path) -> pd.Series[str]:
    """The group that each word belongs to; a word that is named and nowhere is a typing error, most often."""
    column = spec.columns[0]
    present = set(data[column].dropna())
    for word in spec.named - present:
        raise InputError(f"{file} has no row with {word!r} in {column!r}, which {spec.name!r} names")
    groups: dict[str, str | None] = {
        word: group for group, words in spec.words.items() for word in words if word != OTHERS
    }
    for group, words in spec.words.items():
        if OTHERS in words:
            groups |= dict.fromkeys(present - spec.named, group)
    return parse_groups(data, column, groups, file)


def _one_of(data: pd.DataFrame, spec: Spec, file: Path) -> pd.Series[str]:
    """The one of several columns that holds a 1."""
    marks = np.stack([(_yes_no(data, column, file) == "1").to_numpy(bool) for column in spec.columns], axis=1)
    several = marks.sum(axis=1) > 1
    if several.any():
        first = [name for name, mark in zip(spec.columns, marks[several][0], strict=True) if mark]
        raise InputError(
            f"{file} row {row_of(data, pd.Series(several))}: {' and '.join(map(repr, first))} are both 1, "
            f"where {spec.name!r} is one of them"
        )
    names = np.array([*spec.columns, None], dtype=object)
    place = np.where(marks.any(axis=1), marks.argmax(axis=1), len(spec.columns))
    return pd.Series(names[place], index=data.index, dtype=pd.StringDtype(na_value=np.nan))
