"""Splits that keep every patient on one side.

A patient's side depends on the seed and the patient's name alone: it does not move when rows are sorted,
dropped or added, nor from one machine to the next.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from fairdx.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")


def _uniform(patients: NDArray[np.object_], seed: int, purpose: str) -> NDArray[np.float64]:
    """One number in [0, 1) for each patient, from a hash of seed, purpose and name."""
    key = f"{seed}/{purpose}".encode()
    digests = (blake2b(str(name).encode(), digest_size=8, key=key).digest() for name in patients)
    return np.fromiter((int.from_bytes(d, "big") for d in digests), np.uint64, len(patients)) / 2.0**64


def split_patients(
    patients: ArrayLike, *, seed: int, test: float = 0.1, validation: float = 0.0
) -> NDArray[np.object_]:
    """Split rows into train, validation and test by patient.

    Args:
        patients: The patient of each row, of shape (n,).
        seed: Another seed gives another split.
        test: Expected fraction of patients in the test split, in [0, 1).
        validation: Expected fraction of the remaining patients in the validation split, in [0, 1).

    Returns:
        "train", "validation" or "test" for each row, of shape (n,).

    Raises:
        InputError: A fraction is out of range, or a split that was asked for got no patient.

    Example:
        >>> split_patients(["a", "b", "c", "d", "a"], seed=1, test=0.5).tolist()
        ['train', 'train', 'test', 'test', 'train']
    """
    names, rows = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    sides = np.full(len(names), "train", dtype=object)
    _cut(sides, names, "test", test, seed)
    _cut(sides, names, "validation", validation, seed)
    return sides[rows]


def cut_validation(
    patients: ArrayLike, split: ArrayLike, *, seed: int, validation: float
) -> NDArray[np.object_]:
    """Cut a validation split from the training part of a given split, by patient.

    Args:
        patients: The patient of each row, of shape (n,).
        split: The given split of each row, of shape (n,).
        seed: Another seed gives another validation split.
        validation: Expected fraction of training patients to move, in [0, 1).

    Returns:
        The new split of each row, of shape (n,); rows outside "train" are as they were.

    Raises:
        InputError: The fraction is out of range, or no patient was moved.
    """
    names, first, rows = np.unique(
        np.asarray(patients, dtype=object).astype(str), return_index=True, return_inverse=True
    )
    given = np.asarray(split, dtype=object)
    sides = given[first]
    _cut(sides, names, "validation", validation, seed)
    return np.where(given == "train", sides[rows], given)


def _cut(
    sides: NDArray[np.object_], names: NDArray[np.object_], side: Split, fraction: float, seed: int
) -> None:
    """Move a fraction of the patients still in training to another side, in place."""
    if not 0 <= fraction < 1:
        raise InputError(f"{side}={fraction} is not a fraction of patients: give a number from 0 to below 1")
    moved = (sides == "train") & (_uniform(names, seed, side) < fraction)
    if fraction and not moved.any():
        total = int((sides == "train").sum())
        raise InputError(
            f"{side}={fraction} of {total} patients left the {side} split empty: "
            "give a larger fraction or another seed"
        )
    sides[moved] = side


def check_disjoint(table: pd.DataFrame) -> None:
    """Check that no patient is in two splits.

    Args:
        table: Has the columns `patient` and `split`.

    Raises:
        InputError: A patient is in two splits; the message names the first and says how many there are.
    """
    sides = table[["patient", "split"]].drop_duplicates()
    leaking = sides[sides["patient"].duplicated(keep=False)]
    if leaking.empty:
        return
    patient = leaking["patient"].iloc[0]
    where = " and ".join(repr(s) for s in leaking.loc[leaking["patient"] == patient, "split"])
    raise InputError(
        f"patient {patient!r} is in the splits {where} ({leaking['patient'].nunique()} such patients): "
        "images of one patient must stay on one side; correct the split or leave it out to have one made"
    )


def patient_folds(patients: ArrayLike, folds: int, *, seed: int) -> NDArray[np.int64]:
    """Deal patients into folds of equal size, for cross-validation.

    Args:
        patients: The patient of each row, of shape (n,).
        folds: How many, at least 2.
        seed: Another seed gives other folds.

    Returns:
        The fold of each row, from 0 to folds - 1, of shape (n,); the numbers of patients in two folds
        differ by one at most.

    Raises:
        InputError: Fewer than two folds, or fewer patients than folds.
    """
    names, rows = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    if not 2 <= folds <= len(names):
        raise InputError(
            f"folds={folds} is not possible with {len(names)} patients: give 2 to {len(names)} folds"
        )
    fold = np.empty(len(names), dtype=np.int64)
    fold[np.argsort(_uniform(names, seed, "fold"), kind="stable")] = np.arange(len(names)) % folds
    return fold[rows]
