"""The only training loop: it plays a stage's players on batches and keeps the best epoch.

With several processes each takes its share of every epoch, and gradients are averaged after the backward
pass: that works for any graph of learning and frozen networks, where wrapping each network for itself would
not.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.base import Batch
from fairdx.methods.base import Losses, Player, Stage
from fairdx.metrics.rates import accuracy, approximate_diagnosis_fairness, balanced_accuracy
from fairdx.metrics.scores import auroc, mean_approximate_diagnosis_fairness
from fairdx.metrics.threshold import youden_threshold
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, derive_seed, isolated_rng
from fairdx.training.augment import augment
from fairdx.training.optimization import Learner, WeightAverage, learning, schedule_factor

logger = logging.getLogger(__name__)

Record = dict[str, Any]
"""One epoch of one stage: mean loss terms as `player/term`, validation scores as `validation/name`, `JUDGED`
where epochs are chosen by fairness, and whether its weights were `kept`."""

RECIPE = 3
"""Raised whenever the same settings come to train, or keep, other weights: finished and half-finished stages
of an older recipe are then left alone. 2: fairness of an epoch judged on training images too. 3: a mask
generator without a checkerboard, whose weights have other shapes."""
JUDGED = "judged/unfairness"
"""The key of an epoch's `unfairness` on `FAIRNESS_IMAGES` images."""

CHECK_EVERY = 16
"""Batches between two checks for NaN; each check waits for the device."""
FAIRNESS_IMAGES = 8192
"""How many images the fairness of an epoch is judged on, training images among them where there are fewer
validation images: on 1,500 images the direct effect has a standard error of 0.02. AUROC and accuracy, which
training images flatter most, stay with validation images (docs/experiments.md)."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where and what to try."""


def predict(
    logits: Callable[[Tensor], Tensor],
    images: TaskImages,
    indices: NDArray[np.int64],
    fabric: Fabric,
    *,
    batch_size: int = 512,
) -> NDArray[np.float64]:
    """Scores images in order.

    Args:
        logits: Maps images (N, C, H, W) in [0, 1] to class logits (N, classes).
        images: Where the images are.
        indices: Which of them, shape (n,).
        fabric: Device and precision.
        batch_size: Images scored at once.

    Returns:
        Class probabilities, shape (n, classes).
    """
    scores = []
    with torch.inference_mode(), fabric.autocast():
        for start in range(0, len(indices), batch_size):
            batch = images.batch(indices[start : start + batch_size], fabric.device)
            scores.append(logits(batch.image).float().softmax(1).cpu())
    return torch.cat(scores).double().numpy() if scores else np.empty((0, 0))


class _Fit:
    """The state of one call of `fit`."""

    def __init__(
        self, stage: Stage, images: TaskImages, fabric: Fabric, settings: TrainerSettings, seed: int
    ) -> None:
        self.stage, self.images, self.fabric, self.settings, self.seed = stage, images, fabric, settings, seed
        train = images.task.indices("train")
        # Every process takes the same number of steps, or the last one would wait for the others for ever.
        self.train = train[: len(train) // fabric.world_size * fabric.world_size]
        self.steps = len(self.train) // fabric.world_size // stage.batch_size
        if self.steps == 0:
            raise InputError(
                f"stage `{stage.name}` needs a full batch of {stage.batch_size} training images for each of "
                f"{fabric.world_size} processes, and there are {len(train)}; lower `batch_size`"
            )
        for module in stage.modules.values():
            module.to(fabric.device).to(memory_format=torch.channels_last)
            module.requires_grad_(False).eval()
            if settings.compile:
                module.compile()
        self.validation = images.task.indices("validation")
        if len(self.validation) == 0:
            self.validation = train
        self.judged, self.chance = None, 0.0
        if stage.choose == "fairness":
            self.judged = self._judged(train)
            task = images.task
            self.chance = within_chance(len(task.group_names), len(task.class_names), len(self.judged))
        self.learners = [self._learner(player) for player in stage.players]
        self.average = WeightAverage(stage)
        self.history: list[Record] = []
        self.best: Record | None = None
        self.best_weights: dict[str, dict[str, Tensor]] = {}

    def _judged(self, train: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images that fairness is judged on: validation images, and as many others as are missing."""
        others = np.setdiff1d(train, self.validation)
        missing = max(0, FAIRNESS_IMAGES - len(self.validation))
        rng = np.random.default_rng(derive_seed(self.seed, self.stage.name, "judged"))
        return np.concatenate([self.validation, np.sort(rng.permutation(others)[:missing])])

    def _learner(self, player: Player) -> Learner:
        parameters = [p for name in player.modules for p in self.stage.modules[name].parameters()]
        optimizer = AdamW(parameters, lr=player.learning_rate, weight_decay=player.weight_decay, fused=True)
        factor = schedule_factor(self.stage.schedule, self.stage.epochs, self.steps * player.updates)
        return Learner(player, parameters, optimizer, LambdaLR(optimizer, factor))

    def epoch(self, number: int, advance: Callable[[], None]) -> Record:
        """Trains for one epoch and returns the means of all loss terms."""
        seed = derive_seed(self.seed, self.stage.name, number, self.fabric.global_rank)
        order = np.random.default_rng(derive_seed(self.seed, self.stage.name, number)).permutation(self.train)
        mine = order[self.fabric.global_rank :: self.fabric.world_size]
        sums: dict[str, Tensor] = {}
        with isolated_rng(seed):
            batches = self.images.batches(mine, self.stage.batch_size, self.fabric.device)
            for step, batch in enumerate(batches, start=1):
                if self.stage.progress is not None:
                    done = (number - 1) * self.steps + step - 1
                    self.stage.progress(done / (self.stage.epochs * self.steps))
                settings = self.settings
                image = augment(batch.image, shift=settings.shift, flip=settings.flip, turn=settings.turn)
                for name, value in self._play(batch._replace(image=image)).items():
                    sums[name] = sums[name] + value if name in sums else value
                if step % CHECK_EVERY == 0 or step == self.steps:
                    self._check(sums, number, step)
                advance()
        return {name: float(value) / self.steps for name, value in sums.items()}

    def _play(self, batch: Batch) -> Losses:
        """Lets every player move on one batch; returns all loss terms, detached."""
        terms: Losses = {}
        last = self.learners[-1]
        shared, detached = None, None
        if self.stage.shared is not None:
            owner = last.player.modules if last.player.through_shared else ()
            with learning(owner, self.stage.modules), self.fabric.autocast():
                shared = self.stage.shared(batch)
            detached = type(shared)(*(tensor.detach() for tensor in shared))
        for learner in self.learners:
            player = learner.player
            for _ in range(player.updates):
                with learning(player.modules, self.stage.modules):
                    with self.fabric.autocast():
                        losses = player.loss(batch, shared if player.through_shared else detached)
                    learner.step(self.fabric, losses)
                learner.scheduler.step()
            terms.update({f"{player.name}/{name}": value.detach() for name, value in losses.items()})
        self.average.update()
        return terms

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
        scores = predict(self.stage.logits, self.images, indices, self.fabric)
        task, count = self.images.task, len(self.validation)
        found = validation_scores(task.label[indices[:count]], scores[:count], task.group[indices[:count]])
        record: Record = {f"validation/{name}": value for name, value in found.items()}
        if self.judged is not None:
            ranking = scores[:, 1] if scores.shape[1] == 2 else scores
            record[JUDGED] = unfairness(task.label[indices], ranking, task.group[indices])
        return record

    def judge(self, epoch: int, record: Record) -> None:
        """Keeps the weights if the epoch is the best so far."""
        if self.best is None or _better(self.stage, record, self.best, self.history[0], self.chance):
            self.best = record
            self.best_weights = {
                name: {
                    key: value.detach().clone()
                    for key, value in self.stage.modules[name].state_dict().items()
                }
                for player in self.stage.players
                for name in player.modules
            }

    def load_weights(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Puts weights into the stage's modules."""
        for name, state in weights.items():
            self.stage.modules[name].load_state_dict(dict(state))


def validation_scores(
    label: NDArray[np.int64], scores: NDArray[np.float64], group: NDArray[np.int64]
) -> dict[str, float]:
    """Returns AUROC, accuracies and ADF, decided at the scores' own Youden threshold.

    Of more than two classes the one with the largest score is decided for.
    """
    if scores.shape[1] == 2:
        ranking = scores[:, 1]
        decision = (ranking >= youden_threshold(label, ranking)).astype(np.int64)
    else:
        ranking, decision = scores, scores.argmax(1)
    return {
        "auroc": float(auroc(label, ranking)),
        "accuracy": float(accuracy(label, decision)),
        "balanced_accuracy": balanced_accuracy(label, decision),
        "approximate_diagnosis_fairness": float(
            approximate_diagnosis_fairness(label, decision, sensitive_features=group)
        ),
    }


def unfairness(label: ArrayLike, ranking: ArrayLike, group: ArrayLike) -> float:
    """What epochs and settings are chosen by: ADF averaged over operating points, in nats.

    At one threshold it is mostly noise on as many images as a validation split has.

    Args:
        label: Y, shape (n,).
        ranking: Scores of the positive class, shape (n,), or of all classes, shape (n, classes).
        group: S, shape (n,).

    Returns:
        The mean over operating points; of more than two classes, ADF of the one with the largest score.
    """
    if np.ndim(ranking) > 1:
        decision = np.argmax(ranking, axis=1)
        return float(approximate_diagnosis_fairness(label, decision, sensitive_features=group))
    return mean_approximate_diagnosis_fairness(label, ranking, sensitive_features=group)


def within_chance(groups: int, classes: int, images: int) -> float:
    """The ADF below which a model is as fair as so many images can tell, in nats.

    For a fair model 2n times the plug-in ADF is about chi-squared with (|S| - 1)(|Y^| - 1)|Y| degrees of
    freedom (Miller 1955); this is its mean and one standard deviation. Of several models below it the lowest
    would be the luckiest, not the fairest.

    Args:
        groups: |S|.
        classes: |Y| = |Y^|.
        images: n.
    """
    freedom = (groups - 1) * (classes - 1) * classes
    return (freedom + math.sqrt(2 * freedom)) / (2 * images)


def _better(stage: Stage, record: Record, best: Record, start: Record, chance: float) -> bool:
    if stage.choose == "last":
        return True
    if stage.choose == "auroc":
        # An untrained model may score well by chance, and is not what anybody asked for.
        return bool(best["epoch"] == 0 or record["validation/auroc"] > best["validation/auroc"])

    def cost(epoch: Record) -> float:
        """How far AUROC or balanced accuracy are below the budget; 0 within it."""
        lost: float = max(
            start[f"validation/{name}"] - epoch[f"validation/{name}"]
            for name in ("auroc", "balanced_accuracy")
        )
        return max(0.0, lost - stage.budget)

    def rank(epoch: Record) -> tuple[float, ...]:
        return cost(epoch), max(chance, epoch[JUDGED]), -epoch["validation/auroc"]

    return rank(record) < rank(best)


class _Checkpoint:
    """A stage on disk: the best weights as safetensors, and what it takes to go on after the last epoch."""

    def __init__(self, folder: Path, run: _Fit) -> None:
        self.run, self.folder = run, folder
        self.best, self.last, self.done = (
            folder / "best.safetensors",
            folder / "last.pt",
            folder / "history.json",
        )
        folder.mkdir(parents=True, exist_ok=True)

    def save_last(self) -> None:
        run = self.run
        state = {
            "modules": {name: module.state_dict() for name, module in run.stage.modules.items()},
            "average": run.average.state_dict(),
            "optimizers": [learner.optimizer.state_dict() for learner in run.learners],
            "schedulers": [learner.scheduler.state_dict() for learner in run.learners],
            "history": run.history,
            "best": run.history.index(cast(Record, run.best)),
            "best_weights": run.best_weights,
        }
        _replace(self.last, lambda path: torch.save(state, path))

    def load_last(self) -> bool:
        """Goes on from the last epoch; False where there is none."""
        if not self.last.exists():
            return False
        run = self.run
        state = torch.load(self.last, map_location=run.fabric.device, weights_only=True)
        run.load_weights(state["modules"])
        run.average.load_state_dict(state["average"])
        for learner, optimizer, scheduler in zip(
            run.learners, state["optimizers"], state["schedulers"], strict=True
        ):
            learner.optimizer.load_state_dict(optimizer)
            learner.scheduler.load_state_dict(scheduler)
        run.history, run.best_weights = state["history"], state["best_weights"]
        run.best = run.history[state["best"]]
        return True

    def save_finished(self) -> None:
        flat = {
            f"{module}/{key}": value.contiguous()
            for module, state in self.run.best_weights.items()
            for key, value in state.items()
        }
        _replace(self.best, lambda path: save_file(flat, path))
        _replace(self.done, lambda path: path.write_text(json.dumps(self.run.history, indent=1)))
        self.last.unlink(missing_ok=True)

    def load_finished(self) -> bool:
        """Loads a finished stage; False where there is none."""
        if not self.done.exists():
            return False
        run = self.run
        run.history = json.loads(self.done.read_text())
        weights: dict[str, dict[str, Tensor]] = {}
        for key, value in load_file(self.best).items():
            module, _, name = key.partition("/")
            weights.setdefault(module, {})[name] = value
        run.load_weights(weights)
        return True


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file so that it is there in full or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    write(temporary)
    temporary.replace(path)


def fit(
    stage: Stage,
    images: TaskImages,
    *,
    fabric: Fabric,
    settings: TrainerSettings,
    seed: int,
    folder: Path | None = None,
    resume: bool = False,
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
        resume: Whether to go on from an unfinished stage found there.

    Returns:
        A record for the state before training (epoch 0) and for each epoch.

    Raises:
        InputError: There are fewer training images than a batch.
        TrainingError: A loss is no longer finite.
    """
    run = _Fit(stage, images, fabric, settings, seed)
    checkpoint = None if folder is None else _Checkpoint(folder, run)
    if checkpoint is not None and checkpoint.load_finished():
        return run.history
    if checkpoint is None or not (resume and checkpoint.load_last()):
        run.history.append({"stage": stage.name, "epoch": 0, **run.validate()})
        run.judge(0, run.history[0])
    with Reporter(stage.name, stage.epochs * run.steps, enabled=fabric.is_global_zero) as reporter:
        reporter.advance((len(run.history) - 1) * run.steps)
        for epoch in range(len(run.history), stage.epochs + 1):
            record = {"stage": stage.name, "epoch": epoch, **run.epoch(epoch, reporter.advance)}
            with run.average.applied():
                record.update(run.validate())
                run.judge(epoch, record)
            run.history.append(record)
            reporter.describe(record)
            if checkpoint is not None and fabric.is_global_zero:
                checkpoint.save_last()
    for record in run.history:
        record["kept"] = record is run.best
    # BatchNorm statistics are each process's own; from here on all have those of the first.
    run.best_weights = fabric.broadcast(run.best_weights)
    run.load_weights(run.best_weights)
    if checkpoint is not None and fabric.is_global_zero:
        checkpoint.save_finished()
    return run.history
