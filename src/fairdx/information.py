"""The Jensen-Shannon term that keeps embeddings useful for further tasks (Eqs. 5 and 6)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


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


def jensen_shannon_score(critic: JensenShannonCritic, image: Tensor, embedding: Tensor) -> Tensor:
    """I^(JSD)(X~; E), Eq. 5: E[-sp(-f(X~, E))] - E[sp(f(X~, E'))], with softplus sp and E' a shuffled E.

    A score for training, not Shannon information in nats: it is at most 0, and -2 log 2 for a critic that
    cannot tell pairs from shuffled pairs. Never report it as ADF.

    Args:
        critic: f_omega.
        image: X~, shape (N, C, H, W), N at least 2.
        embedding: E, shape (N, D). E' is E rolled by one place, so that no row keeps its partner.

    Returns:
        A scalar, to be maximised over theta and omega (Eq. 6).
    """
    summary = critic.summary(image)
    joint = critic(summary, embedding).float()
    marginal = critic(summary, embedding.roll(1, dims=0)).float()
    return -softplus(-joint).mean() - softplus(marginal).mean()
