"""What the training loop costs beside the networks: ratios of one run, in turn, several times.

    python benchmarks/engine.py

1. Stage 1 by `training.fit` against a hand-written PyTorch loop of the same steps on the same images. The
   library also averages its loss terms, freezes and thaws modules, checks for NaN and shows progress.
2. An adversarial step by `training.fit` against its lower bound: the passes through the networks that both
   players need and the steps of their optimizers, with a mean in place of each loss, on one batch in memory.
3. The same passes against those of public re-implementations, which mask and encode a batch once for the
   discriminator and once more for the generator. The discriminator's own pass records no gradients, as a
   careful author would write it.

How memory grows with the data: `python benchmarks/loader.py`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from fairdx.data.base import Batch
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.methods.base import Spec, Stage
from fairdx.methods.fair_diagnosis import FairDiagnosis, FairDiagnosisConfig
from fairdx.methods.pretraining import PretrainingConfig, build_diagnoser, pretraining, pretraining_stage
from fairdx.models.diagnosis import Diagnosis
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.training.augment import augment
from fairdx.training.fit import Fit
from fairdx.training.optimization import schedule_factor

BATCH = 128
SETTINGS = TrainerSettings(device="cpu")
SPEC = Spec(1, 64, 2, 2)
FIRST = PretrainingConfig(mutual_information=0, epochs=1, batch_size=BATCH)


def first_stage() -> Stage:
    torch.manual_seed(0)
    return pretraining_stage(build_diagnoser(FIRST, SPEC), FIRST, SPEC)


def adversarial() -> FairDiagnosis:
    own = {**FairDiagnosis.presets["adversarial"], "discriminator_updates": 1, "epochs": 1}
    model = pretraining(PretrainingConfig(), SPEC, seed=0)[0].eval().requires_grad_(False)
    return FairDiagnosis.build(FairDiagnosisConfig(**own, batch_size=BATCH), SPEC, model, seed=0)


def library(stage: Stage, images: TaskImages) -> float:
    """Seconds of one epoch by the library's loop."""
    run = Fit(stage, images, make_fabric(SETTINGS), SETTINGS, seed=0)
    start = time.perf_counter()
    run.epoch(1, lambda _position, _waited: None)
    return time.perf_counter() - start


def precision() -> torch.autocast:
    """That which the library takes on this machine."""
    bf16 = "bf16" in make_fabric(SETTINGS)._precision.precision
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)


def by_hand(images: TaskImages) -> float:
    """Seconds of one epoch of stage 1, written out."""
    model = first_stage().modules["diagnoser"].to(memory_format=torch.channels_last)
    model.train().requires_grad_(True)
    optimizer = AdamW(model.parameters(), lr=FIRST.learning_rate, weight_decay=FIRST.weight_decay, fused=True)
    indices = images.task.indices("train")
    steps = len(indices) // BATCH
    scheduler = LambdaLR(optimizer, schedule_factor(FIRST.schedule, 1, steps))
    label = torch.tensor(images.task.label)
    autocast = precision()
    start = time.perf_counter()
    order = np.random.default_rng(0).permutation(indices)
    for step in range(steps):
        part = order[step * BATCH : (step + 1) * BATCH]
        image = torch.from_numpy(images.dataset.read(part)).to(
            torch.float32, memory_format=torch.channels_last
        )
        image = augment(image.div_(255), shift=SETTINGS.shift, flip=SETTINGS.flip)
        with autocast:
            loss = cross_entropy(model(image).logit, label[part])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
    return time.perf_counter() - start


def passes(steps: int, *, shared: bool) -> float:
    """Seconds of the passes of so many adversarial steps, with one through the frozen model or with two."""
    method = adversarial()
    discriminator = method.discriminator
    assert discriminator is not None
    for module in (method.model, method.mask_generator, discriminator):
        module.to(memory_format=torch.channels_last)
    image = torch.rand(BATCH, 1, 64, 64).to(memory_format=torch.channels_last)
    code = torch.arange(BATCH)
    batch = Batch(image, code % 2, code // 2 % 2, code)
    networks = discriminator, method.mask_generator
    d, g = (AdamW(network.parameters(), 1e-3, fused=True) for network in networks)
    autocast = precision()

    def guess(image: Tensor, diagnosis: Diagnosis) -> Tensor:
        return discriminator(image, diagnosis, batch.label).float().mean()

    start = time.perf_counter()
    for _ in range(steps):
        with autocast:
            with torch.set_grad_enabled(shared):
                masked = method.forward(batch)
            assert masked.embedding is not None
            seen = Diagnosis(masked.embedding.detach(), masked.logit.detach())
            loss = guess(masked.image.detach(), seen)
        d.zero_grad(set_to_none=True)
        loss.backward()
        d.step()
        discriminator.requires_grad_(False)
        with autocast:
            if not shared:
                masked = method.forward(batch)
            loss = guess(masked.image, Diagnosis(masked.embedding, masked.logit)) + masked.logit.mean()
        g.zero_grad(set_to_none=True)
        loss.backward()
        g.step()
        discriminator.requires_grad_(True)
    return time.perf_counter() - start


def compare(what: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> None:
    """Times two things in turn and prints the ratio."""
    ours(), theirs()  # warm up
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    first, second = (median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(f"{what}: {first:.2f} s against {second:.2f} s (medians of {rounds})")
    print(f"  ratio {first / second:.3f}; pair by pair {ratios[0]:.3f} to {ratios[-1]:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    steps = options.images // BATCH
    with tempfile.TemporaryDirectory() as folder:
        settings = PhantomSettings(train=options.images, validation=BATCH, test=BATCH)
        dataset = prepare(Phantom(settings).source(), Path(folder) / "phantom")
        images = TaskImages(dataset, dataset.task())
        compare(
            "stage 1, fit against by hand",
            lambda: library(first_stage(), images),
            lambda: by_hand(images),
            options.rounds,
        )
        compare(
            "an adversarial step, fit against its passes alone",
            lambda: library(adversarial().stages()[0], images),
            lambda: passes(steps, shared=True),
            options.rounds,
        )
    compare(
        "two passes through the frozen model against one",
        lambda: passes(steps, shared=False),
        lambda: passes(steps, shared=True),
        options.rounds,
    )


if __name__ == "__main__":
    main()
