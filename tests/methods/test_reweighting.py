from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import Spec
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.methods.retraining import RetrainingConfig
from fairdx.methods.reweighting import Reweighting

COUNTS = ((30, 10), (20, 40), (5, 15))


def make(counts=COUNTS):
    classes, groups = (len(counts), len(counts[0])) if counts else (2, 2)
    spec = Spec(1, 32, classes, groups, counts)
    model = pretraining(PretrainingConfig(encoder="test_resnet"), spec, seed=0)[0]
    return Reweighting.build(RetrainingConfig(), spec, model, seed=0)


def test_the_weights_are_those_of_the_paper_by_hand():
    weights = make().weights
    total = 120
    for y in range(3):
        for s in range(2):
            p_y = sum(COUNTS[y]) / total
            p_s = sum(row[s] for row in COUNTS) / total
            assert float(weights[y, s]) == pytest.approx(p_y * p_s / (COUNTS[y][s] / total), rel=1e-6)


def test_weighted_label_and_group_are_independent_and_weights_have_mean_one():
    counts = np.array(COUNTS)
    weighted = make().weights.double().numpy() * counts
    outer = np.outer(weighted.sum(1), weighted.sum(0)) / weighted.sum()
    np.testing.assert_allclose(weighted, outer, rtol=1e-6)
    np.testing.assert_allclose(weighted.sum(1), counts.sum(1), rtol=1e-6)
    assert weighted.sum() == pytest.approx(counts.sum())


def test_the_loss_is_the_weighted_mean_and_the_plain_one_where_all_is_even():
    image = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch(image, torch.tensor([0, 1, 2] * 2), torch.tensor([0, 0, 0, 1, 1, 1]), torch.arange(6))
    method = make()
    method.retrained.eval()
    each = cross_entropy(method.logits(image), batch.label, reduction="none").detach().numpy()
    weight = method.weights.numpy()[batch.label.numpy(), batch.group.numpy()]
    found = method.loss(batch, method.forward(batch))
    assert float(found["total"].detach()) == pytest.approx((weight * each).mean(), rel=1e-5)
    assert float(found["cross_entropy"]) == pytest.approx(each.mean(), rel=1e-5)
    even = make(((10, 20), (20, 40), (30, 60)))
    even.retrained.eval()
    torch.testing.assert_close(even.loss(batch, even.forward(batch))["total"], found["cross_entropy"])


def test_an_empty_cell_is_an_error_that_names_it():
    with pytest.raises(InputError, match="none of class 1 in group 0"):
        make(((10, 20), (0, 40)))
    with pytest.raises(InputError, match="needs the numbers of training images"):
        make(())


def test_the_counts_of_a_run_are_those_of_its_training_split(small_phantom):
    from fairdx.models.loading import TaskImages
    from fairdx.runs.settings import load_settings

    task = small_phantom.task()
    label = task.label.copy()
    label[task.indices("train")[:3]] = -1  # unknown labels are not counted
    task = replace(task, label=label)
    settings = load_settings(None, ("method.name=vanilla",))
    from fairdx.runs.data import RunData

    spec = RunData(settings, TaskImages(small_phantom, task), None, None, "male").spec
    train = (task.split == "train") & (label >= 0)
    expected = tuple(
        tuple(int((train & (label == y) & (task.group == s)).sum()) for s in range(2)) for y in range(2)
    )
    assert spec.counts == expected
    assert spec[:4] == (1, 32, 2, 2)


def test_the_second_training_starts_from_the_first_ones_weights():
    method = make()
    first, second = method.model.state_dict(), method.retrained.state_dict()
    assert all(torch.equal(second[key], value) for key, value in first.items())
    assert all(
        a is not b for a, b in zip(method.model.parameters(), method.retrained.parameters(), strict=True)
    )


def test_what_is_not_given_is_as_in_stage_one():
    given = {"epochs": 3, "batch_size": 9, "learning_rate": 0.2, "weight_decay": 0.3, "schedule": "step"}
    first = PretrainingConfig(encoder="test_resnet", **given)
    spec = Spec(1, 32, 2, 2, ((1, 1), (1, 1)))
    model = pretraining(first, spec, seed=0)[0]
    (own,) = Reweighting.build(RetrainingConfig().resolved(first), spec, model, seed=0).stages()
    assert (own.epochs, own.batch_size, own.schedule) == (3, 9, "step")
    assert (own.players[0].learning_rate, own.players[0].weight_decay) == (0.2, 0.3)
    config = RetrainingConfig(epochs=2, batch_size=8, learning_rate=0.1, weight_decay=0.0, schedule="step")
    (stage,) = Reweighting.build(config, spec, model, seed=0).stages()
    player = stage.players[0]
    assert (stage.epochs, stage.batch_size, stage.schedule) == (2, 8, "step")
    assert (player.learning_rate, player.weight_decay) == (0.1, 0.0)
