"""Maps against numbers worked out by hand, and against Captum on an unfrozen copy."""

import copy

import pytest
import timm
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from torch import nn

from fairdx.core.errors import InputError
from fairdx.explain.maps import as_mass, enlarged, grad_cam, integrated_gradients, occlusion, rectified
from fairdx.models.capture import gradients_at
from fairdx.models.contract import Contract
from fairdx.models.diagnosis import weights_hash
from fairdx.models.frozen import FrozenModel
from fairdx.models.layers import Reading, SpatialLayer, choose_layer
from fairdx.models.networks import Diagnoser, Encoder
from fairdx.models.sources import GivenModel, load_given


class Small(nn.Module):
    """One convolution of two channels, each a multiple of the image, an in-place ReLU, a mean, a sum."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([2.0, -1.0]).view(2, 1, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm1d(2)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(2, 1, bias=False)
        self.last.weight.data = torch.tensor([[3.0, 5.0]])

    def forward(self, image):
        return self.last(self.drop(self.norm(self.relu(self.conv(image)).mean((2, 3)))))


IMAGE = torch.tensor([[1.0, -2.0], [0.5, 0.0]]).view(1, 1, 2, 2)


def frozen(module):
    return module.eval().requires_grad_(False)


def layer_of(network, name, side, layout="NCHW", prefix=0):
    return SpatialLayer(name, network.get_submodule(name), Reading(layout, side, side, prefix), 1.0)


def scalar(network):
    return lambda image: [network(image)[:, 0]]


def test_a_case_worked_out_by_hand():
    network = frozen(Small())
    (found,) = grad_cam(network, layer_of(network, "conv", 2), scalar(network), IMAGE)
    # Channel 1 is 2x, positive at two of four places: its mean gradient is 3 * (2/4) / 4, of the layer's
    # cells; channel 2 is -x, positive at one: 5 * (1/4) / 4. Both over sqrt(1 + eps) of the norm.
    scale = 1 / (1 + network.norm.eps) ** 0.5
    weights = torch.tensor([3 * 2 / 4 / 4, 5 * 1 / 4 / 4]) * scale
    expected = weights[0] * 2 * IMAGE[0, 0] + weights[1] * -IMAGE[0, 0]
    torch.testing.assert_close(found[0], expected)
    assert (found < 0).any()  # raw and signed


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_the_same_as_captum_on_an_unfrozen_copy(name):
    torch.manual_seed(0)
    network = frozen(Diagnoser(Encoder(name, channels=1, size=64)))
    for part in network.modules():  # away from the initial state, where some branches are switched off
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5)
            part.running_mean.uniform_(-0.1, 0.1)
    image = torch.rand(3, 1, 64, 64)
    layer = choose_layer(network, lambda x: network(x).logit, image)
    assert min(layer.shape) >= 4
    (found,) = grad_cam(network, layer, lambda x: [network(x).logit[:, 1]], image)
    free = copy.deepcopy(network).requires_grad_(True)
    engine = LayerGradCam(lambda x: free(x).logit, free.get_submodule(layer.name))
    reference = engine.attribute(image, target=1, relu_attributions=False)[:, 0]
    torch.testing.assert_close(found, reference.detach(), rtol=1e-4, atol=1e-7)


def test_occlusion_is_that_of_captum():
    torch.manual_seed(1)
    network = frozen(Diagnoser(Encoder("resnet18", channels=1, size=32)))
    image = torch.rand(1, 1, 32, 32)
    (found,) = occlusion(network, lambda x: [network(x).logit[:, 1]], image, cells=4)
    engine = Occlusion(lambda x: network(x).logit)
    reference = engine.attribute(
        image, target=1, sliding_window_shapes=(1, 8, 8), strides=(1, 8, 8), baselines=float(image.mean())
    )
    torch.testing.assert_close(found, reference[:, 0, ::8, ::8].float(), rtol=1e-3, atol=1e-5)


def test_integrated_gradients_add_up_and_are_those_of_captum():
    torch.manual_seed(2)
    network = frozen(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(3 * 36, 1)))
    image = torch.rand(2, 1, 8, 8)
    base = torch.zeros(1, 1, 8, 8)
    (found,) = integrated_gradients(network, scalar(network), image, baseline=base, steps=200)
    torch.testing.assert_close(
        found.sum((1, 2)), (network(image) - network(base))[:, 0].detach(), rtol=1e-3, atol=1e-4
    )
    engine = IntegratedGradients(network)
    reference = engine.attribute(image, base.expand_as(image), target=0, n_steps=200, method="riemann_middle")
    torch.testing.assert_close(found, reference[:, 0].float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("free", [False, True])
def test_the_model_is_left_as_it_was(training, free):
    network = Small().requires_grad_(free)
    network.train(training)
    network.drop.eval()  # modes may be mixed
    modes = {name: part.training for name, part in network.named_modules()}
    noise = torch.rand(2, 1, 6, 6)
    before, state = weights_hash(network), torch.get_rng_state()
    grads = {name: p.grad for name, p in network.named_parameters()}
    layer = layer_of(network, "conv", 2)
    with torch.inference_mode():  # as a caller may have it
        grad_cam(network, layer, scalar(network), IMAGE)
    occlusion(network, scalar(network), IMAGE, cells=2)
    integrated_gradients(network, scalar(network), IMAGE, baseline=torch.zeros(1, 1, 2, 2), steps=3)
    choose_layer(network, network, noise, smallest=2)
    assert weights_hash(network) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: part.training for name, part in network.named_modules()} == modes
    assert all(p.requires_grad is free for p in network.parameters())
    assert {name: p.grad for name, p in network.named_parameters()} == grads
    assert not any(part._forward_hooks for part in network.modules())


def test_hooks_leave_when_the_network_fails():
    network = frozen(Small())

    def fails(image):
        network(image)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        gradients_at(network.conv, lambda: fails(IMAGE))
    assert not any(part._forward_hooks for part in network.modules())


@pytest.mark.parametrize(
    ("name", "size", "shape", "layout", "prefix"),
    [
        ("resnet18", 128, (4, 4), "NCHW", 0),
        ("resnet18", 64, (4, 4), "NCHW", 0),
        ("vit_tiny_patch16_224", 64, (4, 4), "tokens", 1),
    ],
)
def test_the_last_spatial_layer_is_found_and_read(name, size, shape, layout, prefix):
    torch.manual_seed(0)
    network = frozen(Diagnoser(Encoder(name, channels=1, size=size)))
    image = torch.rand(2, 1, size, size)
    layer = choose_layer(network, lambda x: network(x).logit, image)
    assert (layer.shape, layer.reading.layout, layer.reading.prefix) == (shape, layout, prefix)
    (found,) = grad_cam(network, layer, lambda x: [network(x).logit[:, 1]], image)
    assert found.shape == (2, *shape)
    assert found.abs().sum() > 0
    assert layer.name in layer.describe()


def test_a_swin_is_read_with_its_channels_last():
    torch.manual_seed(0)
    shape = {"window_size": 2, "depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8)}
    network = frozen(timm.create_model("swin_tiny_patch4_window7_224", img_size=64, num_classes=2, **shape))
    image = torch.rand(2, 3, 64, 64)
    layer = choose_layer(network, network, image)
    assert (layer.shape, layer.reading.layout) == ((4, 4), "NHWC")
    (found,) = grad_cam(network, layer, scalar(network), image)
    assert found.shape == (2, 4, 4)
    assert found.abs().sum() > 0


def test_a_layer_that_scrambles_the_image_is_not_spatial():
    class Scrambled(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(64, 64)
            self.stay = nn.Identity()
            self.last = nn.Linear(64, 2)

        def forward(self, image):
            mixed = self.mix(image.flatten(1)).view(-1, 1, 8, 8)
            return self.last(self.stay(mixed).flatten(1))

    torch.manual_seed(0)
    network = frozen(Scrambled())
    with pytest.raises(InputError, match="no layer of the model is spatial"):
        choose_layer(network, network, torch.rand(4, 1, 8, 8))
    with pytest.raises(InputError, match="`stay` is not spatial"):
        choose_layer(network, network, torch.rand(4, 1, 8, 8), name="stay")
    with pytest.raises(InputError, match="no layer `absent`"):
        choose_layer(network, network, torch.rand(4, 1, 8, 8), name="absent")


def test_a_foreign_frozen_model_with_its_contract():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 1),
    )
    torch.manual_seed(0)
    contract = Contract(size=48, mean=(0.5,), std=(0.2,), colours="BGR")
    model = frozen(FrozenModel(network, contract, classes=2, size=32))
    image = torch.rand(3, 1, 32, 32)
    layer = choose_layer(model, lambda x: model(x).logit, image)
    assert (layer.name, layer.shape) == ("network.2", (12, 12))
    (found,) = grad_cam(model, layer, lambda x: [model(x).logit[:, 1]], image)
    free = copy.deepcopy(model).requires_grad_(True)
    reference = LayerGradCam(lambda x: free(x).logit, free.network[2]).attribute(image, target=1)[:, 0]
    torch.testing.assert_close(found, reference.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_an_exported_program_is_explained_as_the_network_it_came_from(name, tmp_path):
    torch.manual_seed(0)
    size = {"img_size": 64} if name.startswith("vit") else {}
    network = frozen(timm.create_model(name, num_classes=2, in_chans=1, **size))
    image = torch.rand(2, 1, 64, 64)
    program = torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "model.pt2")
    given = GivenModel(source=str(tmp_path / "model.pt2"), contract=Contract(channels=1))
    model = load_given(given, classes=2, size=64)
    layer = choose_layer(model, lambda x: model(x).logit, image)
    assert layer.name.startswith("network.at_")
    assert layer.shape == (4, 4)
    (found,) = grad_cam(model, layer, lambda x: [model(x).logit[:, 1]], image)
    assert found.abs().sum() > 0
    if name == "resnet18":
        own = layer_of(network, "layer3", 4)
        (reference,) = grad_cam(network, own, lambda x: [network(x).log_softmax(1)[:, 1]], image)
        torch.testing.assert_close(found, reference, rtol=1e-3, atol=1e-6)


def test_with_other_weights_the_maps_are_others():
    """Adebayo et al., NeurIPS 2018: a map that survives randomised weights shows the image, not the model."""
    torch.manual_seed(0)
    image = torch.rand(8, 1, 64, 64)
    maps = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = frozen(Diagnoser(Encoder("resnet18", channels=1, size=64)))
        layer = layer_of(network, "encoder.backbone.layer3", 4)
        (found,) = grad_cam(network, layer, lambda x, n=network: [n(x).logit[:, 1]], image)
        maps.append(found.flatten(1) - found.flatten(1).mean(1, keepdim=True))
    one, other = maps
    same = nn.functional.cosine_similarity(one, one)
    across = nn.functional.cosine_similarity(one, other)
    assert same.min() > 0.999
    assert across.abs().mean() < 0.7


def test_the_steps_after_the_map():
    raw = torch.tensor([[[1.0, -3.0], [3.0, 0.0]], [[-1.0, -1.0], [-1.0, -2.0]]])
    mass, there = as_mass(rectified(raw))
    assert there.tolist() == [True, False]
    torch.testing.assert_close(mass[0], torch.tensor([[0.25, 0.0], [0.75, 0.0]]))
    assert mass[1].eq(0).all()
    assert enlarged(raw, (8, 8)).shape == (2, 8, 8)
    torch.testing.assert_close(enlarged(raw, (8, 8)).mean((1, 2)), raw.mean((1, 2)))


def test_more_squares_than_pixels_are_refused():
    with pytest.raises(InputError, match="33 squares along a side are more than its 32 pixels"):
        occlusion(torch.nn.Identity(), lambda x: [x.mean((1, 2, 3))], torch.zeros(1, 1, 32, 40), cells=33)
