"""What a training step costs: seconds, floating-point operations and memory for an image of each stage.

    python benchmarks/cost.py                                  # on the GPU, if there is one
    python benchmarks/cost.py --flops                          # operations alone, counted on the CPU
    python benchmarks/cost.py --flops --stages faap --encoders resnet18 --batch 16 --accumulate 4
    OMP_NUM_THREADS=2 python benchmarks/cost.py --corrector 10000   # the corrector's fit to so many images

Each stage's own steps through the one loop, images read from a prepared data set of 224 x 224 pixels. The
first epoch is not counted. docs/scale.md says what follows from it.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.methods import METHODS, Spec
from fairdx.methods.base import Features, Stage
from fairdx.methods.corrector import Corrector, CorrectorConfig
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.training.fit import Fit

SIZE = 224
SPEC = Spec(1, SIZE, 2, 2, counts=((200, 200), (200, 168)))
STAGES = ("pretrain", "fair_diagnosis", "faap", "adversarial_debiasing")
EPOCHS = 3


def stage_of(name: str, encoder: str, batch: int, times: int) -> Stage:
    """Stage 1, or the stage of a method behind it, with so many batches for a step."""
    own = {"epochs": EPOCHS, "batch_size": batch, "accumulate_grad_batches": times}
    first = PretrainingConfig(encoder=encoder, **own)
    model, stage = pretraining(first, SPEC, seed=0)
    if name == "pretrain":
        return stage
    method = METHODS[name]
    config = method.config_class(**own)
    return method.build(config, SPEC, model.eval().requires_grad_(False), seed=0).stages()[0]


def timed(stage: Stage, images: TaskImages, settings: TrainerSettings) -> tuple[float, float]:
    """Seconds of a step, and GiB on the GPU at most."""
    fabric = make_fabric(settings)
    gpu = fabric.device.type == "cuda"
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = Fit(stage, images, fabric, settings, seed=0)
    start = 0.0
    for number in range(1, EPOCHS + 1):
        if number == 2:
            if gpu:
                torch.cuda.synchronize()
            start = time.perf_counter()
        run.epoch(number, lambda position, waited: None)
    if gpu:
        torch.cuda.synchronize()
    took = (time.perf_counter() - start) / ((EPOCHS - 1) * run.steps)
    return took, torch.cuda.max_memory_allocated() / 2**30 if gpu else float("nan")


def operations(stage: Stage, images: TaskImages) -> float:
    """Floating-point operations of one step; what memory it takes on a CPU is seen for the first stage."""
    settings = TrainerSettings(device="cpu", precision="fp32")
    run = Fit(stage, images, make_fabric(settings), settings, seed=0)
    batch = images.batch(run.train[: run.batch], torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        run._play(batch)
    return float(counter.get_total_flops())


def corrector_seconds(count: int) -> tuple[float, float]:
    """Wall and processor seconds of the corrector's fit to numbers that show disease and group."""
    model, _ = pretraining(PretrainingConfig(encoder="tf_efficientnet_lite0"), SPEC, seed=0)
    method = Corrector.build(CorrectorConfig(), SPEC, model.eval().requires_grad_(False), seed=0)
    features = method.residual.features  # the embedding, and the statistics of maps
    rng = np.random.default_rng(0)
    group, label = rng.integers(0, 2, count), rng.integers(0, 2, count)
    embedding = rng.normal(size=(count, features))
    embedding[:, :8] += 0.4 * label[:, None]
    embedding[:, 4:16] += 0.4 * group[:, None]
    odds = embedding[:, :8].sum(1) / 2
    known = Features(embedding, np.stack([-odds / 2, odds / 2], 1), label, group)
    (stage,) = method.stages()
    assert stage.solve is not None
    start, used = time.perf_counter(), time.process_time()
    record = stage.solve(known, known)
    assert record is not None
    assert "weight" in record, record
    return time.perf_counter() - start, time.process_time() - used


def lines(options: argparse.Namespace, images: TaskImages) -> Iterator[str]:
    """A line for each encoder, stage and precision."""
    for encoder in options.encoders:
        for name in options.stages:
            times = options.accumulate
            made = partial(stage_of, name, encoder, options.batch, times)
            if options.flops:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                count = operations(made(), images) / (options.batch * times)
                more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                yield f"{encoder} {name}: {count / 1e9:.1f} GFLOP an image, {more / 2**20:.1f} GiB"
                continue
            for precision in ("fp32", "bf16"):
                settings = TrainerSettings(device=options.device, precision=precision)
                took, memory = timed(made(), images, settings)
                yield (
                    f"{encoder} {name} {precision}: {1e3 * took:.1f} ms a step of {options.batch * times}, "
                    f"{1e3 * took / (options.batch * times):.3f} ms an image, {memory:.1f} GiB"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="*", default=["resnet18", "resnet50"])
    parser.add_argument("--stages", nargs="*", default=STAGES)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--accumulate", type=int, default=1, metavar="BATCHES")
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--corrector", type=int, metavar="IMAGES")
    options = parser.parse_args()
    if options.corrector is not None:
        wall, used = corrector_seconds(options.corrector)
        print(f"corrector, {options.corrector:,} images: {wall:.0f} s, {used:.0f} s of processor time")
        return
    with tempfile.TemporaryDirectory() as folder:
        settings = PhantomSettings(size=SIZE, train=options.images, validation=64, test=64)
        dataset = prepare(Phantom(settings).source(), Path(folder) / "phantom")
        for line in lines(options, TaskImages(dataset, dataset.task())):
            print(line, flush=True)


if __name__ == "__main__":
    main()
