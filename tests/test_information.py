import math

import pytest
import torch

from fairdx.information import JensenShannonCritic, jensen_shannon_score


class Table(torch.nn.Module):
    """A critic whose scores are written down: pairs that belong together, and shuffled ones."""

    def __init__(self, together, shuffled):
        super().__init__()
        self.summary = torch.nn.Flatten()
        self.together, self.shuffled = together, shuffled

    def forward(self, summary, embedding):
        same = (summary[:, 0] == embedding[:, 0])[:, None].float()
        return (same * self.together + (1 - same) * self.shuffled)[:, 0]


@pytest.mark.parametrize(("together", "shuffled"), [(0.0, 0.0), (2.0, -1.0), (-3.0, 0.5)])
def test_the_score_is_equation_5(together, shuffled):
    image = torch.arange(5.0).view(5, 1, 1, 1)
    expected = -math.log1p(math.exp(-together)) - math.log1p(math.exp(shuffled))
    score = jensen_shannon_score(Table(together, shuffled), image, image.view(5, 1))
    assert float(score) == pytest.approx(expected)


def test_a_critic_that_cannot_tell_scores_minus_two_log_two():
    image = torch.rand(4, 1, 8, 8)
    score = jensen_shannon_score(Table(0.0, 0.0), image, torch.rand(4, 1))
    assert float(score) == pytest.approx(-2 * math.log(2))


def _score_after_training(embed):
    """The score on fresh images of a critic that was trained to tell pairs by `embed`."""
    torch.manual_seed(0)
    critic = JensenShannonCritic(1, 8, width=32)
    optimizer = torch.optim.Adam(critic.parameters(), 3e-3)
    for _ in range(300):
        image = torch.rand(64, 1, 1, 1).expand(64, 1, 16, 16)
        optimizer.zero_grad()
        (-jensen_shannon_score(critic, image, embed(image))).backward()
        optimizer.step()
    fresh = torch.rand(1024, 1, 1, 1).expand(1024, 1, 16, 16)
    with torch.no_grad():
        return float(jensen_shannon_score(critic, fresh, embed(fresh)))


def test_the_critic_finds_shared_information_and_none_where_there_is_none():
    wave = torch.arange(1.0, 9.0)
    shared = _score_after_training(lambda image: torch.sin(image[:, 0, 0, :1] * wave))
    independent = _score_after_training(lambda image: torch.sin(torch.rand(len(image), 1) * wave))
    assert shared > -2 * math.log(2) + 0.2
    assert independent == pytest.approx(-2 * math.log(2), abs=0.03)
