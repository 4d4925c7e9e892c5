"""The corrector: a small network behind the frozen model says what the score would be if groups were alike.

The score and P(S, Y given E), the group and the disease as the embedding shows them, are all that a fair
score needs of an image (for one operating point: Xian and Zhao, "A unified post-processing framework for
group fairness", 2024). A small network makes the corrected log-odds of them, on three terms: it orders the
patients within each group, stays near the model's own score, and takes out the gap between groups within a
label.

Everything that is chosen is chosen on patients that were not fitted to. It needs no S at test time.
"""

import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fairdx.core.errors import InputError
from fairdx.inference.visibility import what_can_be_seen, within_chance
from fairdx.methods import out_of_fold
from fairdx.methods.base import METHODS, Features, MethodConfig, Spec
from fairdx.methods.closed_form import ClosedForm, require_embedding, require_one_score
from fairdx.metrics.pairs import within_group_auroc
from fairdx.metrics.scores import mean_approximate_diagnosis_fairness
from fairdx.models.corrections import Residual
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.information import ranking_loss, separation_gap
from fairdx.models.realised import Realisation

logger = logging.getLogger(__name__)

WEIGHTS: Final = (0.5, 0.8, 1.3, 2.0, 3.3, 5.0, 8.0, 13.0, 20.0, 33.0, 50.0, 80.0)
"""Of the gap. The network is led from each to the next: at a large one from the start it does not learn the
order in the steps that it has."""
PENALTIES: Final = (1e-4, 1e-3, 1e-2)
"""Inverse penalties of the regression that are tried; out of fold the least surprised one is taken."""
REPLICATES: Final = 200
"""Draws of patients, for how sure a gain is."""
SURE: Final = 0.05
"""A correction is kept where at most this share of the draws shows no gain."""
BATCH: Final = 1024
PAIRED: Final = 384
"""Of them, in whose order all pairs are looked at: the gap needs large batches, the order does not."""

Array = NDArray[np.float64]


class CorrectorConfig(MethodConfig):
    """Settings of the corrector. None of them is of a data set: what depends on it is chosen out of fold."""

    budget: float = Field(0.01, ge=0, le=1)
    """What the correction may cost in AUROC within groups, out of fold, as a fraction."""
    weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(WEIGHTS, min_length=1)
    """Weights of the gap that are tried, the smallest first. One alone is taken whatever it costs. To each
    the network comes through all smaller ones, and through those of the default."""
    fidelity: float = Field(0.3, ge=0)
    """Weight of the squared change of the log-odds, in units of their variance."""
    width: int = Field(16, ge=1)
    """Hidden units."""
    steps: int = Field(30, ge=1)
    """Steps at each weight."""
    learning_rate: float = Field(1e-2, gt=0)
    """Of Adam."""
    realise: bool = False
    """Whether the corrected score becomes a mask on the image, by steps along the frozen model's gradient."""
    realise_steps: int = Field(3, ge=1)
    """The most gradients that are taken of an image; most images need one."""
    realise_levels: int = Field(1, ge=1, le=255)
    """Largest change of a value of the image, in grey levels of 255."""


class Judged(NamedTuple):
    """How a score does out of fold."""

    weight: float
    """Of the gap; 0 is the frozen model."""
    auroc: float
    """AUROC within groups."""
    unfairness: float
    """ADF over thresholds."""


@final
@METHODS.register("corrector")
class Corrector(ClosedForm):
    """odds -> odds + net(odds, log P(S, Y given E)).

    It leaves the model alone, and says so, where the images show no gap beyond chance, or where no weight
    lessens it beyond chance within the budget.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.

    Raises:
        InputError: The label has more than two classes, or the model shows no embedding.
    """

    name = "corrector"
    config_class = CorrectorConfig
    config: CorrectorConfig

    def __init__(self, config: CorrectorConfig, spec: Spec, model: DiagnosisModel) -> None:
        require_one_score(self.name, spec)
        features = require_embedding(self.name, model)
        self.residual = Residual(features, 2 * spec.groups + 1, config.width)
        super().__init__(config, spec, model, self.residual)
        if config.realise:
            self.fair.realisation = Realisation(config.realise_steps, config.realise_levels)

    def solve(self, train: Features, validation: Features) -> Mapping[str, Any]:
        """Fits the guess of the cells and the network, both judged on patients they were not fitted to."""
        self.residual.requires_grad_(False)
        pool = out_of_fold.unseen(train, validation)
        _require_patients(pool.images)
        images, odds = pool.images, pool.images.logit[:, 1] - pool.images.logit[:, 0]
        before = _judged(0.0, odds, images)
        record = {
            "before/within_group_auroc": before.auroc,
            "before/unfairness": before.unfairness,
            "learnt_by_heart": float(pool.others is not None),
        }
        found = what_can_be_seen(before.unfairness, self.spec.groups, 2, len(odds))
        forced = len(self.config.weights) == 1
        if not forced and before.unfairness <= within_chance(self.spec.groups, 2, len(odds)):
            return {**record, "note": _said(f"{found}: the model is left alone")}
        seen, penalty = self._guess(pool, odds)
        if forced:
            self._learn(self.config.weights[0], seen, odds, images)
            return {**record, "weight": self.config.weights[0], "penalty": penalty}
        scores = self._out_of_fold(seen, odds, images)
        best = self._choose(scores, before, odds, images)
        if best is None:
            cost = f"no correction that costs at most {self.config.budget:g} of AUC within groups"
            return {**record, "note": _said(f"{found}; {cost} surely lowers it: the model is left alone")}
        self._learn(best.weight, seen, odds, images)
        return {
            **record,
            "weight": best.weight,
            "penalty": penalty,
            "after/within_group_auroc": best.auroc,
            "after/unfairness": best.unfairness,
        }

    def _learn(self, until: float, seen: Tensor, odds: Array, images: Features) -> None:
        """Trains the network on all images, along the weights up to one of them."""
        for weight in self._path(self.residual, seen, odds, images):
            if weight == until:
                break

    def _guess(self, pool: out_of_fold.Pool, odds: Array) -> tuple[Tensor, float]:
        """Fits the guess of the cells; returns what the network sees of the pool, and the penalty."""
        groups = self.spec.groups
        penalty = out_of_fold.best_penalty(pool, groups, PENALTIES)
        cells = out_of_fold.out_of_fold_cells(pool, groups, penalty=penalty)
        weight, bias = out_of_fold.fit_cells(pool.everything, groups, penalty=penalty)
        return _standardise(self.residual, weight, bias, odds, cells), penalty

    def _out_of_fold(self, seen: Tensor, odds: Array, images: Features) -> dict[float, Array]:
        """Corrected log-odds at each weight, each patient's by a network that was not fitted to them."""
        found = {weight: np.empty(len(odds)) for weight in self.config.weights}
        for fitted, judged in out_of_fold.splits(images, seed=1):
            network = deepcopy(self.residual)
            known = out_of_fold.part(images, fitted)
            for weight in self._path(network, seen[torch.from_numpy(fitted)], odds[fitted], known):
                with torch.no_grad():
                    change = network.change(seen[torch.from_numpy(judged)]).double().numpy()
                found[weight][judged] = odds[judged] + change
        return found

    def _path(self, network: Residual, seen: Tensor, odds: Array, images: Features) -> Iterator[float]:
        """Trains the network's last two layers along the weights, and yields each that is tried."""
        config, groups = self.config, self.spec.groups
        parameters = [*network.hidden.parameters(), *network.out.parameters()]
        label, group = torch.from_numpy(images.label), torch.from_numpy(images.group)
        own = torch.from_numpy(odds).float()
        spread = own.var().clamp_min(1e-6)
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
        largest = max(config.weights)
        for weight in sorted({*config.weights, *(weight for weight in WEIGHTS if weight < largest)}):
            for _ in range(config.steps):
                rows = torch.randperm(len(own))[:BATCH]
                y, s = label[rows], group[rows]
                for parameter in parameters:
                    parameter.requires_grad_(True)
                with torch.enable_grad():
                    score = own[rows] + network.change(seen[rows])
                    change = (score - own[rows]).square().mean() / spread
                    gap = separation_gap(score, y, s, groups=groups)
                    few = slice(PAIRED)
                    order = ranking_loss(score[few], y[few] == 1, s[few], groups=groups)
                    loss = order + config.fidelity * change + weight * gap
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            network.requires_grad_(False)
            if weight in config.weights:
                yield weight

    def _choose(
        self, scores: Mapping[float, Array], before: Judged, odds: Array, images: Features
    ) -> Judged | None:
        """The weight that leaves the least ADF within the budget; None where no gain is sure."""
        tried = [_judged(weight, score, images) for weight, score in scores.items()]
        within = [one for one in tried if one.auroc >= before.auroc - self.config.budget]
        best = min(within, key=lambda one: one.unfairness, default=None)
        return best if best is not None and _sure(scores[best.weight], odds, images) else None


def _require_patients(images: Features) -> None:
    """Refuses images of so few patients that nothing can be judged on others."""
    found = len(np.unique(out_of_fold.patients_of(images)))
    if found < out_of_fold.FOLDS:
        raise InputError(
            "method `corrector` is judged on patients that it was not fitted to: it needs "
            f"{out_of_fold.FOLDS} or more, and its images are of {found}; look at the column of patients in "
            "the prepared data"
        )


def _said(note: str) -> str:
    logger.warning("method `corrector`: %s", note)
    return note


def _standardise(residual: Residual, weight: Array, bias: Array, odds: Array, cells: Array) -> Tensor:
    """Writes the first layer, and returns what it would make of the images from guesses out of fold."""
    weight, bias = weight - weight.mean(0), bias - bias.mean()
    raw = np.concatenate([odds[:, None], cells - cells.mean(1, keepdims=True)], axis=1)
    centre, spread = raw.mean(0), np.maximum(raw.std(0), 1e-6)
    first = np.zeros((len(centre), weight.shape[1] + 1))
    first[0, 0] = 1
    first[1:, 1:] = weight
    offset = np.concatenate([[0.0], bias])
    with torch.no_grad():
        residual.project.weight.copy_(torch.from_numpy(first / spread[:, None]))
        residual.project.bias.copy_(torch.from_numpy((offset - centre) / spread))
    limit = float(residual.limit)
    return torch.from_numpy(((raw - centre) / spread).clip(-limit, limit)).float()


def _judged(weight: float, score: Array, images: Features) -> Judged:
    area = within_group_auroc(images.label, score, sensitive_features=images.group)
    unfair = mean_approximate_diagnosis_fairness(images.label, score, sensitive_features=images.group)
    return Judged(weight, area, unfair)


def _sure(after: Array, before: Array, images: Features) -> bool:
    """Whether ADF falls in nearly every draw of patients."""
    rng = np.random.default_rng(0)
    patients, rows = np.unique(out_of_fold.patients_of(images), return_inverse=True)
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(len(patients) + 1))
    worse = 0
    for _ in range(REPLICATES):
        drawn = rng.integers(0, len(patients), len(patients))
        chosen = np.concatenate([order[starts[p] : starts[p + 1]] for p in drawn])
        label, group = images.label[chosen], images.group[chosen]
        gain = mean_approximate_diagnosis_fairness(label, before[chosen], sensitive_features=group)
        gain -= mean_approximate_diagnosis_fairness(label, after[chosen], sensitive_features=group)
        worse += gain <= 0
    return worse <= SURE * REPLICATES
