"""What the columns of a table of predictions mean: labels, scores and groups; or why they cannot."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal
from unicodedata import normalize

import numpy as np

from fairdx.auditing.design import MISSING, MOST_GROUPS
from fairdx.auditing.table import Kind, Table, Text
from fairdx.core.bins import bin_names
from fairdx.core.errors import InputError
from fairdx.metrics.inputs import ROUNDING, Codes, Floats, Ints
from fairdx.metrics.positive import positive_place

Policy = Literal["exclude", "positive", "negative"]
"""What a label that is missing or uncertain counts as; "exclude": the row does not count."""

POLICIES: tuple[Policy, ...] = ("exclude", "positive", "negative")
NAME_THE_POSITIVE = "say which with --positive VALUE (positive_class in Python)"
_UNCERTAIN = -1.0
_CODES = (99.0, 999.0, 9999.0)


@dataclass(frozen=True)
class LabelRules:
    """How labels are read.

    Attributes:
        positive: The value that is the disease, or None where the values say so themselves.
        uncertain: What -1 counts as where the other labels are 0 and 1 (CheXpert's "uncertain").
        unlabelled: What a missing label counts as.
    """

    positive: str | None = None
    uncertain: Policy = "exclude"
    unlabelled: Policy = "exclude"

    def __post_init__(self) -> None:
        for name in ("uncertain", "unlabelled"):
            if getattr(self, name) not in POLICIES:
                raise InputError(f"{name} is {getattr(self, name)!r}; give {', '.join(POLICIES)}.")


@dataclass(frozen=True)
class Truth:
    """A column of labels with two values.

    Attributes:
        codes: 1 where the disease is, 0 where it is not, -1 where it is not known, shape (n,).
        names: The negative and the positive value; several negative ones with commas.
    """

    codes: Ints
    names: tuple[str, str]


def read_label(table: Table, column: str, rules: LabelRules, notes: list[str]) -> Truth:
    """Read the truth of two classes.

    Args:
        table: The table.
        column: Its column.
        rules: How to read it.
        notes: Gets a sentence for each thing that a reader should know.

    Returns:
        The truth, both values of which occur.

    Raises:
        InputError: The column has a single class, or too many, or does not say which is the disease.
    """
    found = table.text(column, "label")
    names, numbers = list(found.names), [_number(name) for name in found.names]
    coded = {n for n in numbers if n is not None}
    if not names:
        raise InputError(f"{table.name}: label column {column!r} is empty in every row.")
    # -1 and 1 alone are two classes, but not beside blank cells: then it is CheXpert's way to be unsure.
    unsure = rules.positive is None and None not in numbers and _UNCERTAIN in coded
    unsure = unsure and coded <= {-1, 0, 1} and (0 in coded or bool(found.missing.any()))
    uncertain = [n == _UNCERTAIN and unsure for n in numbers]
    certain = [name for name, hidden in zip(names, uncertain, strict=True) if not hidden]
    positive = _positive(table, column, certain, rules)
    code = [
        _as_code(rules.uncertain) if hidden else int(name in positive)
        for name, hidden in zip(names, uncertain, strict=True)
    ]
    codes = np.array([*code, _as_code(rules.unlabelled)], dtype=np.int64)[found.codes]
    for mask, what, policy in (
        (found.missing, f"no label in {column}{_written(found)}", rules.unlabelled),
        (np.array([*uncertain, False])[found.codes], f"an uncertain label (-1) in {column}", rules.uncertain),
    ):
        if mask.any():
            done = "left out" if policy == "exclude" else f"counted as {policy}"
            notes.append(f"{mask.sum():,} of {len(table):,} rows have {what} and are {done}.")
    if len(positive) > 1 and rules.positive is not None:
        notes.append(
            f"{column}: {', '.join(map(repr, positive[:8]))} differ only in how they are written; "
            "all of them count as positive."
        )
    rest = [name for name in certain if name not in positive]
    if len(rest) > 1 and rules.positive is not None and len({_number(n) or n.strip() for n in rest}) > 1:
        notes.append(f"{column}: all of {', '.join(map(repr, rest[:8]))} count as negative.")
    _two_classes(table, column, codes, certain)
    return Truth(codes, (", ".join(rest) or f"not {positive[0]}", positive[0]))


def _written(found: Text) -> str:
    return f", written as {' or '.join(map(repr, found.words))}," if found.words else ""


def _as_code(policy: Policy) -> int:
    return {"exclude": -1, "negative": 0, "positive": 1}[policy]


def _positive(table: Table, column: str, names: list[str], rules: LabelRules) -> list[str]:
    """The texts of the positive class: several where 1 is written in several ways."""
    numbers = [_number(name) for name in names]
    if rules.positive is None and names and set(numbers) <= {0, 1}:
        return [name for name, n in zip(names, numbers, strict=True) if n == 1] or ["1"]
    if rules.positive is None and set(names) <= {"False", "True", "false", "true"}:
        return [name for name in names if name.lower() == "true"] or ["True"]
    what = f"{table.name}: label column {column!r}"
    if len(names) == 1 and rules.positive is None:
        raise InputError(f"{what} holds the single class {names[0]!r}; two are needed.")
    if rules.positive is None and len(names) != 2:
        raise InputError(
            f"{what} has {len(names):,} distinct values ({', '.join(names[:6])}); {NAME_THE_POSITIVE}, all "
            "others "
            "then counting as negative, or give a column of scores for each class."
        )
    named = names[positive_place(names, rules.positive, what=what, how=NAME_THE_POSITIVE)]
    return [named, *(name for name in names if name != named and alike(name) == alike(named))]


def _two_classes(table: Table, column: str, codes: Ints, names: Sequence[str]) -> None:
    if len(np.unique(codes[codes >= 0])) == 2:
        return
    told = f"the single class {names[0]!r}" if len(names) == 1 else "a single class"
    raise InputError(f"{table.name}: label column {column!r} holds {told}; two are needed.")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_scores(table: Table, column: str) -> Floats:
    """Read a column of probabilities; up to `ROUNDING` outside [0, 1] they are taken for its ends."""
    numbers = table.numbers(column)
    missing = ~np.isfinite(numbers)
    if missing.any():
        raise InputError(
            f"{table.name}: column {column!r} has no finite score in {table.rows(missing)}; remove them."
        )
    outside = (numbers < -ROUNDING) | (numbers > 1 + ROUNDING)
    if outside.any():
        raise InputError(
            f"{table.name}: column {column!r} lies outside [0, 1] in {table.rows(outside)}, with "
            f"{numbers[outside][0]:g}; give probabilities, not logits or percentages."
        )
    return np.clip(numbers, 0.0, 1.0)


def read_weights(table: Table, column: str) -> Floats:
    """Read a column of weights.

    Raises:
        InputError: One is missing, infinite or negative, or all are 0.
    """
    numbers = table.numbers(column)
    for bad, told in ((~np.isfinite(numbers), "has no finite weight"), (numbers < 0, "is negative")):
        if bad.any():
            raise InputError(f"{table.name}: column {column!r} {told} in {table.rows(bad)}.")
    if not numbers.any():
        raise InputError(f"{table.name}: column {column!r} is 0 in every row; no image would count.")
    return numbers


def alike(text: str) -> str | float:
    """What texts share that differ only in capitals, spaces, forms of letters, or ways to write a number."""
    number = _number(text)
    return " ".join(normalize("NFKC", text).casefold().split()) if number is None else number


def read_patients(table: Table, column: str, notes: list[str]) -> Codes:
    """Read the column of patients, as text.

    Args:
        table: The table.
        column: Its column.
        notes: Gets a caution if some are written like others.

    Raises:
        InputError: One is missing, or they are floating-point numbers so large that neighbours coincide.
    """
    found = complete(table, column, "patient", "attribute")
    if table.inexact(column):
        raise InputError(
            f"{table.name}: patient column {column!r} holds floating-point numbers beyond 2^53, where "
            "neighbouring numbers are one; store it as text or as whole numbers."
        )
    shapes = {
        alike(name) if _number(name) is None else name.strip().removesuffix(".0") for name in found.names
    }
    if merged := len(found.names) - len(shapes):
        notes.append(
            f"{column}: {merged:,} patients are written like another but for capitals, spaces or a last .0; "
            "they count as patients of their own."
        )
    return found


def complete(table: Table, column: str, what: str, kind: Kind = "plain") -> Codes:
    """Read a column of text that must not be missing; of `kind` "attribute" nobody may be "unknown"."""
    found = table.text(column, kind)
    if found.missing.any():
        word = f" (as {found.words[0]!r})" if found.words else ""
        raise InputError(
            f"{table.name}: {what} column {column!r} is empty{word} in {table.rows(found.missing)}; "
            "fill or remove them."
        )
    return Codes(found.codes, found.names, found.names)


@dataclass(frozen=True)
class GroupColumn:
    """A sensitive attribute as it was asked for.

    Attributes:
        column: Its column.
        edges: Numbers at which a new group begins, or ().
        levels: Its groups in their order, or ().
    """

    column: str
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()


def parse_group(text: str, columns: Sequence[str]) -> GroupColumn:
    """Read `sex`, `age@40,60` (bins) or `stage:I|II|III` (levels in their order).

    Args:
        text: As it was asked for; the name of a column stands for itself, whatever signs it has.
        columns: Of the table.

    Raises:
        InputError: Bins are no ascending numbers.
    """
    if text in columns:
        return GroupColumn(text)
    name, sign, rest = text.partition("@")
    if sign:
        edges = tuple(n for n in map(_number, rest.split(",")) if n is not None)
        ascending = all(a < b for a, b in pairwise(edges))
        if not edges or len(edges) < len(rest.split(",")) or not ascending:
            raise InputError(f"group {text!r} does not end in ascending numbers, as age@40,60 does.")
        return GroupColumn(name, edges)
    name, sign, rest = text.rpartition(":")
    if sign and "|" in rest:
        return GroupColumn(name, levels=tuple(rest.split("|")))
    return GroupColumn(text)


def read_groups(table: Table, group: GroupColumn, notes: list[str]) -> Codes:
    """Read a sensitive attribute.

    Args:
        table: The table.
        group: What was asked for.
        notes: Gets a sentence for each thing that a reader should know.

    Returns:
        The groups in the order of bins, levels or an ordered category; of numbers; or of the alphabet.
        What is missing is a group of its own, the last.

    Raises:
        InputError: There is a single group or too many, a bin without numbers, or an unlisted level.
    """
    kind: Kind = "plain" if group.levels else "attribute"
    found = _binned(table, group, notes) if group.edges else table.text(group.column, kind)
    if group.levels:
        found = _levelled(table, group, found)
    elif not found.ordered:
        found = _sorted(found)
    names, codes = found.names, found.codes
    if found.missing.any():
        written = _written(found).rstrip(",")
        notes.append(
            f"{group.column} is missing in {table.rows(found.missing)}{written}; these images form the group "
            f"'{MISSING}'."
        )
        if MISSING not in names:
            names = (*names, MISSING)
        codes = np.where(codes < 0, names.index(MISSING), codes)
    _check_groups(table, group, names)
    counts = np.bincount(codes, minlength=len(names))
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    notes.extend(f"{group.column}: group {name!r} has a single image." for name in single[:5])
    notes.extend(_alike(group.column, names))
    return Codes(codes, names, names)


def _sorted(found: Text) -> Text:
    """Names that are all numbers in the order of the numbers, others in that of the alphabet."""
    numbers = [_number(name) for name in found.names]
    if not numbers or None in numbers:
        return found
    order = np.argsort(np.array(numbers, dtype=float), kind="stable")
    place = np.append(np.argsort(order), -1)
    return Text(place[found.codes], tuple(found.names[i] for i in order), words=found.words)


def _binned(table: Table, group: GroupColumn, notes: list[str]) -> Text:
    numbers = table.numbers(group.column, "attribute")
    words = table.text(group.column, "attribute").words
    notes.extend(_codes_for_unknown(table, group, numbers))
    known = numbers[np.isfinite(numbers)]
    whole = bool((known == np.round(known)).all()) and all(e == round(e) for e in group.edges)
    names = bin_names(group.edges, whole=whole)
    codes = np.where(np.isnan(numbers), -1, np.searchsorted(group.edges, numbers, side="right"))
    occurs = np.bincount(codes[codes >= 0], minlength=len(names)) > 0
    place = np.append(np.cumsum(occurs) - 1, -1)
    return Text(place[codes], tuple(n for n, o in zip(names, occurs, strict=True) if o), True, words)


def _codes_for_unknown(table: Table, group: GroupColumn, numbers: Floats) -> list[str]:
    """A caution if numbers look like codes for "unknown": below 0, or 99, 999, 9999 far above the others."""
    known = numbers[np.isfinite(numbers)]
    below = (numbers < 0) & (min(group.edges) > 0)
    codes = np.isin(numbers, _CODES) & (numbers > 1.5 * max(known[~np.isin(known, _CODES)], default=np.inf))
    strange = below | codes
    if not strange.any():
        return []
    example = numbers[strange][0]
    return [
        f"{group.column} is {example:g} or as strange in {table.rows(strange)}. If that means unknown, leave "
        "these cells blank: now they count as numbers."
    ]


def _levelled(table: Table, group: GroupColumn, found: Text) -> Text:
    for listed, known, told in (
        (found.names, group.levels, "has a value that is not listed"),
        (group.levels, found.names, "has no row with the group"),
    ):
        if absent := [name for name in listed if name not in known]:
            raise InputError(f"{table.name}: group column {group.column!r} {told}: {absent[0]!r}.")
    place = np.array([*(group.levels.index(name) for name in found.names), -1])
    return Text(place[found.codes], group.levels, True, found.words)


def _check_groups(table: Table, group: GroupColumn, names: Sequence[str]) -> None:
    what = f"{table.name}: group column {group.column!r}"
    if len(names) == 1:
        raise InputError(f"{what} holds the single value {names[0]!r}.")
    numeric = not group.edges and sum(_number(name) is not None for name in names) >= len(names) - 1
    hint = f"divide it, as in --group {group.column}@40,60" if numeric else "bin it first"
    if len(names) > MOST_GROUPS:
        raise InputError(
            f"{what} has {len(names):,} distinct values, more than {MOST_GROUPS}; it looks like an "
            "identifier or "
            f"a measurement, so {hint}."
        )


def _alike(column: str, names: Sequence[str]) -> list[str]:
    """Cautions about groups that look alike."""
    told, seen = [], dict[str | float, str]()
    for name in names:
        key = alike(name)
        if key in seen:
            told.append(
                f"{column}: the groups {seen[key]!r} and {name!r} differ only in how they "
                "are written; they are audited as two."
            )
        seen[key] = name
    words = {name.strip().casefold(): name for name in names if name.strip().isalpha()}
    for word, name in words.items():
        if len(word) > 1 and word[0] in words:
            told.append(
                f"{column}: is {words[word[0]]!r} short for {name!r}? They are audited as two groups; if "
                "they are one, write it in one way."
            )
    return told[:5]
