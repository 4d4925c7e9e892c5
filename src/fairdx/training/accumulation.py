"""Several batches for one step: their graphs are in memory one after the other, the step is that of all.

Adding up the gradients of each batch's own loss would be wrong for every loss that is no mean over images: a
gap between groups, an order, shuffled pairs. So all batches pass without a graph first, the losses see the
rows of all, and what flows back to the rows goes through the networks batch by batch (GradCache: Gao et al.,
"Scaling deep contrastive learning batch size under memory limited setup", RepL4NLP 2021).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fairdx.core.errors import InputError
from fairdx.data.base import Batch
from fairdx.methods.base import Stage
from fairdx.models.runtime import generator_states, restore_generators


class Accumulated:
    """A shared forward pass over several batches, with the way back for the gradients of its rows.

    Args:
        forward: Maps a batch to a NamedTuple of tensors with a row for each image, or None in place of one.
        batch: All batches, one after the other.
        count: How many they are; all have as many images.

    Attributes:
        rows: What the pass makes of all of them; leaves of the graphs of losses.
    """

    def __init__(self, forward: Callable[[Batch], Any], batch: Batch, count: int) -> None:
        self._forward, self._device = forward, batch.image.device
        self._batches = [Batch(*parts) for parts in zip(*(one.chunk(count) for one in batch), strict=True)]
        self._drawn, made = [], []
        with torch.no_grad():
            for part in self._batches:
                self._drawn.append(generator_states(self._device))
                made.append(forward(part))
        self.rows = type(made[0])(*(_leaf(parts) for parts in zip(*made, strict=True)))

    def backward(self) -> None:
        """Adds what the gradients of the rows come to to those of the weights, and takes them from the rows.

        Each batch passes once more, with the random numbers that it had before.
        """
        counts = len(self._batches)
        gradients = [None if leaf is None or leaf.grad is None else leaf.grad for leaf in self.rows]
        parts = [[None] * counts if one is None else one.chunk(counts) for one in gradients]
        after = generator_states(self._device)
        for batch, drawn, *given in zip(self._batches, self._drawn, *parts, strict=True):
            restore_generators(drawn)
            flowing = {
                made: gradient
                for made, gradient in zip(self._forward(batch), given, strict=True)
                if gradient is not None and made.requires_grad
            }
            torch.autograd.backward(list(flowing), list(flowing.values()))
        restore_generators(after)
        for leaf in self.rows:
            if leaf is not None:
                leaf.grad = None


def _leaf(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    if parts[0] is None:
        return None
    whole = torch.cat([part for part in parts if part is not None])
    return whole.requires_grad_(whole.is_floating_point())


def check_accumulation(stage: Stage) -> None:
    """Finds out whether several batches of a stage can make one step that is exactly that of all of them.

    Raises:
        InputError: They cannot.
    """
    if stage.accumulate_grad_batches == 1:
        return
    if stage.shared is None:
        raise InputError(
            f"stage `{stage.name}` cannot accumulate gradients exactly: it has no shared forward pass, so "
            "its losses look at one batch at a time; set `accumulate_grad_batches` to 1"
        )
    for player in stage.players:
        if player.through_shared:
            check_norms(stage.name, {name: stage.modules[name] for name in player.modules})


def check_norms(name: str, modules: Mapping[str, nn.Module]) -> None:
    """Refuses networks whose rows depend on what else is in the batch.

    Args:
        name: Of the stage or method, for the message.
        modules: Networks that learn in a shared forward pass.

    Raises:
        InputError: One has a batch norm.
    """
    for place, module in modules.items():
        for inner, norm in module.named_modules(prefix=place):
            if isinstance(norm, _BatchNorm):
                raise InputError(
                    f"`{name}` cannot accumulate gradients exactly: the batch norm `{inner}` takes its "
                    "statistics from one batch, so other weights would come out; set "
                    "`accumulate_grad_batches` to 1, or take an encoder without batch norms, as convnext_atto"
                )
