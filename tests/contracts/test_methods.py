"""What every registered method must do; a new one is tested by being registered."""

import signal
import zlib
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fairdx.methods import METHODS, Spec
from fairdx.methods.pretraining import PretrainingConfig, pretraining
from fairdx.models.diagnosis import weights_hash
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.models.scoring import predict
from fairdx.training.fit import fit

EXACT = TrainerSettings(device="cpu", precision="fp32", shift=1)
FIRST = PretrainingConfig(encoder="test_resnet", epochs=1, batch_size=16)
STAGE_TWO = {"epochs": 1, "batch_size": 16}
SPEC = Spec(channels=1, size=32, classes=2, groups=2, counts=((20, 12), (14, 18)))


@pytest.fixture(scope="module")
def images(small_phantom):
    return TaskImages(small_phantom, small_phantom.task())


@pytest.fixture(scope="module")
def fabric():
    return make_fabric(EXACT)


def build(name, seed=0):
    """A method as small as its configuration allows."""
    method = METHODS[name]
    known = {key: value for key, value in STAGE_TWO.items() if key in method.config_class.model_fields}
    model, _ = pretraining(FIRST, SPEC, seed=seed)
    return method.build(method.config_class(**known), SPEC, model.eval().requires_grad_(False), seed=seed)


def state(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def train(name, images, fabric, seed=0):
    method = build(name, seed)
    for stage in method.stages():
        fit(stage, images, fabric=fabric, settings=EXACT, seed=seed)
    return method


@pytest.mark.parametrize("name", list(METHODS))
def test_builds_from_defaults_and_presets(name):
    method = METHODS[name]
    method.config_class()
    for preset in method.presets.values():
        own = dict(preset)
        PretrainingConfig.model_validate(own.pop("model", {}))
        method.config_class.model_validate(own)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_few_steps_give_finite_named_losses_and_move_exactly_the_players(name, images, fabric):
    method = build(name)
    frozen = weights_hash(method.model)
    for stage in method.stages():
        before = {key: state(module) for key, module in stage.modules.items()}
        # Chosen by AUROC, the one epoch is kept; by fairness, the state before it might be.
        history = fit(replace(stage, choose="auroc"), images, fabric=fabric, settings=EXACT, seed=0)
        terms = {key: value for key, value in history[-1].items() if "/" in key}
        assert terms
        assert all(np.isfinite(value) for value in terms.values())
        learning = set(stage.learning)
        for player in stage.players:
            assert f"{player.name}/total" in terms
        for key, module in stage.modules.items():
            after = state(module)
            moved = [part for part in after if not torch.equal(after[part], before[key][part])]
            if key in learning:
                if history[-1].get("note"):  # it leaves the model alone, and says why
                    continue
                names = {part for part, _ in module.named_parameters()} or set(before[key])
                assert names & set(moved), f"{name}/{stage.name}: {key} did not learn"
            else:
                assert not moved, f"{name}/{stage.name}: {key} is frozen, but {moved} changed"
            assert not module.training
            assert not any(parameter.requires_grad for parameter in module.parameters())
    assert weights_hash(method.model) == frozen


@pytest.mark.parametrize("name", list(METHODS))
def test_the_same_seed_gives_the_same_scores_and_another_seed_others(name, images, fabric):
    indices = images.task.indices("test")
    first, again, other = (
        predict(train(name, images, fabric, seed).logits, images, indices, fabric) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6


@pytest.mark.parametrize("name", list(METHODS))
def test_saved_and_loaded_it_scores_the_same(name, images, fabric, tmp_path):
    scores, indices = [], images.task.indices("test")
    for _ in range(2):
        method = build(name)
        for stage in method.stages():
            folder = tmp_path / stage.name
            trained = (folder / "best.safetensors").exists()
            before = deepcopy(sorted(folder.iterdir())) if trained else None
            history = fit(stage, images, fabric=fabric, settings=EXACT, seed=0, folder=folder)
            assert len(history) == stage.epochs + 1
            assert before is None or before == sorted(folder.iterdir())
        scores.append(predict(method.logits, images, indices, fabric))
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("name", list(METHODS))
def test_building_leaves_the_global_random_numbers_alone(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(name)
    torch.testing.assert_close(torch.rand(3), expected)


def stopped_before(stage, step):
    """The stage, in which somebody presses Ctrl-C right before one of its steps, counted from 0."""

    def progress(done):
        if stage.progress is not None:
            stage.progress(done)
        if round(done * stage.epochs * 4) == step:
            signal.raise_signal(signal.SIGINT)

    return replace(stage, progress=progress)


@pytest.mark.parametrize("name", ["stage 1", *METHODS])
def test_stopped_at_any_steps_it_comes_to_the_same_weights_and_history(name, images, fabric, tmp_path):
    def build_stages():
        """Two epochs of four steps each, where anything is played."""
        if name == "stage 1":
            model, first = pretraining(FIRST.model_copy(update={"dropout": 0.3}), SPEC, seed=0)
            return model, [replace(first, epochs=2)]
        method = build(name)
        return method.fair, [replace(s, epochs=2, choose="last") if s.players else s for s in method.stages()]

    def fitted(stage, **options):
        return fit(stage, images, fabric=fabric, settings=EXACT, seed=0, **options)

    rng = np.random.default_rng(zlib.crc32(name.encode()))
    whole, stages = build_stages()
    broken, again = build_stages()
    for number, stage in enumerate(stages):
        count = 2 if name == "stage 1" else 1  # each stop costs another start
        steps = rng.choice(8, count, replace=False) if stage.players else []
        for step in sorted(steps):
            with pytest.raises(KeyboardInterrupt):
                fitted(stopped_before(again[number], step), folder=tmp_path / stage.name, resume=True)
            broken, again = build_stages()  # as in a new process
            for earlier in again[:number]:
                fitted(earlier, folder=tmp_path / earlier.name)
        assert fitted(again[number], folder=tmp_path / stage.name, resume=True) == fitted(stage)
    for key, value in whole.state_dict().items():
        assert torch.equal(broken.state_dict()[key], value), key
