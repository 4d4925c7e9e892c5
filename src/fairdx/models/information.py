"""Terms of dependence to train on: image with embedding (Eqs. 5 and 6), score with group given Y (Eq. 8)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus


class JensenShannonCritic(nn.Module):
    """f_omega: scores whether an image and an embedding belong together (Eq. 5).

    A "concat" critic: a small convolutional summary of the image joined with the embedding (Hjelm et al.,
    ICLR 2019, global critic). Its summary is pooled, so that images of any size fit.

    Args:
        channels: Channels of the image.
        features: Length of the embedding, D.
        width: Hidden units.
    """

    def __init__(self, channels: int = 1, features: int = 512, *, width: int = 128) -> None:
        super().__init__()
        self.summary = nn.Sequential(
            nn.Conv2d(channels, width // 4, 4, stride=4),
            nn.SiLU(),
            nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * (width // 2), width),
        )
        self.embed = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width))
        self.score = nn.Sequential(nn.SiLU(), nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, summary: Tensor, embedding: Tensor) -> Tensor:
        """Returns scores (N,) of image summaries (N, width) and embeddings (N, D)."""
        return cast(Tensor, self.score(torch.cat([summary, self.embed(embedding)], dim=1)))[:, 0]


def jensen_shannon_score(critic: JensenShannonCritic, summary: Tensor, embedding: Tensor) -> Tensor:
    """I^(JSD)(X~; E), Eq. 5: E[-sp(-f(X~, E))] - E[sp(f(X~, E'))], with softplus sp and E' a shuffled E.

    A score for training, not Shannon information in nats: it is at most 0, and -2 log 2 for a critic that
    cannot tell pairs from shuffled pairs. Never report it as ADF.

    Args:
        critic: f_omega.
        summary: What its `summary` makes of X~, shape (N, width), N at least 2.
        embedding: E, shape (N, D). E' is E rolled by one place, so that no row keeps its partner.

    Returns:
        A scalar, to be maximised over theta and omega (Eq. 6).
    """
    joint = critic(summary, embedding).float()
    marginal = critic(summary, embedding.roll(1, dims=0)).float()
    return -softplus(-joint).mean() - softplus(marginal).mean()


def ranking_loss(score: Tensor, positive: Tensor, group: Tensor, *, groups: int) -> Tensor:
    """How badly a score orders the patients of each group: a smooth form of 1 - AUROC within groups.

    The mean of log(1 + exp(score_j - score_i)) over all pairs of a positive i and a negative j of one group
    (the pairwise logistic loss of Burges et al., "Learning to rank using gradient descent", ICML 2005), then
    over groups. Unlike the cross-entropy it does not change where all scores of a group are moved together.

    Args:
        score: Scores on a logarithmic scale, shape (N,).
        positive: Whether the label is the positive one, bool of shape (N,).
        group: S, int64 of shape (N,).
        groups: Number of groups.

    Returns:
        A scalar, log 2 where all scores are alike; groups without a pair are left out, without any it is 0.
    """
    member = one_hot(group, groups).to(score.dtype)
    first, second = member * positive[:, None], member * ~positive[:, None]
    loss = softplus(score[None, :] - score[:, None])
    pairs = first.sum(0) * second.sum(0)
    each = torch.einsum("ig,ij,jg->g", first, loss, second) / pairs.clamp_min(1)
    return each.sum() / (pairs > 0).sum().clamp_min(1)


def separation_gap(
    score: Tensor, label: Tensor, group: Tensor, *, groups: int, classes: int = 2, thresholds: int = 24
) -> Tensor:
    """How far groups are apart in the rate of positive decisions, within a label and at every threshold.

    With F_sy(t) the share of images of group s and label y whose score exceeds t, it is the sum over pairs of
    groups, and mean over labels and thresholds, of (F_sy(t) - F_s'y(t))^2: the Cramér distance of the groups'
    scores, with t on the scale of the pooled scores' own quantiles. It is 0 where I(S; Y^ | Y) = 0 at every
    threshold (Eq. 8 for the decision), and needs no adversary to find out. A sum over pairs, so that two
    groups which differ weigh as much beside a third as without it. A label weighs as many images as have it,
    as it does in I(S; Y^ | Y): of a rare one a batch says little. Three things make it fit for training on
    small batches. Steps are rounded to sigmoids, so that there is a gradient. Thresholds and their width move
    with the scores, so that shrinking all scores gains nothing. And the squares are estimated without bias,
    as a U-statistic (each image is compared with others only), because the plain square of a gap between two
    small samples is largely noise, which a mask could lower by making all scores alike.

    Args:
        score: Scores on a logarithmic scale, as the difference of two logits, shape (N,).
        label: Y, int64 of shape (N,).
        group: S, int64 of shape (N,).
        groups: Number of groups, at least 2.
        classes: Number of classes of the label.
        thresholds: Number of thresholds for each label.

    Returns:
        The squared gap, a scalar of at most 1 for two groups; below 0 where a batch shows less than chance
        would. Cells of fewer than two images are left out; without any pair it is 0.
    """
    levels = (torch.arange(thresholds, device=score.device, dtype=score.dtype) + 0.5) / thresholds
    member = one_hot(group, groups).to(score.dtype)
    first, second = torch.triu_indices(groups, groups, 1, device=score.device)
    total, known_images = score.new_zeros(()), score.new_zeros(())
    for y in range(classes):
        inside = (label == y).to(score.dtype)
        cut, width = _thresholds(score.detach(), inside, levels)
        above = torch.sigmoid((score[:, None] - cut) / width)
        weight = member * inside[:, None]
        n = weight.sum(0)[:, None]
        rate = weight.T @ above / n.clamp_min(1)
        # The variance of each mean, which the square of a difference of means holds in excess.
        excess = (weight.T @ above.square() / n.clamp_min(1) - rate.square()) / (n - 1).clamp_min(1)
        gap = (rate[first] - rate[second]).square() - excess[first] - excess[second]
        known = ((n[first] >= 2) & (n[second] >= 2)).to(score.dtype)
        images = inside.sum() * known.any()
        total = total + images * (known * gap).sum() / thresholds
        known_images = known_images + images
    return total / known_images.clamp_min(1)


def _thresholds(score: Tensor, inside: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles of the scores inside a label, and how wide a step is there."""
    own = torch.where(inside > 0, score, torch.nan)
    cut = torch.nanquantile(own, levels).nan_to_num()
    n = inside.sum().clamp_min(1)
    mean = (score * inside).sum() / n
    spread = ((score - mean).square() * inside).sum() / n
    return cut, spread.sqrt() / 4 + 1e-3
