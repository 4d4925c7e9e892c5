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
from fairdx.explain.mapped import Maps, Questions, gradient_maps, occlusion_maps
from fairdx.explain.mask import BANDS, MaskOf, Pattern, measure_mask
from fairdx.explain.probe import conditional_auroc
from fairdx.explain.regions import deletion, partners
from fairdx.explain.result import WHOLE, Counterfactual, Deleted, MaskFound, ModelFound
from fairdx.explain.settings import ExplainSettings
from fairdx.explain.subject import DIAGNOSIS, LOT, Answers, Asked, Subject, answer, decide, to_images
from fairdx.inference.clustered import clustered_mean
from fairdx.metrics.inputs import Floats, Ints

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
        pairs: What the model answers to the same patients as either group, by group compared with.
        settings: How closely to look.
        advance: Told how many images are done.
    """

    subject: Subject
    asked: Asked
    phantom: Phantom | None
    regions: Regions | None
    pairs: dict[str, Pairs]
    settings: ExplainSettings
    advance: Advance

    def look(self) -> Looked:
        """Returns everything that there is to find."""
        with self.subject.as_found():
            return self._look()

    def _look(self) -> Looked:
        asked = self.asked
        masks = _Masks(self.regions) if self.subject.fair.changes_image else None
        look = None if masks is None else masks.add
        answers = answer(self.subject, asked, self.advance, deals=self.settings.deals, look=look)
        evidence, left_out = self._evidence(answers)
        way = GRAD_CAM if GRAD_CAM in evidence else OCCLUSION
        found = ModelFound(
            opinions={name: one.opinion for name, one in evidence.items()},
            deletion=self._deletion(answers, evidence[way].maps[DIAGNOSIS].values),
            group_auroc=conditional_auroc(
                answers.group_logit, asked.label, asked.group, asked.patients, level=self.settings.level
            ),
            probe_sees=answers.probe_sees,
            counterfactual={name: self._counterfactual(name, one) for name, one in self.pairs.items()},
            sensitivity=self._sensitivity(answers) if self.phantom is None else {},
            mask=None if masks is None else self._mask(masks),
            left_out=left_out,
        )
        return Looked(self.subject, answers, evidence, self.pairs, found)

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
            lots = self._lots(answers, maps[DIAGNOSIS].layer)
            evidence[GRAD_CAM] = assess(maps, asked, regions, level=settings.level, lots=lots)
        except InputError as error:
            if settings.layer is not None:
                raise
            left_out.append(f"Grad-CAM: {error}")
            self.advance(len(asked.indices))
        few = first_of(asked, settings.second_opinion)
        covered = occlusion_maps(
            self.subject,
            few,
            answers,
            cells=settings.occlusion_cells,
            advance=self.advance,
            deals=len(answers.dealt),
        )
        lots = [
            (covered.pop(f"{LOT}{i}"), lot.group[: len(few.indices)]) for i, lot in enumerate(answers.dealt)
        ]
        part = None
        if regions is not None:
            count = len(few.indices)
            part = Regions(regions.lesion[:count], regions.trait[:count], regions.rest[:count])
        evidence[OCCLUSION] = assess(covered, few, part, level=settings.level, lots=lots)
        return evidence, tuple(left_out)

    def _lots(self, answers: Answers, layer: str) -> list[tuple[Maps, Ints]]:
        """Grad-CAM of groups that were dealt by lot, of the first images."""
        if not answers.dealt:
            return []
        few = first_of(self.asked, self.settings.dealt_images)
        names = [f"{LOT}{i}" for i in range(len(answers.dealt))]
        maps = gradient_maps(
            self.subject,
            few,
            answers,
            layer=_name_of(layer),
            smallest=2,
            advance=self.advance,
            names=names,
        )
        return [
            (maps[name], lot.group[: len(few.indices)])
            for name, lot in zip(names, answers.dealt, strict=True)
        ]

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

    def _mask(self, masks: "_Masks") -> MaskFound:
        asked, level = self.asked, self.settings.level
        whole = _joined(masks.parts)
        everywhere = np.ones(len(asked.indices), dtype=bool)
        by_kind = kinds(asked)
        return MaskFound(
            mean={name: mean_of(whole.mean, asked, rows, level=level) for name, rows in by_kind.items()},
            largest={
                name: mean_of(whole.largest, asked, rows, level=level) for name, rows in by_kind.items()
            },
            bands={name: mean_of(whole.bands[name], asked, everywhere, level=level) for name in BANDS},
            on_lesion=mean_of(whole.on_lesion, asked, everywhere, level=level),
            pattern=masks.pattern.shares(),
        )


class _Masks:
    """What the mask adds, measured batch by batch while the images are diagnosed."""

    def __init__(self, regions: Regions | None) -> None:
        self.regions = regions
        self.pattern = Pattern()
        self.parts: list[MaskOf] = []

    def add(self, rows: Ints, image: Tensor, masked: Tensor) -> None:
        """Measures a batch."""
        change = (masked.float() - image).cpu()
        self.pattern.add(image.cpu(), change)
        lesion = None if self.regions is None else torch.from_numpy(self.regions.lesion[rows])
        self.parts.append(measure_mask(change, lesion))


def same_patients(
    subjects: Sequence[Subject], asked: Asked, phantom: Phantom | None, count: int, advance: Advance
) -> list[dict[str, Pairs]]:
    """Shows models the same patients as the reference group and as each other group.

    Args:
        subjects: The models.
        asked: Where to compute.
        phantom: What draws the patients; without one there are none.
        count: How many patients: those of the test images, and further ones behind them.
        advance: Told how many patients are done, counted once for each model.

    Returns:
        For each model its answers, by group compared with.
    """
    if phantom is None or count == 0:
        return [{} for _ in subjects]
    groups = phantom.settings.groups
    first = phantom.settings.total - phantom.settings.test
    index = np.arange(first, first + count, dtype=np.int64)
    models = [partial(_scores, subject, asked.device) for subject in subjects]
    found = {
        groups[code]: counterfactual_pairs(
            partial(_drawn, phantom), models, index, reference=0, comparison=code, advance=advance
        )
        for code in range(1, len(groups))
    }
    return [{name: pairs[i] for name, pairs in found.items()} for i in range(len(subjects))]


def _scores(subject: Subject, device: torch.device, images: NDArray[np.uint8]) -> Floats:
    with torch.inference_mode(), subject.as_found():
        score = subject.fair(to_images(images, device)).float().softmax(1)[:, 1]
    return np.asarray(score.cpu().double().numpy())


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
    answers = answer(looked.subject, own, _silent, probe=replace(looked.answers.probe, fold=fold))
    if GRAD_CAM not in looked.evidence:
        cells = looked.evidence[OCCLUSION].maps[DIAGNOSIS].values.shape[1]
        return occlusion_maps(looked.subject, own, answers, cells=cells, advance=_silent)
    layer = _name_of(looked.evidence[GRAD_CAM].maps[DIAGNOSIS].layer)
    return gradient_maps(looked.subject, own, answers, layer=layer, smallest=2, advance=_silent)


def _name_of(layer: str) -> str:
    """Name of a layer that was described in words."""
    return layer.partition(",")[0]


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
