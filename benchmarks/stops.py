"""Stops a small run at random moments, lets it go on, and compares it with one that nothing stopped.

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
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import torch

from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare

PHANTOM = PhantomSettings(size=32, train=512, validation=256, test=256, seed=3)
SETTINGS = (
    *("model.epochs=2", "model.batch_size=16", "method.epochs=2", "method.batch_size=32"),
    *("method.budget=1", "evaluation.replicates=20", "evaluation.true_effect_patients=0"),
    *("trainer.precision=fp32", "trainer.device=cpu"),
)
STATUS = {"TERM": 143, "INT": 130, "KILL": -signal.SIGKILL}


def started(root: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fairdx", "run", str(out.parent / "run.toml"), "--out", str(out)]
    for change in (*SETTINGS, f"data.root={root}"):
        command += ["--set", change]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--resume"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(out: Path) -> tuple[list[bytes], list[str]]:
    weights = [path.read_bytes() for path in sorted(out.glob("stages/*/best.safetensors"))]
    tables = [pd.read_parquet(out / f"{name}.parquet").to_csv() for name in ("predictions", "history")]
    return weights, tables


def place(out: Path) -> tuple[str, bool]:
    """Where the run was stopped: stage, epoch and step of the save it goes on from."""
    for path in out.glob("stages/*/last.pt"):
        state = torch.load(path, weights_only=True)
        step, epoch = state["processes"][0]["step"], len(state["history"])
        return f"{path.parent.name.partition('-')[0]}, epoch {epoch}, after step {step}", step > 0
    return "between two stages, or before the first save", False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--signals", nargs="+", default=["TERM", "INT"], choices=list(STATUS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "run.toml").write_text("")
        root = prepare(Phantom(PHANTOM).source(), folder / "data").root
        start = time.monotonic()
        assert started(root, folder / "whole").wait() == 0
        seconds = time.monotonic() - start
        whole = outcome(folder / "whole")
        sys.stdout.write(f"a run that nothing stops: {seconds:.0f} s\n")
        found: Counter[str] = Counter()
        stops = runs = 0
        while stops < asked.stops or (folder / "out").exists():
            name = asked.signals[stops % len(asked.signals)]
            process = started(root, folder / "out")
            if stops < asked.stops:
                try:
                    process.wait(draw.uniform(0.2, 0.9) * seconds)
                except subprocess.TimeoutExpired:
                    process.send_signal(getattr(signal, f"SIG{name}"))
            said = process.communicate()[1].strip().splitlines()
            if process.returncode != 0:
                stops += 1
                where, within = place(folder / "out")
                found["with the right status"] += process.returncode == STATUS[name]
                found["within an epoch"] += within
                last = "" if name == "KILL" else said[-1]
                sys.stdout.write(f"{stops:3d} {name}: status {process.returncode}; {where}; {last}\n")
                continue
            runs += 1
            found["runs the same"] += outcome(folder / "out") == whole
            (folder / "out").rename(folder / f"finished-{runs}")
    sys.stdout.write(
        f"{stops} stops, {found['with the right status']} with the right status, {found['within an epoch']} "
        f"within an epoch; {found['runs the same']} of {runs} runs the same bit for bit\n"
    )


if __name__ == "__main__":
    main()
