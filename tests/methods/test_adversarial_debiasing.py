from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from fairdx.data.base import Batch
from fairdx.methods.adversarial_debiasing import (
    AdversarialDebiasing,
    AdversarialDebiasingConfig,
    Adversary,
    debias,
)
from fairdx.methods.base import Player, Spec
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.training.optimization import Learner

SHAPES = ((5, 7), (4, 3, 2, 2), (6,))


def gradients(seed, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def flat(tensors):
    return np.concatenate([t.double().numpy().ravel() for t in tensors])


def test_the_projection_of_a_matrix_is_frobenius_not_the_sum_of_a_gram_matrix():
    g, a = gradients(0, ((5, 7),)), gradients(1, ((5, 7),))
    g_hand, a_hand = g[0].double().numpy(), a[0].double().numpy()
    inner = sum(g_hand[i, j] * a_hand[i, j] for i in range(5) for j in range(7))
    square = sum(a_hand[i, j] ** 2 for i in range(5) for j in range(7))
    expected = g_hand - inner / square * a_hand - 0.5 * a_hand
    for projection in ("whole", "tensor"):
        (found,) = debias(g, a, alpha=0.5, projection=projection)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    unit = a[0] / torch.linalg.vector_norm(a[0])
    gram = torch.sum(torch.inner(unit, g[0])) * unit  # what Fairlearn 0.x computes
    assert (g[0] - gram - 0.5 * a[0] - torch.tensor(expected)).abs().max() > 0.1


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_what_is_left_is_orthogonal_to_the_adversary(seed):
    g, a = gradients(seed), gradients(seed + 1)
    whole = debias(g, a, alpha=0.0, projection="whole")
    assert flat(whole) @ flat(a) == pytest.approx(0, abs=1e-3)
    single = debias(g, a, alpha=0.0, projection="tensor")
    for left, other in zip(single, a, strict=True):
        assert flat([left]) @ flat([other]) == pytest.approx(0, abs=1e-3)
    direction = flat(debias(g, a, alpha=2.0, projection="whole"))
    assert direction @ flat(a) == pytest.approx(-2.0 * flat(a) @ flat(a), rel=1e-3)


@pytest.mark.parametrize("projection", ["whole", "tensor"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-45])
def test_an_adversary_without_gradient_changes_nothing(projection, size):
    g = gradients(0)
    a = [size * tensor for tensor in gradients(1)]
    for found, own in zip(debias(g, a, alpha=1.0, projection=projection), g, strict=True):
        torch.testing.assert_close(found, own)


def test_missing_gradients():
    g, a = gradients(0), gradients(1)
    for projection in ("whole", "tensor"):
        found = debias([None, g[1], None], [None, None, a[2]], alpha=0.5, projection=projection)
        assert found[0] is None
        torch.testing.assert_close(found[1], g[1])
        torch.testing.assert_close(found[2], -0.5 * a[2])
        assert debias([None], [None], alpha=1.0, projection=projection) == [None]
    # A tensor that the model's loss does not depend on is a zero of the whole vector.
    whole = debias([g[0], None], [a[0], a[1]], alpha=0.0, projection="whole")
    share = flat(g[:1]) @ flat(a[:1]) / (flat(a[:2]) @ flat(a[:2]))
    np.testing.assert_allclose(whole[1].numpy(), -share * a[1].numpy(), rtol=1e-4)


def test_the_adversary_sees_the_softened_score_alone_or_with_the_label_by_hand():
    logit = torch.tensor([[0.3, 1.0], [2.0, -1.0], [0.0, 0.5]])
    label = torch.tensor([1, 0, 1])
    for conditioned in (True, False):
        adversary = Adversary(2, 2, conditioned=conditioned)
        with torch.no_grad():
            adversary.c.fill_(-0.7)
        weight, bias = adversary.guess.weight.detach().numpy(), adversary.guess.bias.detach().numpy()
        difference = (logit[:, 1] - logit[:, 0]).numpy()
        u = 1 / (1 + np.exp(-1.7 * difference))
        y = label.numpy()
        features = np.stack([u, u * (1 - y), u * y], 1) if conditioned else u[:, None]
        np.testing.assert_allclose(
            adversary(logit, label).detach().numpy(), features @ weight.T + bias, rtol=1e-5, atol=1e-6
        )
    assert Adversary(3, 4).guess.in_features == 3 * 5
    assert Adversary(3, 4)(torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])).shape == (5, 3)


def backward(loss, **options):
    loss.backward(**options)


class OneProcess:
    world_size = 1
    backward = staticmethod(backward)


def test_a_step_follows_the_combination_and_leaves_frozen_parameters_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].bias.requires_grad_(False)
    x, y, s = torch.randn(8, 4), torch.arange(8) % 2, torch.arange(8) // 4

    def losses():
        out = model(x)
        return {"total": cross_entropy(out, y), "opponent": cross_entropy(out * out, s)}

    def combine(own, other):
        return debias(own, other, alpha=0.3, projection="whole")

    parameters = list(model.parameters())
    found = losses()
    live = [p for p in parameters if p.requires_grad]
    own = torch.autograd.grad(found["total"], live, retain_graph=True)
    other = torch.autograd.grad(found["opponent"], live)
    expected = [p - 0.1 * g for p, g in zip(live, combine(list(own), list(other)), strict=True)]
    frozen = model[0].bias.clone()
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    player = Player("m", ("m",), lambda b, s: losses(), 0.1, combine=combine)
    Learner(player, parameters, optimizer, None).step(OneProcess(), losses())
    for before, after in zip(expected, live, strict=True):
        torch.testing.assert_close(after, before)
    assert torch.equal(model[0].bias, frozen)


def test_several_processes_average_both_gradients_before_they_are_combined():
    model = nn.Linear(3, 1, bias=False)
    parameters = list(model.parameters())
    exchanged = []

    def all_reduce(tensor, reduce_op):
        assert reduce_op == "mean"
        exchanged.append(tensor.clone())
        return tensor / 2  # the other process has a gradient of zero

    seen = []
    fabric = SimpleNamespace(world_size=2, all_reduce=all_reduce, backward=backward)
    player = Player("m", ("m",), lambda b, s: {}, 0.1, combine=lambda g, a: seen.append((g, a)) or g)
    out = model(torch.tensor([[1.0, 2.0, 3.0]]))
    losses = {"total": out.sum(), "opponent": 10 * out.sum()}
    Learner(player, parameters, torch.optim.SGD(parameters, lr=0.1), None).step(fabric, losses)
    assert len(exchanged) == 2
    ((own,), (other,)) = seen[0]
    np.testing.assert_allclose(own.numpy(), [[0.5, 1.0, 1.5]])
    np.testing.assert_allclose(other.numpy(), [[5.0, 10.0, 15.0]])


def test_the_model_learns_to_hide_what_the_adversary_could_use():
    """Features of the label and of the group; with the adversary the group's weight goes to zero."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(0, 2, (500,), generator=generator)
    label = torch.randint(0, 2, (500,), generator=generator)
    noise = torch.randn(500, 2, generator=generator)
    features = torch.stack([label + noise[:, 0], (label + group) + 0.5 * noise[:, 1]], 1)
    gaps = []
    for alpha in (None, 1.0):
        model = nn.Linear(2, 2)
        adversary = Adversary(2)
        steps = [torch.optim.Adam(m.parameters(), lr=0.05) for m in (model, adversary)]
        for _ in range(200):
            logit = model(features)
            guessed = cross_entropy(adversary(logit, label), group)
            steps[1].zero_grad()
            guessed.backward(retain_graph=True)
            steps[1].step()
            parameters = list(model.parameters())
            own = list(torch.autograd.grad(cross_entropy(logit, label), parameters, retain_graph=True))
            if alpha is not None:
                loss = cross_entropy(adversary(logit, label), group)
                other = list(torch.autograd.grad(loss, parameters))
                own = debias(own, other, alpha=alpha, projection="whole")
            for parameter, gradient in zip(parameters, own, strict=True):
                parameter.grad = gradient
            steps[0].step()
        score = model(features).detach().softmax(1)[:, 1]
        gaps.append(
            float(
                sum(
                    abs(score[(group == 1) & (label == y)].mean() - score[(group == 0) & (label == y)].mean())
                    for y in (0, 1)
                )
            )
        )
    assert all(later < 0.5 * earlier for earlier, later in pairwise(gaps))


def test_the_losses_are_two_cross_entropies():
    spec = Spec(1, 32, 2, 2)
    model = pretraining(PretrainingConfig(encoder="test_resnet"), spec, seed=0)[0]
    method = AdversarialDebiasing.build(AdversarialDebiasingConfig(), spec, model, seed=0)
    method.retrained.eval()
    image = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch(image, torch.tensor([0, 1] * 4), torch.tensor([0, 0, 1, 1] * 2), torch.arange(8))
    diagnosed = method.forward(batch)
    losses = method.model_losses(batch, diagnosed)
    guess = method.adversary(diagnosed.logit, batch.label)
    torch.testing.assert_close(losses["total"], cross_entropy(diagnosed.logit, batch.label))
    torch.testing.assert_close(losses["opponent"], cross_entropy(guess, batch.group))
    torch.testing.assert_close(method.adversary_loss(batch, diagnosed)["total"], losses["opponent"])
