"""How weights move: who learns and who is frozen, step sizes, gradients of several processes, averages."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fairdx.methods.base import Gradients, Losses, Player, Schedule, Stage
from fairdx.training.accumulation import Accumulated


@contextmanager
def learning(names: tuple[str, ...], modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Gives gradients and train mode to the named modules for a block; all others are frozen.

    Frozen means: no gradient of its own and eval mode, so that BatchNorm statistics stay as they are, but
    still part of the graph: gradients flow through it.
    """
    chosen = [modules[name] for name in names]
    for module in chosen:
        module.train()
        module.requires_grad_(True)
    try:
        yield
    finally:
        for module in chosen:
            module.eval()
            module.requires_grad_(False)


@dataclass
class Learner:
    """A player with the means of learning."""

    player: Player
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    scheduler: LambdaLR

    def step(self, fabric: Fabric, losses: Losses, accumulated: Accumulated | None = None) -> None:
        """Moves the parameters against the gradient of `total`, averaged over all processes.

        Where the player combines two gradients, each is averaged, and the step follows what it makes of them.

        Args:
            fabric: Precision and processes.
            losses: The player's.
            accumulated: The pass that their gradients have still to go back through, if any.
        """
        own = self._gradients(fabric, losses["total"], accumulated, keep=self.player.combine is not None)
        if self.player.combine is not None:
            other = self._gradients(fabric, losses["opponent"], accumulated, keep=False)
            for parameter, gradient in zip(self.parameters, self.player.combine(own, other), strict=True):
                parameter.grad = gradient
        self.optimizer.step()

    def _gradients(
        self, fabric: Fabric, loss: Tensor, accumulated: Accumulated | None, *, keep: bool
    ) -> Gradients:
        """The gradient of one loss; neither 32 bits nor bfloat16 scale a loss, so it is the true one."""
        self.optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss, retain_graph=keep)
        if accumulated is not None:
            accumulated.backward()
        gradients: Gradients = [p.grad for p in self.parameters]
        average_gradients(fabric, gradients)
        return gradients


def average_gradients(fabric: Fabric, gradients: Gradients) -> None:
    """Replaces gradients by their mean over all processes, in one exchange."""
    own = [gradient for gradient in gradients if gradient is not None]
    if fabric.world_size == 1 or not own:
        return
    flat = cast(Tensor, fabric.all_reduce(torch.cat([g.flatten() for g in own]), reduce_op="mean"))
    parts = flat.split([g.numel() for g in own])  # type: ignore[no-untyped-call]
    for gradient, part in zip(own, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def schedule_factor(schedule: Schedule, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The step size as a fraction of its start, as a function of the number of steps done."""
    total = max(1, epochs * steps_per_epoch)

    def factor(step: int) -> float:
        done = step / total
        if schedule == "cosine":
            # A short linear start spares fresh Adam statistics; then down to zero.
            return min(1.0, (step + 1) / (0.05 * total + 1)) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        if schedule == "step":
            return 0.1 ** ((done >= 0.6) + (done >= 0.85))
        return 1.0

    return factor


class WeightAverage:
    """The moving average of some modules' weights, by which a stage is judged."""

    def __init__(self, stage: Stage) -> None:
        average = get_ema_multi_avg_fn(stage.average_decay)  # type: ignore[no-untyped-call]
        self._pairs = [
            (stage.modules[name], AveragedModel(stage.modules[name], multi_avg_fn=average))
            for name in stage.average
        ]

    def update(self) -> None:
        """Takes the weights as they are now into the average."""
        for module, average in self._pairs:
            average.update_parameters(module)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the modules for a block."""
        own = [deepcopy(module.state_dict()) for module, _ in self._pairs]
        for module, average in self._pairs:
            module.load_state_dict(average.module.state_dict())
        try:
            yield
        finally:
            for (module, _), state in zip(self._pairs, own, strict=True):
                module.load_state_dict(state)

    def buffers(self) -> Iterator[Tensor]:
        """Their own tensors that are no averages: running statistics, and how many steps were averaged."""
        for _, average in self._pairs:
            yield from average.buffers()

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns what a checkpoint must hold of it."""
        return [average.state_dict() for _, average in self._pairs]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Goes on from `state_dict()`."""
        for (_, average), part in zip(self._pairs, state, strict=True):
            average.load_state_dict(part)
