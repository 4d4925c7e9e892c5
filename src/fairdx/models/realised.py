"""A corrected score realised as a mask: the smallest change of the image that moves the frozen model there.

The paper's operator, "iteratively added with constraints", with the model's own gradient in place of a
generator. Each step moves the pixels that count most, by whole grey levels, so that the masked image can be
stored in 8 bits as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fairdx.models.diagnosis import Diagnosis, DiagnosisModel

GREY: Final = 255.0
"""Grey levels of the range [0, 1]."""


@dataclass(frozen=True)
class Realisation:
    """How a corrected score becomes a mask.

    Attributes:
        steps: K. Each costs one pass forward and one back to the image.
        levels: Largest change of a value, in grey levels.
    """

    steps: int = 2
    levels: int = 3


def realised(
    model: DiagnosisModel, image: Tensor, target: Callable[[Diagnosis], Tensor], plan: Realisation
) -> Tensor:
    """Returns images whose diagnosis by `model` has the log-odds that a correction asks for.

    A step takes the model as linear around the image: it sorts the values by their share in the gradient and
    moves as few as reach the target, each by whole levels, as far as `plan.levels` and the range allow. The
    next step corrects what the model's curvature left. Needs gradients, and binary labels.

    Args:
        model: The frozen model.
        image: X in [0, 1], shape (N, C, H, W); moved from the nearest grey level on.
        target: Log-odds that the model shall come to, shape (N,), of what it makes of the images as they are.
        plan: Steps and levels.

    Returns:
        X~ on the 256 grey levels, never further than `plan.levels` from the nearest level of X.
    """
    with torch.inference_mode(False), torch.enable_grad():
        start = (image.detach().clone() * GREY).round()
        low, high = (start - plan.levels).clamp_min(0), (start + plan.levels).clamp_max(GREY)
        moved, wanted = start, None
        for _ in range(plan.steps):
            found, gradient = _gradient(model, moved / GREY)
            if wanted is None:
                wanted = target(found).detach()
            moved = _step(moved, gradient / GREY, wanted - log_odds(found.logit), low, high)
        return moved / GREY


def log_odds(logit: Tensor) -> Tensor:
    """Log-odds (N,) of two classes' logits (N, 2)."""
    return logit[:, 1] - logit[:, 0]


def _gradient(model: DiagnosisModel, image: Tensor) -> tuple[Diagnosis, Tensor]:
    """The diagnosis, without its graph, and the gradient of its log-odds by the image."""
    leaf = image.clone().requires_grad_(True)
    found = model(leaf)
    (gradient,) = torch.autograd.grad(log_odds(found.logit.float()).sum(), leaf)
    embedding = None if found.embedding is None else found.embedding.detach()
    return Diagnosis(embedding, found.logit.detach().float()), gradient


def _step(moved: Tensor, gradient: Tensor, missing: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Moves as few values as reach what is missing to first order."""
    flat, slope = moved.flatten(1), gradient.flatten(1)
    up = (slope * missing[:, None]) > 0
    room = torch.where(up, high.flatten(1) - flat, low.flatten(1) - flat)
    gain = (slope * room) * missing.sign()[:, None]  # never below 0
    order = gain.argsort(dim=1, descending=True)
    sorted_gain = gain.gather(1, order)
    reached = sorted_gain.cumsum(1)
    need = missing.abs()[:, None]
    # Whole values up to the one that would pass the target; of that one as many levels as come nearest.
    rest = need - (reached - sorted_gain)
    taken = (rest / sorted_gain.clamp_min(1e-30)).clamp(0, 1) * (sorted_gain > 0)
    share = torch.zeros_like(gain).scatter(1, order, taken)
    return (flat + (share * room).round()).view_as(moved)
