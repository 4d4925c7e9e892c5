"""Bootstrap replicates of count tables, patient by patient, without ever re-indexing rows.

All that the audit computes depends on counts: of (group, label, decision), or of (group, label, score bin).
Without patients the counts of a replicate are multinomial. With patients each has a vector of counts, equal
vectors are collapsed, and a replicate is a (multinomial) weighting of the distinct vectors.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from fairdx.metrics.inputs import Floats, Ints

MOST_BLOCKS = 10_000
"""Of more patients than twice this, blocks are resampled."""

_MOST_DENSE = 5_000_000  # numbers in a dense array of patients: 40 MB
_FULL, _MOST_FULL = (
    0.05,
    50_000_000,
)  # share and number of cells from, and up to, which a full matrix is faster
_CHUNK_CELLS = 400_000  # at most so many numbers per chunk of replicates: what a processor keeps at hand


@dataclass(frozen=True)
class Units:
    """What is resampled: patients, collapsed to their distinct count vectors.

    Attributes:
        vectors: Count vectors, one row per distinct one, shape (U, C).
        multiplicity: How many patients have that vector, shape (U,).
        single: Whether each patient has one row and it falls in one cell.
    """

    vectors: "sparse.csr_array[Any, tuple[int, int]]"
    multiplicity: Ints
    single: bool

    @property
    def n_patients(self) -> int:
        """Number of patients (rows, when there are none)."""
        return int(self.multiplicity.sum())

    @property
    def counts(self) -> Floats:
        """The table of the sample, shape (C,)."""
        return np.asarray(self.vectors.T @ self.multiplicity.astype(float))


def collapse(
    cells: list[Ints], n_cells: list[int], patients: Ints | None, weight: Floats | None = None
) -> Units:
    """Gather the rows of each patient into a count vector and collapse equal ones.

    Args:
        cells: One or more tables, each the cell of every row, shape (n,). Several tables are resampled with
            the same patients and lie side by side in the result.
        n_cells: Number of cells of each table.
        patients: Patient codes 0 to N - 1, shape (n,); None when each row is a patient of its own.
        weight: What each row counts, shape (n,); 1 if None.

    Returns:
        The units of resampling.
    """
    offsets = np.concatenate([[0], np.cumsum(n_cells)[:-1]])
    width = int(sum(n_cells))
    if patients is None and len(cells) == 1 and weight is None:
        counts = np.bincount(cells[0], minlength=width)
        used = np.flatnonzero(counts)
        one = sparse.csr_array((np.ones(len(used)), (np.arange(len(used)), used)), shape=(len(used), width))
        return Units(one, counts[used], single=True)
    n = len(cells[0])
    rows = np.arange(n) if patients is None else patients
    column = np.concatenate([c + o for c, o in zip(cells, offsets, strict=True)])
    amount: Any = np.ones(len(column), np.float32) if weight is None else np.tile(weight, len(cells))
    entries = (amount, (np.tile(rows, len(cells)), column))
    vectors = sparse.csr_array(entries, shape=(int(rows.max()) + 1, width))
    first, kind = _distinct(vectors)
    return Units(vectors[first], np.bincount(kind), single=False)


def blocks(patients: Ints, most: int = MOST_BLOCKS) -> Ints:
    """Gather many patients at random into blocks of equally many, which are then resampled in their place.

    A sum over a block varies like that of so many patients, so replicates have the same distribution; their
    variance is known to the root of 2 / blocks, which is less than replicates themselves leave open.

    Args:
        patients: Patient codes 0 to N - 1, shape (n,).
        most: Blocks to make, at most about; patients stay alone where they are fewer than twice that.

    Returns:
        Block codes, shape (n,).
    """
    n_patients = int(patients.max(initial=-1)) + 1
    if n_patients < 2 * most:
        return patients
    n_blocks = n_patients // (n_patients // most)
    place = np.random.default_rng(0).permutation(n_patients) % n_blocks
    return np.asarray(place[patients])


def kinds_of_patients(cell: Ints, n_cells: int, patients: Ints) -> tuple[Floats, Ints]:
    """Distinct tables of patients, and which of them each patient has.

    Args:
        cell: Cell of every row, shape (n,).
        n_cells: Number of cells, C.
        patients: Patient codes 0 to N - 1, shape (n,).

    Returns:
        Count vectors, shape (T, C), and the kind of each patient, shape (N,).
    """
    shape = (int(patients.max()) + 1, n_cells)
    vectors = sparse.csr_array((np.ones(len(cell), dtype=np.float32), (patients, cell)), shape=shape)
    first, kind = _distinct(vectors)
    return np.asarray(vectors[first].toarray(), dtype=float), kind


def _distinct(vectors: "sparse.csr_array[Any, tuple[int, int]]") -> tuple[Ints, Ints]:
    """Rows with distinct content and which of them each row is, by a 64-bit random linear hash of each."""
    vectors.sum_duplicates()
    key = np.random.default_rng(0).integers(1, 2**63, size=vectors.shape[1], dtype=np.uint64)
    data = vectors.data
    if data.dtype == np.float64:  # weights, which are told by their bits; their last digits are rounding
        data = data.astype(np.float32).view(np.uint32)
    values = key[vectors.indices] * data.astype(np.uint64)
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    _, first, kind = np.unique(np.diff(total[vectors.indptr]), return_index=True, return_inverse=True)
    return first.astype(np.int64), kind.astype(np.int64).reshape(-1)


def replicate(units: Units, n_replicates: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Draw bootstrap replicates of the counts.

    Args:
        units: From `collapse`.
        n_replicates: Number of replicates, B.
        rng: Source of randomness.

    Yields:
        Chunks of replicates, shape (b, C), that add up to B; their division depends on sizes alone.
    """
    distinct, width = units.vectors.shape
    patients = units.n_patients
    # Binomials cost ten times a random integer: draw kinds of patients when these are few, else patients.
    by_kind = units.single or 10 * distinct <= patients
    chunk = max(1, min(n_replicates, _CHUNK_CELLS // max(distinct, width)))
    vectors: Any = None if units.single else units.vectors.T.tocsr()
    if vectors is not None and vectors.nnz > _FULL * distinct * width and distinct * width <= _MOST_FULL:
        vectors = vectors.toarray()
    for start in range(0, n_replicates, chunk):
        size = min(chunk, n_replicates - start)
        if by_kind:
            weights = rng.multinomial(patients, units.multiplicity / patients, size=size)
        else:
            weights = _by_patient(units.multiplicity, size, rng)
        if vectors is None:
            counts = np.zeros((size, width))
            counts[:, units.vectors.indices] = weights
            yield counts
        else:
            columns = np.ascontiguousarray(weights.T, dtype=np.float32)
            yield np.ascontiguousarray((vectors @ columns).T, dtype=float)


def _by_patient(multiplicity: Ints, size: int, rng: np.random.Generator) -> Ints:
    patients = int(multiplicity.sum())
    kind = np.repeat(np.arange(len(multiplicity)), multiplicity) if patients > len(multiplicity) else None
    weights = np.empty((size, len(multiplicity)), dtype=np.int64)
    for row in weights:
        drawn = rng.integers(0, patients, size=patients)  # as 64 bits, which are counted without a copy
        row[:] = np.bincount(drawn if kind is None else kind[drawn], minlength=len(multiplicity))
    return weights


def all_replicates(units: Units, n_replicates: int, rng: np.random.Generator) -> Floats:
    """All replicates at once, shape (B, C); for small tables."""
    return np.concatenate(list(replicate(units, n_replicates, rng)))


def dense_vectors(units: Units, most: int = 20_000) -> tuple[Floats, Floats]:
    """Count vectors of patients as a dense array, from at most `most` distinct ones.

    Args:
        units: From `collapse`.
        most: With more distinct vectors than this (or fewer, where they are long) an evenly spaced part of
            them is taken, which is enough for a variance ratio.

    Returns:
        Vectors of shape (U, C) and their multiplicity, shape (U,).
    """
    most = max(min(most, _MOST_DENSE // units.vectors.shape[1]), 200)
    take = np.unique(np.linspace(0, len(units.multiplicity) - 1, most).astype(int))
    return np.asarray(units.vectors[take].toarray(), dtype=float), units.multiplicity[take].astype(float)


def effective_patients(
    group: Ints, patient: Ints | None, n_groups: int | None = None, weight: Floats | None = None
) -> Floats:
    """Effective number of patients in each group: (sum m)^2 / sum m^2, m the images of each there.

    Args:
        group: Group codes, shape (n,).
        patient: Patient codes, shape (n,), or None when images are independent.
        n_groups: Number of groups, S; one more than the largest code if None.
        weight: What each image counts, shape (n,); 1 if None. With a patient for each image the result is
            Kish's effective sample size.

    Returns:
        Shape (S,); the numbers of images where these are independent, 0 for a group that does not occur.
    """
    most = int(group.max(initial=-1)) + 1 if n_groups is None else n_groups
    if patient is None:
        return np.bincount(group, minlength=most).astype(float)
    width = int(patient.max(initial=0)) + 1
    pair = group * width + patient
    if most * width > 4 * len(group) + 1000:  # too many cells to count in all of them
        pair, place = np.unique(pair, return_inverse=True)
        images = np.bincount(place, weights=weight, minlength=len(pair))
    else:
        images = np.bincount(pair, weights=weight, minlength=most * width)
        pair = np.arange(most * width)
    total = np.bincount(pair // width, weights=images, minlength=most)
    squares = np.bincount(pair // width, weights=images.astype(float) ** 2, minlength=most)
    return np.divide(total**2, squares, out=np.zeros(most), where=squares > 0)
