"""`check-model`: a contract that does not fit is found, and the one that does is named."""

import json
import shutil

import numpy as np
import pytest
import torch
import typer
from torch import nn

from fairdx.commands.check_model import _verdict, add_check_model
from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.models.sources import GivenModel
from fairdx.runs.check import NO_BARS, _usual, _without_bars, check_model
from fairdx.runs.run import run
from fairdx.runs.settings import build_settings


class Bright(nn.Module):
    """Takes 0 to 255 and says how bright the lower left is: a weak, honest sign of the phantom's finding."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[0.02, -0.01]]))
            self.fc.bias.fill_(-1.5)

    def forward(self, image):
        near_saturation = image.clamp(0, 255)
        parts = torch.stack(
            [near_saturation[..., 20:, :].mean((1, 2, 3)), near_saturation.mean((1, 2, 3))], 1
        )
        return self.fc(parts)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    settings = PhantomSettings(size=32, train=64, validation=600, test=64, conspicuity=0.8)
    return prepare(Phantom(settings).source(), tmp_path_factory.mktemp("check") / "set").root


def given(**contract):
    return GivenModel(source="memory:Bright", contract={"channels": 1, **contract})


def test_a_contract_that_fits_is_said_to_fit_and_what_it_sees_is_told(root):
    found = check_model(given(high=255.0), root, network=Bright())
    assert found.fits is (found.given.auroc >= found.usual[0].auroc - 0.01)
    best = dict(_usual(given().contract, 1))[found.usual[0].name]
    assert check_model(given(**best.model_dump(exclude={"channels"})), root, network=Bright()).fits
    assert (found.split, found.images) == ("validation", 600)
    assert (found.layer, found.features, found.trainable) == ("fc", 2, True)
    assert found.gradient == 1.0
    assert found.onnx_difference is None
    assert found.findings
    same = {one.name: one.auroc for one in found.usual}
    assert same["0 to 255"] == found.given.auroc
    json.dumps(found.as_json(), allow_nan=False)


def test_a_range_that_is_wrong_is_found_by_another_that_is_right(root):
    """White for black saturates the clamp; the right range is among the usual ones."""
    found = check_model(given(low=255.0, high=-5000.0), root, network=Bright())
    assert not found.fits
    assert found.usual[0].auroc > found.given.auroc + 0.01


def test_a_model_without_gradients_is_found(root):
    class Steps(nn.Module):
        def forward(self, image):
            return (image.mean((1, 2, 3)) > 0.5).float()[:, None]

    found = check_model(given(embedding=None), root, network=Steps())
    assert found.gradient == 0.0
    assert found.layer is None


def test_black_bars_are_cut_off_and_images_without_are_left():
    rng = np.random.default_rng(0)
    pixels = rng.integers(50, 255, (10, 1, 16, 16), dtype=np.uint8)
    assert _without_bars(pixels) is None
    barred = pixels.copy()
    barred[:, :, :4] = 0
    barred[:, :, 12:] = 1  # all but black
    cut = _without_bars(barred)
    assert cut.min() >= 50
    assert cut.shape == pixels.shape
    assert _without_bars(np.zeros_like(pixels)) is None  # nothing to cut to


def test_bars_are_among_what_is_tried(root, tmp_path):
    from fairdx.data.base import PreparedDataset

    dataset = PreparedDataset.open(root)
    pixels = np.load(dataset.root / "images.npy").copy()
    pixels[:, :, :8] = 0
    from fairdx.models.runtime import TrainerSettings, make_fabric
    from fairdx.models.sources import load_given
    from fairdx.runs.check import _try_contracts

    model = load_given(given(high=255.0), classes=2, size=32, network=Bright())
    fabric = make_fabric(TrainerSettings(precision="fp32"))
    truth = np.arange(20) % 2
    _, _, usual = _try_contracts(model, model.contract, pixels[:20], truth, fabric)
    assert NO_BARS in {one.name for one in usual}


def test_no_images_of_a_class_is_said(root):
    with pytest.raises(InputError, match="nonsense"):
        check_model(given(), root, label="nonsense", network=Bright())


def test_a_full_disk_is_one_sentence_and_the_old_file_is_kept(root, tmp_path, full_disk, monkeypatch):
    written = tmp_path / "out" / "found.json"
    written.parent.mkdir()
    written.write_text("what was there")
    found = check_model(given(high=255.0), root, network=Bright())
    monkeypatch.setattr("fairdx.runs.check.check_model", lambda *_, **__: found)
    app = typer.Typer()
    add_check_model(app)
    command = typer.main.get_command(app)
    with full_disk(written.parent):
        command.main([str(root), str(root), "--json", str(written)], standalone_mode=False)
    assert written.read_text() == "what was there"


def test_images_that_are_not_what_was_prepared_are_refused(root, tmp_path):
    shutil.copytree(root, tmp_path / "set")
    with (tmp_path / "set" / "images.npy").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\x07\x08")
    with pytest.raises(InputError, match="is not what was prepared"):
        check_model(given(), tmp_path / "set", network=Bright())


def test_what_was_found_is_not_written_over_the_model_or_the_data(root, tmp_path, here):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"precious")
    for out in (model, root / "table.parquet"):
        before = out.read_bytes()
        told = here("check-model", model, root, "--json", out)
        assert (told.returncode, out.read_bytes()) == (2, before)
        assert "would overwrite what is read" in told.stderr


def test_a_file_whose_model_is_no_table_is_refused(root, tmp_path, here):
    (tmp_path / "a.toml").write_text("model = 3\n")
    told = here("check-model", tmp_path / "a.toml", root)
    assert told.returncode == 2
    assert "has no `source`" in told.stderr


class Lost(nn.Module):
    """No number for images brighter than a level."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def forward(self, image):
        mean = image.mean((1, 2, 3))
        return torch.stack([mean, torch.sqrt(self.level - mean)], 1)


def test_images_of_which_the_model_gives_no_number_are_counted(root):
    dataset = PreparedDataset.open(root)
    mean = dataset.read(dataset.task().indices("validation")).mean((1, 2, 3)) / 255
    level = float(np.sort(mean)[400:402].mean())
    bright = (mean > level).sum()
    assert 150 < bright < 250
    found = check_model(given(), root, network=Lost(level))
    assert found.lost == bright
    assert found.calibration is None
    json.dumps(found.as_json(), allow_nan=False)
    assert f"no number as its score for {bright} of 600 images" in _verdict(found)


def test_a_run_says_of_how_many_images_the_model_gives_no_number(root, tmp_path):
    values = {
        "data": {"root": str(root)},
        "model": {"source": "memory:Lost", "contract": {"channels": 1}},
        "method": {"name": "vanilla"},
        "evaluation": {"replicates": 20, "true_effect_patients": 0},
        "trainer": {"precision": "fp32", "device": "cpu"},
    }
    with pytest.raises(InputError, match=r"`vanilla`: the model gives no number as its score for \d+ of 600"):
        run(build_settings(values, where="test"), tmp_path / "run", network=Lost(0.2))
