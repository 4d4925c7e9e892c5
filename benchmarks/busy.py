"""A training step beside another program that keeps one core busy: how much slower is it?

    python benchmarks/busy.py

Each figure is from a process of its own with two threads, in turn: alone and beside a program that does
nothing but count, with OpenMP's threads waiting as they do by default and as `fairdx` has them wait
(`GOMP_SPINCOUNT=5000`, set in `fairdx.__main__`). A step whose threads share the work evenly can hardly
take less than 1.5 times as long where three share two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

POLICIES = {"default": {}, "fairdx": {"GOMP_SPINCOUNT": "5000"}}
COUNTING = "n = 0\nwhile True:\n    n += 1\n"


def steps(folder: Path, count: int) -> list[float]:
    """Seconds of each step of stage 1 in this process."""
    from fairdx.data.base import PreparedDataset
    from fairdx.methods.base import Spec
    from fairdx.methods.pretraining import PretrainingConfig, pretraining
    from fairdx.models.loading import TaskImages
    from fairdx.models.runtime import TrainerSettings, make_fabric
    from fairdx.training.fit import Fit

    dataset = PreparedDataset.open(folder)
    settings = TrainerSettings(device="cpu", precision="fp32")
    stage = pretraining(PretrainingConfig(batch_size=64, epochs=1), Spec(1, 64, 2, 2), seed=0)[1]
    run = Fit(stage, TaskImages(dataset, dataset.task()), make_fabric(settings), settings, seed=0)
    times = [time.perf_counter()]
    while len(times) <= count:
        run.epoch(1, lambda position, waited: times.append(time.perf_counter()))
    return [after - before for before, after in pairwise(times)][2:]


def measured(folder: Path, count: int, policy: str, *, beside: bool) -> float:
    """Median seconds of a step in a process of its own."""
    other = subprocess.Popen([sys.executable, "-c", COUNTING]) if beside else None
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--in", str(folder), "--steps", str(count)],
            env={**os.environ, "OMP_NUM_THREADS": "2", **POLICIES[policy]},
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        print(median(steps(options.folder, options.steps)))
        return
    from fairdx.data.phantom import Phantom, PhantomSettings
    from fairdx.data.prepare import prepare

    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "phantom"
        prepare(Phantom(PhantomSettings(train=640, validation=64, test=64)).source(), folder)
        found: dict[tuple[str, bool], list[float]] = {}
        for _ in range(options.rounds):
            for policy in POLICIES:
                for beside in (False, True):
                    took = measured(folder, options.steps, policy, beside=beside)
                    found.setdefault((policy, beside), []).append(took)
    for policy in POLICIES:
        alone, slowed = (median(found[policy, busy]) for busy in (False, True))
        ratios = sorted(b / a for a, b in zip(found[policy, False], found[policy, True], strict=True))
        print(
            f"{policy}: {1e3 * alone:.0f} ms alone, {1e3 * slowed:.0f} ms beside another program: "
            f"{slowed / alone:.2f} times (rounds: {ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    alone = median(found["default", False])
    ours = {busy: median(found["fairdx", busy]) / alone for busy in (False, True)}
    print(f"of the default's time alone, fairdx takes {ours[False]:.3f} alone and {ours[True]:.2f} beside")


if __name__ == "__main__":
    main()
