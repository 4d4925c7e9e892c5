"""A corrected score realised as a mask: the smallest change of the image that moves the frozen model there.

The paper's operator, "iteratively added with constraints", with the model's own gradient in place of a
generator. Values move by whole grey levels, so that the masked image can be stored in 8 bits as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

import torch
from torch import Tensor

from fairdx.models.diagnosis import Diagnosis, DiagnosisModel

GREY: Final = 255.0
"""Grey levels of the range [0, 1]."""


@dataclass(frozen=True)
class Realisation:
    """How a corrected score becomes a mask.

    Attributes:
        steps: K. The first costs a pass forward and one back to the image, each other a pass forward.
        levels: Largest change of a value, in grey levels.
    """

    steps: int = 3
    levels: int = 1


def realised(
    model: DiagnosisModel, image: Tensor, target: Callable[[Diagnosis], Tensor], plan: Realisation
) -> Tensor:
    """Returns images whose diagnosis by `model` has the log-odds that a correction asks for.

    One gradient says for every value of the image which way to move it. Values are moved by whole levels, as
    far as `plan.levels` and the range allow, spread over the image in a fixed order, until the target is
    reached to first order. The model is then asked what they came to, and more or fewer values of the same
    order are moved, by the secant rule. Needs gradients, and binary labels.

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
        found, gradient = _gradient(model, start / GREY)
        before = log_odds(found.logit)
        missing = target(found).detach() - before
    with torch.no_grad():
        path = _Path.along(start, gradient / GREY, missing.sign(), plan.levels)
        need = missing.abs()
        reach, known = need, [(torch.zeros_like(need), torch.zeros_like(need))]
        for _ in range(plan.steps - 1):
            moved = log_odds(model(path.at(reach) / GREY).logit.float()) - before
            known.append((reach, moved * missing.sign()))
            reach = _secant(known[-2], known[-1], need)
        return path.at(reach) / GREY


def _secant(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], need: Tensor) -> Tensor:
    """Where the line through two points (reach, change) comes to `need`; at most twice as far, or half."""
    (a, at_a), (b, at_b) = first, second
    slope = (at_b - at_a) / torch.where(b == a, torch.ones_like(b), b - a)
    wanted = torch.where(slope > 0.2, b + (need - at_b) / slope.clamp_min(0.2), 1.5 * b)
    return torch.minimum(torch.maximum(wanted, 0.5 * b), 2 * b)


class _Path(NamedTuple):
    """Images with more and more of their values moved."""

    start: Tensor
    """Grey levels, shape (N, C, H, W)."""
    room: Tensor
    """Levels by which each value is moved, if it is, shape (N, values)."""
    before: Tensor
    """To first order, what the values moved before each come to, shape (N, values)."""
    gain: Tensor
    """And each itself, at least 0, shape (N, values)."""

    @classmethod
    def along(cls, start: Tensor, gradient: Tensor, sign: Tensor, levels: int) -> "_Path":
        """The path along a gradient of the log-odds, by `sign` of shape (N,)."""
        flat, slope = start.flatten(1), gradient.flatten(1) * sign[:, None]
        ends = torch.where(slope > 0, (flat + levels).clamp_max(GREY), (flat - levels).clamp_min(0))
        room = ends - flat
        gain = slope * room
        order = _order(gain.shape[1]).to(gain.device)
        own = gain[:, order]
        before = torch.empty_like(gain)
        before[:, order] = own.cumsum(1) - own
        return cls(start, room, before, gain)

    def at(self, reach: Tensor) -> Tensor:
        """Grey levels with as many values moved as come to `reach`, shape (N,), to first order."""
        rest = reach[:, None] - self.before
        share = (rest / self.gain.clamp_min(1e-30)).clamp(0, 1) * (self.gain > 0)
        return self.start + (share * self.room).round().view_as(self.start)


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


@cache
def _order(count: int) -> Tensor:
    """A fixed order of the values in which they are moved, without any pattern.

    Those with the steepest gradient lie together, and together they bend the model: after one step in their
    order it is nearly twice as far from the target.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
