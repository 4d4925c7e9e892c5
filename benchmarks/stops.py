"""Stops a small run at random steps, lets it go on, and compares it with one that nothing stopped.

Prints a line for each stop and the count of runs that came to the same weights, predictions and history.

    python benchmarks/stops.py --stops 20 --signals TERM INT
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
import torch

from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare

PHANTOM = PhantomSettings(size=32, train=512, validation=256, test=256, seed=3)
STEPS = 2 * 512 // 16 + 2 * 512 // 32
SETTINGS = (
    *("model.epochs=2", "model.batch_size=16", "method.epochs=2", "method.batch_size=32"),
    *("method.budget=1", "evaluation.replicates=20", "evaluation.true_effect_patients=0"),
    *("trainer.precision=fp32", "trainer.device=cpu"),
)
STATUS = {"TERM": 143, "INT": 130, "KILL": -signal.SIGKILL}
# The command with a signal to itself before one of its steps, counted from 1.
COMMAND = """
import os, signal, sys
from fairdx.training import fit
augment, name, at, count = fit.augment, sys.argv.pop(1), int(sys.argv.pop(1)), iter(range(1, 10**6))
def signalled(image, **options):
    if next(count) == at:
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
    return augment(image, **options)
fit.augment = signalled
from fairdx.__main__ import main
main()
"""


def done(root: Path, out: Path, name: str = "TERM", at: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, name, str(at)]
    command += ["run", str(out.parent / "run.toml"), "--out", str(out), "--resume"]
    for change in (*SETTINGS, f"data.root={root}"):
        command += ["--set", change]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True)


def outcome(out: Path) -> tuple[list[bytes], list[str]]:
    weights = [path.read_bytes() for path in sorted(out.glob("stages/*/best.safetensors"))]
    tables = [pd.read_parquet(out / f"{name}.parquet").to_csv() for name in ("predictions", "history")]
    return weights, tables


def place(out: Path) -> str:
    """Where the run goes on: stage, epoch and step of its save."""
    for path in out.glob("stages/*/last.pt"):
        state = torch.load(path, weights_only=True)
        stage, epoch = path.parent.name.partition("-")[0], len(state["history"])
        return f"{stage}, epoch {epoch}, after step {state['processes'][0]['step']}"
    return "at the start of a stage"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--signals", nargs="+", default=["TERM", "INT"], choices=list(STATUS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    found: Counter[str] = Counter()
    stops = runs = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "run.toml").write_text("")
        root = prepare(Phantom(PHANTOM).source(), folder / "data").root
        done(root, folder / "whole")
        whole, out = outcome(folder / "whole"), folder / "out"
        while stops < asked.stops or out.exists():
            name = asked.signals[stops % len(asked.signals)]
            at = draw.randint(1, STEPS // 4) if stops < asked.stops else 0
            process = done(root, out, name, at)
            if process.returncode != 0:
                stops += 1
                found["right"] += process.returncode == STATUS[name]
                said = "" if name == "KILL" else process.stderr.strip().splitlines()[-1]
                sys.stdout.write(
                    f"{stops:3d} {name} at step {at}: status {process.returncode}; {place(out)}; {said}\n"
                )
                sys.stdout.flush()
                continue
            runs += 1
            found["same"] += outcome(out) == whole
            out.rename(folder / f"finished-{runs}")
    sys.stdout.write(
        f"{stops} stops, {found['right']} with the right status; "
        f"{found['same']} of {runs} runs the same as one that nothing stopped, bit for bit\n"
    )


if __name__ == "__main__":
    main()
