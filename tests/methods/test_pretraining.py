"""Step sizes of a pretrained model's layers, and what balances classes."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import Spec
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.methods.retraining import RetrainingConfig
from fairdx.methods.reweighting import Reweighting
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.training.fit import fit

SPEC = Spec(3, 32, 2, 2, counts=((60, 20), (12, 8)))
LAYERED = PretrainingConfig(
    encoder="test_efficientnet",
    learning_rate=1e-3,
    head_learning_rate=1e-2,
    layer_decay=0.5,
    dropout=0.4,
    class_balance=True,
)


def test_every_parameter_has_one_step_size_and_earlier_layers_smaller_ones():
    model, stage = pretraining(LAYERED, SPEC, seed=0)
    groups = stage.players[0].rates()
    rates = {id(p): group.get("lr", 1e-3) for group in groups for p in group["params"]}
    learning = [p for name in stage.players[0].modules for p in stage.modules[name].parameters()]
    assert sorted(rates) == sorted(id(p) for p in learning)
    assert sum(len(list(group["params"])) for group in groups) == len(learning)
    first, last = (rates[id(p)] for p in (model.encoder.backbone.conv_stem.weight, model.head.weight))
    assert last == 1e-2
    assert first < 1e-3 / 10
    assert {rates[id(p)] for p in stage.modules["critic"].parameters()} == {1e-3}


def test_the_encoder_learns_too(small_phantom):
    """The loop freezes a stage's modules before it asks for step sizes: timm leaves frozen layers out."""
    images = TaskImages(small_phantom, small_phantom.task())
    config = LAYERED.model_copy(update={"epochs": 1, "batch_size": 64, "class_balance": False})
    model, stage = pretraining(config, Spec(1, 32, 2, 2), seed=0)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    settings = TrainerSettings(device="cpu", precision="fp32")
    fit(stage, images, fabric=make_fabric(settings), settings=settings, seed=0)
    stayed = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert stayed == set()


def test_by_default_there_is_one_group_as_ever():
    assert pretraining(PretrainingConfig(), SPEC, seed=0)[1].players[0].rates is None


def test_methods_that_retrain_take_the_same_step_sizes():
    config = RetrainingConfig().resolved(LAYERED)
    assert (config.head_learning_rate, config.layer_decay) == (1e-2, 0.5)
    model, stage = pretraining(LAYERED, SPEC, seed=0)
    own = Reweighting.build(config, SPEC, model, seed=0).stages()[0].players[0].rates()
    theirs = [group for group in stage.players[0].rates() if "lr" in group]
    assert [group["lr"] for group in own] == [group["lr"] for group in theirs]


def test_a_balanced_loss_weighs_each_class_the_same_over_the_training_images():
    model, stage = pretraining(LAYERED.model_copy(update={"mutual_information": 0.0}), SPEC, seed=0)
    model.eval()
    label = torch.tensor([0] * 80 + [1] * 20)  # as often as in SPEC
    image = torch.rand(100, 3, 32, 32)
    with torch.no_grad():
        batch = Batch(image, label, label, label)
        found = stage.players[0].loss(batch, stage.shared(batch))["total"]
        logit = model(image).logit
    wanted = (cross_entropy(logit[:80], label[:80]) + cross_entropy(logit[80:], label[80:])) / 2
    torch.testing.assert_close(found, wanted)
    with pytest.raises(InputError, match="every class"):
        pretraining(LAYERED, SPEC._replace(counts=((3, 4), (0, 0))), seed=0)


def test_dropout_works_while_the_head_learns_and_not_afterwards():
    model, _ = pretraining(LAYERED, SPEC, seed=0)
    image = torch.rand(4, 3, 32, 32)
    model.eval()
    torch.testing.assert_close(model(image).logit, model(image).logit, rtol=0, atol=0)
    model.dropout.train()
    assert (model(image).logit - model(image).logit).abs().max() > 0
