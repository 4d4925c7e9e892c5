"""A run says where its masks do not bring the model to the corrected score, and what is no number."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from fairdx.core.errors import InputError
from fairdx.runs.reached import short_of
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings

SETTINGS = (
    "model.source=memory:Network",
    "method.name=corrector",
    "method.weights=[20.0]",
    "evaluation.replicates=20",
    "evaluation.true_effect_patients=0",
    "trainer.precision=fp32",
)


class Network(nn.Module):
    """Random weights; `deaf`: no slope, as with 8-bit activations. `lost`: mean of one without numbers."""

    def __init__(self, *, deaf=False, lost=-1.0):
        super().__init__()
        torch.manual_seed(0)
        self.deaf, self.lost = deaf, lost
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.head = nn.Linear(32, 2)
        nn.init.normal_(self.head.weight, std=5)

    def forward(self, image):
        embedding = self.body(image.detach() + 0 * image if self.deaf else image)
        lost = (image.mean((1, 2, 3)) - self.lost).abs() < 1e-6
        return self.head(torch.where(lost[:, None], torch.nan, embedding))


def settings(dataset, *more):
    return load_settings(None, (*SETTINGS, f"data.root={dataset.root}", *more))


def test_masks_that_fall_short_are_counted_and_said(small_phantom, tmp_path, caplog):
    """A network without a slope has no mask; one with a slope is moved all the way."""
    notes = {}
    for deaf in (True, False):
        folder = tmp_path / str(deaf)
        given = settings(small_phantom, "method.realise=true", "method.realise_levels=4")
        run(given, folder, network=Network(deaf=deaf))
        notes[deaf] = [
            one for one in json.loads((folder / "results.json").read_text())["notes"] if "mask" in one
        ]
    assert not notes[False]
    assert "not even half of the way" in notes[True][0]
    assert notes[True][0] in caplog.text


def test_what_falls_short():
    own = np.array([0.0, 0.0, 1.0, -2.0, 2.0])  # their standard deviation is 1.3
    wanted = own + np.array([1.0, 1.0, 0.0, -1.0, 0.05])
    came = wanted + np.array([0.4, -0.6, 0.1, 0.9, -0.05])
    assert short_of(own, wanted, came).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("split", "words"), [("train", "embedding for 1 of 64 training"), ("validation", "score")]
)
def test_what_is_no_number_names_its_image(small_phantom, tmp_path, split, words):
    """Stopped before the fit: by the first look at validation images, or when training images are read."""
    table = small_phantom.table
    row = int(np.flatnonzero(table["split"] == split)[0])
    lost = float(small_phantom.read(np.array([row])).mean() / 255)
    with pytest.raises(InputError, match=f"no number as its {words}.* the first {table['image'].iloc[row]}:"):
        run(settings(small_phantom), tmp_path, network=Network(lost=lost), beside_vanilla=False)
