"""A task: one label to predict and one attribute to be fair to, in the rows of a prepared data set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fairdx.core.errors import InputError
from fairdx.data.checks import require_choice
from fairdx.data.split import SPLITS, Split, cut_validation, patient_folds

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    """One label and one sensitive attribute of a prepared data set."""

    label_name: str
    """Name of the label Y."""
    class_names: tuple[str, ...]
    """Its classes, in the order of their codes."""
    attribute_name: str
    """Name of the sensitive attribute S."""
    group_names: tuple[str, ...]
    """Its groups, in the order of their codes."""
    label: NDArray[np.int64]
    """Code of each row's class, -1 where unknown, of shape (n,)."""
    group: NDArray[np.int64]
    """Code of each row's group, -1 where unknown, of shape (n,)."""
    patient: NDArray[np.object_]
    """Patient of each row, of shape (n,)."""
    split: NDArray[np.object_]
    """Split of each row, of shape (n,)."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """The rows whose label and group are both known, of shape (n,)."""
        return (self.label >= 0) & (self.group >= 0)

    def indices(self, split: Split) -> NDArray[np.int64]:
        """Find the usable rows of a split.

        Args:
            split: "train", "validation" or "test".

        Returns:
            Rows in ascending order; none where the set has no such split.

        Raises:
            InputError: There is no split of that name.
        """
        require_choice("split", split, SPLITS)
        return np.flatnonzero(self.usable & (self.split == split))

    def fold(self, number: int, folds: int, *, seed: int, validation: float = 0.0) -> Task:
        """Replace the split by one fold of a cross-validation, by patient.

        Args:
            number: The fold to test on, from 0 to folds - 1.
            folds: How many folds.
            seed: Seed of the folds.
            validation: Expected fraction of the other folds' patients to set aside for validation.

        Returns:
            The same task with that fold as the test split and all else as the training split.

        Raises:
            InputError: There is no such fold, there are fewer patients than folds, or no patient was left
                for the validation that was asked for.
        """
        if not 0 <= number < folds:
            raise InputError(f"fold {number} is not one of {folds}: give 0 to {folds - 1}")
        usable = self.usable
        fold = np.full(len(usable), -1)
        fold[usable] = patient_folds(self.patient[usable], folds, seed=seed)
        split = np.where(fold == number, "test", "train").astype(object)
        split = cut_validation(self.patient, split, seed=seed, validation=validation)
        return dataclasses.replace(self, split=split)


def check_task(task: Task, root: Path) -> None:
    """Refuse a class or group without usable images: every rate on it would be undefined.

    Args:
        task: The task.
        root: Of what data set, for the message.

    Raises:
        InputError: There is such a class or group, or one alone.
    """
    usable = task.usable
    for kind, column, names, codes in (
        ("class", task.label_name, task.class_names, task.label),
        ("group", task.attribute_name, task.group_names, task.group),
    ):
        if len(names) < 2:
            raise InputError(f"{column!r} of {root} has the one {kind} {', '.join(names)}: two are needed")
        for code, name in enumerate(names):
            if not (usable & (codes == code)).any():
                raise InputError(
                    f"{kind} {name!r} of {column!r} is empty: no image of {root} has it and a known "
                    f"{task.attribute_name if kind == 'class' else task.label_name}"
                )
