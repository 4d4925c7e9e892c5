"""Two processes on one machine: gloo on the CPU stands in for several GPUs."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
    from fairdx.data.base import PreparedDataset
    from fairdx.models.loading import TaskImages
    from fairdx.methods.base import Player, Stage
    from fairdx.models.runtime import TrainerSettings, make_fabric
    from fairdx.training.fit import fit

    root, folder, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    settings = TrainerSettings(device="cpu", precision="fp32", shift=0, processes=processes)
    fabric = make_fabric(settings)
    dataset = PreparedDataset.open(root)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2))

    def loss(batch, shared):
        return {"total": cross_entropy(model(batch.image), batch.label)}

    stage = Stage(
        name="toy", modules={"model": model}, players=(Player("model", ("model",), loss, 1e-2),), epochs=2,
        batch_size=16 // processes, logits=model, choose="auroc", config={},
    )
    images = TaskImages(dataset, dataset.task())
    history = fit(stage, images, fabric=fabric, settings=settings, seed=0, folder=folder)
    assert len(history) == 3
    """
)


def completed(command):
    """Runs a command on one thread for each process, and shows what it said if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_learn_what_one_learns_with_twice_the_batch(small_phantom, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    for processes in (1, 2):
        command = [
            sys.executable,
            str(script),
            str(small_phantom.root),
            str(tmp_path / str(processes)),
            str(processes),
        ]
        completed(command)
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("1", "2"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)


def test_the_command_line_runs_on_two_processes_and_reports_once(small_phantom, tmp_path):
    changes = (
        f"data.root={small_phantom.root}",
        "trainer.processes=2",
        "trainer.device=cpu",
        "trainer.precision=fp32",
        "trainer.shift=1",
        "model.epochs=1",
        "model.batch_size=16",
        "method.epochs=1",
        "method.batch_size=16",
        "evaluation.replicates=20",
        "evaluation.true_effect_patients=16",
    )
    config = tmp_path / "run.toml"
    config.write_text("")
    command = [sys.executable, "-m", "fairdx.cli", "run", str(config), "--out", str(tmp_path / "out")]
    for change in changes:
        command += ["--set", change]
    done = completed(command)
    assert done.stdout.count("report.html") == 1
    assert (tmp_path / "out" / "results.json").exists()
