"""`kill -9` at random moments: the same command goes on, and ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.table import read_table

COMMAND = """
import sys
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.table import read_table

if __name__ == "__main__":
    source = read_table(sys.argv[1], label=["y"], attribute=["sex"])
    options = PrepareOptions(size=32, on_error="skip", workers=int(sys.argv[3]))
    print("reading", flush=True)
    prepare(source, sys.argv[2], options)
"""


def layout(root, count):
    rng = np.random.default_rng(0)
    root.mkdir()
    rows = ["image,patient,y,sex"]
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(root / f"{i}.png")
        rows.append(f"{i}.png,p{i},{i % 2},{'fm'[i % 3 % 2]}")
    for i in (3, count // 2, count - 1):
        (root / f"{i}.png").write_bytes(b"")
    (root / "table.csv").write_text("\n".join(rows))


def start(script, root, out, workers):
    command = [sys.executable, str(script), str(root), str(out), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "reading\n"  # the imports are over, the work begins
    return process


def contents(folder):
    return {name: (folder / name).read_bytes() for name in ("images.npy", "table.parquet", "exclusions.csv")}


def killed_and_resumed(tmp_path, count, times, workers):
    layout(tmp_path / "source", count)
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    whole = start(script, tmp_path / "source", tmp_path / "whole", workers)
    began = time.monotonic()
    assert whole.communicate(timeout=300)[0] == ""
    assert whole.returncode == 0
    duration = time.monotonic() - began
    moments, unfinished = random.Random(0), 0
    for attempt in range(times):
        out = tmp_path / f"out{attempt}"
        process = start(script, tmp_path / "source", out, workers)
        time.sleep(moments.uniform(0, 0.7 * duration))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if (out / "meta.json").exists():  # too late: the machine is less busy than it was
            duration /= 2
        else:
            unfinished += 1
        again = start(script, tmp_path / "source", out, workers)
        again.communicate(timeout=300)
        assert again.returncode == 0
        assert contents(out) == contents(tmp_path / "whole")
    return unfinished


def test_killed_and_resumed(tmp_path):
    assert killed_and_resumed(tmp_path, 1500, times=4, workers=1) >= 1


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_twenty_times(tmp_path, workers):
    assert killed_and_resumed(tmp_path, 6000, times=20, workers=workers) >= 10


def test_killed_again_and_again_still_advances(tmp_path):
    layout(tmp_path / "source", 1500)
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    for _ in range(3):
        process = start(script, tmp_path / "source", tmp_path / "out", 1)
        time.sleep(0.15)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    source = read_table(tmp_path / "source", label=["y"], attribute=["sex"])
    options = PrepareOptions(size=32, on_error="skip", workers=1)
    resumed = prepare(source, tmp_path / "out", options)
    assert resumed.meta.hash == prepare(source, tmp_path / "whole", options).meta.hash


def test_workers_leave_when_their_parent_is_killed(tmp_path):
    layout(tmp_path / "source", 3000)
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    process = start(script, tmp_path / "source", tmp_path / "out", 2)
    children: list[int] = []
    deadline = time.monotonic() + 30
    while len(children) < 3 and process.poll() is None and time.monotonic() < deadline:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        children = [int(child) for child in listed]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
