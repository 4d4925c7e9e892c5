"""A run that is asked to end: it finishes the step, says how to go on, and comes to the same in the end."""

import multiprocessing

import pandas as pd
import pytest

from fairdx.core.files import read_sealed
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings

SETTINGS = (
    *("model.epochs=2", "model.batch_size=16", "method.epochs=2", "method.batch_size=16"),
    *("model.encoder=test_resnet", "method.width=4"),
    *("evaluation.replicates=2", "evaluation.true_effect_patients=0"),
    *("trainer.precision=fp32", "trainer.device=cpu"),
)

FORKS = multiprocessing.get_context("forkserver")
"""Processes that have imported everything already."""
SIGNALLED = """
import os, signal, sys
os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
import torch
torch.set_num_threads(1)
from fairdx.training import fit
augment, count = fit.augment, iter(range(1, 10**6))
def signalled(image, **options):
    if next(count) == at:
        os.kill(os.getpid(), getattr(signal, name))
    return augment(image, **options)
fit.augment = signalled
sys.argv = ["fairdx", *command]
from fairdx.__main__ import main
main()
"""


@pytest.fixture
def stopped(tmp_path):
    """Does a command that gets a signal at one of its steps, from 1; returns its status and last words."""
    said = tmp_path / "said.txt"

    def do(command, *, at, name):
        given = {"said": str(said), "at": at, "name": name, "command": [str(part) for part in command]}
        said.unlink(missing_ok=True)
        process = FORKS.Process(target=exec, args=(SIGNALLED, {"__name__": "stopped", **given}))
        process.start()
        process.join(300)
        process.kill()
        process.join()
        return process.exitcode, said.read_text()

    FORKS.set_forkserver_preload(["fairdx.__main__", "fairdx.runs.page", "fairdx.study.run"])
    return do


def weights(folder):
    return {path.parent.name: read_sealed(path) for path in sorted(folder.glob("stages/*/best.safetensors"))}


@pytest.fixture(scope="module")
def whole(small_phantom, tmp_path_factory):
    """A run that nothing stops, on one thread like those that are stopped."""
    import torch

    folder, threads = tmp_path_factory.mktemp("whole"), torch.get_num_threads()
    torch.set_num_threads(1)
    run(load_settings(None, (*SETTINGS, f"data.root={small_phantom.root}")), folder)
    torch.set_num_threads(threads)
    return folder


def test_a_run_that_is_stopped_twice_comes_to_the_same(stopped, whole, small_phantom, tmp_path):
    config, out = tmp_path / "run.toml", tmp_path / "out"
    config.write_text("")
    command = ["run", config, "--out", out, "--resume"]
    for change in (*SETTINGS, f"data.root={small_phantom.root}"):
        command += ["--set", change]
    # The sixth of eight steps of stage 1; the second of the eight of the mask, after two more of stage 1.
    for at, name, status, words in (
        (6, "SIGTERM", 143, "stopped by SIGTERM"),
        (4, "SIGINT", 130, "interrupted"),
    ):
        ended, said = stopped(command, at=at, name=name)
        assert ended == status, said
        assert said.splitlines()[-1] == f"{words}; the same command with --resume goes on"
        assert len(list(out.glob("stages/*/last.pt"))) == 1
    ended, said = stopped(command, at=7, name="SIGTERM")  # six steps are left: none is done twice
    assert ended == 0, said
    assert weights(out) == weights(whole)
    for name in ("predictions.parquet", "history.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(out / name), pd.read_parquet(whole / name))


def test_a_study_that_is_stopped_says_that_the_same_command_goes_on(stopped, small_phantom, tmp_path):
    study, out = tmp_path / "study.toml", tmp_path / "out"
    study.write_text(
        f"""
        [study]
        name = "stopped"
        seeds = [0]
        [[method]]
        name = "fair_diagnosis"
        epochs = 2
        batch_size = 16
        [run]
        data = {{ root = "{small_phantom.root}" }}
        model = {{ encoder = "test_resnet", epochs = 2, batch_size = 16 }}
        evaluation = {{ replicates = 2, true_effect_patients = 0 }}
        trainer = {{ precision = "fp32", device = "cpu" }}
        """
    )
    ended, said = stopped(["compare", study, "--out", out], at=2, name="SIGTERM")
    assert ended == 143, said
    assert said.endswith("stopped by SIGTERM; the same command goes on\n")
    assert len(list(out.glob("stages/*/last.pt"))) == 1
