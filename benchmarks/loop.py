"""`training.fit` against a hand-written PyTorch loop of the same steps on the same images.

    python benchmarks/loop.py

Both train a ResNet18 for the same number of steps with the same optimizer, schedule, precision and
augmentation, in turn, several times; the ratio is that of the medians. The loop of the library also averages
its loss terms, freezes and thaws modules, checks for NaN and shows progress: that is what the ratio is the
price of.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.methods.base import Spec, Stage
from fairdx.methods.pretraining import PretrainingConfig, build_diagnoser, pretraining_stage
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.training.augment import augment
from fairdx.training.fit import Fit
from fairdx.training.optimization import schedule_factor

BATCH = 128
SETTINGS = TrainerSettings(device="cpu")


def stage() -> Stage:
    config = PretrainingConfig(mutual_information=0, epochs=1, batch_size=BATCH)
    torch.manual_seed(0)
    spec = Spec(1, 64, 2, 2)
    return pretraining_stage(build_diagnoser(config, spec), config, spec)


def library(images: TaskImages) -> float:
    """Seconds of one epoch by the library's loop."""
    run = Fit(stage(), images, make_fabric(SETTINGS), SETTINGS, seed=0)
    start = time.perf_counter()
    run.epoch(1, lambda _position, _waited: None)
    return time.perf_counter() - start


def by_hand(images: TaskImages) -> float:
    """Seconds of one epoch of the same steps, written out."""
    model = stage().modules["diagnoser"].to(memory_format=torch.channels_last).train().requires_grad_(True)
    bf16 = "bf16" in make_fabric(SETTINGS)._precision.precision
    config = PretrainingConfig()
    optimizer = AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    indices = images.task.indices("train")
    steps = len(indices) // BATCH
    scheduler = LambdaLR(optimizer, schedule_factor(config.schedule, 1, steps))
    label = torch.tensor(images.task.label)
    start = time.perf_counter()
    order = np.random.default_rng(0).permutation(indices)
    for step in range(steps):
        part = order[step * BATCH : (step + 1) * BATCH]
        image = torch.from_numpy(images.dataset.read(part)).to(
            torch.float32, memory_format=torch.channels_last
        )
        image = augment(image.div_(255), shift=SETTINGS.shift, flip=SETTINGS.flip)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = cross_entropy(model(image).logit, label[part])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = PhantomSettings(train=options.images, validation=BATCH, test=BATCH)
        dataset = prepare(Phantom(settings).source(), Path(folder) / "phantom")
        images = TaskImages(dataset, dataset.task())
        library(images)  # warm up
        pairs = [(library(images), by_hand(images)) for _ in range(options.rounds)]
    ours, theirs = (median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(
        f"fit {ours:.2f} s, by hand {theirs:.2f} s for {options.images} images (medians of {options.rounds})"
    )
    print(f"ratio of medians {ours / theirs:.3f}; pair by pair {ratios[0]:.3f} to {ratios[-1]:.3f}")


if __name__ == "__main__":
    main()
