"""Ideas for a better mask that the library does not have, each beside what it has, on the small phantom.

    OMP_NUM_THREADS=1 python benchmarks/ideas.py --seeds 0 1

A line for each idea and seed: the kept epoch's figures on the test images. The first three lines of a seed
are the frozen model, the default mask and the preset `adversarial`, which the ideas about d_Y change. What
came out is written up in docs/experiments.md. An idea that is worth keeping moves into `FairDiagnosis`; the
others stay here, where they cost the library nothing.
"""

import argparse
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairdx.data.base import Batch
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.methods.base import Losses, Spec
from fairdx.methods.fair_diagnosis import FairDiagnosis, FairDiagnosisConfig, log_odds
from fairdx.methods.masking import Masked
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.metrics.scores import mean_approximate_diagnosis_fairness
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.information import separation_gap
from fairdx.models.loading import TaskImages
from fairdx.models.networks import Encoder, MaskGenerator
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.runs.data import RunData
from fairdx.runs.measure import measure
from fairdx.runs.settings import DataSettings, EvaluationSettings, RunSettings
from fairdx.training.fit import fit

SMALL = {"size": 32, "train": 3072, "validation": 1024, "test": 4000, "conspicuity": 0.45}
RARE = {"train": 8192, "validation": 3072, "prevalence": (0.04, 0.06)}


class Scene(NamedTuple):
    """What ideas are tried on."""

    phantom: PhantomSettings
    mask: dict[str, Any]
    pretraining: dict[str, Any]


SCENES = {
    "small": Scene(
        PhantomSettings(**SMALL), {"epochs": 6, "batch_size": 64}, {"epochs": 4, "batch_size": 64}
    ),
    "full": Scene(PhantomSettings(), {}, {}),
    "rare": Scene(PhantomSettings(**RARE), {}, {}),
}
"""The phantoms of configs/experiments.toml and configs/table1_main.toml, and the rare one of harder.toml."""


class IdeaConfig(FairDiagnosisConfig):
    """The method's settings, and those of the ideas."""

    penalty: float = 0.0
    """Weight of the squared gradient of d_Y's loss in what it sees (R1; Mescheder et al. 2018)."""
    alpha_moves: Literal["not", "up", "down"] = "not"
    """Whether alpha grows from 0, or falls to 0, in a straight line over the epochs."""
    restart: bool = False
    """Whether d_Y begins anew with every epoch."""
    replay: int = 1
    """Batches that d_Y learns from at each step: the newest, and those before it as they were masked."""
    lead: int = 0
    """Epochs in which only d_Y learns, before the mask does."""
    seen_gradient: bool = False
    """Whether the generator sees, beside the image, the gradient of the frozen model's log-odds."""
    kernel: float = 0.0
    """Weight of the kernel MMD between groups within a label, on the frozen model's embedding."""
    labels_alike: bool = False
    """Whether the gap of each label weighs the same, instead of as many patients as have it, as in ADF."""
    large: bool = False
    """Whether d_Y looks at the image through a ResNet18."""


@dataclass(frozen=True)
class Enriched(TaskImages):
    """Batches in which a given share is ill; what the mask minimises is a mean within each label, nearly."""

    share: float = 0.5

    def batches(self, indices: NDArray[np.int64], batch_size: int, device: torch.device) -> Iterator[Batch]:
        """Yields as many batches, with some of the ill repeated and some of the healthy left out."""
        ill = self.task.label[indices] == 1
        n = round(self.share * batch_size)
        steps = len(indices) // batch_size
        chosen = [np.resize(indices[ill], (steps, n)), np.resize(indices[~ill], (steps, batch_size - n))]
        yield from super().batches(np.hstack(chosen).ravel(), batch_size, device)


class Idea(FairDiagnosis):  # type: ignore[misc]
    """Fair Diagnosis with one thing changed."""

    config_class = IdeaConfig
    config: IdeaConfig

    def __init__(self, config: IdeaConfig, spec: Spec, model: DiagnosisModel) -> None:
        super().__init__(config, spec, model)
        self._alpha, self._done, self._epoch = config.alpha, 0.0, 0
        self._recent: deque[tuple[Batch, Masked]] = deque(maxlen=config.replay)
        if config.seen_gradient:
            assert self.fair.mask is not None
            beside = _Beside(MaskGenerator(2 * spec.channels, width=config.width), self._gradient)
            self.mask_generator = cast(Any, beside)
            self.fair.mask.generator = cast(Any, beside)
        if config.large:
            assert self.discriminator is not None
            encoder = Encoder("resnet18", channels=spec.channels, size=spec.size)
            self.discriminator.views["image"] = nn.Sequential(encoder, nn.Linear(512, 128), nn.SiLU())

    def progress(self, done: float) -> None:
        """Moves alpha, and begins d_Y anew."""
        super().progress(done)
        self._done = done
        epoch = int(done * self.config.epochs)
        if self.config.restart and epoch != self._epoch:
            assert self.discriminator is not None
            for module in self.discriminator.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
        self._epoch = epoch
        share = {"not": 1.0, "up": done, "down": 1.0 - done}[self.config.alpha_moves]
        self.config = self.config.model_copy(update={"alpha": share * self._alpha})

    def discriminator_loss(self, batch: Batch, masked: Masked) -> Losses:
        """The method's on the recent batches, and the gradient penalty."""
        if not self._recent or self._recent[-1][0] is not batch:  # d_Y takes several steps on each
            self._recent.append((batch, masked))
        batches, seen_masked = zip(*self._recent, strict=True)
        batch = Batch(*map(torch.cat, zip(*batches, strict=True)))
        masked = Masked(*map(torch.cat, zip(*seen_masked, strict=True)))
        if self.config.penalty == 0:
            return super().discriminator_loss(batch, masked)
        assert self.discriminator is not None
        assert masked.embedding is not None
        seen = [masked.embedding.float().requires_grad_(), masked.logit.float().requires_grad_()]
        guess = self.discriminator(masked.image, Diagnosis(*seen), batch.label).float()
        loss = cross_entropy(guess, batch.group)
        slopes = torch.autograd.grad(loss * len(guess), seen, create_graph=True)
        steepness = torch.stack([slope.square().sum(1) for slope in slopes]).sum(0).mean()
        return {"total": loss + self.config.penalty * steepness, "steepness": steepness.detach()}

    def generator_loss(self, batch: Batch, masked: Masked) -> Losses:
        """The method's, and the kernel's; nothing while d_Y is ahead."""
        own = self.config
        losses = super().generator_loss(batch, masked)
        if own.kernel > 0:
            assert masked.embedding is not None
            losses["kernel"] = embedding_mmd(masked.embedding, batch.label, batch.group)
            losses["total"] = losses["total"] + own.kernel * losses["kernel"]
        if self._done * own.epochs < own.lead:
            losses["total"] = 0 * losses["total"]
        return losses

    def _gap(self, batch: Batch, masked: Masked) -> Tensor:
        if not self.config.labels_alike:
            return super()._gap(batch, masked)
        score = log_odds(masked.logit.float(), 1)
        gaps = []
        for y in range(2):
            group = batch.group[batch.label == y]
            none = torch.zeros_like(group)
            gaps.append(separation_gap(score[batch.label == y], none, group, groups=2, classes=1))
        return torch.stack(gaps).mean()

    def _gradient(self, image: Tensor) -> Tensor:
        """How the frozen model's log-odds change with each pixel, in units of their mean size."""
        with torch.inference_mode(False), torch.enable_grad():
            plain = image.detach().clone().requires_grad_()
            logit = self.model(plain).logit
            (slope,) = torch.autograd.grad((logit[:, 1] - logit[:, 0]).sum(), plain)
        return slope / slope.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)


class _Beside(nn.Module):
    """A generator that sees something beside the image."""

    def __init__(self, generator: MaskGenerator, view: Any) -> None:
        super().__init__()
        self.generator, self.view = generator, view

    def forward(self, image: Tensor) -> Tensor:
        both = torch.cat([image, 0.5 + 0.1 * self.view(image).clamp(-3, 3)], dim=1)
        return self.generator(both)[:, : image.shape[1]]


def embedding_mmd(embedding: Tensor, label: Tensor, group: Tensor) -> Tensor:
    """Unbiased MMD^2 between two groups' embeddings, mean over labels; Gaussian kernel, median width."""
    total, known = embedding.new_zeros((), dtype=torch.float32), 0
    for y in range(2):
        parts = [embedding[(label == y) & (group == s)].float() for s in range(2)]
        if min(len(part) for part in parts) < 2:
            continue
        both = torch.cat(parts)
        # Not torch.cdist: its gradient is not finite at the distance 0 of an image to itself.
        square = (both[:, None] - both[None]).square().sum(2)
        kernel = torch.exp(-square / square.detach()[square > 0].median())
        n = len(parts[0])
        within = [k.sum() - k.diagonal().sum() for k in (kernel[:n, :n], kernel[n:, n:])]
        pairs = [len(part) * (len(part) - 1) for part in parts]
        total = total + within[0] / pairs[0] + within[1] / pairs[1] - 2 * kernel[:n, n:].mean()
        known += 1
    return total / max(known, 1)


ADVERSARIAL = FairDiagnosis.presets["adversarial"]
IDEAS: dict[str, dict[str, Any]] = {
    "no mask": {"epochs": 0},
    "default": {},
    "d_Y alone": {**ADVERSARIAL},
    "d_Y alone, gradient penalty 0.1": {**ADVERSARIAL, "penalty": 0.1},
    "d_Y alone, gradient penalty 1": {**ADVERSARIAL, "penalty": 1.0},
    "d_Y alone, gradient penalty 10": {**ADVERSARIAL, "penalty": 10.0},
    "d_Y alone, alpha growing to 2": {**ADVERSARIAL, "alpha": 2.0, "alpha_moves": "up"},
    "d_Y alone, alpha falling from 2": {**ADVERSARIAL, "alpha": 2.0, "alpha_moves": "down"},
    "d_Y alone, begun anew each epoch": {**ADVERSARIAL, "restart": True},
    "d_Y alone, on the last 8 batches": {**ADVERSARIAL, "replay": 8},
    "default, d_Y on the last 8 batches": {"replay": 8},
    "d_Y alone, an epoch ahead": {**ADVERSARIAL, "lead": 1, "epochs": 7},
    "d_Y alone, on the image": {**ADVERSARIAL, "discriminator_sees": ("image",)},
    "d_Y alone, on the image, ResNet18": {**ADVERSARIAL, "discriminator_sees": ("image",), "large": True},
    "d_Y alone, on the image, ResNet18, an epoch ahead": {
        **ADVERSARIAL,
        "discriminator_sees": ("image",),
        "large": True,
        "lead": 1,
        "epochs": 7,
    },
    "d_Y on image, embedding and logit": {
        **ADVERSARIAL,
        "discriminator_sees": ("image", "embedding", "logit"),
    },
    "generator sees the model's gradient": {"seen_gradient": True},
    "MMD 10 on the embedding, alone": {"adversary": 0.0, "separation": 1e-6, "kernel": 10.0},
    "MMD 50 on the embedding, alone": {"adversary": 0.0, "separation": 1e-6, "kernel": 50.0},
    "MMD 10 on the embedding, beside the default": {"kernel": 10.0},
    "gap alone": {**FairDiagnosis.presets["gap"]},
    "labels of the gap all alike": {"labels_alike": True},
    "batches twice as large": {"batches": 2},
    "batches four times as large": {"batches": 4},
    "a quarter of each batch ill": {},
    "half of each batch ill": {},
    "half the images, the model's own": {},
    "half the images, new to the model": {},
}
ENRICHED = {"a quarter of each batch ill": 0.25, "half of each batch ill": 0.5}
"""The share of ill patients in a batch of the mask."""
HALVES = {"half the images, the model's own": (0, 0), "half the images, new to the model": (0, 1)}
"""Which half of the training images stage 1 and the mask learn on."""


def trial(name: str, scene: Scene, seed: int, place: Path) -> str:
    """Trains one mask and returns its line of the table."""
    images = _rendered(scene.phantom, place)
    meta, task = images.dataset.meta, images.task
    fabric, trainer = make_fabric(TrainerSettings()), TrainerSettings()
    spec = Spec(meta.channels, meta.size, 2, 2)
    first, half = HALVES.get(name, (None, None))
    factor = 2 if name in HALVES else 1  # as many steps on half the images
    config = PretrainingConfig(**scene.pretraining)
    config = config.model_copy(update={"epochs": factor * config.epochs})
    model, stage = pretraining(config, spec, seed=seed)
    place = place / f"pretrain-{seed}-{first}"
    fit(stage, _part(images, first), fabric=fabric, settings=trainer, seed=seed, folder=place)
    method = Idea.build(_config(name, scene), spec, model, seed=seed)
    part = _part(images, half)
    if name in ENRICHED:
        part = Enriched(part.dataset, part.task, ENRICHED[name])
    (stage,) = method.stages()
    history = fit(stage, part, fabric=fabric, settings=trainer, seed=seed)
    kept = next(record["epoch"] for record in history if record["kept"])
    settings = RunSettings(
        method_name="fair_diagnosis",
        method=FairDiagnosisConfig(),
        data=DataSettings(phantom=scene.phantom),
        evaluation=EvaluationSettings(replicates=2),
        seed=seed,
    )
    run = RunData(settings, images, fabric, Phantom(scene.phantom), task.group_names[0])
    measured = measure(run, "mask", method.logits)
    figures, table = measured.figures, measured.table
    test = table[table["split"] == "test"]
    mean = mean_approximate_diagnosis_fairness(
        test["label"], test["score"], sensitive_features=test[task.attribute_name]
    )
    auc, adf, effect = (
        figures[key]["value"] for key in ("auroc", "approximate_diagnosis_fairness", "true_direct_effect")
    )
    numbers = (100 * auc, 1e3 * adf, 1e3 * mean, 100 * effect)
    return f"| {name} | {seed} | {kept} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |"


def _config(name: str, scene: Scene) -> IdeaConfig:
    idea = dict(IDEAS[name])
    factor = idea.pop("batches", 1)
    mask = {**scene.mask, **idea}
    config = IdeaConfig(**mask)
    update = {"batch_size": factor * config.batch_size}
    if name in HALVES:  # as many steps on half the images
        update["epochs"] = 2 * config.epochs
    return config.model_copy(update=update)


def _rendered(phantom: PhantomSettings, place: Path) -> TaskImages:
    dataset = prepare(Phantom(phantom).source(), place / "phantom", PrepareOptions(), wait=True)
    return TaskImages(dataset, dataset.task())


def _part(images: TaskImages, half: int | None) -> TaskImages:
    """The same images with one half of the training images only."""
    if half is None:
        return images
    task = images.task
    train = task.indices("train")
    other = train[1 - half :: 2]
    split = task.split.copy()
    split[other] = "unused"
    return replace(images, task=replace(task, split=split))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="*", choices=IDEAS, default=list(IDEAS), metavar="IDEA")
    parser.add_argument("--place", type=Path, default=Path("studies/ideas"), help="for images and models")
    parser.add_argument("--scene", choices=SCENES, default="small")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message=".*is unreliable.*")
    place = options.place / options.scene
    print("| Idea | Seed | Epoch | AUC, % | ADF, 1e-3 | Mean ADF, 1e-3 | True DE, 1e-2 |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for seed in options.seeds:
        for name in options.only:
            print(trial(name, SCENES[options.scene], seed, place), flush=True)


if __name__ == "__main__":
    main()
