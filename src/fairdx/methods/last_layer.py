"""Deep feature reweighting: a new last layer, fitted to images in which all groups and labels weigh the same.

Kirichenko, Izmailov and Wilson, "Last layer re-training is sufficient for robustness to spurious
correlations", ICLR 2023.
"""

from typing import Any, final

import numpy as np
import torch
from pydantic import Field

from fairdx.core.errors import InputError
from fairdx.methods.base import METHODS, Features, MethodConfig, Spec
from fairdx.methods.closed_form import ClosedForm, require_embedding
from fairdx.methods.group_posterior import mean_and_spread
from fairdx.methods.out_of_fold import unseen
from fairdx.models.corrections import Head
from fairdx.models.diagnosis import DiagnosisModel


class LastLayerConfig(MethodConfig):
    """Settings of the new head."""

    penalty: float = Field(1e-2, gt=0)
    """Inverse penalty of the logistic regression on standardised embeddings; the paper tunes it."""
    balance: float = Field(1.0, ge=0, le=1)
    """How far each class of each group comes to weigh the same: 0 as many as there are, 1 all the same."""


@final
@METHODS.register("last_layer")
class LastLayer(ClosedForm):
    """A logistic regression of Y on the embedding, with weights (n / (cells * n_sy))^balance.

    The paper repeats the fit on balanced subsets and averages; weights do the same without dropping images.
    It is fitted to images that the model has not learnt (the paper's DFR_val).

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.

    Raises:
        InputError: The model shows no embedding.
    """

    name = "last_layer"
    config_class = LastLayerConfig
    config: LastLayerConfig

    def __init__(self, config: LastLayerConfig, spec: Spec, model: DiagnosisModel) -> None:
        self.head = Head(require_embedding(self.name, model), spec.classes)
        super().__init__(config, spec, model, self.head)

    def solve(self, train: Features, validation: Features) -> None:
        """Fits the head to images that the model has not learnt.

        Raises:
            InputError: scikit-learn is not installed, or a class is missing.
        """
        images = unseen(train, validation).images
        assert images.embedding is not None
        try:
            from sklearn.linear_model import LogisticRegression
        except ImportError as error:
            raise InputError(
                "method `last_layer` needs scikit-learn; run `pip install 'fairdx[study]'`"
            ) from error
        embedding, label = images.embedding, images.label
        if len(np.unique(label)) < self.spec.classes:
            raise InputError("method `last_layer` needs images of every class")
        cell = label * self.spec.groups + images.group
        counts = np.bincount(cell)
        weight = (len(cell) / ((counts > 0).sum() * counts[cell])) ** self.config.balance
        mean, spread = mean_and_spread(embedding)
        regression = LogisticRegression(C=self.config.penalty, max_iter=5000)
        fitted: Any = regression.fit((embedding - mean) / spread, label, sample_weight=weight)
        rows = fitted.coef_ / spread
        offset = fitted.intercept_ - rows @ mean
        if self.spec.classes == 2:  # one row of log-odds
            rows, offset = np.concatenate([0 * rows, rows]), np.concatenate([0 * offset, offset])
        self.head.weight.copy_(torch.from_numpy(rows))
        self.head.bias.copy_(torch.from_numpy(offset))
