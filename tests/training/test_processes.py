"""Two processes on one machine: gloo on the CPU stands in for several GPUs, and for several nodes.

Started as a script, this file is what both processes do.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fairdx.cli import main
from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.methods import METHODS, Spec
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.models import loading, scoring
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.models.scoring import diagnose, predict
from fairdx.runs.together import check_same_data, check_together
from fairdx.training.fit import fit

SPEC = Spec(1, 32, 2, 2, counts=((20, 12), (14, 18)))
SETTINGS = TrainerSettings(device="cpu", precision="fp32", shift=0)
BATCH = 16
"""Images of a step, in all processes: two steps an epoch."""
WAYS = {"norms": ("test_resnet", 1), "parts": ("test_convnext", 2)}
"""An encoder, and how many batches of a process make a step: with batch norms only one can."""
IMAGES = 47
"""An odd number of images to score."""

needs_gloo = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no torch.distributed"
)


@contextmanager
def double_precision():
    """In single precision Adam makes a step of the rounding of a gradient that is zero."""

    def exact(pixels, device):
        return torch.from_numpy(pixels).to(device).double() / 255

    before = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        torch.set_default_dtype(torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(loading, "to_unit_range", exact)
        patch.setattr(scoring, "to_unit_range", exact)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def stages(encoder, epochs, batch_size, batches):
    """Every stage that learns in steps, by the name of its method."""
    own = {
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate_grad_batches": batches,
        "learning_rate": 1e-4,
        "width": 4,
    }

    def config_of(kind):
        return kind(**{key: value for key, value in own.items() if key in kind.model_fields})

    first = config_of(PretrainingConfig).model_copy(update={"encoder": encoder})
    yield "pretrain", pretraining(first, SPEC, seed=0)[1]
    for name, method in METHODS.items():
        model = pretraining(first, SPEC, seed=0)[0].eval().requires_grad_(False)
        for stage in method.build(config_of(method.config_class), SPEC, model, seed=0).stages():
            if stage.players:
                yield name, stage


def trained(images, fabric, encoder, epochs, batches):
    """What every stage learns."""
    size = BATCH // fabric.world_size // batches
    for name, stage in stages(encoder, epochs, size, batches):
        fit(replace(stage, choose="last"), images, fabric=fabric, settings=SETTINGS, seed=0)
        weights = {
            f"{module}.{key}": value.contiguous()
            for module in stage.learning
            for key, value in stage.modules[module].state_dict().items()
        }
        yield name, weights


def scored(images, fabric):
    """Scores of the first images in blocks of several sizes, and how many were looked at; their diagnosis."""
    model = pretraining(PretrainingConfig(encoder="test_resnet"), SPEC, seed=0)[0].eval()
    indices, looked = np.arange(IMAGES), []

    def logits(image):
        looked.append(len(image))
        return model(image).logit

    for size in (4, 16, 512):  # twelve blocks, three, and one for two processes
        looked.clear()
        yield f"scores-{size}", predict(logits, images, indices, fabric, batch_size=size)
        yield f"looked-{size}", np.array(sum(looked))
    seen = diagnose(model, images, indices, fabric)
    yield "embedding", seen.embedding
    yield "logit", seen.logit


def told(work):
    """What a process says, or does, where not all can go on."""
    try:
        work()
    except InputError as error:
        return str(error)
    except SystemExit as ended:
        return f"exit {ended.code}"
    return "nothing"


def by_srun(rank):
    """What srun tells a task of a job on two nodes."""
    tasks = {"SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "fairdx"}
    place = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}
    return {**tasks, **place, "MASTER_ADDR": "127.0.0.1"}


def on_two_nodes(root, out):
    """The arguments of `fairdx` for a run on two nodes."""
    changes = (
        f"data.root={root}",
        *("trainer.nodes=2", "trainer.device=cpu", "trainer.precision=fp32", "trainer.shift=1"),
        *("model.encoder=test_resnet", "model.epochs=1", "model.batch_size=8"),
        *("method.epochs=1", "method.batch_size=4", "method.accumulate_grad_batches=2", "method.width=4"),
        *("evaluation.replicates=20", "evaluation.true_effect_patients=16"),
    )
    config = out.with_suffix(".toml")
    config.write_text("")
    return ["run", str(config), "--out", str(out), *(part for one in changes for part in ("--set", one))]


def one_of_two(root, folder, epochs):
    """What this file does as a script."""
    fabric = make_fabric(SETTINGS.model_copy(update={"processes": 2}))
    dataset = PreparedDataset.open(root)
    images, rank = TaskImages(dataset, dataset.task()), fabric.global_rank
    np.savez(folder / f"scored-{rank}.npz", **dict(scored(images, fabric)))
    own = folder / f"disk-{rank}"
    own.mkdir()
    said = [
        told(lambda: check_together(fabric, {"seed": 0}, folder)),
        told(lambda: check_together(fabric, {"seed": rank}, folder)),
        told(lambda: check_together(fabric, {"seed": 0}, own)),
        told(lambda: check_same_data(fabric, "same", root)),
        told(lambda: check_same_data(fabric, f"of {rank}", root)),
    ]
    (folder / f"said-{rank}.json").write_text(json.dumps(said))
    with double_precision():
        for way, (encoder, batches) in WAYS.items():
            for name, weights in trained(images, fabric, encoder, epochs, batches):
                save_file(weights, folder / f"{way}-{name}-{rank}.safetensors")
    os.environ.update(by_srun(rank))
    sys.argv = ["fairdx", *on_two_nodes(root, folder / "run")]
    main()


class Both(NamedTuple):
    """What two processes left."""

    folder: Path
    epochs: int
    said: str


def completed(*commands, environments=({},)):
    """Runs commands side by side, on one thread for each process, and shows what they said if one fails."""
    running = [
        subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **changes},
        )
        for command, changes in zip(commands, environments, strict=True)
    ]
    try:
        said = [one.communicate(timeout=900) for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()
    for one, (_, errors) in zip(running, said, strict=True):
        assert one.returncode == 0, errors
    return [printed for printed, _ in said]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    phantom = Phantom(PhantomSettings(size=32, train=32, validation=16, test=32, seed=3))
    dataset = prepare(phantom.source(), tmp_path_factory.mktemp("phantom") / "set")
    return TaskImages(dataset, dataset.task())


@pytest.fixture(scope="module", params=["2", pytest.param("26", marks=pytest.mark.long)])
def both(request, images, tmp_path_factory):
    """The folder in which two processes left what they did, for how many epochs, and what they said."""
    folder = tmp_path_factory.mktemp("both")
    (said,) = completed([sys.executable, __file__, images.dataset.root, folder, request.param])
    return Both(folder, int(request.param), said)


@needs_gloo
@pytest.mark.parametrize("way", list(WAYS))
def test_every_method_learns_the_same_in_two_processes(both, images, one_thread, way):
    """At the same global batch, whatever losses look at: with batch norms, and batch by batch without."""
    with double_precision():
        alone = dict(trained(images, make_fabric(SETTINGS), WAYS[way][0], both.epochs, 1))
    assert {"pretrain", "fair_diagnosis", "faap", "adversarial_debiasing", "group_dro"} <= set(alone)
    for name, weights in alone.items():
        for rank in (0, 1):
            found = load_file(both.folder / f"{way}-{name}-{rank}.safetensors")
            for key, value in weights.items():
                assert float((found[key] - value).abs().max()) <= 1e-5, (name, key)


@needs_gloo
def test_two_processes_score_each_image_once_and_bit_for_bit_as_one(both, images, one_thread):
    alone = dict(scored(images, make_fabric(SETTINGS)))
    found = [np.load(both.folder / f"scored-{rank}.npz") for rank in (0, 1)]
    for name, expected in alone.items():
        for one in found:
            if not name.startswith("looked"):
                assert np.array_equal(one[name], expected), name
    assert [int(alone[f"looked-{size}"]) for size in (4, 16, 512)] == [IMAGES] * 3
    # Of twelve blocks, of three (two of 16 and one of 15, which both then take), and of one.
    assert [int(found[0][f"looked-{size}"]) for size in (4, 16, 512)] == [24, 31, IMAGES]
    assert [int(found[1][f"looked-{size}"]) for size in (4, 16, 512)] == [23, 31, IMAGES]


@needs_gloo
def test_processes_that_do_not_belong_together_stop_together(both):
    first, second = (json.loads((both.folder / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert second == ["nothing", "exit 0", "exit 0", "nothing", "exit 0"]
    assert [first[0], first[3]] == ["nothing", "nothing"]
    assert first[1] == "this process was started with other settings than the first one"
    assert first[2].startswith(f"{both.folder / 'disk-1'} is not what the first process writes to")
    assert first[4].endswith("holds other data than the first process reads")
    assert not list(both.folder.glob("**/.shared*"))


@needs_gloo
def test_a_run_on_two_nodes_reports_once(both):
    assert both.said.count("report.html") == 1
    results = json.loads((both.folder / "run" / "results.json").read_text())
    assert results["made_with"]["processes"] == 2


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.long
@needs_gloo
@pytest.mark.parametrize("starter", ["srun", "torchrun"])
def test_two_nodes_are_started_as_clusters_do(images, tmp_path, starter):
    out, port = tmp_path / "out", free_port()
    options = on_two_nodes(images.dataset.root, out)
    if starter == "srun":
        environments = [{**by_srun(rank), "MASTER_PORT": port} for rank in (0, 1)]
        commands = [[sys.executable, "-m", "fairdx", *options]] * 2
    else:
        environments = [{}, {}]
        commands = [
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}"),
                *("--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"),
                *("-m", "fairdx", *options),
            ]
            for rank in (0, 1)
        ]
    first, second = completed(*commands, environments=environments)
    assert first.count("report.html") == 1
    assert second == ""
    assert json.loads((out / "results.json").read_text())["made_with"]["processes"] == 2


STOPPED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from typing import NamedTuple
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
    from fairdx.data.base import PreparedDataset
    from fairdx.models.loading import TaskImages
    from fairdx.methods.base import Player, Stage
    from fairdx.models.runtime import TrainerSettings, make_fabric
    from fairdx.training import fit as loop

    loop.CHECK_EVERY = 4
    root, folder, asked = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    at, batches = int(sys.argv[4]), int(sys.argv[5])
    settings = TrainerSettings(device="cpu", precision="fp32", shift=2, processes=2)
    fabric = make_fabric(settings)
    dataset = PreparedDataset.open(root)
    torch.manual_seed(0)
    # Running statistics count in what a process saves; they rule out that several batches make a step.
    norm = nn.BatchNorm2d(2) if batches == 1 else nn.GroupNorm(1, 2)
    model = nn.Sequential(nn.Conv2d(1, 2, 5, 4), norm, nn.Dropout(0.2), nn.Flatten(), nn.Linear(98, 2))
    other = nn.Linear(2, 2)

    class Seen(NamedTuple):
        logit: torch.Tensor

    def logit(batch, shared):
        return model(batch.image) if shared is None else shared.logit

    def loss(batch, shared):
        return {"total": cross_entropy(logit(batch, shared), batch.label)}

    def guess(batch, shared):
        return {"total": cross_entropy(other(logit(batch, shared).detach()), batch.group)}

    steps = 0
    def progress(done):
        global steps
        steps += 1
        if steps == at and asked in ("both", str(fabric.global_rank)):
            os.kill(os.getpid(), signal.SIGTERM)

    players = (
        Player("other", ("other",), guess, 1e-2),
        Player("model", ("model",), loss, 1e-2, through_shared=batches > 1),
    )
    stage = Stage(
        name="toy", modules={"model": model, "other": other}, players=players, epochs=3,
        batch_size=2 // batches, accumulate_grad_batches=batches, logits=model,
        shared=None if batches == 1 else lambda batch: Seen(model(batch.image)),
        choose="last", config={}, average=("model",), progress=progress,
    )
    images = TaskImages(dataset, dataset.task())
    loop.fit(stage, images, fabric=fabric, settings=settings, seed=0, folder=folder, resume=True)
    """
)


@pytest.mark.long
@needs_gloo
@pytest.mark.parametrize("batches", ["1", "2"])
def test_two_processes_stop_at_the_same_step_and_go_on_to_the_same_weights(
    small_phantom, tmp_path, monkeypatch, batches
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / "train.py"
    script.write_text(STOPPED)

    def status(folder, asked, at):
        command = [sys.executable, script, small_phantom.root, tmp_path / folder, asked, str(at), batches]
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


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
