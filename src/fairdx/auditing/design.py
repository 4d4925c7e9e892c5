"""The images of an audit, coded once, and the tables that are resampled together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np

from fairdx.auditing.profile import Grid, Truth
from fairdx.core.errors import InputError
from fairdx.inference.resampling import Units, blocks, collapse, dense_vectors, replicate
from fairdx.metrics.inputs import Codes, Floats, Ints

MOST_GROUPS = 200
"""An attribute with more values than this is taken for an identifier."""

MOST_CROSSED = 400
"""An intersection with more groups than this is left out: nearly all of them would be too small."""

MISSING = "(missing)"
"""Name of the group whose attribute is missing."""

SIGN = " × "
"""Between the names of attributes, and of groups, in an intersection."""


@dataclass(frozen=True)
class Grouping:
    """An attribute (or intersection) as a coarsening of the finest groups.

    Attributes:
        name: The attribute.
        groups: Names of its groups.
        of_finest: Group of each of the finest groups, shape (F,).
        parts: By group, its value of each of the attributes that it is made of.
    """

    name: str
    groups: tuple[str, ...]
    of_finest: Ints
    parts: tuple[dict[str, str], ...]

    @property
    def intersection(self) -> bool:
        """Whether it is made of several attributes."""
        return len(self.parts) > 0 and len(self.parts[0]) > 1

    def coarsen(self, tables: Floats) -> Floats:
        """Sum tables of finest groups (B, F, ...) into groups (B, S, ...)."""
        if (
            len(self.groups) == len(self.of_finest)
            and (self.of_finest == np.arange(len(self.of_finest))).all()
        ):
            return tables
        member = np.eye(len(self.groups))[self.of_finest].T
        flat = tables.reshape(*tables.shape[:2], -1)
        summed: Floats = np.matmul(member, flat).reshape(len(tables), len(member), *tables.shape[2:])
        return summed


def groupings(
    attributes: dict[str, Codes], *, intersections: bool = True
) -> tuple[Ints, list[Grouping], dict[str, int]]:
    """Code the finest groups that occur, and every attribute and intersection on top of them.

    Args:
        attributes: Encoded attributes by name.
        intersections: Whether to make intersections.

    Returns:
        The finest group of each image, shape (n,); the groupings: attributes, then intersections of two and,
        for three and more attributes, of all; and intersections with more than `MOST_CROSSED` groups, which
        are left out, with their numbers of groups.

    Raises:
        InputError: If an attribute has a single group, or looks like an identifier.
    """
    for name, column in attributes.items():
        if len(column.names) < 2:
            raise InputError(
                f"Sensitive feature {name!r} has the single value {column.names[0]!r}: "
                "there is nothing to compare."
            )
        if len(column.names) > MOST_GROUPS:
            raise InputError(
                f"Sensitive feature {name!r} has {len(column.names)} distinct values, more than "
                f"{MOST_GROUPS}: it looks like an identifier or a measurement; bin it first."
            )
    names = list(attributes)
    code = np.zeros(len(attributes[names[0]].codes), dtype=np.int64)
    for column in attributes.values():
        code = np.unique(code * len(column.names) + column.codes, return_inverse=True)[1]
    first = np.unique(code, return_index=True)[1]
    parts = {name: column.codes[first] for name, column in attributes.items()}
    found = [Grouping(n, c.names, parts[n], tuple({n: v} for v in c.names)) for n, c in attributes.items()]
    sets = list(combinations(names, 2)) + ([tuple(names)] if len(names) > 2 else [])
    left_out: dict[str, int] = {}
    for chosen in sets if intersections else []:
        keys = np.stack([parts[n] for n in chosen], axis=1)
        occurring, of_finest = np.unique(keys, axis=0, return_inverse=True)
        if len(occurring) > MOST_CROSSED:
            left_out[SIGN.join(chosen)] = len(occurring)
            continue
        made = tuple({n: attributes[n].names[v] for n, v in zip(chosen, r, strict=True)} for r in occurring)
        labels = tuple(SIGN.join(values.values()) for values in made)
        if len(set(labels)) < len(labels):  # a group's own name has the sign
            labels = tuple(SIGN.join(map(repr, values.values())) for values in made)
        name = free_name(SIGN.join(chosen), "intersection", [g.name for g in found])
        found.append(Grouping(name, labels, of_finest.reshape(-1), made))
    return code.astype(np.int64), found, left_out


def free_name(name: str, meaning: str, taken: Sequence[str]) -> str:
    """The name, or one that says what it means where an attribute has this name."""
    while name in taken:
        name = f"{name} ({meaning})"
    return name


@dataclass(frozen=True)
class Sample:
    """A binary audit's images and the tables made of them.

    Attributes:
        finest: Finest group of each image, (n,).
        n_finest: Number of finest groups, F.
        truth: The label that is audited, and the class that it is made from.
        scores: P(Y=1), (n,), or two of them: before and after.
        grids: Score bins of each.
        patient: Patient codes, (n,), or None.
        stratum: Class and covariates, (n,), or None.
        weight: What each image counts, (n,), or None for 1.
        decided: For each score the decision on each image, (n,), where groups have thresholds of their own;
            None where the bins of the scores tell.
    """

    finest: Ints
    n_finest: int
    truth: Truth
    scores: list[Floats]
    grids: list[Grid]
    patient: Ints | None
    stratum: Ints | None
    weight: Floats | None = None
    decided: list[Ints] | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes, Z."""
        return len(self.truth.of_full)

    @cached_property
    def decision(self) -> Ints:
        """Decisions on the first score, (n,)."""
        return self.decisions(0)

    def decisions(self, which: int) -> Ints:
        """Decisions on one of the scores, (n,)."""
        if self.decided is not None:
            return self.decided[which]
        return (self.grids[which].place >= self.grids[which].cut).astype(np.int64)

    @cached_property
    def score_bin(self) -> Ints:
        """Bin of the first score for I(S; score | Y), (n,)."""
        return np.asarray(self.grids[0].information[self.truth.full, self.grids[0].place])

    @cached_property
    def sizes(self) -> list[int]:
        """Number of cells of each table: a histogram per score, decisions per score, strata by decision."""
        sizes = [self.n_finest * self.n_classes * grid.size for grid in self.grids]
        sizes += [self.n_finest * self.n_classes * 2 for _ in self.decided or ()]
        if self.stratum is not None:
            sizes.append(self.n_finest * (int(self.stratum.max()) + 1) * 2)
        return sizes

    @cached_property
    def units(self) -> Units:
        """Patients with their tables."""
        cells = [self.cell(i) for i in range(len(self.grids))]
        cells += [(self.finest * self.n_classes + self.truth.full) * 2 + d for d in self.decided or ()]
        if self.stratum is not None:
            n_strata = int(self.stratum.max()) + 1
            cells.append((self.finest * n_strata + self.stratum) * 2 + self.decision)
        patient = None if self.patient is None else blocks(self.patient)
        return collapse(cells, self.sizes, patient, self.weight)

    @cached_property
    def decision_kinds(self) -> list[tuple[Floats, Floats]]:
        """For each score, `kinds` of decisions."""
        return [self.kinds(self.decisions(which), 2) for which in range(len(self.grids))]

    @cached_property
    def score_kinds(self) -> list[tuple[Floats, Floats]]:
        """For each score, `kinds` of its bins for I(S; score | Y)."""
        return [
            self.kinds(grid.information[self.truth.full, grid.place], int(grid.information.max()) + 1)
            for grid in self.grids
        ]

    def kinds(self, place: Ints, size: int) -> tuple[Floats, Floats]:
        """Tables (U, F, Z, D) of distinct patients, and how many patients have each.

        Args:
            place: Decision or score bin of each image, (n,).
            size: Number of these, D.

        Returns:
            Of many distinct ones a part, enough for a ratio of variances or a skewness.
        """
        cell = (self.finest * self.n_classes + self.truth.full) * size + place
        width = self.n_finest * self.n_classes * size
        kinds, multiplicity = dense_vectors(collapse([cell], [width], self.patient, self.weight))
        return kinds.reshape(-1, self.n_finest, self.n_classes, size), multiplicity

    def cell(self, which: int) -> Ints:
        """Cell of every image in the histogram (F, Z, K) of one of the scores."""
        grid = self.grids[which]
        return (self.finest * self.n_classes + self.truth.full) * grid.size + grid.place

    def split(self, counts: Floats) -> list[Floats]:
        """Cut counts (B, C) into tables: (B, F, Z, K) and perhaps (B, F, Z, 2) per score, then strata."""
        ends = np.cumsum([0, *self.sizes])
        parts = [counts[:, a:b] for a, b in pairwise(ends)]
        shaped = [
            part.reshape(len(counts), self.n_finest, self.n_classes, size)
            for part, size in zip(
                parts, [*(g.size for g in self.grids), *(2 for _ in self.decided or ())], strict=False
            )
        ]
        if self.stratum is not None:
            shaped.append(parts[-1].reshape(len(counts), self.n_finest, -1, 2))
        return shaped

    def tables(self) -> list[Floats]:
        """The sample's own tables, with a leading dimension of 1."""
        return self.split(self.units.counts[None])

    def squared_errors(self, which: int) -> Floats:
        """Sums of (score - Y)^2 in each cell, (F, 2, K)."""
        label, grid = self.truth.label, self.grids[which]
        cell = (self.finest * 2 + label) * grid.size + grid.place
        shape = (self.n_finest, 2, grid.size)
        squared = (self.scores[which] - label) ** 2
        squared = squared if self.weight is None else squared * self.weight
        sums = np.bincount(cell, weights=squared, minlength=int(np.prod(shape)))
        return sums.reshape(shape).astype(float)

    def replicates(self, n_replicates: int, rng: np.random.Generator) -> Iterator[list[Floats]]:
        """Chunks of replicated tables, as `tables`."""
        for counts in replicate(self.units, n_replicates, rng):
            yield self.split(counts)
