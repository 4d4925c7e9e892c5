"""Averages over views, and masks along the gradient, on networks whose answers are known."""

import numpy as np
import pytest
import torch
from torch import nn

from fairdx.core.errors import InputError
from fairdx.models.corrections import Shift
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.fair import FairModel
from fairdx.models.realised import GREY, Realisation
from fairdx.models.scoring import predict_seen
from fairdx.models.views import averaged, views_of


class Corner(DiagnosisModel):
    """Looks at the upper left pixel of the first channel alone."""

    features = 1

    def forward(self, image, edit=None):
        del edit
        corner = image[:, 0, 0, 0]
        return Diagnosis(corner[:, None], torch.stack([0 * corner, corner], dim=1))


class Curved(DiagnosisModel):
    """A small network with a curvature; a gap of one logit is a small change of the image."""

    features = 6

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.SiLU())
        self.head = nn.Linear(6, 2)
        nn.init.normal_(self.head.weight, std=20)

    def forward(self, image, edit=None):
        del edit
        embedding = self.body(image).mean((2, 3))
        return Diagnosis(embedding, self.head(embedding))


def test_the_eight_views_are_the_turns_and_mirror_images_of_numpy():
    image = torch.rand(2, 3, 5, 5)
    found = {view.numpy().tobytes() for view in views_of(image, "turns")}
    square = image.numpy()
    wanted = {
        np.ascontiguousarray(np.rot90(turned, k, axes=(2, 3))).tobytes()
        for turned in (square, square[..., ::-1])
        for k in range(4)
    }
    assert found == wanted
    assert len(list(views_of(image, "mirror"))) == 2
    assert len(list(views_of(image, "none"))) == 1


def test_the_average_is_over_what_each_view_shows():
    image = torch.rand(4, 1, 3, 3)
    corners = image[:, 0][:, [0, 0, 2, 2], [0, 2, 0, 2]]
    for views, expected in (("turns", corners.mean(1)), ("mirror", corners[:, :2].mean(1))):
        seen = averaged(Corner(), image, views)
        torch.testing.assert_close(seen.logit[:, 1], expected)
        torch.testing.assert_close(seen.embedding[:, 0], expected)


def test_what_was_seen_is_scored_as_the_images_are():
    from fairdx.models.runtime import TrainerSettings, make_fabric
    from fairdx.models.scoring import Seen

    fair = FairModel(Curved(), correction=shift(0.7), views="turns").eval().requires_grad_(False)
    image = torch.rand(700, 3, 8, 8)  # more than one block
    with torch.inference_mode():
        plain = fair.plain(image)
        expected = fair(image).softmax(1).double().numpy()
    place = make_fabric(TrainerSettings(device="cpu", precision="fp32"))
    found = predict_seen(fair.corrected, Seen(plain.embedding.numpy(), plain.logit.numpy()), place)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def shift(size):
    """Adds so much to the log-odds, whatever the group."""
    correction = Shift(6, 2, 2)
    correction.shift[:, 1] = size
    return correction


@pytest.mark.parametrize("size", [-1.0, 0.3, 2.0])
def test_the_mask_brings_the_frozen_model_to_the_corrected_score_on_grey_levels(size):
    model = Curved().eval().requires_grad_(False)
    torch.manual_seed(1)
    image = torch.randint(0, 256, (6, 3, 32, 32)) / GREY
    fair = FairModel(model, correction=shift(size), realisation=Realisation(steps=3, levels=12))
    with torch.inference_mode():
        masked = fair.masked(image)
        odds, after = (logit[:, 1] - logit[:, 0] for logit in (model(image).logit, fair(image)))
    torch.testing.assert_close(after, odds + size, atol=0.05, rtol=0)
    levels = masked * GREY
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert (levels - image * GREY).abs().max() <= 12 + 1e-3
    assert masked.min() >= 0
    assert masked.max() <= 1
    stored = levels.round().to(torch.uint8)  # as a PNG has it
    with torch.inference_mode():
        torch.testing.assert_close(fair.judge(stored / GREY), fair.judge(masked), atol=1e-4, rtol=0)


class Parabola(DiagnosisModel):
    """What an image comes to falls behind what its gradient says, as with a network."""

    features = 1

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, image, edit=None):
        del edit
        self.asked += len(image)
        grey = image.mean((1, 2, 3))
        odds = 400 * grey - 20_000 * (grey - 0.4).clamp_min(0).square()
        return Diagnosis(grey[:, None], torch.stack([0 * odds, odds], dim=1))


@pytest.mark.parametrize(("size", "passes"), [(0.5, 2), (1.5, 3)])
def test_two_looks_along_a_gradient_meet_a_parabola(size, passes):
    model = Parabola()
    image = torch.full((3, 1, 64, 64), 102 / GREY)  # 0.4
    correction = Shift(1, 2, 2)
    correction.shift[:, 1] = size
    fair = FairModel(model, correction=correction, realisation=Realisation())
    masked = fair.masked(image)
    assert model.asked == 3 * passes  # the gradient, and looks
    after = fair.judge(masked)
    torch.testing.assert_close(after[:, 1], torch.full((3,), 160.0 + size), atol=0.05, rtol=0)


def test_a_correction_of_nothing_moves_no_pixel():
    model = Curved().eval().requires_grad_(False)
    image = torch.randint(0, 256, (3, 3, 16, 16)) / GREY
    fair = FairModel(model, correction=shift(0.0), realisation=Realisation())
    torch.testing.assert_close(fair.masked(image), image)


class Valley(DiagnosisModel):
    """Log-odds that rise again soon after they begin to fall: one whole level is too far."""

    features = 1

    def forward(self, image, edit=None):
        del edit
        off = image.mean((1, 2, 3)) - 0.4
        odds = 100 * off + 1e5 * off.square()
        return Diagnosis(off[:, None], torch.stack([0 * odds, odds], dim=1))


def test_a_mask_that_could_only_lead_away_is_none():
    """The lowest point is at -0.025: asked for -0.5, a first step of a whole level would come to +1.1."""
    correction = Shift(1, 2, 2)
    correction.shift[:, 1] = -0.5
    fair = FairModel(Valley(), correction=correction, realisation=Realisation())
    image = torch.full((2, 1, 32, 32), 102 / GREY)  # 0.4
    assert (fair(image)[:, 1] <= 1e-3).all()
    correction.shift[:, 1] = 0.5  # upwards there is a way
    torch.testing.assert_close(fair(image)[:, 1], torch.full((2,), 0.5), atol=0.05, rtol=0)


def test_images_that_cannot_be_moved_stay_and_others_are_served():
    """No image, one that gives no number, one without any slope; and values at both ends of the range."""

    class Partly(Parabola):
        def forward(self, image, edit=None):
            found = super().forward(image)
            grey = image.mean((1, 2, 3))
            odds = found.logit[:, 1]
            odds = torch.where(grey < 0.1, 0 * odds, odds)
            odds = torch.where(grey > 0.9, torch.full_like(odds, torch.nan), odds)
            return Diagnosis(found.embedding, torch.stack([0 * odds, odds], dim=1))

    correction = Shift(1, 2, 2)
    correction.shift[:, 1] = 0.5
    fair = FairModel(Partly(), correction=correction, realisation=Realisation())
    image = torch.tensor([0.0, 102 / GREY, 1.0])[:, None, None, None].expand(3, 1, 64, 64)
    masked = fair.masked(image)
    torch.testing.assert_close(masked[[0, 2]], image[[0, 2]])
    assert fair(image)[1, 1] == pytest.approx(160.5, abs=0.05)
    assert fair.masked(image[:0]).shape == (0, 1, 64, 64)


def test_a_model_that_hides_its_gradient_is_refused_with_the_setting_s_name():
    class Hidden(Corner):
        def forward(self, image, edit=None):
            return super().forward(image.detach())

    fair = FairModel(Hidden(), correction=Shift(1, 2, 2), realisation=Realisation())
    with pytest.raises(InputError, match=r"method\.realise=false"):
        fair.masked(torch.rand(2, 1, 8, 8))
