"""Several runs at a time: each in its own process, once, and gone with the study however that ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pandas as pd
import pytest

from fairdx.models.runtime import share

# Runs that are made up. The processes of a study import its main module, and so the stand-in too.
SCRIPT = textwrap.dedent(
    """
    import json, os, signal, sys, time
    from pathlib import Path
    from fairdx.runs import run as experiment
    from fairdx.study.run import StudyRequest, run_study
    from fairdx.training.fit import TrainingError

    file, out, log, seconds = *map(Path, sys.argv[1:4]), float(sys.argv[4])

    def run(settings, folder, **options):
        began = time.time()
        print("hello from", settings.method_name)
        with log.open("a") as lines:
            lines.write(f"{os.getpid()} {folder.name} {os.environ['OMP_NUM_THREADS']}\\n")
        if (settings.method_name, settings.seed) == ("fair_diagnosis", 0):
            raise TrainingError("the loss is no longer finite")
        if (settings.method_name, settings.seed) == ("fair_diagnosis", 1):
            os.kill(os.getpid(), signal.SIGKILL)  # as Linux does where memory has run out
        time.sleep(seconds)
        value = {"value": 0.5 + settings.seed / 100, "low": 0.4, "high": 0.6}
        results = {"seconds": 1.0, "kept_epochs": {"pretrain": 1}, "data": {}, "span": [began, time.time()],
                   "methods": {settings.method_name: {
                       "auroc": value, "approximate_diagnosis_fairness": value}}}
        (folder / "results.json").write_text(json.dumps(results))
        return results

    experiment.run = run
    if __name__ == "__main__":
        try:
            outcome = run_study(StudyRequest(file, "compare", (), out, processes=2))[1]
        except KeyboardInterrupt:
            raise SystemExit(130)
        print(json.dumps(outcome.failures))
    """
)

VANILLA = """
[study]
name = "instant"
seeds = [0, 1]
[[method]]
name = "vanilla"
"""


@pytest.fixture
def study(tmp_path, study_file):
    script, log, out = tmp_path / "script.py", tmp_path / "log", tmp_path / "out"
    script.write_text(SCRIPT)

    def start(seconds, text=None):
        return subprocess.Popen(
            [sys.executable, script, study_file(text), out, log, str(seconds)],
            env={**os.environ, "OMP_NUM_THREADS": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def begun():
        """Process, run and threads of each run that has begun."""
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    start.out, start.begun = out, begun
    return start


def test_every_process_has_its_share_of_threads_and_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert share(1, 3) == {"OMP_NUM_THREADS": "2"}
    assert share(0, 9) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [share(place, 3)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3a")
    assert [share(place, 2)["CUDA_VISIBLE_DEVICES"] for place in range(2)] == ["5", "GPU-3a"]


def wait_for(condition):
    end = time.monotonic() + 90  # on a busy machine a process takes long to begin
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    """Whether a process still works; one that has ended may wait for its parent."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_runs_at_a_time_each_once_and_a_dead_one_does_not_end_the_study(study):
    with study(2) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    begun = study.begun()
    assert len({pid for pid, _, _ in begun}) == len({key for _, key, _ in begun}) == len(begun) == 4
    assert {threads for _, _, threads in begun} == {"1"}
    table = pd.read_parquet(study.out / "study.parquet")
    assert table["auroc"].notna().tolist() == [True, True, False, False]
    first, second = table["failure"].dropna()
    assert first == "the loss is no longer finite"
    assert "ended with status -9" in second
    assert "fewer --processes" in second
    assert str(study.out / table["folder"].iloc[3] / "log.txt") in second
    assert second in said.replace('\\"', '"')
    assert "hello from vanilla" in (study.out / table["folder"].iloc[0] / "log.txt").read_text()
    spans = [
        pd.read_json(study.out / folder / "results.json", typ="series")["span"]
        for folder in table["folder"][:2]
    ]
    assert max(began for began, _ in spans) < min(ended for _, ended in spans)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="this system has no /proc")
def test_the_processes_end_with_the_study_which_then_goes_on(study):
    for times, how in enumerate((signal.SIGKILL, signal.SIGINT), 1):
        with study(150, VANILLA) as process:
            wait_for(lambda: len(study.begun()) == 2 * times)  # noqa: B023 - it waits here and now
            process.send_signal(how)
            process.communicate(timeout=60)
        assert process.returncode == (130 if how == signal.SIGINT else -how)
        wait_for(lambda: not any(alive(pid) for pid, _, _ in study.begun()))
    interrupted = {key for _, key, _ in study.begun()}
    with study(0, VANILLA) as process:
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert pd.read_parquet(study.out / "study.parquet")["auroc"].tolist() == [0.5, 0.51]
    assert sorted(key for _, key, _ in study.begun()) == sorted(3 * [*interrupted])
