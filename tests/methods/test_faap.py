import numpy as np
import pytest
import torch

from fairdx.data.base import Batch
from fairdx.methods.base import Spec
from fairdx.methods.faap import FAAP, FAAPConfig
from fairdx.methods.fair_diagnosis import FairDiagnosisConfig
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.training.optimization import learning


def make(**changes):
    spec = Spec(1, 32, 2, 2)
    model = pretraining(PretrainingConfig(encoder="test_resnet"), spec, seed=0)[0]
    method = FAAP.build(FAAPConfig(**changes), spec, model, seed=0)
    for module in (method.model, method.mask_generator, method.discriminator):
        module.requires_grad_(False).eval()
    return method


@pytest.fixture
def batch():
    image = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    return Batch(image, torch.tensor([0, 1] * 4), torch.tensor([0, 0, 1, 1] * 2), torch.arange(8))


def test_the_generator_gets_a_gradient_and_the_frozen_model_none_nor_a_change(batch):
    method = make()
    frozen = {key: value.clone() for key, value in method.model.state_dict().items()}
    modules = {
        "model": method.model,
        "mask_generator": method.mask_generator,
        "discriminator": method.discriminator,
    }
    stage = method.stages()[0]
    assert dict(stage.modules) == modules
    with learning(("mask_generator",), modules):
        method.generator_loss(batch, method.forward(batch))["total"].backward()
    assert all(
        p.grad is not None and p.grad.abs().max() > 0 for p in method.mask_generator.leave.parameters()
    )
    for network in (method.model, method.discriminator):
        assert all(p.grad is None for p in network.parameters())
    after = method.model.state_dict()
    assert any("running_var" in key for key in after)
    assert all(torch.equal(after[key], value) for key, value in frozen.items())


def test_the_losses_by_hand(batch):
    method = make(alpha=0.3, beta=0.7)
    masked = method.forward(batch)
    guess = method._guess(masked)
    probability = guess.double().softmax(1).numpy()
    p_s = probability[np.arange(8), batch.group.numpy()]
    p_y = masked.logit.double().softmax(1).numpy()[np.arange(8), batch.label.numpy()]
    entropy = -(probability * np.log(probability)).sum(1).mean()
    expected = np.log(p_s).mean() - 0.3 * entropy - 0.7 * np.log(p_y).mean()
    assert float(method.generator_loss(batch, masked)["total"]) == pytest.approx(expected, rel=1e-5)
    found = method.discriminator_loss(batch, masked)["total"]
    assert float(found) == pytest.approx(-np.log(p_s).mean(), rel=1e-5)


def test_the_discriminator_knows_the_embedding_and_not_the_label(batch):
    method = make()
    masked = method.forward(batch)
    other = batch._replace(label=1 - batch.label)
    loss = method.discriminator_loss
    assert torch.equal(loss(batch, masked)["total"], loss(other, masked)["total"])
    unseen = masked._replace(image=torch.rand_like(masked.image), logit=torch.randn_like(masked.logit))
    assert torch.equal(loss(batch, masked)["total"], loss(batch, unseen)["total"])
    seen = masked._replace(embedding=torch.randn_like(masked.embedding))
    assert not torch.equal(loss(batch, masked)["total"], loss(batch, seen)["total"])


def test_an_untrained_perturbation_changes_nothing_and_any_keeps_to_its_bound(batch):
    method = make(eta=0.05)
    torch.testing.assert_close(method.fair.masked(batch.image), batch.image, rtol=0, atol=0)
    with torch.no_grad():
        method.mask_generator.leave.weight.normal_(std=10)
    changed = method.fair.masked(batch.image)
    assert 0.04 < float((changed - batch.image).abs().max()) <= 0.05 + 1e-6
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1


def test_power_is_that_of_fair_diagnosis():
    ours, theirs = FairDiagnosisConfig(), FAAPConfig()
    shared = set(FAAPConfig.model_fields) & set(FairDiagnosisConfig.model_fields)
    equal = shared - {"alpha", "beta", "discriminator_updates"}
    assert {"eta", "width", "epochs", "batch_size", "learning_rate", "average_decay", "budget"} <= equal
    assert {name: getattr(ours, name) for name in equal} == {name: getattr(theirs, name) for name in equal}
