import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fairdx.core.errors import InputError
from fairdx.inference.visibility import within_chance
from fairdx.methods.base import Player, Stage
from fairdx.metrics.rates import approximate_diagnosis_fairness
from fairdx.metrics.scores import mean_approximate_diagnosis_fairness
from fairdx.metrics.threshold import youden_threshold
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, derive_seed, isolated_rng, make_fabric
from fairdx.models.scoring import predict
from fairdx.training.augment import augment
from fairdx.training.choice import better
from fairdx.training.fit import TrainingError, fit
from fairdx.training.optimization import learning, schedule_factor

EXACT = TrainerSettings(device="cpu", precision="fp32", shift=0)


class Linear(nn.Module):
    """A classifier small enough to follow by hand, with dropout to use random numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(32 * 32, 2))

    def forward(self, image):
        return self.layer(image)


def stage_of(model, loss=None, **changes):
    def own(batch, shared):
        del shared
        return {"total": cross_entropy(model(batch.image), batch.label)}

    options = {
        "name": "toy",
        "modules": {"model": model},
        "players": (Player("model", ("model",), loss or own, 1e-2),),
        "epochs": 3,
        "batch_size": 16,
        "logits": model,
        "choose": "auroc",
        "config": {},
    }
    return Stage(**{**options, **changes})


@pytest.fixture(scope="module")
def images(small_phantom):
    return TaskImages(small_phantom, small_phantom.task())


@pytest.fixture(scope="module")
def fabric():
    return make_fabric(EXACT)


def run(stage, images, fabric, **options):
    return fit(stage, images, fabric=fabric, settings=EXACT, seed=0, **options)


def test_an_interrupted_stage_goes_on_to_the_same_weights(images, fabric, tmp_path):
    parts = Linear()

    class InterruptedHereError(Exception):
        pass

    stage = stage_of(parts)
    calls = 0

    def interrupted(batch, shared):
        nonlocal calls
        calls += 1
        if calls == 7:  # in the second of three epochs of four batches
            raise InterruptedHereError
        return stage.players[0].loss(batch, shared)

    heard, before = [], []
    broken = stage_of(parts, interrupted, average=("model",), progress=before.append)
    whole_average = Linear()
    expected = run(stage_of(whole_average, average=("model",)), images, fabric)
    with pytest.raises(InterruptedHereError):
        run(broken, images, fabric, folder=tmp_path)
    assert not (tmp_path / "history.json").exists()
    again = Linear()
    stage = stage_of(again, average=("model",), progress=heard.append)
    history = run(stage, images, fabric, folder=tmp_path, resume=True)
    assert history == expected
    assert before == [step / 12 for step in range(7)]
    assert heard == [step / 12 for step in range(4, 12)]
    for key, value in whole_average.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert not (tmp_path / "last.pt").exists()


def test_within_a_long_epoch_it_is_saved_every_few_minutes(images, fabric, tmp_path):
    often = EXACT.model_copy(update={"save_minutes": 1e-9})

    class CrashedError(Exception):
        pass

    def train(model, progress):
        stage = stage_of(model, progress=progress)
        fit(stage, images, fabric=fabric, settings=often, seed=0, folder=tmp_path, resume=True)

    def crash(done):
        if done == 6 / 12:  # in the second of three epochs of four steps
            raise CrashedError

    with pytest.raises(CrashedError):
        train(Linear(), crash)
    again, whole, heard = Linear(), Linear(), []
    train(again, heard.append)
    assert heard == [step / 12 for step in range(6, 12)]
    run(stage_of(whole), images, fabric)
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_without_resume_an_unfinished_stage_starts_again(images, fabric, tmp_path):
    model = Linear()
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    assert len(run(stage_of(model), images, fabric, folder=tmp_path)) == 4


def test_a_finished_stage_is_loaded_not_trained(images, fabric, tmp_path):
    first = Linear()
    history = run(stage_of(first), images, fabric, folder=tmp_path)

    def never(batch, shared):
        raise AssertionError("trained again")

    second = Linear()
    with torch.no_grad():
        second.layer[2].weight.zero_()
    assert run(stage_of(second, never), images, fabric, folder=tmp_path) == history
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_with_its_name(images, fabric):
    model = Linear()

    def loss(batch, shared):
        value = cross_entropy(model(batch.image), batch.label)
        return {"cross_entropy": value, "penalty": value * float("nan"), "total": value}

    with pytest.raises(TrainingError, match=r"toy.*epoch 1.*model/penalty.*learning rate"):
        run(stage_of(model, loss), images, fabric)


def test_a_batch_larger_than_the_training_set_is_refused(images, fabric):
    with pytest.raises(InputError, match=r"full batch of 65 training images.*there are 64"):
        run(stage_of(Linear(), batch_size=65), images, fabric)


def test_the_best_epoch_is_kept_not_the_last(images, fabric):
    model = Linear()
    step = iter(range(10**6))

    def loss(batch, shared):
        sign = 1 if next(step) < 4 else -1  # learns for one epoch, then unlearns
        return {"total": sign * cross_entropy(model(batch.image), batch.label)}

    history = run(stage_of(model, loss, schedule="constant"), images, fabric)
    aucs = [record["validation/auroc"] for record in history[1:]]  # before training nothing is kept
    assert np.argmax(aucs) != len(aucs) - 1
    assert [record["kept"] for record in history] == [False, *(auc == max(aucs) for auc in aucs)]
    indices = images.task.indices("validation")
    from sklearn.metrics import roc_auc_score

    kept = predict(model, images, indices, fabric)[:, 1]
    assert roc_auc_score(images.task.label[indices], kept) == pytest.approx(max(aucs))


@pytest.mark.parametrize(
    ("record", "best", "expected"),
    [
        ((0.95, 0.90, 0.001), (0.95, 0.90, 0.002), True),  # within the budget the fairer one
        ((0.93, 0.90, 0.001), (0.95, 0.90, 0.002), False),  # not at the price of AUROC
        ((0.95, 0.88, 0.001), (0.95, 0.90, 0.002), False),  # nor of accuracy
        ((0.93, 0.90, 0.009), (0.91, 0.90, 0.001), True),  # beyond it, whatever is nearest to it
        ((0.95, 0.90, 4e-4), (0.94, 0.90, 1e-4), True),  # of two within chance, the better diagnosis
        ((0.94, 0.90, 1e-4), (0.95, 0.90, 4e-4), False),
    ],
)
def test_the_choice_by_fairness(record, best, expected):
    def epoch(values):
        names = ("validation/auroc", "validation/balanced_accuracy", "judged/unfairness")
        return dict(zip(names, values, strict=True))

    stage = stage_of(Linear(), choose="fairness", budget=0.01)
    assert better(stage, epoch(record), epoch(best), epoch((0.95, 0.90, 0.02)), 5e-4) is expected


@pytest.mark.parametrize("groups", [2, 3])
def test_as_fair_as_images_can_tell_is_mean_and_deviation_of_chance(groups):
    rng = np.random.default_rng(groups)
    found = [
        approximate_diagnosis_fairness(*rng.integers(2, size=(2, 1000)), sensitive_features=group)
        for group in rng.integers(groups, size=(400, 1000))
    ]
    expected = np.mean(found) + np.std(found)
    assert within_chance(groups, 2, 1000) == pytest.approx(expected, rel=0.1)


def test_fairness_is_judged_on_training_images_too_and_auroc_is_not(images, fabric):
    from sklearn.metrics import roc_auc_score

    def darkness(image):  # of the middle, where the groups differ
        return torch.stack([image[..., 12:20, 4:28].mean((1, 2, 3)), torch.zeros(len(image))], dim=1)

    task = images.task
    both = np.concatenate([task.indices("validation"), task.indices("train")])
    scores = predict(darkness, images, both, fabric)[:, 1]
    fair = mean_approximate_diagnosis_fairness(task.label[both], scores, sensitive_features=task.group[both])
    count = len(task.indices("validation"))
    auc = roc_auc_score(task.label[both[:count]], scores[:count])
    record = run(stage_of(Linear(), epochs=0, choose="fairness", logits=darkness), images, fabric)[0]
    assert record["judged/unfairness"] == pytest.approx(fair, rel=1e-9)
    assert fair > 0
    assert record["validation/auroc"] == pytest.approx(auc)
    assert "judged/unfairness" not in run(stage_of(Linear(), epochs=0), images, fabric)[0]


@pytest.mark.parametrize(("enough", "expected"), [(10**6, 48 + 64), (60, 60), (7, 48)])
def test_as_many_training_images_judge_fairness_as_there_are_too_few_others(
    images, fabric, monkeypatch, enough, expected
):
    monkeypatch.setattr("fairdx.training.fit.FAIRNESS_IMAGES", enough)
    seen = []

    def logits(image):
        seen.append(len(image))
        return torch.zeros(len(image), 2)

    assert [len(images.task.indices(split)) for split in ("validation", "train")] == [48, 64]
    run(stage_of(Linear(), epochs=0, choose="fairness", logits=logits), images, fabric)
    assert sum(seen) == expected


def test_only_the_last_player_may_learn_through_the_shared_pass():
    players = tuple(Player(n, ("model",), lambda b, s: {}, 1.0, through_shared=n == "a") for n in "ab")
    with pytest.raises(ValueError, match="only the last player"):
        stage_of(Linear(), players=players)
    with pytest.raises(ValueError, match="no module `other`"):
        stage_of(Linear(), average=("other",))


def test_learning_thaws_only_what_is_named_and_freezes_it_again():
    modules = {
        "a": nn.BatchNorm1d(2).eval().requires_grad_(False),
        "b": nn.Linear(2, 2).eval().requires_grad_(False),
    }
    with learning(("a",), modules):
        assert modules["a"].training
        assert all(p.requires_grad for p in modules["a"].parameters())
        assert not modules["b"].training
        assert not any(p.requires_grad for p in modules["b"].parameters())
    assert not modules["a"].training
    assert not any(p.requires_grad for p in modules["a"].parameters())


def test_schedules():
    cosine, step, constant = (schedule_factor(name, 10, 10) for name in ("cosine", "step", "constant"))
    assert cosine(0) < cosine(5) <= 1
    assert cosine(50) == pytest.approx(0.5)
    assert cosine(100) == pytest.approx(0, abs=1e-12)
    assert [step(k) for k in (0, 59, 60, 85)] == pytest.approx([1, 1, 0.1, 0.01])
    assert constant(99) == 1


def test_seeds_depend_on_every_part_and_leave_the_global_generator_alone():
    assert len({derive_seed("a", 1), derive_seed("a", 2), derive_seed("a1"), derive_seed(1, "a")}) == 4
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with isolated_rng(7):
        first = torch.rand(2)
    with isolated_rng(7):
        torch.testing.assert_close(torch.rand(2), first)
    torch.testing.assert_close(torch.rand(2), expected)


def test_shifting_moves_whole_images_and_repeats_the_edge():
    image = torch.arange(2 * 25.0).view(2, 1, 5, 5)
    torch.manual_seed(0)
    moved = augment(image, shift=1, flip=False)
    padded = nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    for one, original in zip(moved, padded, strict=True):
        places = [
            (r, c) for r in range(3) for c in range(3) if torch.equal(one, original[:, r : r + 5, c : c + 5])
        ]
        assert places
    torch.testing.assert_close(augment(image, shift=0, flip=False), image)
    flipped = augment(image.expand(2, 1, 5, 5), shift=0, flip=True)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(flipped, image, strict=True))
    turned = augment(image[:1].expand(40, 1, 5, 5), shift=0, flip=False, turn=True)
    ways = [torch.rot90(image[0], quarters, (1, 2)) for quarters in range(4)]
    found = [[torch.equal(one, way) for way in ways].index(True) for one in turned]
    assert set(found) == {0, 1, 2, 3}


def test_the_threshold_is_youdens_against_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(50):
        label = np.append(rng.integers(0, 2, 18), [0, 1])
        score = rng.integers(0, 8, 20) / 8

        def index(t, label=label, score=score):
            return (score[label == 1] >= t).mean() - (score[label == 0] >= t).mean()

        best = max(index(t) for t in np.append(np.unique(score), 2))
        assert index(youden_threshold(label, score)) == pytest.approx(best)
    with pytest.raises(InputError, match="all validation labels are equal"):
        youden_threshold([1, 1], [0.2, 0.3])
