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


NEAR: Final = 0.05
"""How far from its target, in log-odds, an image may be that is not moved any further."""

CHECKS: Final = 4
"""How often the model is asked, along the path of one gradient, what an image came to."""


@dataclass(frozen=True)
class Realisation:
    """How a corrected score becomes a mask.

    Attributes:
        steps: K, the most gradients that are taken of an image. Each costs a pass forward and one back, and
            up to `CHECKS` passes forward.
        levels: Largest change of a value, in grey levels.
    """

    steps: int = 4
    levels: int = 2


def realised(
    model: DiagnosisModel, image: Tensor, target: Callable[[Diagnosis], Tensor], plan: Realisation
) -> Tensor:
    """Returns images whose diagnosis by `model` has the log-odds that a correction asks for.

    A gradient says for every value of the image which way to move it. Values are moved by one level, or by
    more where that is not enough, as far as `plan.levels` and the range allow. They are spread over the image
    in a fixed order, until the target is reached to first order. (Fewer values moved further bend the model,
    and miss by more.) The model is then asked what they came to, and more or fewer values of the same order
    are moved, by the rule of false position. Images that this did not bring near enough go another step from
    where they are.
    Needs gradients, and binary labels.

    Args:
        model: The frozen model.
        image: X in [0, 1], shape (N, C, H, W); moved from the nearest grey level on.
        target: Log-odds that the model shall come to, shape (N,), of what it makes of the images as they are.
        plan: Steps and levels.

    Returns:
        X~ on the 256 grey levels, never further than `plan.levels` from the nearest level of X.
    """
    with torch.inference_mode(False):
        origin = (image.detach().clone() * GREY).round()
        current = origin.clone()
        found, gradient = _gradient(model, current / GREY)
        goal, rows = target(found).detach().clone(), torch.arange(len(image), device=image.device)
        for step in range(plan.steps):
            if step > 0:
                found, gradient = _gradient(model, current[rows] / GREY)
            before = log_odds(found.logit)
            missing = goal[rows] - before
            path = _Path.along(origin[rows], current[rows], gradient / GREY, missing, plan.levels)
            current[rows], near = _step(model, path, before, goal[rows])
            if step + 1 < plan.steps:
                rows = rows[~near]
            if len(rows) == 0:
                break
        return current / GREY


@torch.no_grad()
def _step(model: DiagnosisModel, path: "_Path", before: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """Goes along a path from log-odds to others; returns the images, and which are known to be near."""
    sign, need = (goal - before).sign(), (goal - before).abs()
    image, near = path.at(need), torch.zeros_like(need, dtype=torch.bool)
    rows, reach, bracket = torch.arange(len(need), device=need.device), need, _Bracket.around(need)
    for check in range(CHECKS):
        if check > 0:
            far = ~near[rows]
            rows, reach, path = rows[far], reach[far], path.of(far)
            bracket = _Bracket(*(end[far] for end in bracket))
            if len(rows) == 0:
                break
            image[rows] = path.at(reach)
        came = (log_odds(model(image[rows] / GREY).logit.float()) - before[rows]) * sign[rows]
        near[rows] = (came - need[rows]).abs() <= NEAR
        bracket = bracket.narrowed(reach, came, need[rows])
        reach = torch.where(near[rows], reach, bracket.secant(need[rows]))
    else:
        image[rows] = path.at(reach)
    return image, near


class _Bracket(NamedTuple):
    """How far along its path an image fell short of its target, and how far it went beyond; shape (N,)."""

    low: Tensor
    at_low: Tensor
    """What the image came to there, in log-odds."""
    high: Tensor
    at_high: Tensor
    """Infinite, as long as nothing went beyond."""

    @classmethod
    def around(cls, need: Tensor) -> "_Bracket":
        """All of the path."""
        zero, infinite = torch.zeros_like(need), torch.full_like(need, float("inf"))
        return cls(zero, zero, infinite, infinite)

    def narrowed(self, reach: Tensor, came: Tensor, need: Tensor) -> "_Bracket":
        """With one more point."""
        short = came < need
        return _Bracket(
            torch.where(short, reach, self.low),
            torch.where(short, came, self.at_low),
            torch.where(short, self.high, reach),
            torch.where(short, self.at_high, came),
        )

    def secant(self, need: Tensor) -> Tensor:
        """Where to look next: between both ends, or on from the lower one, at most to twice as far."""
        slope = (self.high - self.low) / (self.at_high - self.at_low).clamp_min(1e-6)
        between = self.low + (need - self.at_low) * slope
        factor = (need / self.at_low.clamp_min(1e-6)).clamp(1, 2)
        return torch.where(self.high.isfinite(), between, self.low * factor)


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
    def along(cls, origin: Tensor, start: Tensor, gradient: Tensor, missing: Tensor, levels: int) -> "_Path":
        """The path along a gradient of the log-odds to what is `missing`, (N,), near `origin`."""
        flat, now = origin.flatten(1), start.flatten(1)
        slope = gradient.flatten(1) * missing.sign()[:, None]
        up, down = (flat + levels).clamp_max(GREY), (flat - levels).clamp_min(0)
        # One level, unless all values together then come to less than is missing.
        least = (2 * missing.abs() / slope.abs().sum(1).clamp_min(1e-30)).ceil().clamp(1, levels)[:, None]
        room = torch.where(slope > 0, torch.minimum(now + least, up), torch.maximum(now - least, down)) - now
        gain = slope * room
        order = _order(gain.shape[1]).to(gain.device)
        own = gain[:, order]
        before = torch.empty_like(gain)
        before[:, order] = own.cumsum(1) - own
        return cls(start, room, before, gain)

    def of(self, rows: Tensor) -> "_Path":
        """Those of some images."""
        return _Path(*(part[rows] for part in self))

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
    with torch.enable_grad():
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
