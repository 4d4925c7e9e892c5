"""A small network that was trained on a phantom: a network with random weights says little of maps."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.explain.explain import choose_images
from fairdx.explain.settings import ExplainSettings
from fairdx.explain.subject import Asked, Subject
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.fair import FairModel
from fairdx.models.loading import TaskImages

SETTINGS = PhantomSettings(size=32, train=1024, validation=48, test=400, conspicuity=0.6, seed=5)


class Network(DiagnosisModel):
    """Four convolutions, the last two at 8 x 8 cells, a mean, and a head."""

    features = 32

    def __init__(self):
        super().__init__()
        widths = (1, 16, 24, 32, 32)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2 if i < 2 else 1, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True))
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.head = nn.Linear(32, 2)

    def forward(self, image, edit=None):
        for stage in self.stages:
            image = stage(image)
        embedding = image.mean((2, 3))
        if edit is not None:
            embedding = edit(embedding)
        return Diagnosis(embedding, self.head(embedding))


@dataclass(frozen=True)
class Trained:
    """Networks on the same images: one that learnt the disease, one that learnt the group."""

    images: TaskImages
    phantom: Phantom
    model: Network
    shortcut: Network

    def asked(self, count=400, seed=0) -> Asked:
        """The first test images, in random order."""
        return choose_images(self.images, ExplainSettings(images=count, seed=seed), torch.device("cpu"))

    def subject(self, model=None) -> Subject:
        return Subject("vanilla", FairModel(model or self.model))

    def with_groups(self, asked, group) -> Asked:
        """The same images, of other groups."""
        everyone = asked.images.task.group.copy()
        everyone[asked.indices] = group
        task = replace(asked.images.task, group=everyone)
        return replace(asked, images=TaskImages(asked.images.dataset, task))


def _learn(images, target):
    rows = images.task.indices("train")
    batch = images.batch(rows, torch.device("cpu"))
    target = torch.from_numpy(np.ascontiguousarray(target[rows]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network()
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(6):
            for part in torch.randperm(len(rows)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(batch.image[part]).logit, target[part]).backward()
                optimizer.step()
    optimizer.zero_grad()
    return network.eval().requires_grad_(False)


def train(folder) -> Trained:
    phantom = Phantom(SETTINGS)
    dataset = prepare(phantom.source(), folder)
    images = TaskImages(dataset, dataset.task(None, None))
    return Trained(images, phantom, _learn(images, images.task.label), _learn(images, images.task.group))


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    return train(tmp_path_factory.mktemp("trained") / "set")
