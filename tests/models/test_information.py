import itertools
import math

import numpy as np
import pytest
import torch

from fairdx.models.information import JensenShannonCritic, jensen_shannon_score, ranking_loss, separation_gap


class Table(torch.nn.Module):
    """A critic whose scores are written down: pairs that belong together, and shuffled ones."""

    def __init__(self, together, shuffled):
        super().__init__()
        self.together, self.shuffled = together, shuffled

    def forward(self, summary, embedding):
        same = (summary[:, 0] == embedding[:, 0])[:, None].float()
        return (same * self.together + (1 - same) * self.shuffled)[:, 0]


@pytest.mark.parametrize(("together", "shuffled"), [(0.0, 0.0), (2.0, -1.0), (-3.0, 0.5)])
def test_the_score_is_equation_5(together, shuffled):
    image = torch.arange(5.0).view(5, 1, 1, 1)
    expected = -math.log1p(math.exp(-together)) - math.log1p(math.exp(shuffled))
    score = jensen_shannon_score(Table(together, shuffled), image.flatten(1), image.view(5, 1))
    assert float(score) == pytest.approx(expected)


def test_a_critic_that_cannot_tell_scores_minus_two_log_two():
    score = jensen_shannon_score(Table(0.0, 0.0), torch.rand(4, 64), torch.rand(4, 1))
    assert float(score) == pytest.approx(-2 * math.log(2))


def _score_after_training(embed):
    """The score on fresh images of a critic that was trained to tell pairs by `embed`."""
    torch.manual_seed(0)
    critic = JensenShannonCritic(1, 8, width=32)
    optimizer = torch.optim.Adam(critic.parameters(), 3e-3)
    for _ in range(300):
        image = torch.rand(64, 1, 1, 1).expand(64, 1, 16, 16)
        optimizer.zero_grad()
        (-jensen_shannon_score(critic, critic.summary(image), embed(image))).backward()
        optimizer.step()
    fresh = torch.rand(1024, 1, 1, 1).expand(1024, 1, 16, 16)
    with torch.no_grad():
        return float(jensen_shannon_score(critic, critic.summary(fresh), embed(fresh)))


def test_the_critic_finds_shared_information_and_none_where_there_is_none():
    wave = torch.arange(1.0, 9.0)
    shared = _score_after_training(lambda image: torch.sin(image[:, 0, 0, :1] * wave))
    independent = _score_after_training(lambda image: torch.sin(torch.rand(len(image), 1) * wave))
    assert shared > -2 * math.log(2) + 0.2
    assert independent == pytest.approx(-2 * math.log(2), abs=0.03)


def by_pairs(score, label, group, thresholds=24):
    """The squared gap as a U-statistic, written out: no image is compared with itself."""
    gaps, images = [], []
    for y in (0, 1):
        terms = []
        own = score[label == y]
        levels = np.linspace(0.5 / thresholds, 1 - 0.5 / thresholds, thresholds)
        above = 1 / (1 + np.exp(-(score[:, None] - np.quantile(own, levels)) / (own.std() / 4 + 1e-3)))
        present = [above[(label == y) & (group == s)] for s in np.unique(group)]
        for a, b in itertools.combinations(present, 2):
            if len(a) < 2 or len(b) < 2:
                continue
            within = sum(
                np.mean([x[i] * x[j] for i, j in itertools.permutations(range(len(x)), 2)], axis=0)
                for x in (a, b)
            )
            terms.append(within - 2 * a.mean(0) * b.mean(0))
        if terms:
            gaps.append(np.sum(np.mean(terms, axis=1)))
            images.append(len(own))
    return np.average(gaps, weights=images)


@pytest.mark.parametrize("groups", [2, 3])
def test_the_separation_gap_is_the_u_statistic_of_the_squared_gaps(groups):
    rng = np.random.default_rng(0)
    label, group = rng.binomial(1, 0.3, size=40), rng.integers(groups, size=40)
    score = rng.normal(size=40) + group * (0.7 + label)
    found = separation_gap(*map(torch.tensor, (score, label, group)), groups=groups)
    assert float(found) == pytest.approx(by_pairs(score, label, group), rel=1e-6)


def test_the_separation_gap_is_zero_on_average_where_groups_are_alike():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(500):
        label, group = rng.integers(2, size=24), rng.integers(2, size=24)
        score = torch.tensor(rng.normal(size=24) + 2 * label)
        found.append(float(separation_gap(score, torch.tensor(label), torch.tensor(group), groups=2)))
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found)) < 4 * error
    assert error < 0.002  # a plain square of the gaps is about 0.03 here


def test_the_separation_gap_does_not_reward_smaller_scores_and_points_the_right_way():
    generator = torch.Generator().manual_seed(2)
    label, group = (torch.randint(2, (400,), generator=generator) for _ in range(2))
    score = (torch.randn(400, generator=generator, dtype=torch.float64) + 0.8 * group).requires_grad_()
    gap = separation_gap(score, label, group, groups=2)
    small = separation_gap(0.2 * score, label, group, groups=2)
    assert small.item() == pytest.approx(gap.item(), rel=0.02)  # the width has a small floor
    gap.backward()
    # Down with the group whose scores are higher, up with the other.
    assert score.grad[group == 1].mean() > 0 > score.grad[group == 0].mean()


def test_the_separation_gap_leaves_out_cells_of_one_image():
    score = torch.tensor([0.0, 1.0, 2.0, 5.0])
    label = torch.tensor([0, 0, 0, 1])
    assert float(separation_gap(score, label, torch.tensor([0, 0, 1, 1]), groups=2)) == 0.0


def test_a_label_without_a_pair_of_cells_weighs_nothing_in_the_separation_gap():
    score = torch.tensor([0.0, 0.4, 1.0, 1.4, 7.0, 9.0, 8.0], dtype=torch.float64)
    label, group = torch.tensor([0, 0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 0, 1])
    alone = separation_gap(score[:4], label[:4], group[:4], groups=2)
    assert float(separation_gap(score, label, group, groups=2)) == pytest.approx(float(alone))
    assert float(alone) > 0


@pytest.mark.parametrize("groups", [2, 3])
def test_the_ranking_loss_is_the_mean_over_pairs_of_one_group(groups):
    rng = np.random.default_rng(groups)
    score, positive, group = rng.normal(size=40), rng.integers(0, 2, 40) > 0, rng.integers(0, groups, 40)
    expected = np.mean(
        [
            np.mean(
                np.logaddexp(0, score[~positive & (group == g)] - score[positive & (group == g)][:, None])
            )
            for g in range(groups)
        ]
    )
    found = ranking_loss(*map(torch.tensor, (score, positive, group)), groups=groups)
    assert float(found) == pytest.approx(expected)
    moved = ranking_loss(*map(torch.tensor, (score + 3.0 * group, positive, group)), groups=groups)
    assert float(moved) == pytest.approx(expected)


def test_groups_without_a_pair_do_not_count_for_the_ranking():
    score, group = torch.tensor([2.0, 0.0, 5.0]), torch.tensor([0, 0, 1])
    found = ranking_loss(score, torch.tensor([True, False, True]), group, groups=2)
    assert float(found) == pytest.approx(np.log1p(np.exp(-2)))
    assert float(ranking_loss(score, torch.ones(3, dtype=torch.bool), group, groups=2)) == 0.0
