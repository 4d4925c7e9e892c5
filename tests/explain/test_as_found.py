"""Every public call leaves a network as it was: weights, modes, flags, gradients, hooks, random numbers."""

import numpy as np
import pytest
import torch

from fairdx.explain import looking, mapped, maps, regions, subject
from fairdx.explain.counterfactual import label_preserving
from fairdx.explain.explain import explain
from fairdx.explain.figure import draw_figure
from fairdx.explain.settings import ExplainSettings
from fairdx.explain.subject import Subject
from fairdx.models import capture, layers
from fairdx.models.diagnosis import weights_hash
from fairdx.models.fair import FairModel, Mask
from fairdx.models.networks import Discriminator, MaskGenerator

COUNT = 24
CLOSE = ExplainSettings(
    images=COUNT, second_opinion=20, occlusion_cells=2, counterfactuals=6, deals=2, dealt_images=20, shown=1
)


def nothing(amount):
    del amount


class Scene:
    """A masked model with its d_Y, images, and what every call needs of them."""

    def __init__(self, trained):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            generator = MaskGenerator(1, width=4)
            torch.nn.init.normal_(generator.leave.weight, std=0.1)
            guess = Discriminator(2, 2, sees=("embedding", "image"), features=32, width=8)
        self.phantom = trained.phantom
        self.subject = Subject(
            "fair", FairModel(trained.model, mask=Mask(generator, eta=0.1)), guess, threshold=0.4
        )
        self.plain = trained.subject()
        self.asked = trained.asked(COUNT)
        self.network = self.subject.behind
        self.image, self.label = self.asked.batch(np.arange(COUNT))
        self.layer = layers.choose_layer(self.network, self.network, self.image[:4])
        self.answers = subject.answer(self.subject, self.asked, nothing, deals=2)
        self.where = phantom_regions(self)

    def scores(self, image):
        return [self.network(image)[:, 1]]

    def parts(self):
        return [self.subject.fair, self.subject.discriminator]

    def explained(self):
        return explain((self.plain, self.subject), self.asked, self.phantom, CLOSE)


def phantom_regions(scene):
    name = scene.asked.images.task.label_name
    return scene.phantom.regions(scene.asked.indices, finding=name)


def gradients(scene):
    with capture.as_found(scene.network):  # whoever runs the network evaluates it
        capture.gradients_at(scene.layer.module, lambda: scene.scores(scene.image))


def as_found(scene):
    with capture.as_found(scene.network), torch.no_grad():
        torch.rand(3)
        scene.network(scene.image)


def hooked(scene):
    with capture.as_found(scene.network), capture.hooked(scene.layer.module, torch.neg), torch.no_grad():
        scene.network(scene.image)


def failing(scene):
    def fails(image):
        scene.network(image)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        maps.grad_cam(scene.network, scene.layer, fails, scene.image)


def integrated(scene):
    baseline = torch.zeros_like(scene.image[:1])
    maps.integrated_gradients(scene.network, scene.scores, scene.image, baseline=baseline, steps=3)


def deleted(scene):
    rows, values = np.arange(COUNT), np.random.default_rng(0).normal(size=(COUNT, 4, 4))
    with capture.as_found(scene.network):
        regions.deletion(lambda image, _: scene.scores(image)[0], scene.image, values, rows, rows[::-1])


def gradient_maps(scene):
    names = {"layer": None, "smallest": 4, "advance": nothing}
    mapped.gradient_maps(scene.subject, scene.asked, scene.answers, **names)
    mapped.gradient_maps(scene.subject, scene.asked, scene.answers, names=["lot 0", "lot 1"], **names)


def looked(scene):
    pairs = looking.same_patients([scene.subject], scene.asked, scene.phantom, 6, nothing)[0]
    looking.Looking(scene.subject, scene.asked, scene.phantom, scene.where, pairs, CLOSE, nothing).look()


def real(scene):
    """Without a phantom: sensitivity to changes that keep the label."""
    looking.Looking(scene.subject, scene.asked, None, None, {}, CLOSE, nothing).look()


def again(scene):
    found = scene.explained()
    looking.look_again(found.looked[-1], scene.asked, scene.asked.indices[:3])
    draw_figure(found, scene.asked.indices[:2])


def changed(scene):
    for change in label_preserving(1).values():
        change(scene.image)


CALLS = {
    "as_found": as_found,
    "hooked": hooked,
    "gradients_at": gradients,
    "choose_layer": lambda s: layers.choose_layer(s.network, s.network, s.image[:4]),
    "grad_cam": lambda s: maps.grad_cam(s.network, s.layer, s.scores, s.image),
    "grad_cam that fails": failing,
    "occlusion": lambda s: maps.occlusion(s.network, s.scores, s.image, cells=2),
    "integrated_gradients": integrated,
    "deletion": deleted,
    "label_preserving": changed,
    "answer": lambda s: subject.answer(s.subject, s.asked, nothing, deals=2),
    "gradient_maps": gradient_maps,
    "occlusion_maps": lambda s: mapped.occlusion_maps(
        s.subject, s.asked, s.answers, cells=2, advance=nothing, deals=2
    ),
    "same_patients": lambda s: looking.same_patients([s.plain, s.subject], s.asked, s.phantom, 6, nothing),
    "Looking.look": looked,
    "Looking.look at real images": real,
    "explain": lambda s: s.explained(),
    "look_again, draw_figure": again,
}


@pytest.fixture(scope="module")
def scene(trained):
    return Scene(trained)


def state(scene):
    """Everything about the networks that a call might change, but for gradients."""
    return {
        "weights": [weights_hash(part) for part in scene.parts()],
        "modes": [m.training for part in scene.parts() for m in part.modules()],
        "flags": [p.requires_grad for part in scene.parts() for p in part.parameters()],
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
            for part in scene.parts()
            for m in part.modules()
        ],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("frozen", [True, False])
def test_a_call_leaves_everything_as_it_was(scene, name, frozen):
    parameters = [p for part in scene.parts() for p in part.parameters()]
    modules = [m for part in scene.parts() for m in part.modules()]
    for parameter in parameters:
        parameter.requires_grad_(not frozen)
        parameter.grad = torch.full_like(parameter, 7.0)
    for i, module in enumerate(modules):  # modes may be mixed
        module.training = i % 3 == 0 and not isinstance(module, torch.nn.Dropout)
    sentinels, before = [p.grad for p in parameters], state(scene)
    CALLS[name](scene)
    assert state(scene) == before
    for parameter, sentinel in zip(parameters, sentinels, strict=True):
        assert parameter.grad is sentinel
        assert (sentinel == 7).all()
    for module in modules:
        module.training = False
    for parameter in parameters:
        parameter.grad = None
        parameter.requires_grad_(False)
