"""The corrector: a small network behind the frozen model says what the score would be if groups were alike.

The score and P(S, Y given E), the group and the disease as the embedding shows them, are all that a fair
score needs of an image (for one operating point: Xian and Zhao, "A unified post-processing framework for
group fairness", 2024). A small network makes the corrected log-odds of them, on two terms: it stays near the
model's own score, and takes out the gap between groups within a label. E is the embedding, and beside it the
statistics of maps on the way to it, which show more of the group.

A third term, that orders the patients within each group, is left out: of few patients it learns an order by
heart that others do not have.

Everything that is chosen is chosen on patients that were not fitted to. It needs no S at test time.
"""

import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import pairwise
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
from fairdx.models.information import separation_gap
from fairdx.models.realised import Realisation
from fairdx.models.statistics import find_maps

logger = logging.getLogger(__name__)

WEIGHTS: Final = (0.5, 0.8, 1.3, 2.0, 3.3, 5.0, 8.0, 13.0, 20.0, 33.0, 50.0, 80.0)
"""Of the gap. The network is led from each to the next: at a large one from the start it does not learn to
stay near the score in the steps that it has."""
PENALTIES: Final = (1e-3, 1e-2)
"""Inverse penalties of the regression that are tried. The one is taken behind which the network does best; it
is seldom the one with the best guess."""
REPLICATES: Final = 200
"""Draws of patients, for how sure a gain is."""
SURE: Final = 0.05
"""A correction is kept where at most this share of the draws shows no gain."""
BATCH: Final = 1024

Array = NDArray[np.float64]


class CorrectorConfig(MethodConfig):
    """Settings of the corrector. None of them is of a data set: what depends on it is chosen out of fold."""

    budget: float = Field(0.01, ge=0, le=1)
    """What the correction may cost in AUROC within groups, out of fold, as a fraction."""
    weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(WEIGHTS, min_length=1)
    """Weights of the gap that are tried, the smallest first. One alone is taken whatever it costs. To each
    the network comes through all smaller ones, and through those of the default."""
    fidelity: float = Field(0.5, ge=0)
    """Weight of the squared change of the log-odds, in units of their variance."""
    width: int = Field(16, ge=1)
    """Hidden units."""
    steps: int = Field(30, ge=1)
    """Steps at each weight."""
    learning_rate: float = Field(1e-2, gt=0)
    """Of Adam."""
    maps: bool = True
    """Whether the group is also looked for in maps of the frozen model's earlier layers, not in its embedding
    alone."""
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
        InputError: The label has more than two classes, or the model shows neither embedding nor maps.
    """

    name = "corrector"
    config_class = CorrectorConfig
    config: CorrectorConfig

    def __init__(self, config: CorrectorConfig, spec: Spec, model: DiagnosisModel) -> None:
        require_one_score(self.name, spec)
        layers, statistics = (
            find_maps(model, channels=spec.channels, size=spec.size) if config.maps else ((), 0)
        )
        features = 0 if statistics and model.features is None else require_embedding(self.name, model)
        self.residual = Residual(features + statistics, 2 * spec.groups + 1, config.width, layers)
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
        ways = [self._way(penalty, pool, odds) for penalty in PENALTIES]
        way = min(ways, key=lambda one: one.least(before, self.config.budget))
        if forced:
            self._learn(way, self.config.weights[0], pool, odds)
            return {**record, "weight": self.config.weights[0], "penalty": way.penalty}
        best = way.best(before, self.config)
        if best is None or not _sure(way.scores[best.weight], odds, images):
            cost = f"no correction that costs at most {self.config.budget:g} of AUC within groups"
            return {**record, "note": _said(f"{found}; {cost} surely lowers it: the model is left alone")}
        self._learn(way, best.weight, pool, odds)
        return {
            **record,
            "weight": best.weight,
            "penalty": way.penalty,
            "after/within_group_auroc": best.auroc,
            "after/unfairness": best.unfairness,
        }

    def _way(self, penalty: float, pool: out_of_fold.Pool, odds: Array) -> "_Way":
        """Goes along all weights behind a guess of the cells, with each patient out of fold."""
        images, groups = pool.images, self.spec.groups
        raw = _inputs(odds, out_of_fold.out_of_fold_cells(pool, groups, penalty=penalty))
        way = _Way(penalty, raw.mean(0), np.maximum(raw.std(0), 1e-6), raw, {}, [])
        seen = way.seen(self.residual)
        for fitted, judged in out_of_fold.splits(images, seed=1):
            network = deepcopy(self.residual)
            known = out_of_fold.part(images, fitted)
            for weight in self._path(network, seen[torch.from_numpy(fitted)], odds[fitted], known):
                score = way.scores.setdefault(weight, np.empty(len(odds)))
                with torch.no_grad():
                    change = network.change(seen[torch.from_numpy(judged)]).double().numpy()
                score[judged] = odds[judged] + change
        way.tried.extend(_judged(weight, score, images) for weight, score in way.scores.items())
        return way

    def _learn(self, way: "_Way", until: float, pool: out_of_fold.Pool, odds: Array) -> None:
        """Fits the guess to all images, and the network along the weights up to one of them."""
        weight, bias = out_of_fold.fit_cells(pool.everything, self.spec.groups, penalty=way.penalty)
        way.write(self.residual, weight, bias)
        for reached in self._path(self.residual, way.seen(self.residual), odds, pool.images):
            if reached == until:
                break

    def _path(self, network: Residual, seen: Tensor, odds: Array, images: Features) -> Iterator[float]:
        """Trains the network's last two layers along the weights, and yields each."""
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
                for parameter in parameters:
                    parameter.requires_grad_(True)
                with torch.enable_grad():
                    change = network.change(seen[rows])
                    gap = separation_gap(own[rows] + change, label[rows], group[rows], groups=groups)
                    loss = config.fidelity * change.square().mean() / spread + weight * gap
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            network.requires_grad_(False)
            yield weight


class _Way(NamedTuple):
    """What all weights make of the scores, out of fold, behind one guess of the cells."""

    penalty: float
    """Of the guess."""
    centre: Array
    """Mean of each input of the network."""
    spread: Array
    """Standard deviation of each."""
    raw: Array
    """The inputs, of guesses out of fold, shape (n, 2 K + 1)."""
    scores: dict[float, Array]
    """Corrected log-odds by weight, each patient's by a network that was not fitted to them."""
    tried: list[Judged]
    """How they do, the smallest weight first."""

    def seen(self, network: Residual) -> Tensor:
        """What the network sees of the images."""
        limit = float(network.limit)
        return torch.from_numpy(((self.raw - self.centre) / self.spread).clip(-limit, limit)).float()

    def write(self, network: Residual, weight: Array, bias: Array) -> None:
        """Writes a guess of the cells into the network's first layer."""
        weight, bias = weight - weight.mean(0), bias - bias.mean()
        first = np.zeros((len(self.centre), weight.shape[1] + 1))
        first[0, 0] = 1
        first[1:, 1:] = weight
        offset = np.concatenate([[0.0], bias])
        with torch.no_grad():
            network.project.weight.copy_(torch.from_numpy(first / self.spread[:, None]))
            network.project.bias.copy_(torch.from_numpy((offset - self.centre) / self.spread))

    def least(self, before: Judged, budget: float) -> float:
        """The least ADF within the budget, between two weights in a straight line."""
        floor, found = before.auroc - budget, before.unfairness
        for last, one in pairwise([before, *self.tried]):
            if one.auroc >= floor:
                found = min(found, one.unfairness)
            elif last.auroc > floor:
                part = (last.auroc - floor) / (last.auroc - one.auroc)
                found = min(found, last.unfairness + part * (one.unfairness - last.unfairness))
        return found

    def best(self, before: Judged, config: CorrectorConfig) -> Judged | None:
        """Of the weights that are to be tried, the one that leaves the least ADF within the budget."""
        floor = before.auroc - config.budget
        within = [one for one in self.tried if one.weight in config.weights and one.auroc >= floor]
        return min(within, key=lambda one: one.unfairness, default=None)


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


def _inputs(odds: Array, cells: Array) -> Array:
    return np.concatenate([odds[:, None], cells - cells.mean(1, keepdims=True)], axis=1)


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
