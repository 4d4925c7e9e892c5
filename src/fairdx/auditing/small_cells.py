"""Cells of too few people for a table that leaves a hospital, and the groups that are joined over them.

A cell is a group with a label and a decision. Nothing is rounded and no single cell is blanked: groups are
joined until every cell of what is shown holds nobody, or enough people. The shown groups of an attribute then
divide all images, so no difference between a total and its parts is a small cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fairdx.metrics.inputs import Codes, Ints

_NAMED = 3  # joined groups of more are only counted
_UNIONS = 8  # of more groups only single ones are subtracted


@dataclass(frozen=True)
class Plan:
    """What is shown of a table, and what is not.

    Attributes:
        attributes: Those that are shown, small groups joined.
        joined: {attribute: {name of the joined group: the groups in it}}.
        left_out: Attributes of which no two groups can be shown.
        undecided: Attributes, shown, whose figures of decisions are left out.
        overall: Whether figures of decisions are shown at all, of all images too.
        crossed: Whether every intersection can be shown.
        cells: Number of cells with people, but too few.
        people: Person of each image, (n,); those in several groups count in each, where they are too few.
    """

    attributes: dict[str, Codes]
    joined: dict[str, dict[str, list[str]]]
    left_out: list[str]
    undecided: list[str]
    overall: bool
    crossed: bool
    cells: int
    people: Ints


def plan(
    attributes: Mapping[str, Codes],
    label: Ints,
    decisions: Sequence[Ints],
    people: Ints,
    least: int,
    *,
    coarse: bool = False,
) -> Plan:
    """Decide what of a table can be shown.

    Args:
        attributes: Sensitive attributes.
        label: Truth of each image, 0 or 1, (n,).
        decisions: Decision on each image, 0 or 1, (n,), by each of the models.
        people: Person of each image, (n,).
        least: Fewest people that a cell may hold.
        coarse: Whether decisions could be counted from figures of scores, as where a score has few values.

    Returns:
        The plan.
    """
    cells, labels = [2 * label + decided for decided in decisions], [label]
    overall = not _any_few([], cells, people, least)
    shown, joined = dict[str, Codes](), dict[str, dict[str, list[str]]]()
    left_out, undecided = list[str](), list[str]()
    for name, column in attributes.items():
        place = _joined(column, cells, people, least)
        decided = overall and place.max() > 0
        if not decided:
            place = _joined(column, labels, people, least)
        renamed, parts = _rename(column, place)
        told = [cells if decided and other not in undecided else labels for other in shown]
        pairs = zip(shown.values(), told, strict=True)
        if (
            place.max() == 0
            or (coarse and not decided)
            or any(_nested(other, renamed, which, people, least) for other, which in pairs)
        ):
            left_out.append(name)
            continue
        shown[name], joined[name] = renamed, parts
        undecided += [] if decided else [name]
    crossings = [list(c) for n in range(2, len(shown) + 1) for c in combinations(shown.values(), n)]
    n_cells = sum(
        int(few(_cross([c], cell), people, least).sum()) for c in attributes.values() for cell in cells
    )
    return Plan(
        shown,
        {name: one for name, one in joined.items() if one},
        left_out,
        undecided,
        overall,
        not undecided and not any(_any_few(c, cells, people, least) for c in crossings),
        n_cells,
        _apart(shown, people, least),
    )


def count(cell: Ints, people: Ints) -> Ints:
    """People in each cell.

    Args:
        cell: Of each image, (n,).
        people: Of each image, (n,).

    Returns:
        Distinct people by cell, (cells,).
    """
    pairs = np.unique(cell.astype(np.int64) * (int(people.max()) + 1) + people)
    return np.bincount(pairs // (int(people.max()) + 1), minlength=int(cell.max()) + 1)


def few(cell: Ints, people: Ints, least: int) -> NDArray[np.bool_]:
    """Which cells hold people, but fewer than `least`, (cells,)."""
    found = count(cell, people)
    return np.asarray((found > 0) & (found < least))


def _cross(columns: Sequence[Codes], cell: Ints) -> Ints:
    for column in columns:
        cell = np.unique(cell * len(column.names) + column.codes, return_inverse=True)[1].reshape(-1)
    return cell


def _any_few(columns: Sequence[Codes], cells: Sequence[Ints], people: Ints, least: int) -> bool:
    return any(bool(few(_cross(columns, cell), people, least).any()) for cell in cells)


def _joined(column: Codes, cells: Sequence[Ints], people: Ints, least: int) -> Ints:
    """The new place of each group, (S,): all with a small cell in one, and the next larger if needed."""
    place = np.arange(len(column.names))
    by_size = np.argsort(count(column.codes, people), kind="stable")
    while True:
        bad: set[int] = set()
        for cell in cells:
            small = few(place[column.codes] * 4 + cell, people, least)
            bad |= set((np.flatnonzero(small) // 4).tolist())
        if not bad or place.max() == 0:
            return place
        pool = np.isin(place, list(bad))
        if len(bad) == 1:  # alone it would stay what it is
            pool[next(g for g in by_size if not pool[g])] = True
        place = np.where(pool, place[pool].min(), place)
        place = np.unique(place, return_inverse=True)[1].reshape(-1)


def _nested(first: Codes, second: Codes, cells: Sequence[Ints], people: Ints, least: int) -> bool:
    """Whether groups of one attribute lie within groups of another, all but a few people.

    "60 and over" less "65 and over" is who is 60 to 64: who knows what the groups mean can subtract them.
    """
    sizes = len(first.names), len(second.names)
    for cell in cells:
        width = int(cell.max()) + 1
        place = (first.codes * sizes[1] + second.codes) * width + cell
        table = np.zeros((*sizes, width), dtype=np.int64)
        table.ravel()[: int(place.max()) + 1] = count(place, people)
        if any(_remainders(part, least) for part in (table, table.swapaxes(0, 1))):
            return True
    return False


def _remainders(table: Ints, least: int) -> bool:
    """Whether a union of groups of the second attribute (A, B, cells) holds few beside those within it."""
    n = table.shape[1]
    numbers = range(1, 2**n - 1) if n <= _UNIONS else (2**b for b in range(n))
    for number in numbers:
        union = np.array([number >> b & 1 for b in range(n)], dtype=bool)
        within = table[:, ~union].sum((1, 2)) == 0
        rest = table[~within][:, union].sum((0, 1))
        if within.any() and bool(((rest > 0) & (rest < least)).any()):
            return True
    return False


def _rename(column: Codes, place: Ints) -> tuple[Codes, dict[str, list[str]]]:
    """The column with its groups joined, and which these are."""
    parts = [[n for n, p in zip(column.names, place, strict=True) if p == k] for k in range(place.max() + 1)]
    names = [" or ".join(p) if len(p) <= _NAMED else f"{len(p)} smaller groups" for p in parts]
    names = [
        f"{n} (joined)" if len(p) > 1 and n in column.names else n for n, p in zip(names, parts, strict=True)
    ]
    joined = {name: part for name, part in zip(names, parts, strict=True) if len(part) > 1}
    return Codes(place[column.codes], tuple(names), tuple(names)), joined


def _apart(attributes: Mapping[str, Codes], people: Ints, least: int) -> Ints:
    """People such that none, or enough of them, occur in more than one group of an attribute."""
    for column in attributes.values():
        twice = int(count(column.codes, people).sum()) - len(np.unique(people))
        if 0 < twice < least:
            people = np.unique(people * len(column.names) + column.codes, return_inverse=True)[1].reshape(-1)
    return people
