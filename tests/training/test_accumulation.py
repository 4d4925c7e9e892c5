"""Several batches for one step; that every method learns the same by them is in test_processes."""

from copy import deepcopy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import Player, Stage
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, isolated_rng, make_fabric
from fairdx.runs.files import decisive
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings
from fairdx.training.accumulation import Accumulated
from fairdx.training.fit import fit

SETTINGS = TrainerSettings(device="cpu", precision="fp32", shift=2)


class Seen(NamedTuple):
    logit: Tensor
    moved: Tensor
    embedding: Tensor | None = None


class Network(nn.Module):
    """A classifier that draws random numbers in its pass."""

    def __init__(self, *middle):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(1024, 8), *middle, nn.Dropout(0.2), nn.Linear(8, 2)
        )

    def forward(self, image):
        return self.layers(image)

    def seen(self, batch):
        return Seen(self(batch.image), batch.image.detach().flatten(1).mean(1))


def stage_of(network, **changes):
    def loss(batch, seen):
        # No mean over images: what one of them adds depends on the others.
        spread = seen.logit.std(0).sum() + (seen.moved * seen.logit[:, 0]).mean()
        return {"total": cross_entropy(seen.logit, batch.label) + spread}

    options = {
        "name": "toy",
        "modules": {"network": network},
        "players": (Player("network", ("network",), loss, 1e-2, through_shared=True),),
        "epochs": 3,
        "batch_size": 8,
        "accumulate_grad_batches": 2,
        "logits": network,
        "choose": "last",
        "config": {},
        "shared": network.seen,
    }
    return Stage(**{**options, **changes})


@pytest.fixture(scope="module")
def images(small_phantom):
    return TaskImages(small_phantom, small_phantom.task())


def train(stage, images, **options):
    fabric = make_fabric(SETTINGS)
    return fit(stage, images, fabric=fabric, settings=SETTINGS, seed=0, **options)


def test_gradients_are_those_of_the_whole_whatever_is_drawn_at_random(images):
    batch = Batch(*(part[:16] for part in images.batch(images.task.indices("train"), torch.device("cpu"))))
    network, whole = Network().train(), Network().train()
    loss = stage_of(network).players[0].loss
    with isolated_rng(1):
        accumulated = Accumulated(network.seen, batch, 4)
        assert not any(one.grad_fn for one in accumulated.rows if one is not None)
        drawn = torch.rand(2)
        loss(batch, accumulated.rows)["total"].backward()
        accumulated.backward()
        after = torch.rand(2)
    with isolated_rng(1):
        parts = [whole.seen(Batch(*(one[start : start + 4] for one in batch))) for start in range(0, 16, 4)]
        rows = Seen(torch.cat([one.logit for one in parts]), torch.cat([one.moved for one in parts]))
        assert torch.equal(drawn, torch.rand(2))
        loss(batch, rows)["total"].backward()
        assert torch.equal(after, torch.rand(2))
    for own, expected in zip(network.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad, rtol=1e-5, atol=1e-7)


def test_an_interrupted_stage_goes_on_to_the_same_weights(images, tmp_path):
    class InterruptedHereError(Exception):
        pass

    def interrupted(done):
        if done == 6 / 12:  # in the second of three epochs of four steps
            raise InterruptedHereError

    whole, again = Network(), Network()
    expected = train(stage_of(whole), images)
    often = SETTINGS.model_copy(update={"save_minutes": 1e-9})
    with pytest.raises(InterruptedHereError):
        fit(
            stage_of(Network(), progress=interrupted),
            images,
            fabric=make_fabric(often),
            settings=often,
            seed=0,
            folder=tmp_path,
        )
    heard = []
    assert train(stage_of(again, progress=heard.append), images, folder=tmp_path, resume=True) == expected
    assert heard == [step / 12 for step in range(6, 12)]
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_what_would_come_out_otherwise_is_refused(images):
    with pytest.raises(InputError, match=r"`toy` cannot accumulate.*batch norm `network\.layers\.2`"):
        train(stage_of(Network(nn.BatchNorm1d(8))), images)
    with pytest.raises(InputError, match=r"`toy` cannot accumulate.*no shared forward pass"):
        train(stage_of(Network(), shared=None), images)
    with pytest.raises(InputError, match="a full batch of 72 training images"):
        train(stage_of(Network(), accumulate_grad_batches=9), images)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("model.accumulate_grad_batches=2",), "`pretrain` cannot accumulate.*batch norm"),
        # Before stage 1 is trained, not after it.
        (
            ("method.name=reweighting", "method.accumulate_grad_batches=2"),
            "`reweighting` cannot accumulate.*batch norm `encoder",
        ),
        (
            ("method.name=faap", "method.accumulate_grad_batches=5"),
            "`method.batch_size` is 16, taken 5 times for a step, and .*: give 12 or less",
        ),
    ],
)
def test_a_run_says_so_before_it_trains(small_phantom, tmp_path, changes, told):
    given = (f"data.root={small_phantom.root}", "model.batch_size=16", "method.batch_size=16")
    own = ("trainer.device=cpu", "trainer.precision=fp32", "model.encoder=test_resnet")
    with pytest.raises(InputError, match=told):
        run(load_settings(None, (*given, *own, *changes)), tmp_path)
    assert not list(tmp_path.glob("stages/**/*.safetensors"))


def test_what_earlier_versions_trained_keeps_its_key():
    values = load_settings(None).model_dump(mode="json")
    older = deepcopy(values)
    del older["trainer"]["nodes"], older["method"]["accumulate_grad_batches"]
    del older["model"]["accumulate_grad_batches"]
    assert decisive(values) == decisive(older)
    for change in ("method.accumulate_grad_batches=2", "trainer.nodes=2"):
        assert decisive(load_settings(None, (change,)).model_dump(mode="json")) != decisive(older)
