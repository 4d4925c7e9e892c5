"""What a frozen model makes of images is asked for once, whoever wants it, and in whichever order."""

import numpy as np
import pytest
import torch

from fairdx.models.loading import TaskImages
from fairdx.models.networks import Diagnoser, Encoder
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.models.statistics import Watched, find_maps
from fairdx.runs.seen import SeenImages

INDICES = np.array([3, 1, 8, 2])


class Counted(Diagnoser):
    """Counts the images that it is shown."""

    shown = 0

    def forward(self, image, edit=None):
        self.shown += len(image)
        return super().forward(image, edit)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Counted(Encoder("test_resnet", channels=1, size=32)).eval().requires_grad_(False)


@pytest.fixture
def maps(model):
    layers, _ = find_maps(model, channels=1, size=32)
    model.shown = 0
    return layers


@pytest.fixture
def reopened(small_phantom, model, tmp_path):
    images = TaskImages(small_phantom, small_phantom.task())
    fabric = make_fabric(TrainerSettings(device="cpu", precision="fp32"))
    return lambda: SeenImages(model, images, fabric, "k" * 64, tmp_path)


def test_maps_are_seen_in_the_same_pass_and_kept_for_others(reopened, model, maps):
    found = reopened().of("none", INDICES, maps)
    assert model.shown == 4
    seen = reopened()
    plain = seen.of("none", INDICES)
    again = seen.of("none", INDICES[:2], maps)
    assert model.shown == 4
    assert plain.statistics is None
    np.testing.assert_array_equal(plain.logit, found.logit)
    np.testing.assert_array_equal(again.statistics, found.statistics[:2])
    with torch.inference_mode():
        expected = Watched(model, maps)(seen.images.batch(INDICES, torch.device("cpu")).image)
    np.testing.assert_allclose(found.statistics, expected.statistics.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.embedding, expected.embedding.numpy(), atol=1e-6)


def test_who_wants_maps_later_or_others_gets_his_own(reopened, model, maps):
    seen = reopened()
    seen.of("none", INDICES)
    every, first = seen.of("none", INDICES, maps), seen.of("none", INDICES, maps[:1])
    assert model.shown == 12
    np.testing.assert_array_equal(first.statistics, every.statistics[:, : first.statistics.shape[1]])
    mirrored = seen.of("mirror", INDICES, maps)
    assert np.abs(mirrored.statistics - every.statistics).max() > 0
