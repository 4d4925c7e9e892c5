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

from fairdx.core.errors import InputError
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.statistics import Watched

GREY: Final = 255.0
"""Grey levels of the range [0, 1]."""


CLOSE: Final = 0.1
"""From so near its target, in log-odds, an image goes the rest without another look."""

PART: Final = 32 * 112 * 112
"""Pixels of one pass back on a processor. With more, the system takes its memory back and gives it again."""

CHECKS: Final = 3
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
    model: DiagnosisModel | Watched, image: Tensor, target: Callable[[Diagnosis], Tensor], plan: Realisation
) -> Tensor:
    """Returns images whose diagnosis by `model` has the log-odds that a correction asks for.

    A gradient says for every value of the image which way to move it. Values are moved by one level, or by
    more where that is not enough, as far as `plan.levels` and the range allow. They are spread over the image
    in a fixed order, as many as should come to the target. (Fewer values moved further bend the model, and
    miss by more.) The model is then asked what they came to, and more or fewer values of the same order are
    moved. Images that this did not bring near enough go another step from where they are.
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
def _step(
    model: DiagnosisModel | Watched, path: "_Path", before: Tensor, goal: Tensor
) -> tuple[Tensor, Tensor]:
    """Goes along a path from log-odds to others; returns the images, and which need no other step."""
    sign, need = (goal - before).sign(), (goal - before).abs()
    bend, rows = _Bend.usual(need), torch.arange(len(need), device=need.device)
    reach = ahead = bend.reach(need)
    image, done = path.at(reach), torch.zeros_like(need, dtype=torch.bool)
    for check in range(CHECKS):
        if check > 0:
            far = ~done[rows]
            rows, reach, bend = rows[far], ahead[far], bend.of(far)
            if len(rows) == 0:
                break
        came = (log_odds(model(image[rows] / GREY).logit.float()) - before[rows]) * sign[rows]
        bend = bend.through(reach, came)
        # One that moves away from its target goes half as far; if it still does at the last look, nowhere.
        back = reach / 2 if check + 1 < CHECKS else torch.full_like(reach, -torch.inf)
        ahead = torch.where(came < 0, back, bend.reach(need[rows]))
        image[rows] = path.of(rows).at(ahead)
        done[rows] = (came - need[rows]).abs() <= CLOSE
    return image, done


class _Bend(NamedTuple):
    """What a unit of a path brings, in log-odds: it falls along the path, about in a line.

    To first order it is 1. Two places say the line: the last two that were looked at, at first the start.
    """

    place: Tensor
    """How far along the path the last look was, shape (N,)."""
    there: Tensor
    """What a unit brought up to there."""
    fall: Tensor
    """By how much less a unit brings, a unit further on."""

    @classmethod
    def usual(cls, need: Tensor) -> "_Bend":
        """Before anything was looked at: single grey levels bring a little less than a gradient says."""
        return cls(torch.zeros_like(need), torch.full_like(need, 0.95), torch.full_like(need, 0.05))

    def of(self, rows: Tensor) -> "_Bend":
        """That of some images."""
        return _Bend(*(part[rows] for part in self))

    def through(self, reach: Tensor, came: Tensor) -> "_Bend":
        """With another look: at `reach` the image came to `came`."""
        there = came / reach.clamp_min(1e-12)
        step = reach - self.place
        fall = torch.where(step.abs() > 1e-6, (self.there - there) / step, self.fall)
        return _Bend(reach, there, fall)

    def reach(self, need: Tensor) -> Tensor:
        """How far to go for `need`, shape (N,): at most to twice as far as the last look was."""
        # (there - fall (t - place)) t = need
        start = self.there + self.fall * self.place
        root = (start.square() - 4 * self.fall * need).clamp_min(0).sqrt()
        found = 2 * need / (start + root).clamp_min(1e-12)
        return torch.minimum(found, 2 * torch.where(self.place > 0, self.place, need))


class _Path(NamedTuple):
    """Images with more and more of their values moved."""

    start: Tensor
    """Grey levels, shape (N, C, H, W)."""
    end: Tensor
    """With all values moved."""
    turn: Tensor
    """How far along the path, to first order in log-odds, each value is moved."""

    @classmethod
    def along(cls, origin: Tensor, start: Tensor, gradient: Tensor, missing: Tensor, levels: int) -> "_Path":
        """The path along a gradient of the log-odds to what is `missing`, (N,), near `origin`."""
        slope = gradient * missing.sign()[:, None, None, None]
        up, down = (origin + levels).clamp_max(GREY), (origin - levels).clamp_min(0)
        # One level, unless all values together then come to less than is missing.
        least = 2 * missing.abs() / slope.abs().sum((1, 2, 3)).clamp_min(1e-30)
        least = least.ceil().clamp(1, levels)[:, None, None, None]
        end = torch.minimum(torch.maximum(start + least * slope.sign(), down), up)
        gain = (slope * (end - start)).flatten(1)
        order = _order(gain.shape[1]).to(gain.device)
        own, turn = gain[:, order], torch.empty_like(gain)
        turn[:, order] = own.cumsum(1) - own / 2
        return cls(start, end, turn.view_as(start))

    def of(self, rows: Tensor) -> "_Path":
        """Those of some images."""
        return _Path(*(part[rows] for part in self))

    def at(self, reach: Tensor) -> Tensor:
        """Grey levels with as many values moved as come to `reach`, shape (N,), to first order."""
        return torch.where(self.turn < reach[:, None, None, None], self.end, self.start)


def log_odds(logit: Tensor) -> Tensor:
    """Log-odds (N,) of two classes' logits (N, 2)."""
    return logit[:, 1] - logit[:, 0]


def _gradient(model: DiagnosisModel | Watched, image: Tensor) -> tuple[Diagnosis, Tensor]:
    """The diagnosis, without its graph, and the gradient of its log-odds by the image."""
    pixels = image.shape[2] * image.shape[3]
    count = max(PART // pixels, 1) if image.device.type == "cpu" else len(image)
    parts = [_gradient_of(model, part) for part in torch.split(image, count)]
    if len(parts) == 1:
        return parts[0]
    found, gradients = zip(*parts, strict=True)
    shown = [one.parts() for one in found]
    return Diagnosis.of({name: torch.cat([one[name] for one in shown]) for name in shown[0]}), torch.cat(
        gradients
    )


def _gradient_of(model: DiagnosisModel | Watched, image: Tensor) -> tuple[Diagnosis, Tensor]:
    leaf = image.clone().requires_grad_(True)
    with torch.enable_grad():
        found = model(leaf)
    if not found.logit.requires_grad:
        raise InputError(
            "a corrected score becomes a mask along the model's gradient, and no gradient of this model "
            "reaches the image; set method.realise=false, which corrects the score itself"
        )
    (gradient,) = torch.autograd.grad(log_odds(found.logit.float()).sum(), leaf)
    plain = {name: part.detach() for name, part in found.parts().items()}
    return Diagnosis.of({**plain, "logit": plain["logit"].float()}), gradient


@cache
def _order(count: int) -> Tensor:
    """A fixed order of the values in which they are moved, without any pattern.

    Those with the steepest gradient lie together, and together they bend the model: after one step in their
    order it is nearly twice as far from the target.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
