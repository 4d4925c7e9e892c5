import numpy as np
import pytest
import torch
from torch import nn

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import Spec
from fairdx.methods.laftr import LAFTR, LAFTRConfig
from fairdx.methods.pretraining import PretrainingConfig, pretraining

COUNTS = ((30, 10), (20, 40))


def make(counts=COUNTS, **changes):
    spec = Spec(1, 32, len(counts), len(counts[0]), counts)
    model = pretraining(PretrainingConfig(), spec, seed=0)[0]
    method = LAFTR.build(LAFTRConfig(**changes), spec, model, seed=0)
    method.retrained.eval()
    return method


@pytest.fixture
def batch():
    image = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    return Batch(image, torch.tensor([0, 1] * 4), torch.tensor([0, 0, 1, 1] * 2), torch.arange(8))


def whole_set(counts):
    """One row for each training image: label and group."""
    cells = [(y, s) for y, row in enumerate(counts) for s, n in enumerate(row) for _ in range(n)]
    label, group = torch.tensor(cells).T
    return Batch(torch.zeros(len(cells), 1, 1, 1), label, group, torch.arange(len(cells)))


def test_over_the_whole_set_the_objective_is_equation_6_by_hand():
    method = make()
    batch = whole_set(COUNTS)
    embedding = torch.randn(len(batch.label), 512, generator=torch.Generator().manual_seed(1))
    diagnosed = method.forward(batch._replace(image=torch.zeros(1, 1, 32, 32)))
    diagnosed = diagnosed._replace(embedding=embedding)
    h = method.auditor(batch.image, diagnosed, batch.label).softmax(1)[:, 1].detach().double().numpy()
    label, group = batch.label.numpy(), batch.group.numpy()
    cells = [(label == y) & (group == s) for y in (0, 1) for s in (0, 1)]
    expected = 2 - sum(np.abs(h[cell] - group[cell]).mean() for cell in cells)
    assert method.objective(batch, diagnosed).item() == pytest.approx(expected, abs=1e-5)


def test_auditor_and_model_pull_in_opposite_directions(batch):
    """A public version gives both the same sign: its encoder helps its auditor."""
    method = make(gamma=0.7)
    diagnosed = method.forward(batch)
    audited, fooled = method.auditor_loss(batch, diagnosed), method.model_loss(batch, diagnosed)
    value = {name: loss.item() for name, loss in fooled.items()}
    assert audited["total"].item() == pytest.approx(-value["auditor_objective"])
    expected = value["cross_entropy"] + 0.7 * value["auditor_objective"]
    assert value["total"] == pytest.approx(expected, rel=1e-5)
    weights = list(method.auditor.parameters())
    first = torch.autograd.grad(audited["total"], weights, retain_graph=True)
    second = torch.autograd.grad(fooled["total"], weights, retain_graph=True)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(0.7 * one, -other, rtol=1e-4, atol=1e-7)


def test_the_auditors_steps_bring_it_nearer_to_the_group_and_the_models_further(batch):
    method = make()
    diagnosed = method.forward(batch)

    def distance(embedding):
        guess = method.auditor(batch.image, diagnosed._replace(embedding=embedding), batch.label)
        return 1 - guess.softmax(1).gather(1, batch.group[:, None]).mean()

    fixed = diagnosed.embedding.detach()
    start = distance(fixed).item()
    optimizer = torch.optim.Adam(method.auditor.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        method.auditor_loss(batch, diagnosed._replace(embedding=fixed))["total"].backward()
        optimizer.step()
    near = distance(fixed).item()
    assert near < start - 0.05
    moving = fixed.clone().requires_grad_(True)
    for _ in range(20):
        objective = method.model_loss(
            batch, diagnosed._replace(embedding=moving, logit=diagnosed.logit.detach())
        )
        (gradient,) = torch.autograd.grad(objective["total"], moving)
        moving = (moving - 5 * gradient).detach().requires_grad_(True)
    assert distance(moving).item() > near + 0.02


def test_the_auditor_is_not_linear_and_knows_the_label(batch):
    method = make()
    assert any(isinstance(module, nn.SiLU) for module in method.auditor.modules())
    diagnosed = method.forward(batch)
    first = method.auditor(batch.image, diagnosed, batch.label)
    other = method.auditor(batch.image, diagnosed, 1 - batch.label)
    assert (first - other).abs().max().item() > 1e-4
    # A function without kinks and bends has no second differences.
    wave = torch.randn(1, 512, generator=torch.Generator().manual_seed(2))
    line = torch.linspace(-3, 3, 8)[:, None] * wave + diagnosed.embedding[:1].detach()
    out = method.auditor(batch.image, diagnosed._replace(embedding=line), torch.zeros(8, dtype=torch.int64))
    assert torch.diff(out[:, 0], n=2).abs().max().item() > 1e-3


@pytest.mark.parametrize("groups", [2, 3])
def test_an_auditor_that_guesses_has_objective_zero_and_a_perfect_one_the_largest(groups):
    counts = tuple(tuple(5 + y + s for s in range(groups)) for y in (0, 1))
    method = make(counts)
    batch = whole_set(counts)
    answer = nn.functional.one_hot(batch.group, groups) * 100.0
    for logits, expected in ((torch.zeros_like(answer), 0), (answer, 2 * groups * (1 - 1 / groups))):
        method.auditor = lambda image, diagnosis, label, logits=logits: logits
        assert method.objective(batch, None).item() == pytest.approx(expected, abs=1e-4)


def test_an_empty_cell_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"`laftr` .* none of class 0 in group 1"):
        make(((10, 0), (10, 10)))
