"""Two processes on one machine: gloo on the CPU stands in for several GPUs."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

EVERY_METHOD = textwrap.dedent(
    """
    import sys
    from dataclasses import replace
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from fairdx.data.base import PreparedDataset
    from fairdx.methods import METHODS, Spec
    from fairdx.methods.pretraining import PretrainingConfig, pretraining
    from fairdx.models import loading, scoring
    from fairdx.models.loading import TaskImages
    from fairdx.models.runtime import TrainerSettings, make_fabric
    from fairdx.training.fit import fit

    # In double precision: in single, Adam makes a step of the rounding of a gradient that is zero.
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double

    def exact(pixels, device):
        return torch.from_numpy(pixels).to(device).double() / 255

    loading.to_unit_range = scoring.to_unit_range = exact

    root, folder, processes, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    settings = TrainerSettings(device="cpu", precision="fp32", shift=0, processes=processes)
    fabric = make_fabric(settings)
    dataset = PreparedDataset.open(root)
    images = TaskImages(dataset, dataset.task())
    spec = Spec(1, 32, 2, 2, counts=((20, 12), (14, 18)))
    size = 16 // processes
    first = PretrainingConfig(encoder="test_resnet", epochs=epochs, batch_size=size, learning_rate=1e-4)

    def stages():
        yield "pretrain", pretraining(first, spec, seed=0)[1]
        for name, method in METHODS.items():
            own = {"epochs": epochs, "batch_size": size, "learning_rate": 1e-4, "width": 4}
            known = {key: value for key, value in own.items() if key in method.config_class.model_fields}
            model = pretraining(first, spec, seed=0)[0].eval().requires_grad_(False)
            for stage in method.build(method.config_class(**known), spec, model, seed=0).stages():
                if stage.players:
                    yield name, stage

    for name, stage in stages():
        fit(replace(stage, choose="last"), images, fabric=fabric, settings=settings, seed=0)
        if fabric.is_global_zero:
            weights = {
                f"{module}.{key}": value.contiguous()
                for module in stage.learning for key, value in stage.modules[module].state_dict().items()
            }
            save_file(weights, folder / f"{name}-{processes}.safetensors")
    """
)
"""Four steps an epoch of everything that learns in steps."""


def completed(command):
    """Runs a command on one thread for each process, and shows what it said if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return done


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


STOPPED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
    from fairdx.data.base import PreparedDataset
    from fairdx.models.loading import TaskImages
    from fairdx.methods.base import Player, Stage
    from fairdx.models.runtime import TrainerSettings, make_fabric
    from fairdx.training import fit as loop

    loop.CHECK_EVERY = 4
    root, folder, asked, at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    settings = TrainerSettings(device="cpu", precision="fp32", shift=2, processes=2)
    fabric = make_fabric(settings)
    dataset = PreparedDataset.open(root)
    torch.manual_seed(0)
    # Running statistics differ between processes, and the second player's loss depends on them.
    model = nn.Sequential(nn.Conv2d(1, 2, 5, 4), nn.BatchNorm2d(2), nn.Dropout(0.2), nn.Flatten(),
                          nn.Linear(98, 2))
    other = nn.Linear(2, 2)

    def loss(batch, shared):
        return {"total": cross_entropy(model(batch.image), batch.label)}

    def guess(batch, shared):
        return {"total": cross_entropy(other(model(batch.image).detach()), batch.group)}

    steps = 0
    def progress(done):
        global steps
        steps += 1
        if steps == at and asked in ("both", str(fabric.global_rank)):
            os.kill(os.getpid(), signal.SIGTERM)

    players = Player("model", ("model",), loss, 1e-2), Player("other", ("other",), guess, 1e-2)
    stage = Stage(
        name="toy", modules={"model": model, "other": other}, players=players, epochs=3,
        batch_size=2, logits=model, choose="last", config={}, average=("model",), progress=progress,
    )
    images = TaskImages(dataset, dataset.task())
    loop.fit(stage, images, fabric=fabric, settings=settings, seed=0, folder=folder, resume=True)
    """
)


@pytest.mark.long
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_stop_at_the_same_step_and_go_on_to_the_same_weights(
    small_phantom, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / "train.py"
    script.write_text(STOPPED)

    def status(folder, asked, at):
        command = [sys.executable, script, small_phantom.root, tmp_path / folder, asked, str(at)]
        done = subprocess.run(command, check=False, capture_output=True, timeout=240)
        return done.returncode

    assert status("whole", "none", 0) == 0
    # An epoch has sixteen steps, and the processes agree after every fourth: here after 20, and 28.
    assert status("stopped", "1", 18) == -signal.SIGTERM
    assert status("stopped", "both", 7) == -signal.SIGTERM
    saved = torch.load(tmp_path / "stopped" / "last.pt", weights_only=True)
    assert [one["step"] for one in saved["processes"]] == [12, 12]
    assert status("stopped", "none", 0) == 0
    for name in ("best.safetensors", "history.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("epochs", ["3", pytest.param("13", marks=pytest.mark.long)])
def test_every_method_learns_the_same_in_two_processes(small_phantom, tmp_path, epochs):
    """At the same global batch, whatever its losses look at, and with norms over the batch."""
    script = tmp_path / "train.py"
    script.write_text(EVERY_METHOD)
    for processes in ("1", "2"):
        completed([sys.executable, str(script), str(small_phantom.root), str(tmp_path), processes, epochs])
    found = sorted(path.name.removesuffix("-1.safetensors") for path in tmp_path.glob("*-1.safetensors"))
    assert {"pretrain", "fair_diagnosis", "faap", "adversarial_debiasing", "group_dro"} <= set(found)
    for name in found:
        one, two = (load_file(tmp_path / f"{name}-{processes}.safetensors") for processes in "12")
        for key, value in one.items():
            assert float((two[key] - value).abs().max()) <= 1e-5, (name, key)
