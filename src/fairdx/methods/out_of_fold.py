"""Figures of what is fitted, on patients that it was not fitted to."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdx.data.split import patient_folds
from fairdx.inference.visibility import learnt_by_heart
from fairdx.methods.base import Features
from fairdx.methods.group_posterior import linear_posterior

FOLDS: Final = 5

Array = NDArray[np.float64]


class Pool(NamedTuple):
    """The images that a correction is fitted to, and others that only the guess of the group is fitted to."""

    images: Features
    """Those on which the model does as on new ones."""
    others: Features | None
    """Training images that the model has learnt by heart; None where it has not."""

    @property
    def everything(self) -> Features:
        """Both: for a guess of the group, which the model was not trained for."""
        return self.images if self.others is None else joined(self.images, self.others)


def unseen(train: Features, validation: Features) -> Pool:
    """Puts together the images on which a frozen model does as on new ones.

    Training images that it has learnt by heart are none of them: a correction made for them suits no others.

    Args:
        train: What the model makes of the training images.
        validation: What it makes of the validation images; the same as `train` where there are none.
    """
    if np.array_equal(train.logit, validation.logit):
        return Pool(train, None)
    classes = train.logit.shape[1]
    if any(_learnt(train, validation, code) for code in ((1,) if classes == 2 else range(classes))):
        return Pool(validation, train)
    return Pool(joined(train, validation), None)


def _learnt(train: Features, validation: Features, code: int) -> bool:
    """Whether a class is told from the others clearly better on the images that were trained on."""
    sets = (train, validation)
    odds = [one.logit[:, code] - np.logaddexp.reduce(np.delete(one.logit, code, 1), axis=1) for one in sets]
    labels = [(one.label == code).astype(np.int64) for one in sets]
    return learnt_by_heart(labels[0], odds[0], labels[1], odds[1])


def joined(first: Features, second: Features) -> Features:
    """Puts two sets of different patients together."""
    columns = []
    for one, other in zip(first[:-1], second[:-1], strict=True):
        columns.append(None if one is None or other is None else np.concatenate([one, other]))
    patients = [patients_of(first), patients_of(second)]
    patients[1] = patients[1] + patients[0].max() + 1
    embedding, logit, label, group = columns
    assert logit is not None
    assert label is not None
    assert group is not None
    return Features(embedding, logit, label, group, np.concatenate(patients))


def patients_of(features: Features) -> NDArray[np.int64]:
    """Codes of the patients, shape (n,)."""
    return np.arange(len(features.label)) if features.patient is None else features.patient


def part(features: Features, rows: NDArray[np.bool_]) -> Features:
    """Returns some of the images."""
    return Features(*(None if column is None else column[rows] for column in features))  # type: ignore[arg-type]


def splits(features: Features, *, seed: int = 0) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yields rows to fit to and rows to judge on, by patient."""
    fold = patient_folds(patients_of(features), FOLDS, seed=seed)
    for number in range(FOLDS):
        yield fold != number, fold == number


def fit_cells(features: Features, groups: int, *, penalty: float) -> tuple[Array, Array]:
    """Fits P(S, Y given E) by logistic regression, with the cells in the order s * 2 + y.

    Returns:
        Weights, shape (2 K, D), and offsets, shape (2 K,), of logits.
    """
    assert features.embedding is not None
    cell = features.group * 2 + features.label
    return linear_posterior(features.embedding, cell, 2 * groups, penalty=penalty)


def out_of_fold_cells(pool: Pool, groups: int, *, penalty: float) -> Array:
    """Returns logits of P(S, Y given E) of the pool's images, (n, 2 K), each fitted without its patient."""
    images = pool.images
    assert images.embedding is not None
    found = np.empty((len(images.label), 2 * groups))
    for fitted, judged in splits(images):
        known = _with_others(part(images, fitted), pool)
        weight, bias = fit_cells(known, groups, penalty=penalty)
        found[judged] = images.embedding[judged] @ weight.T + bias
    return found


def _with_others(known: Features, pool: Pool) -> Features:
    return known if pool.others is None else joined(known, pool.others)
