import numpy as np
import pytest
import torch
from torch import nn

from fairdx.methods.base import Spec
from fairdx.methods.group_dro import GroupDRO, GroupDROConfig, WorstCase
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.training.fit import fit

EXACT = TrainerSettings(device="cpu", precision="fp32", shift=1)


def test_q_moves_as_in_algorithm_1_by_hand():
    worst = WorstCase(nn.Identity(), 2, 2)
    label, group = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1])
    losses = torch.tensor([1.0, 3.0, 0.5, 4.0, 6.0])
    q = np.full(4, 0.25)
    for _ in range(3):
        total = worst.robust_loss(losses, label, group, 0.1)
        means = np.array([2.0, 0.0, 0.5, 5.0])  # of (y, s) = (0, 0), (0, 1), (1, 0), (1, 1)
        q = q * np.exp(0.1 * means)
        q = q / q.sum()
        np.testing.assert_allclose(worst.q.numpy(), q, rtol=1e-5)
        assert float(total) == pytest.approx(q @ means, rel=1e-5)


def test_the_loss_is_differentiated_and_q_is_not():
    worst = WorstCase(nn.Identity(), 2, 2)
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    label, group = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    worst.robust_loss(losses, label, group, 0.5).backward()
    torch.testing.assert_close(losses.grad, worst.q)
    assert not worst.q.requires_grad


def test_without_a_step_q_stays_equal():
    worst = WorstCase(nn.Identity(), 2, 3)
    losses = torch.arange(6.0)
    total = worst.robust_loss(losses, torch.arange(6) // 3, torch.arange(6) % 3, 0.0)
    assert float(total) == pytest.approx(2.5)
    torch.testing.assert_close(worst.q, torch.full((6,), 1 / 6))


def method_of(epochs):
    config = GroupDROConfig(epochs=epochs, batch_size=16, step_size=0.5)
    spec = Spec(1, 32, 2, 2)
    model = pretraining(PretrainingConfig(encoder="test_resnet"), spec, seed=0)[0]
    return GroupDRO.build(config, spec, model, seed=0)


def test_an_interrupted_run_goes_on_to_the_same_weights_and_the_same_q(small_phantom, tmp_path):
    images, fabric = TaskImages(small_phantom, small_phantom.task()), make_fabric(EXACT)

    def train(method, loss=None, **options):
        stage = method.stages()[0]
        if loss is not None:
            object.__setattr__(stage.players[0], "loss", loss)
        return fit(stage, images, fabric=fabric, settings=EXACT, seed=0, **options)

    class InterruptedHereError(Exception):
        pass

    whole = method_of(2)
    expected = train(whole)
    broken, calls = method_of(2), iter(range(100))

    def interrupted(batch, shared):
        if next(calls) == 6:  # in the second of two epochs of four batches
            raise InterruptedHereError
        return broken.loss(batch, shared)

    with pytest.raises(InterruptedHereError):
        train(broken, interrupted, folder=tmp_path)
    again = method_of(2)
    assert train(again, folder=tmp_path, resume=True) == expected
    state = again.worst_case.state_dict()
    assert float(state["q"].max()) > 0.3
    for key, value in whole.worst_case.state_dict().items():
        assert torch.equal(state[key], value), key
