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
    attributes: Mapping[str, Codes], label: Ints, decisions: Sequence[Ints], people: Ints, least: int
) -> Plan:
    """Decide what of a table can be shown.

    Args:
        attributes: Sensitive attributes.
        label: Truth of each image, 0 or 1, (n,).
        decisions: Decision on each image, 0 or 1, (n,), by each of the models.
        people: Person of each image, (n,).
        least: Fewest people that a cell may hold.

    Returns:
        The plan.
    """
    cells, labels = [2 * label + decided for decided in decisions], [label]
    overall = not _any_few([], cells, people, least)
    shown, joined, left_out, undecided = {}, {}, [], []
    for name, column in attributes.items():
        place = _joined(column, cells, people, least)
        if not overall or place.max() == 0:
            place = _joined(column, labels, people, least)
            undecided += [name] if place.max() > 0 else []
        if place.max() == 0:
            left_out.append(name)
            continue
        shown[name], joined[name] = _rename(column, place)
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
