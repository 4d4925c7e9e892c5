import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fairdx.data.base import Batch
from fairdx.methods.base import Spec
from fairdx.methods.fair_diagnosis import FairDiagnosis, FairDiagnosisConfig, log_odds
from fairdx.methods.masking import Masked
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.models.information import separation_gap
from fairdx.training.optimization import learning


def make(**changes):
    config = FairDiagnosisConfig(**changes)
    spec = Spec(1, 32, 2, 2)
    model = pretraining(PretrainingConfig(encoder="test_resnet"), spec, seed=0)[0]
    method = FairDiagnosis.build(config, spec, model, seed=0)
    for module in method.stages()[0].modules.values():
        module.requires_grad_(False).eval()
    return method


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(8, 1, 32, 32, generator=generator)
    return Batch(image, torch.tensor([0, 1] * 4), torch.tensor([0, 0, 1, 1] * 2), torch.arange(8))


def test_the_generator_learns_through_the_frozen_model_which_stays_bit_identical(batch):
    method = make()
    frozen = {key: value.clone() for key, value in method.model.state_dict().items()}
    modules = {"model": method.model, "mask_generator": method.mask_generator}
    with learning(("mask_generator",), modules):
        method.generator_loss(batch, method.forward(batch))["total"].backward()
    gradients = [p.grad for p in method.mask_generator.leave.parameters()]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
    assert all(p.grad is None for p in method.model.parameters())
    assert all(p.grad is None for p in method.discriminator.parameters())
    after = method.model.state_dict()
    assert any("running_var" in key for key in after)
    assert all(torch.equal(after[key], value) for key, value in frozen.items())


def test_a_step_of_the_discriminator_leaves_the_generator_without_gradient(batch):
    method = make()
    masked = Masked(*(tensor.detach() for tensor in method.forward(batch)))
    with learning(("discriminator",), {"discriminator": method.discriminator}):
        method.discriminator_loss(batch, masked)["total"].backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in method.discriminator.parameters())
    assert all(p.grad is None for p in method.mask_generator.parameters())


def test_losses_are_the_equations_of_the_paper_computed_by_hand(batch):
    method = make(adversary=2.0, alpha=0.3, beta=0.7, separation=5.0, diagnosis="information", fidelity=0)
    masked = method.forward(batch)
    guess = method.discriminator(masked.image, _diagnosis(masked), batch.label)
    probability = torch.softmax(guess.double(), 1).numpy()
    p_s = probability[np.arange(8), batch.group.numpy()]
    diagnosis = torch.softmax(masked.logit.double(), 1).numpy()
    p_y = diagnosis[np.arange(8), batch.label.numpy()]
    entropy = -(probability * np.log(probability)).sum(1).mean()
    odds = (masked.logit[:, 1] - masked.logit[:, 0]).double()
    gap = separation_gap(odds, batch.label, batch.group, groups=2).item()
    expected = 2 * (np.log(p_s).mean() - 0.3 * entropy) - 0.7 * np.log(p_y).mean() + 5 * gap
    assert float(method.generator_loss(batch, masked)["total"]) == pytest.approx(expected, rel=1e-5)
    assert float(method.discriminator_loss(batch, masked)["total"]) == pytest.approx(
        -np.log(p_s).mean(), rel=1e-5
    )


def test_by_default_the_order_within_groups_and_the_scores_themselves_are_kept(batch):
    method = make(adversary=0, separation=5.0, beta=0.7, fidelity=0.3)
    torch.nn.init.normal_(method.mask_generator.leave.weight)
    masked = method.forward(batch)
    before, after = (
        (logit[:, 1] - logit[:, 0]).double().detach().numpy()
        for logit in (method.model(batch.image).logit, masked.logit)
    )
    y, s = batch.label.numpy(), batch.group.numpy()
    ranking = np.mean(
        [
            np.mean(
                [
                    np.log1p(np.exp(b - a))
                    for a in after[(y == 1) & (s == g)]
                    for b in after[(y == 0) & (s == g)]
                ]
            )
            for g in (0, 1)
        ]
    )
    change = np.mean((after - before) ** 2) / np.var(before, ddof=1)
    assert change > 0
    gap = separation_gap(*map(torch.tensor, (after, y, s)), groups=2).item()
    losses = method.generator_loss(batch, masked)
    assert float(losses["total"]) == pytest.approx(0.7 * ranking + 0.3 * change + 5 * gap, rel=1e-4)


def _diagnosis(masked):
    from fairdx.models.diagnosis import Diagnosis

    return Diagnosis(masked.embedding, masked.logit)


def test_an_untrained_mask_changes_nothing(batch):
    method = make()
    torch.testing.assert_close(method.fair.masked(batch.image), batch.image, rtol=0, atol=0)
    expected = method.model(batch.image).logit
    torch.testing.assert_close(method.logits(batch.image), expected, rtol=0, atol=0)


def test_the_paper_preset_is_the_paper(batch):
    values = dict(FairDiagnosis.presets["paper"])
    first = PretrainingConfig.model_validate(values.pop("model"))
    preset = FairDiagnosisConfig.model_validate(values)
    assert (preset.eta, preset.alpha, preset.beta) == (0.2, 1.0, 1.0)
    assert preset.learning_rate == preset.discriminator_learning_rate == first.learning_rate == 1e-4
    assert preset.schedule == first.schedule == "step"
    assert preset.discriminator_sees == ("image",)
    assert preset.discriminator_updates == preset.adversary == 1
    assert preset.separation == preset.fidelity == 0
    assert preset.diagnosis == "information"
    method = make(**values)
    loss = method.discriminator_loss(batch, method.forward(batch))["total"]
    assert float(loss) == pytest.approx(float(cross_entropy(torch.zeros(8, 2), batch.group)), abs=0.3)


def test_without_an_adversary_the_mask_learns_alone_and_follows_the_gap(batch):
    method = make(**FairDiagnosis.presets["gap"])
    stage = method.stages()[0]
    assert [player.name for player in stage.players] == ["mask_generator"]
    assert set(stage.modules) == {"model", "mask_generator"}
    losses = method.generator_loss(batch, method.forward(batch))
    assert "group_information" not in losses
    assert float(losses["change"]) == pytest.approx(0, abs=1e-8)  # an untrained mask changes no score
    expected = 60 * float(losses["separation_gap"]) + float(losses["ranking"])  # the gap in full
    assert float(losses["total"]) == pytest.approx(expected, rel=1e-5)


def test_what_hides_the_group_grows_over_its_share_of_the_epochs(batch):
    method = make(growth=0.5, separation=5.0, adversary=2.0)
    masked = method.forward(batch)
    hear = method.stages()[0].progress

    def total(done):
        hear(done)
        return float(method.generator_loss(batch, masked)["total"])

    whole = float(make(separation=5.0, adversary=2.0).generator_loss(batch, masked)["total"])
    kept = 2 * float(method.generator_loss(batch, masked)["ranking"])  # an untrained mask changes no score
    assert total(0.0) == pytest.approx(kept, rel=1e-5)
    assert total(0.1) == pytest.approx(kept + 0.2 * (whole - kept), rel=1e-4)
    assert total(0.5) == total(0.9) == pytest.approx(whole, rel=1e-5)


def test_there_must_be_something_to_hide_the_group_by():
    with pytest.raises(ValueError, match="nothing would hide the group"):
        FairDiagnosisConfig(separation=0, adversary=0)


def test_log_odds_are_those_of_the_probabilities():
    logit = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logit.softmax(1)
    for c in range(3):
        torch.testing.assert_close(log_odds(logit, c), torch.logit(p[:, c]))
