"""Real training, killed in the middle: what was finished stays, and the study ends as an undisturbed one."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from fairdx.study.run import StudyRequest, run_study

FILE = """
[study]
name = "tiny"
seeds = [0, 1]
[run]
evaluation = { replicates = 20, true_effect_patients = 16 }
trainer = { precision = "fp32", shift = 1, device = "cpu" }
data.phantom = { size = 32, train = 96, validation = 64, test = 96, conspicuity = 0.6 }
model = { encoder = "test_resnet", epochs = 1, batch_size = 32 }
[[method]]
name = "vanilla"
[[method]]
name = "fair_diagnosis"
epochs = 1
batch_size = 32
width = 4
"""


def finished(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")}


def trained(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("stages/*/best.safetensors")}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_a_study_survives_kill_9_and_trains_nothing_twice(study_file, tmp_path):
    path, out = study_file(FILE), tmp_path / "killed"
    command = [sys.executable, "-m", "fairdx.cli", "compare", str(path), "--out", str(out)]
    with subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as study:
        while len(finished(out)) < 2 and study.poll() is None:
            time.sleep(0.01)
        study.send_signal(signal.SIGKILL)
    before, stages = finished(out), trained(out)
    assert 2 <= len(before) < 4
    rows = run_study(StudyRequest(path, "compare", (), out))[1].rows
    after = finished(out)
    assert len(after) == len(rows) == 4
    assert {file: after[file] for file in before} == before
    assert {file: trained(out)[file] for file in stages} == stages
    assert len(trained(out)) == 4  # two seeds of stage 1, shared by both methods, and two masks
    undisturbed = run_study(StudyRequest(path, "compare", (), tmp_path / "whole"))[1].rows
    pd.testing.assert_frame_equal(rows.drop(columns="seconds"), undisturbed.drop(columns="seconds"))
