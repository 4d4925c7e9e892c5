"""Looks at one model: maps and their overlap, deletion, counterfactuals, sensitivity, the mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairdx.core.errors import InputError
from fairdx.data.phantom import Phantom, Regions
from fairdx.explain.counterfactual import Pairs, counterfactual_pairs, label_preserving
from fairdx.explain.findings import Evidence, assess, kinds, mean_of
from fairdx.explain.mask import BANDS, MaskOf, Pattern, measure_mask
from fairdx.explain.probe import conditional_auroc
from fairdx.explain.regions import deletion, partners
from fairdx.explain.result import WHOLE, Counterfactual, Deleted, MaskFound, ModelFound
from fairdx.explain.settings import ExplainSettings
from fairdx.explain.subject import (
    DIAGNOSIS,
    Answers,
    Asked,
    Maps,
    Questions,
    Subject,
    answer,
    decide,
    gradient_maps,
    occlusion_maps,
)
from fairdx.inference.clustered import clustered_mean
from fairdx.metrics.inputs import Floats, Ints
from fairdx.models.loading import to_unit_range

GRAD_CAM, OCCLUSION = "grad_cam", "occlusion"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 80

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Looked:
    """One model, looked at.

    Attributes:
        subject: The model.
        answers: What it answers.
        evidence: By way of making maps.
        pairs: Scores of the same patients as either group, by group compared with.
        found: The figures.
    """

    subject: Subject
    answers: Answers
    evidence: dict[str, Evidence]
    pairs: dict[str, Pairs]
    found: ModelFound


@dataclass(frozen=True)
class Looking:
    """Looks at one model.

    Attributes:
        subject: The model.
        asked: The images.
        phantom: What drew them, if anything.
        regions: Where lesion and trait lie, if that is known.
        settings: How closely to look.
        advance: Told how many images are done.
    """

    subject: Subject
    asked: Asked
    phantom: Phantom | None
    regions: Regions | None
    settings: ExplainSettings
    advance: Advance

    def look(self) -> Looked:
        """Returns everything that there is to find."""
        asked = self.asked
        answers = answer(self.subject, asked, self.advance)
        evidence, left_out = self._evidence(answers)
        way = GRAD_CAM if GRAD_CAM in evidence else OCCLUSION
        pairs = self._pairs()
        found = ModelFound(
            opinions={name: one.opinion for name, one in evidence.items()},
            deletion=self._deletion(answers, evidence[way].maps[DIAGNOSIS].values),
            group_auroc=conditional_auroc(answers.group_logit, asked.label, asked.group),
            probe_sees=answers.probe_sees,
            counterfactual={name: self._counterfactual(name, one) for name, one in pairs.items()},
            sensitivity=self._sensitivity(answers) if self.phantom is None else {},
            mask=self._mask() if self.subject.fair.changes_image else None,
            left_out=left_out,
        )
        return Looked(self.subject, answers, evidence, pairs, found)

    def _evidence(self, answers: Answers) -> tuple[dict[str, Evidence], tuple[str, ...]]:
        settings, asked, regions = self.settings, self.asked, self.regions
        evidence: dict[str, Evidence] = {}
        left_out: list[str] = []
        try:
            maps = gradient_maps(
                self.subject,
                asked,
                answers,
                layer=settings.layer,
                smallest=settings.smallest_side,
                advance=self.advance,
            )
            evidence[GRAD_CAM] = assess(maps, asked, regions, level=settings.level)
        except InputError as error:
            if settings.layer is not None:
                raise
            left_out.append(f"Grad-CAM: {error}")
            self.advance(len(asked.indices))
        few = first_of(asked, settings.second_opinion)
        covered = occlusion_maps(
            self.subject, few, answers, cells=settings.occlusion_cells, advance=self.advance
        )
        part = None
        if regions is not None:
            count = len(few.indices)
            part = Regions(regions.lesion[:count], regions.trait[:count], regions.rest[:count])
        evidence[OCCLUSION] = assess(covered, few, part, level=settings.level)
        return evidence, tuple(left_out)

    def _deletion(self, answers: Answers, maps: Floats) -> Deleted:
        asked = first_of(self.asked, min(len(maps), self.settings.second_opinion))
        partner = partners(asked.cells, asked.patients, seed=asked.seed)
        questions = Questions(self.subject, answers, asked)
        own, null = [], []
        for rows in asked.rows():
            image, label = asked.batch(rows)
            with torch.no_grad():
                masked = self.subject.fair.masked(image)
            ask = questions.scores([DIAGNOSIS], rows, label)
            found = deletion(lambda image, _, ask=ask: ask(image)[0], masked, maps, rows, partner)  # type: ignore[misc]
            own.append(found[0])
            null.append(found[1])
            self.advance(len(rows))
        columns = np.concatenate(own), np.concatenate(null)
        level = self.settings.level
        estimates = [
            clustered_mean(c, asked.patients, level=level) for c in (*columns, columns[0] - columns[1])
        ]
        return Deleted(*estimates)

    def _scores(self, images: NDArray[np.uint8]) -> Floats:
        with torch.inference_mode():
            score = self.subject.fair(to_unit_range(images, self.asked.device)).float().softmax(1)[:, 1]
        return np.asarray(score.cpu().double().numpy())

    def _pairs(self) -> dict[str, Pairs]:
        """Counterfactual scores; of a finding with two classes."""
        phantom, settings = self.phantom, self.settings
        if phantom is None or settings.counterfactuals == 0:
            return {}
        groups = phantom.settings.groups
        first = phantom.settings.total - phantom.settings.test
        index = np.arange(first, first + settings.counterfactuals, dtype=np.int64)
        return {
            groups[code]: counterfactual_pairs(
                partial(_drawn, phantom),
                self._scores,
                index,
                reference=0,
                comparison=code,
                advance=self.advance,
            )
            for code in range(1, len(groups))
        }

    def _counterfactual(self, name: str, pairs: Pairs) -> Counterfactual:
        assert self.phantom is not None
        level, patients = self.settings.level, np.arange(len(pairs.change))
        threshold = 0.5 if self.subject.threshold is None else self.subject.threshold
        columns = (pairs.change, np.abs(pairs.change), pairs.flips(threshold))
        change, size, flips = (clustered_mean(column, patients, level=level) for column in columns)
        counts, _ = np.histogram(pairs.change, bins=BINS, range=(-1, 1))
        return Counterfactual(
            self.phantom.settings.groups[0],
            name,
            change,
            size,
            flips,
            quantiles=tuple(float(q) for q in np.quantile(pairs.change, QUANTILES)),
            histogram=tuple(int(count) for count in counts),
        )

    def _sensitivity(self, answers: Answers) -> dict[str, Any]:
        """How often decisions flip when something changes that leaves the label as it is."""
        asked, found = self.asked, {}
        kept = {WHOLE: np.ones(len(asked.indices), dtype=bool)} | {
            name: asked.group == code for code, name in enumerate(asked.images.task.group_names)
        }
        for change, apply in label_preserving(asked.images.dataset.meta.channels).items():
            flipped = [self._decisions(rows, apply) != answers.decision[rows] for rows in asked.rows()]
            flips = np.concatenate(flipped).astype(float)
            found[change] = {
                name: mean_of(flips, asked, rows, level=self.settings.level)
                for name, rows in kept.items()
                if rows.any()
            }
        return found

    @torch.no_grad()
    def _decisions(self, rows: Ints, change: Callable[[Tensor], Tensor]) -> Ints:
        image, _ = self.asked.batch(rows)
        return decide(self.subject.fair(change(image)), self.subject.threshold)

    @torch.no_grad()
    def _mask(self) -> MaskFound:
        asked, level = self.asked, self.settings.level
        pattern, parts = Pattern(), []
        for rows in asked.rows():
            image, _ = asked.batch(rows)
            change = (self.subject.fair.masked(image).float() - image).cpu()
            pattern.add(image.cpu(), change)
            lesion = None if self.regions is None else torch.from_numpy(self.regions.lesion[rows])
            parts.append(measure_mask(change, lesion))
        whole = _joined(parts)
        everywhere = np.ones(len(asked.indices), dtype=bool)
        by_kind = kinds(asked)
        return MaskFound(
            mean={name: mean_of(whole.mean, asked, rows, level=level) for name, rows in by_kind.items()},
            largest={
                name: mean_of(whole.largest, asked, rows, level=level) for name, rows in by_kind.items()
            },
            bands={name: mean_of(whole.bands[name], asked, everywhere, level=level) for name in BANDS},
            on_lesion=mean_of(whole.on_lesion, asked, everywhere, level=level),
            pattern=pattern.shares(),
        )


def look_again(looked: Looked, asked: Asked, rows: Ints) -> dict[str, Maps]:
    """Maps of some images, made as those of the others were: by Grad-CAM, or occlusion where that failed.

    Images that the probe was fitted on keep the fold that has not seen their patient; others take the first.

    Args:
        looked: The model.
        asked: The images that it was looked at on.
        rows: Rows of the data set, usable ones, shape (n,).
    """
    names = asked.images.task.patient.astype(str)
    fold_of = dict(zip(names[asked.indices], looked.answers.probe.fold, strict=True))
    fold = np.array([fold_of.get(names[row], 0) for row in rows], dtype=np.int64)
    own = replace(asked, indices=rows, patients=np.arange(len(rows)))
    answers = answer(looked.subject, own, _silent, replace(looked.answers.probe, fold=fold))
    if GRAD_CAM not in looked.evidence:
        cells = looked.evidence[OCCLUSION].maps[DIAGNOSIS].values.shape[1]
        return occlusion_maps(looked.subject, own, answers, cells=cells, advance=_silent)
    layer = looked.evidence[GRAD_CAM].maps[DIAGNOSIS].layer.partition(",")[0]
    return gradient_maps(looked.subject, own, answers, layer=layer, smallest=2, advance=_silent)


def _silent(amount: int) -> None:
    del amount


def _drawn(phantom: Phantom, index: Ints, group: int) -> NDArray[np.uint8]:
    return phantom.render(index, do_direct=group)


def _joined(parts: Sequence[MaskOf]) -> MaskOf:
    return MaskOf(
        np.concatenate([part.mean for part in parts]),
        np.concatenate([part.largest for part in parts]),
        {name: np.concatenate([part.bands[name] for part in parts]) for name in BANDS},
        np.concatenate([part.on_lesion for part in parts]),
    )


def first_of(asked: Asked, count: int) -> Asked:
    """Returns the first images of those that are asked for."""
    return replace(asked, indices=asked.indices[:count], patients=asked.patients[:count])
