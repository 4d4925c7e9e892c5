"""The only training loop: it plays a stage's players on batches and keeps the best epoch.

With several processes each takes its share of every epoch, and gradients are averaged after the backward
pass: that works for any graph of learning and frozen networks, where wrapping each network for itself would
not.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.core.signals import KeptBack, kept_back
from fairdx.data.base import Batch
from fairdx.inference.visibility import learnt_by_heart, what_can_be_seen, within_chance
from fairdx.methods.base import Features, Losses, Player, Stage
from fairdx.models.loading import TaskImages
from fairdx.models.processes import common_statistics, whole_batch
from fairdx.models.runtime import TrainerSettings, derive_seed, isolated_rng, restore_generators
from fairdx.models.scoring import Seen, check_numbers, diagnose, predict, predict_seen
from fairdx.training.accumulation import Accumulated, check_accumulation
from fairdx.training.augment import augment
from fairdx.training.checkpoint import Checkpoint
from fairdx.training.choice import JUDGED, JUDGED_IMAGES, Record, better, unfairness, validation_scores
from fairdx.training.observers import Observer
from fairdx.training.optimization import Learner, WeightAverage, learning, schedule_factor
from fairdx.training.pauses import Pauses, Position

logger = logging.getLogger(__name__)

RECIPE = 9
"""Raised whenever the same settings come to train, or keep, other weights: finished and half-finished stages
of an older recipe are then left alone. 2: fairness of an epoch judged on training images too.
3: the method is built after its model. 4: a mask generator without a checkerboard. 5: images learnt by heart
judge no epoch. 6: an encoder with step sizes of its own learns (it did not).
7: features that are constant, and cells without images, weigh nothing in a correction.
8: a corrector comes to a weight that is given through the smaller ones. 9: it learns no order."""
CHECK_EVERY = 16
"""Batches between two checks for NaN; each check waits for the device."""
FAIRNESS_IMAGES = 8192
"""How many images the fairness of an epoch is judged on, training images among them where there are fewer
validation images: on 1,500 images the direct effect has a standard error of 0.02. AUROC and accuracy, which
training images flatter most, stay with validation images (docs/experiments.md). Training images that the
model has learnt by heart are left out: on them it is fairer than on others."""


Parts = TypeVar("Parts", bound=NamedTuple)
SeenBefore = Callable[[NDArray[np.int64]], Seen]
"""Returns what a model makes of the images of some indices, without looking at them again."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where and what to try."""


class Fit:
    """The state of one call of `fit`."""

    def __init__(
        self,
        stage: Stage,
        images: TaskImages,
        fabric: Fabric,
        settings: TrainerSettings,
        seed: int,
        seen: SeenBefore | None = None,
    ) -> None:
        self.stage, self.images, self.fabric, self.settings, self.seed = stage, images, fabric, settings, seed
        self.seen = seen
        train = images.task.indices("train")
        # Every process takes the same number of steps, or the last one would wait for the others for ever.
        self.train = train[: len(train) // fabric.world_size * fabric.world_size]
        self.batch = stage.batch_size * stage.accumulate_grad_batches
        self.steps = len(self.train) // fabric.world_size // self.batch
        if self.steps == 0 and stage.players:
            raise InputError(
                f"stage `{stage.name}` needs a full batch of {self.batch} training images for each of "
                f"{fabric.world_size} processes, and there are {len(train)}; lower `batch_size`"
            )
        check_accumulation(stage)
        for module in stage.modules.values():
            module.to(fabric.device).to(memory_format=torch.channels_last)
            module.requires_grad_(False).eval()
            if settings.compile:
                module.compile()
        self.validation = images.task.indices("validation")
        if len(self.validation) == 0:
            self.validation = train
        self.judged: NDArray[np.int64] | None = None
        self.chance = 0.0
        if stage.choose == "fairness":
            self._judge_on(self._judged(train))
        self.learners = [self._learner(player) for player in stage.players]
        self.average = WeightAverage(stage)
        self.history: list[Record] = []
        self.position = Position()
        self.best: Record | None = None
        self.best_weights: dict[str, dict[str, Tensor]] = {}

    def _judge_on(self, indices: NDArray[np.int64]) -> None:
        task = self.images.task
        self.judged = indices
        self.chance = within_chance(len(task.group_names), len(task.class_names), len(indices))

    def _judged(self, train: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images that fairness is judged on: validation images, and as many others as are missing."""
        others = np.setdiff1d(train, self.validation)
        missing = max(0, FAIRNESS_IMAGES - len(self.validation))
        rng = np.random.default_rng(derive_seed(self.seed, self.stage.name, "judged"))
        return np.concatenate([self.validation, np.sort(rng.permutation(others)[:missing])])

    def _learner(self, player: Player) -> Learner:
        parameters = [p for name in player.modules for p in self.stage.modules[name].parameters()]
        groups: Any = parameters
        if player.rates is not None:
            with learning(player.modules, self.stage.modules):  # timm leaves frozen parameters out
                groups = player.rates()
            grouped = {id(parameter) for group in groups for parameter in group["params"]}
            assert grouped == {id(parameter) for parameter in parameters}, "a step size for every parameter"
        optimizer = AdamW(groups, lr=player.learning_rate, weight_decay=player.weight_decay, fused=True)
        factor = schedule_factor(self.stage.schedule, self.stage.epochs, self.steps * player.updates)
        return Learner(player, parameters, optimizer, LambdaLR(optimizer, factor))

    def epoch(self, number: int, after_step: Callable[[Position, bool], None]) -> Record:
        """Trains for one epoch, or for what is left of it, and returns the means of all loss terms.

        Args:
            number: Of the epoch, from 1.
            after_step: Told after each step where the epoch is, and whether the device was waited for.
        """
        seed = derive_seed(self.seed, self.stage.name, number, self.fabric.global_rank)
        order = np.random.default_rng(derive_seed(self.seed, self.stage.name, number)).permutation(self.train)
        settings, size, position = self.settings, self.batch, self.position
        # A batch's parts lie one after the other, as one process would have them.
        parts = order[: self.steps * self.fabric.world_size * size].reshape(self.steps, -1, size)
        mine = parts[:, self.fabric.global_rank].ravel()
        with isolated_rng(seed):
            restore_generators(position.generators)
            for batch in self.images.batches(mine[position.step * size :], size, self.fabric.device):
                if self.stage.progress is not None:
                    done = (number - 1) * self.steps + position.step
                    self.stage.progress(done / (self.stage.epochs * self.steps))
                image = augment(batch.image, shift=settings.shift, flip=settings.flip, turn=settings.turn)
                position = position.after(self._play(batch._replace(image=image)))
                waited = position.step % CHECK_EVERY == 0 or position.step == self.steps
                if waited:
                    self._check(position.sums, number, position.step)
                after_step(position, waited)
        self.position = Position()
        return {name: float(value) / self.steps for name, value in position.sums.items()}

    def solve(self) -> Record:
        """Fits a stage without players in closed form."""
        assert self.stage.solve is not None
        features = self._features(self.train, "training"), self._features(self.validation, "validation")
        modules = self.stage.modules.values()
        for module in modules:
            module.cpu()  # where the features are
        with isolated_rng(derive_seed(self.seed, self.stage.name)):
            record = self.stage.solve(*features)
        for module in modules:
            module.to(self.fabric.device)
        return dict(record or {})

    def _features(self, indices: NDArray[np.int64], kind: str) -> Features:
        task, seen = self.images.task, self._seen(indices)
        for what, rows in seen._asdict().items():
            if rows is not None:
                check_numbers(rows, self.images, indices, whose=self.stage.name, what=what, kind=kind)
        shown = [part for part in (seen.embedding, seen.statistics) if part is not None]
        embedding = np.concatenate(shown, axis=1).astype(np.float64) if shown else None
        patient = np.unique(task.patient[indices], return_inverse=True)[1]
        logit = seen.logit.astype(np.float64)
        return Features(embedding, logit, task.label[indices], task.group[indices], patient)

    def _seen(self, indices: NDArray[np.int64]) -> Seen:
        if self.seen is not None:
            return self.seen(indices)
        assert self.stage.features is not None
        return diagnose(self.stage.features, self.images, indices, self.fabric)

    def _play(self, batch: Batch) -> Losses:
        """Lets every player move on one batch; returns all loss terms, detached."""
        terms: Losses = {}
        last = self.learners[-1]
        shared, detached, accumulated = None, None, None
        if self.stage.shared is not None:
            with learning(last.player.modules if last.player.through_shared else (), self.stage.modules):
                if self.stage.accumulate_grad_batches > 1:
                    accumulated = Accumulated(self._shared, batch, self.stage.accumulate_grad_batches)
                shared = self._shared(batch) if accumulated is None else accumulated.rows
            batch, shared = self._whole(batch), self._whole(shared)
            detached = type(shared)(*(None if tensor is None else tensor.detach() for tensor in shared))
        for learner in self.learners:
            player = learner.player
            for _ in range(player.updates):
                with learning(player.modules, self.stage.modules):
                    with self.fabric.autocast():
                        losses = player.loss(batch, shared if player.through_shared else detached)
                    learner.step(self.fabric, losses, accumulated if player.through_shared else None)
                learner.scheduler.step()
            terms.update({f"{player.name}/{name}": value.detach() for name, value in losses.items()})
        self.average.update()
        return terms

    def _shared(self, batch: Batch) -> Any:
        assert self.stage.shared is not None
        with self.fabric.autocast():
            return self.stage.shared(batch)

    def _whole(self, parts: Parts) -> Parts:
        """The same of all processes; images are not sent around unless somebody looks at them."""
        left = () if self.stage.looks_at_images else ("image",)
        changes = {
            name: whole_batch(tensor)
            for name, tensor in parts._asdict().items()
            if tensor is not None and name not in left
        }
        return parts._replace(**changes)

    def _check(self, sums: Losses, epoch: int, step: int) -> None:
        for name, value in sums.items():
            if not math.isfinite(float(value)):
                raise TrainingError(
                    f"stage `{self.stage.name}`, epoch {epoch}, batch {step}: the loss term `{name}` is "
                    "no longer finite; lower the learning rate, or set trainer.precision=fp32"
                )

    def validate(self) -> Record:
        """Scores the validation images, or the training images where there is no validation split."""
        indices = self.validation if self.judged is None else self.judged
        if self.stage.corrected is not None and self.seen is not None:
            scores = predict_seen(self.stage.corrected, self.seen(indices), self.fabric)
        else:
            scores = predict(self.stage.logits, self.images, indices, self.fabric)
        if not self.history:  # what a model makes of images before anything is trained is not ours to lose
            check_numbers(scores, self.images, indices, whose=self.stage.name, what="score", kind="judged")
        task, count = self.images.task, len(self.validation)
        found = validation_scores(task.label[indices[:count]], scores[:count], task.group[indices[:count]])
        record: Record = {f"validation/{name}": value for name, value in found.items()}
        if self.judged is not None:
            ranking = scores[:, 1] if scores.shape[1] == 2 else scores
            if len(self.history) == 0 and self._by_heart(task.label[indices], ranking, count):
                self._judge_on(self.validation)
            judged = self.images_judged
            record[JUDGED] = unfairness(
                task.label[indices][:judged], ranking[:judged], task.group[indices][:judged]
            )
            record[JUDGED_IMAGES] = judged
            if len(self.history) == 0 and record[JUDGED] <= self.chance:
                record["note"] = self._too_little(record[JUDGED])
        return record

    def _too_little(self, found: float) -> str:
        """Says, before anything is trained, that the images cannot show whether it helps."""
        task = self.images.task
        sizes = len(task.group_names), len(task.class_names), self.images_judged
        note = f"{what_can_be_seen(found, *sizes)}: they cannot show whether anything makes it fairer"
        logger.warning("stage `%s`: %s", self.stage.name, note)
        return note

    @property
    def images_judged(self) -> int:
        """How many images the fairness of an epoch is judged on."""
        return 0 if self.judged is None else len(self.judged)

    @staticmethod
    def _by_heart(label: NDArray[np.int64], ranking: NDArray[np.float64], count: int) -> bool:
        """Whether the training images among the judged were learnt by heart, and so say nothing of others."""
        if ranking.ndim > 1 or len(label) == count:
            return False
        return learnt_by_heart(label[count:], ranking[count:], label[:count], ranking[:count])

    def judge(self, epoch: int, record: Record) -> None:
        """Keeps the weights if the epoch is the best so far."""
        if self.best is None or better(self.stage, record, self.best, self.history[0], self.chance):
            self.best = record
            self.best_weights = {
                name: {
                    key: value.detach().clone()
                    for key, value in self.stage.modules[name].state_dict().items()
                }
                for name in self.stage.learning
            }

    def buffers(self) -> Iterator[Tensor]:
        """What each process has for itself: running statistics, of the modules that learn and of averages."""
        for name in self.stage.learning:
            yield from self.stage.modules[name].buffers()
        yield from self.average.buffers()

    def load_weights(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Puts weights into the stage's modules."""
        for name, state in weights.items():
            self.stage.modules[name].load_state_dict(dict(state))


def fit(  # noqa: PLR0913 - each is one fact of the training, and all but two are keywords
    stage: Stage,
    images: TaskImages,
    *,
    fabric: Fabric,
    settings: TrainerSettings,
    seed: int,
    folder: Path | None = None,
    resume: bool = False,
    seen: SeenBefore | None = None,
    observers: Sequence[Observer] = (),
) -> list[Record]:
    """Trains a stage and leaves the best epoch's weights in its modules, frozen and in eval mode.

    Args:
        stage: What to train.
        images: Training and validation images; without validation images, the training images choose the
            epoch.
        fabric: Device, precision and processes.
        settings: Augmentation and compilation.
        seed: Seed of order, augmentation and dropout.
        folder: Where to keep checkpoints. A finished stage found there is loaded instead of trained.
        resume: Whether to go on from an unfinished stage found there, at the step after the last one saved.
        seen: What `stage.features` makes of images, where that is known already.
        observers: Who hears what is found; told in the first process.

    Returns:
        A record for the state before training (epoch 0) and for each epoch.

    Raises:
        InputError: There are fewer training images than a batch.
        TrainingError: A loss is no longer finite.
        KeyboardInterrupt: The process was asked to end; where there is a `folder`, it was saved there how to
            go on.
    """
    run = Fit(stage, images, fabric, settings, seed, seen)
    checkpoint = None if folder is None else Checkpoint(folder, run)
    hearing = observers if fabric.is_global_zero else ()
    if checkpoint is not None and checkpoint.load_finished():
        for one in hearing:
            one.ended(run.history)
        return run.history
    if checkpoint is not None and resume and checkpoint.load_last():
        if run.history[0].get(JUDGED_IMAGES) == len(run.validation):
            run._judge_on(run.validation)
    else:
        run.history.append({"stage": stage.name, "epoch": 0, **run.validate()})
        run.judge(0, run.history[0])
    for one in hearing:
        one.begun(run.history)
    with common_statistics(stage.modules.values()):
        _train(run, checkpoint, hearing)
    for record in run.history:
        record["kept"] = record is run.best
    run.best_weights = fabric.broadcast(run.best_weights)
    run.load_weights(run.best_weights)
    if checkpoint is not None and fabric.is_global_zero:
        checkpoint.save_finished()
    for one in hearing:
        one.ended(run.history)
    return run.history


def _train(run: Fit, checkpoint: Checkpoint | None, observers: Sequence[Observer]) -> None:
    """Trains the epochs that are left."""
    stage, first = run.stage, run.fabric.is_global_zero
    total, done = stage.epochs * run.steps, (len(run.history) - 1) * run.steps + run.position.step
    # What is solved, or kept nowhere, has no point to go on from.
    keeping = kept_back() if checkpoint is not None and stage.players else nullcontext(KeptBack())
    with (
        keeping as signals,
        Reporter(stage.name, total, done=done, enabled=first) as bar,
    ):
        pauses = None if checkpoint is None else Pauses(checkpoint, signals, run.settings.save_minutes)

        def after_step(position: Position, waited: bool) -> None:
            bar.advance()
            if pauses is not None:
                pauses.after_step(position, waited=waited)

        for epoch in range(len(run.history), stage.epochs + 1):
            losses = run.epoch(epoch, after_step) if stage.players else run.solve()
            record = {"stage": stage.name, "epoch": epoch, **losses}
            with run.average.applied():
                record.update(run.validate())
                run.judge(epoch, record)
            run.history.append(record)
            bar.describe(record)
            for one in observers:
                one.recorded(record)
            if pauses is not None:
                pauses.after_epoch()
