"""Runs a network as it was found and leaves it so: modes, flags, hooks, random state and gradients.

Gradients are switched on at the activation alone. So a network whose every parameter is frozen can be
explained, nothing is computed before the activation that is not needed, and nothing is written into anybody's
parameters: `autograd.grad` returns gradients, `backward` would store them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fairdx.models.runtime import isolated_rng


@contextmanager
def as_found(*modules: nn.Module) -> Iterator[None]:
    """Evaluates modules and gives back the mode of each part, and the random state, as they were.

    A part that was in training mode would otherwise change its statistics while it is looked at.

    Args:
        *modules: What will be run inside the `with` block.
    """
    training = [part for module in modules for part in module.modules() if part.training]
    with isolated_rng(0):
        try:
            # Set part by part: exported programs refuse `eval()`, and frozen models override `train()`.
            for part in training:
                part.training = False
            yield
        finally:
            for part in training:
                part.training = True


@contextmanager
def hooked(module: nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """Puts `change(output)` in the place of a module's output inside the `with` block."""
    handle = module.register_forward_hook(lambda _, __, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def gradients_at(
    module: nn.Module, forward: Callable[[], Sequence[Tensor]]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Gradients of scores by the output of a module, in one forward pass.

    Args:
        module: Part of what `forward` runs, once.
        forward: Runs the network and returns scores, each of shape (N,). The score of an image depends on
            that image alone, as in evaluation mode.

    Returns:
        The module's output, and for each score its gradient of the same shape; zeros where a score does not
        depend on the output.

    Raises:
        RuntimeError: The module did not run exactly once.
    """
    seen: list[Tensor] = []

    def begin(output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_(True))
        return seen[-1].clone()  # operations in place, further on, change the clone

    with torch.inference_mode(False), torch.enable_grad(), hooked(module, begin):
        scores = forward()
        if len(seen) != 1:
            raise RuntimeError(f"the layer ran {len(seen)} times in one pass; one was expected")
        found = [_gradient(score, seen[0]) for score in scores]
    return seen[0].detach(), tuple(found)


def _gradient(score: Tensor, activation: Tensor) -> Tensor:
    if not score.requires_grad:
        return torch.zeros_like(activation)
    (found,) = torch.autograd.grad(score.sum(), activation, retain_graph=True, allow_unused=True)
    return torch.zeros_like(activation) if found is None else found
