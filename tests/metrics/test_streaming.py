"""Running metrics give what the functions give on everything at once, however it is cut."""

import numpy as np
import pytest

from fairdx.core.errors import InputError
from fairdx.metrics import RunningADF, RunningEffects, approximate_diagnosis_fairness, effects


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random(300), rng.integers(0, 2, 300), rng.integers(0, 3, 300)


def test_batches_add_up(data):
    p, y, s = data
    adf, moved = RunningADF(3), RunningEffects(3)
    for part in np.array_split(np.arange(300), 7):
        adf.update(p[part], y[part], s[part])
        moved.update(p[part], y[part], s[part])
    d = (p >= 0.5).astype(int)
    for corrected in (False, True):
        expected = approximate_diagnosis_fairness(y, d, sensitive_features=s, corrected=corrected)
        assert adf.compute(corrected=corrected) == pytest.approx(expected)
    own = effects(y, d, sensitive_features=s, reference=0)
    found = moved.compute()
    assert found["direct_effect"][1:] == pytest.approx([e.direct_effect for e in own])
    assert found["total_effect"][0] == 0


def test_processes_merge_and_sync(data):
    p, y, s = data
    whole, first, second = RunningADF(3), RunningADF(3), RunningADF(3)
    whole.update(p, y, s)
    first.update(p[:100], y[:100], s[:100])
    second.update(p[100:], y[100:], s[100:])
    others = second.counts.copy()
    assert first.merge(second).compute() == pytest.approx(whole.compute())
    assert second.sync(lambda counts: counts + whole.counts - others).compute() == pytest.approx(
        whole.compute()
    )
    first.reset()
    assert np.isnan(first.compute())


def test_tensors_and_class_scores():
    torch = pytest.importorskip("torch")
    scores = torch.rand(50, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    label, group = torch.arange(50) % 3, torch.arange(50) % 2
    adf = RunningADF(2, 3)
    adf.update(scores, label, group)
    expected = approximate_diagnosis_fairness(
        label.numpy(), scores.detach().numpy().argmax(1), sensitive_features=group.numpy()
    )
    assert adf.compute() == pytest.approx(expected)


def test_bad_codes_are_named():
    with pytest.raises(InputError, match="groups holds 2"):
        RunningADF(2).update([0.1], [0], [2])
    with pytest.raises(InputError, match="n_groups is 1"):
        RunningADF(1)
    with pytest.raises(InputError, match="cannot be merged"):
        RunningADF(2).merge(RunningADF(3))


def test_shapes_and_kinds_of_a_batch_are_flattened_or_refused(data):
    p, y, s = data
    flat, column, words = RunningADF(3), RunningADF(3), RunningADF(3)
    flat.update(p, y, s)
    column.update(p[:, None], y[:, None].astype(float), s[:, None])
    assert column.compute() == flat.compute() > 0
    words.update(np.stack([1 - p, p], axis=1), y, s)
    assert words.compute() == flat.compute()
    nan = np.where(np.arange(300) == 7, np.nan, p)
    for preds, target, groups, told in (
        (nan, y, s, "preds is missing or not finite in 1 rows (first: row 7)"),
        (p, nan, s, "target is missing"),
        (p, 0.9 * y, s, "target holds 0.9; codes are whole numbers"),
        (100 * p, y, s, "preds must lie in [0, 1]"),
        ((100 * p).astype(int), y, s, "codes go from 0 to 1"),
        (np.ones((300, 3)), y, s, "preds has 3 columns"),
        (p, y, s[:100], "groups has 100"),
        (np.stack([p, p], axis=1), y, np.stack([s, s], axis=1), "groups has shape"),
    ):
        with pytest.raises(InputError) as error:
            RunningADF(3).update(preds, target, groups)
        assert told in str(error.value)
    with pytest.raises(InputError, match="threshold is 50"):
        RunningADF(2, threshold=50)


def test_single_precision_is_compared_as_single_precision():
    votes = np.float32([0.6, 0.7, 0.8, 0.7])
    moved = RunningEffects(2, threshold=0.7)
    moved.update(votes, [1, 1, 1, 1], [0, 0, 1, 1])
    assert moved.compute()["total_effect"].tolist() == [0.0, 0.5]
