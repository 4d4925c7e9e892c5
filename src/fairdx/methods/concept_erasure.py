"""Concept erasure: takes out of the embedding what is linear in the group, within each label.

Belrose et al., "LEACE: perfect linear concept erasure in closed form", NeurIPS 2023, Theorem 4.3.
"""

from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray

from fairdx.methods.base import METHODS, Features, MethodConfig, Spec
from fairdx.methods.closed_form import ClosedForm, require_embedding
from fairdx.models.corrections import Erasure
from fairdx.models.diagnosis import DiagnosisModel

Array = NDArray[np.float64]


class ConceptErasureConfig(MethodConfig):
    """Settings of concept erasure."""

    within: Literal["label", "all"] = "label"
    """`label`: within each label, groups come to have the same mean embedding; what they differ in through
    the disease stays. `all`: the paper's form, in which all of the difference goes."""


@final
@METHODS.register("concept_erasure")
class ConceptErasure(ClosedForm):
    """r(E) = E - W^+ P W (E - mu), with W the whitening of E and P the projection on W cov(E, S).

    Within labels, cov(E, S given Y = y) of every y is projected out, and W whitens the covariance within
    labels. The eraser is told neither S nor Y. The frozen model's own head follows it.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.

    Raises:
        InputError: The model shows no embedding.
    """

    name = "concept_erasure"
    config_class = ConceptErasureConfig
    config: ConceptErasureConfig

    def __init__(self, config: ConceptErasureConfig, spec: Spec, model: DiagnosisModel) -> None:
        self.erasure = Erasure(require_embedding(self.name, model))
        super().__init__(config, spec, model, self.erasure)

    def solve(self, train: Features, validation: Features) -> None:
        """Fits the eraser to training embeddings."""
        del validation
        assert train.embedding is not None
        label = train.label if self.config.within == "label" else np.zeros_like(train.label)
        projection, center = erasure(train.embedding, label, train.group)
        self.erasure.projection.copy_(torch.from_numpy(projection))
        self.erasure.center.copy_(torch.from_numpy(center))


def erasure(embedding: Array, label: NDArray[np.int64], group: NDArray[np.int64]) -> tuple[Array, Array]:
    """Computes the eraser.

    Args:
        embedding: E, shape (n, D).
        label: Within what the group is erased, shape (n,); all alike to erase it altogether.
        group: S, shape (n,).

    Returns:
        W^+ P W, shape (D, D), and the mean of E, shape (D,).
    """
    within = np.empty_like(embedding)
    columns = []
    for y in np.unique(label):
        rows = label == y
        within[rows] = embedding[rows] - embedding[rows].mean(0)
        for s in np.unique(group)[1:]:  # the first is what the others leave
            member = (group[rows] == s) - (group[rows] == s).mean()
            columns.append(within[rows].T @ member / rows.sum())
    values, vectors = np.linalg.eigh(within.T @ within / len(within))
    kept = values > values.max() * len(values) * np.finfo(np.float32).eps
    values, vectors = values[kept], vectors[:, kept]
    whiten = vectors * values**-0.5 @ vectors.T
    color = vectors * values**0.5 @ vectors.T
    basis, sizes, _ = np.linalg.svd(whiten @ np.stack(columns, axis=1), full_matrices=False)
    basis = basis[:, sizes > max(sizes.max(), 1e-12) * 1e-7]
    return color @ basis @ basis.T @ whiten, embedding.mean(0)
