"""A run that is asked to end: it finishes the step, says how to go on, and comes to the same in the end."""

import os
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from fairdx.core.files import read_sealed
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings

SETTINGS = (
    *("model.epochs=2", "model.batch_size=16", "method.epochs=2", "method.batch_size=16"),
    *("evaluation.replicates=20", "evaluation.true_effect_patients=16"),
    *("trainer.precision=fp32", "trainer.device=cpu"),
)


def stopped(command, *, at, name):
    """Runs a command that gets a signal at one of its training steps, counted from 1."""
    first = f"""
    import os, signal, sys
    from fairdx.training import fit
    augment, count = fit.augment, iter(range(1, 10**6))
    def signalled(image, **options):
        if next(count) == {at}:
            os.kill(os.getpid(), signal.{name})
        return augment(image, **options)
    fit.augment = signalled
    from fairdx.__main__ import main
    main()
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(first), *map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


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


def test_a_run_that_is_stopped_twice_comes_to_the_same(whole, small_phantom, tmp_path):
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
        done = stopped(command, at=at, name=name)
        assert done.returncode == status, done.stderr
        assert done.stderr.splitlines()[-1] == f"{words}; the same command with --resume goes on"
        assert len(list(out.glob("stages/*/last.pt"))) == 1
    done = stopped(command, at=7, name="SIGTERM")  # six steps are left: none is done twice
    assert done.returncode == 0, done.stderr
    assert weights(out) == weights(whole)
    for name in ("predictions.parquet", "history.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(out / name), pd.read_parquet(whole / name))


def test_a_study_that_is_stopped_says_that_the_same_command_goes_on(small_phantom, tmp_path):
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
        model = {{ epochs = 2, batch_size = 16 }}
        evaluation = {{ replicates = 20, true_effect_patients = 16 }}
        trainer = {{ precision = "fp32", device = "cpu" }}
        """
    )
    done = stopped(["compare", study, "--out", out], at=2, name="SIGTERM")
    assert done.returncode == 143, done.stderr
    assert done.stderr.endswith("stopped by SIGTERM; the same command goes on\n")
    assert len(list(out.glob("stages/*/last.pt"))) == 1
