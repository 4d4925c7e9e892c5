"""Statistics of maps inside frozen models: the right layers, the right numbers, nothing else changed."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fairdx.core.errors import InputError
from fairdx.methods.base import Spec
from fairdx.methods.corrector import Corrector, CorrectorConfig
from fairdx.models.contract import Contract
from fairdx.models.corrections import Residual
from fairdx.models.diagnosis import weights_hash
from fairdx.models.fair import FairModel
from fairdx.models.frozen import FrozenModel
from fairdx.models.networks import Diagnoser, Encoder
from fairdx.models.realised import Realisation, log_odds
from fairdx.models.statistics import MapLayer, Watched, find_maps

SIZE = 64


def ours(name, size=SIZE):
    torch.manual_seed(0)
    return Diagnoser(Encoder(name, channels=1, size=size)).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("layout", "shape", "pixels"),
    [
        ("NCHW", (3, 4, 5, 6), lambda x: x.reshape(3, 4, 30)),
        ("NHWC", (3, 5, 5, 4), lambda x: x.transpose(0, 3, 1, 2).reshape(3, 4, 25)),
        ("tokens", (3, 2 + 9, 4), lambda x: x[:, 2:].transpose(0, 2, 1)),
    ],
)
def test_mean_and_deviation_are_those_of_numpy(layout, shape, pixels):
    output = torch.randn(shape)
    layer = MapLayer("any", layout, 2 if layout == "tokens" else 0)
    seen = pixels(output.double().numpy())
    expected = np.concatenate([seen.mean(2), seen.std(2)], axis=1)
    np.testing.assert_allclose(layer.statistics(output).numpy(), expected, atol=1e-5)


def test_a_constant_map_has_a_gradient():
    output = torch.ones(1, 2, 3, 3, requires_grad=True)
    MapLayer("any", "NCHW").statistics(output).sum().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # After the first convolution and after each stage, but the last one: the mean of its map is E.
        ("resnet18", ["act1", "layer1", "layer2", "layer3"]),
        ("test_convnext", ["stages.0", "stages.1", "stages.2"]),
        # One resolution: blocks in between.
        ("vit_tiny_patch16_224", ["blocks.2", "blocks.5", "blocks.8"]),
    ],
)
def test_the_last_map_of_each_resolution_but_the_smallest_is_watched(name, expected):
    layers, _ = find_maps(ours(name), channels=1, size=SIZE)
    assert [layer.name.removeprefix("encoder.backbone.") for layer in layers] == expected


def test_maps_are_those_that_a_hook_of_ones_own_sees_and_the_model_stays_as_it_is():
    model, image = ours("test_resnet"), torch.rand(5, 1, SIZE, SIZE)
    before, plain = weights_hash(model), model(image)
    layers, count = find_maps(model, channels=1, size=SIZE)
    found = Watched(model, layers)(image)
    own = {}
    for layer in layers:
        module = model.get_submodule(layer.name)
        module.register_forward_hook(lambda _, __, output, name=layer.name: own.update({name: output}))
    model(image)
    expected = torch.cat(
        [part for name in own for part in (own[name].mean((2, 3)), own[name].std((2, 3), correction=0))], 1
    )
    torch.testing.assert_close(found.statistics, expected, atol=1e-5, rtol=1e-4)
    assert found.statistics.shape == (5, count)
    assert torch.equal(found.logit, plain.logit)
    assert torch.equal(found.embedding, plain.embedding)
    assert weights_hash(model) == before
    assert plain.statistics is None


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_foreign_networks_show_maps_and_torchscript_shows_none():
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", in_chans=3, num_classes=2).eval()
    named = find_maps(FrozenModel(network, Contract(), classes=2, size=SIZE), channels=1, size=SIZE)[0]
    assert [layer.name for layer in named] == [
        "network.act1",
        "network.layer1",
        "network.layer2",
        "network.layer3",
    ]
    small = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    script = torch.jit.script(small.eval())
    assert find_maps(FrozenModel(script, Contract(), classes=2, size=SIZE), channels=1, size=SIZE) == ((), 0)


def test_a_network_without_an_embedding_is_corrected_by_its_maps():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    model = FrozenModel(network.eval(), Contract(), classes=2, size=SIZE).requires_grad_(False)
    assert model.features is None
    method = Corrector.build(CorrectorConfig(), Spec(1, SIZE, 2, 2), model, seed=0)
    image = torch.rand(3, 1, SIZE, SIZE)
    assert torch.equal(method.fair(image), method.fair.corrected(method.fair.plain(image)))
    with pytest.raises(InputError, match="shows none"):
        Corrector.build(CorrectorConfig(maps=False), Spec(1, SIZE, 2, 2), model, seed=0)


def watching(model):
    """A correction that adds a multiple of the first channel's mean in the first map."""
    layers, count = find_maps(model, channels=1, size=SIZE)
    correction = Residual(model.features + count, 1, 1, layers)
    with torch.no_grad():
        correction.project.weight[0, 1 + model.features] = 1.0
        correction.hidden.weight.fill_(1.0)
        correction.hidden.bias.zero_()
        nn.init.constant_(correction.out.weight, 2.0)
    return correction.requires_grad_(False), layers


def test_the_correction_gets_the_statistics_averaged_over_views():
    model, image = ours("test_resnet"), torch.rand(4, 1, SIZE, SIZE)
    correction, layers = watching(model)
    both = [Watched(model, layers)(view) for view in (image, image.flip(3))]
    mean = torch.stack([one.statistics[:, 0] for one in both]).mean(0)
    plain = torch.stack([log_odds(one.logit) for one in both]).mean(0)
    fair = FairModel(model, correction=correction, views="mirror").eval()
    torch.testing.assert_close(log_odds(fair(image)), plain + 2 * torch.tanh(mean), atol=1e-5, rtol=1e-4)
    assert torch.equal(fair.corrected(fair.plain(image)), fair(image))


def test_a_mask_is_realised_to_a_score_that_maps_ask_for():
    model, image = ours("test_resnet"), torch.rand(8, 1, SIZE, SIZE)
    correction, _ = watching(model)
    wanted = log_odds(FairModel(model, correction=correction)((image * 255).round() / 255))
    fair = FairModel(model, correction=correction, realisation=Realisation(3, 12))
    torch.testing.assert_close(log_odds(fair(image)), wanted, atol=0.1, rtol=0)
