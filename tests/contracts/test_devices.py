"""Every method on a GPU, without one: tensors that have a device and a shape and nothing else.

torch refuses operations across devices on them as it does on real ones, so a tensor that a method forgot
on the CPU is found.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fairdx.data.base import Batch
from fairdx.methods import METHODS, Spec
from fairdx.methods.base import Stage
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.models import realised
from fairdx.models.diagnosis import Diagnosis
from fairdx.models.loading import TaskImages
from fairdx.models.realised import Realisation
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.training.fit import fit
from fairdx.training.optimization import learning

FIRST = PretrainingConfig(encoder="test_resnet", epochs=1, batch_size=16)
SPEC = Spec(1, 32, 2, 2, counts=((20, 12), (14, 18)))


@contextmanager
def on_gpu(*modules):
    """Has modules, and what is made within the block on "cuda", on a GPU that is not there."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (part for given in modules for part in given.modules()):
            for own in (module._parameters, module._buffers):
                for key, value in own.items():
                    if value is not None:
                        there = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                        is_weight = isinstance(value, nn.Parameter)
                        own[key] = nn.Parameter(there, requires_grad=False) if is_weight else there
        yield


def batch():
    codes = torch.zeros(16, dtype=torch.int64, device="cuda")
    return Batch(torch.empty(16, 1, 32, 32, device="cuda"), codes, codes, codes)


def built(name):
    method = METHODS[name]
    model, _ = pretraining(FIRST, SPEC, seed=0)
    return method.build(method.config_class(), SPEC, model.eval().requires_grad_(False), seed=0)


def play(stage):
    """What the loop does with a batch."""
    given = batch()
    assert stage.logits(given.image).device.type == "cuda"
    shared = None if stage.shared is None else stage.shared(given)
    for player in stage.players:
        with learning(player.modules, stage.modules):
            for value in player.loss(given, shared).values():
                assert value.device.type == "cuda"


def test_tensors_on_two_devices_are_found():
    layer = nn.Linear(4, 2)
    with on_gpu(layer), pytest.raises(RuntimeError, match="device"):
        layer(torch.empty(3, 4))


def test_stage_1_stays_on_its_device():
    _, stage = pretraining(FIRST, SPEC, seed=0)
    with on_gpu(*stage.modules.values()):
        play(stage)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_stays_on_its_device(name):
    method = built(name)
    stages = method.stages()
    with on_gpu(method.fair, method.model, *(m for stage in stages for m in stage.modules.values())):
        for stage in stages:
            play(stage)
        assert method.fair(batch().image).device.type == "cuda"
        if method.fair.correction is not None:
            seen = method.fair.plain(batch().image)
            assert {part.device.type for part in seen.parts().values()} == {"cuda"}
            assert method.fair.corrected(seen).device.type == "cuda"


@pytest.mark.parametrize("views", ["mirror", "turns"])
def test_views_stay_on_their_device(views):
    method = built("corrector")
    method.fair.views = views
    with on_gpu(method.fair):
        assert method.fair(batch().image).device.type == "cuda"


def test_a_realised_mask_stays_on_its_device(monkeypatch):
    """Without the pass back, for which a GPU has to be there."""
    monkeypatch.setattr(realised, "_gradient", lambda model, image: (model(image), torch.empty_like(image)))
    # Its result would be kept, and is no tensor that later tests could use.
    monkeypatch.setattr(realised, "_order", realised._order.__wrapped__)
    monkeypatch.setattr(realised, "CHECKS", 1)  # how many images go on is not known of tensors without values
    method = built("corrector")
    method.fair.realisation = Realisation(1, 1)
    with on_gpu(method.fair):
        assert method.fair.masked(batch().image).device.type == "cuda"


class Placed(nn.Module):
    """A module that knows where it was sent."""

    place = "nowhere"

    def to(self, *args, **kwargs):
        self.place = str(args[0]) if args else self.place
        return self

    def cpu(self):
        return self.to("cpu")

    def forward(self, image):
        return image.flatten(1)[:, :2]


def test_what_is_fitted_to_features_is_where_they_are_and_comes_back(small_phantom):
    """Features are arrays in memory, whatever the device."""
    module, asked = Placed(), []

    def solve(train, validation):
        asked.append((module.place, type(train.logit), type(validation.logit)))

    stage = Stage(
        name="closed",
        modules={"correction": module},
        players=(),
        epochs=1,
        batch_size=1,
        logits=module,
        choose="last",
        config={},
        solve=solve,
        features=lambda image: Diagnosis(None, module(image)),
    )
    settings = TrainerSettings(device="cpu", precision="fp32")
    fabric = make_fabric(settings)
    images = TaskImages(small_phantom, small_phantom.task())
    fit(stage, images, fabric=fabric, settings=settings, seed=0)
    assert asked == [("cpu", np.ndarray, np.ndarray)]
    assert module.place == str(fabric.device)
