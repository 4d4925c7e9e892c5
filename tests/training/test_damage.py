"""Stages whose files a power cut or a disk has damaged: named, set aside, trained again to the same."""

import json
import shutil

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fairdx.core.errors import InputError
from fairdx.methods.base import Player, Stage
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.training.checkpoint import read_finished
from fairdx.training.fit import fit

EXACT = TrainerSettings(device="cpu", precision="fp32", shift=0)
EPOCHS = 3


class InterruptedHereError(Exception):
    pass


class Toy:
    """A stage of one linear model, which can be interrupted."""

    def __init__(self, images, interrupt_at=None):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2))
        self.images, self.batches, self.interrupt_at = images, 0, interrupt_at

    def loss(self, batch, _shared):
        self.batches += 1
        if self.batches == self.interrupt_at:
            raise InterruptedHereError
        return {"total": cross_entropy(self.model(batch.image), batch.label)}

    def fit(self, folder):
        stage = Stage(
            name="toy",
            modules={"model": self.model},
            players=(Player("model", ("model",), self.loss, 1e-2),),
            epochs=EPOCHS,
            batch_size=16,
            logits=self.model,
            choose="last",
            config={},
            average=("model",),
        )
        fabric = make_fabric(EXACT)
        fit(stage, self.images, fabric=fabric, settings=EXACT, seed=0, folder=folder, resume=True)
        return {key: value.clone() for key, value in self.model.state_dict().items()}


@pytest.fixture(scope="module")
def images(small_phantom):
    return TaskImages(small_phantom, small_phantom.task())


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A finished stage and its weights."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, Toy(images).fit(folder)


@pytest.fixture(scope="module")
def begun(images, tmp_path_factory):
    """A stage that was interrupted in its third epoch."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(InterruptedHereError):
        Toy(images, interrupt_at=10).fit(folder)
    return folder


DAMAGE = {
    "zeros": lambda data: b"\0" * len(data),
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a flipped bit": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "a byte more": lambda data: data + b"\0",
    "an empty list": lambda data: b"[]",
}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["best.safetensors", "history.json"])
def test_a_damaged_stage_is_trained_again(images, whole, tmp_path, caplog, name, damage, sealed):
    folder, weights = tmp_path / "stage", whole[1]
    shutil.copytree(whole[0], folder)
    path = folder / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    if not sealed:  # as an earlier version left it
        (folder / f"{name}.sha256").unlink()
        if damage in ("a flipped bit", "a byte more"):
            pytest.skip("what nothing vouches for may be anything")
    with pytest.raises(InputError, match=str(path)):
        read_finished(folder)
    toy = Toy(images)
    found = toy.fit(folder)
    assert toy.batches == 4 * EPOCHS
    assert str(path) in caplog.text
    assert "set aside as history.json.broken" in caplog.text
    torch.testing.assert_close(found, weights, rtol=0, atol=0)
    again = Toy(images)
    torch.testing.assert_close(again.fit(folder), weights, rtol=0, atol=0)
    assert again.batches == 0


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_starts_the_stage_again(images, whole, begun, tmp_path, caplog, damage):
    folder = tmp_path / "stage"
    shutil.copytree(begun, folder)
    path = folder / "last.pt"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    toy = Toy(images)
    torch.testing.assert_close(toy.fit(folder), whole[1], rtol=0, atol=0)
    assert toy.batches == 4 * EPOCHS
    assert f"{path} is damaged" in caplog.text


def test_an_intact_checkpoint_goes_on(images, whole, begun, tmp_path, caplog):
    shutil.copytree(begun, tmp_path / "stage")
    toy = Toy(images)
    torch.testing.assert_close(toy.fit(tmp_path / "stage"), whole[1], rtol=0, atol=0)
    assert toy.batches == 4
    assert not caplog.records


def test_a_checkpoint_that_lacks_something_is_named(images, whole, begun, tmp_path, caplog):
    shutil.copytree(begun, tmp_path / "stage")
    path = tmp_path / "stage" / "last.pt"
    state = torch.load(path, weights_only=True)
    del state["average"]
    torch.save(state, path)
    (tmp_path / "stage" / "last.pt.sha256").unlink()
    torch.testing.assert_close(Toy(images).fit(tmp_path / "stage"), whole[1], rtol=0, atol=0)
    assert f"{path} is damaged: it lacks average" in caplog.text


def test_weights_of_another_stage_are_named(images, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "stage")
    toy = Toy(images)
    toy.model.append(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"best\.safetensors does not fit this stage .*: delete it"):
        toy.fit(tmp_path / "stage")


def test_weights_on_a_shared_disk_can_be_read_by_others(whole):
    for path in whole[0].iterdir():
        assert path.stat().st_mode & 0o044 == 0o044


def test_the_records_are_plain(whole):
    assert [record["epoch"] for record in json.loads((whole[0] / "history.json").read_text())] == [0, 1, 2, 3]
