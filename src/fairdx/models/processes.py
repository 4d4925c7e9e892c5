"""Batches that several processes share: every loss sees the whole of them, and every norm its statistics.

Each process passes its own part through the networks. What they make of it is then exchanged, so a loss that
is no sum over images (a gap between groups, an order, shuffled pairs) is that of the whole batch. All of them
compute the same loss; what flows back to an exchange is added up over them. The mean of their gradients is
therefore the gradient that one process would have.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")


def count() -> int:
    """Returns how many processes train together."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


class _Rows(torch.autograd.Function):
    """The rows of all processes, in their order."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        ctx.rows = len(own)
        parts = [torch.empty_like(own) for _ in range(count())]
        distributed.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous().clone()
        distributed.all_reduce(whole)
        return whole[distributed.get_rank() * ctx.rows :][: ctx.rows]


class _Sum(torch.autograd.Function):
    """The sum over all processes."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        del ctx
        whole = own.clone()
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        whole = gradients[0].contiguous().clone()
        distributed.all_reduce(whole)
        return whole


def whole_batch(own: Tensor) -> Tensor:
    """Returns the rows of all processes' parts of a batch, with a way back for the gradient of one's own.

    Args:
        own: Of this process, shape (N, ...); every process has as many rows.

    Returns:
        Shape (processes * N, ...); `own` itself where there is one process.
    """
    return own if count() == 1 else cast(Tensor, _Rows.apply(own.contiguous()))


def in_turn(parts: Sequence[T]) -> Sequence[T]:
    """Returns the parts of some work that fall on this process: one of them, then one of the next processes.

    Args:
        parts: The same in every process.

    Returns:
        As many in every process, so that they can exchange something after each; at the end some have the
        last one as well.
    """
    if count() == 1:
        return parts
    rounds = range(distributed.get_rank(), -(-len(parts) // count()) * count(), count())
    return [parts[min(place, len(parts) - 1)] for place in rounds]


def in_any(own: NDArray[np.bool_], device: torch.device) -> NDArray[np.bool_]:
    """Returns what is true in any process.

    Args:
        own: What is true in this one, shape (n,).
        device: Where processes exchange what they have.
    """
    if count() == 1:
        return own
    whole = torch.from_numpy(own).to(device, torch.int32)
    distributed.all_reduce(whole, distributed.ReduceOp.MAX)
    return whole.bool().cpu().numpy()


@contextmanager
def common_statistics(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block, norms over a batch that learn take the statistics of all processes' parts.

    torch's own SyncBatchNorm needs a GPU and takes the norm's place in the network.
    """
    own = {m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)}
    norms = own if count() > 1 else set()
    for norm in norms:
        norm.forward = partial(_common_norm, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _common_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        plain: Tensor = type(norm).forward(norm, x)
        return plain
    over = [0, *range(2, x.dim())]
    shape = (1, -1, *(1 for _ in over[1:]))
    with torch.autocast(x.device.type, enabled=False):
        wide = x.float()
        n = count() * wide.numel() // wide.shape[1]
        mean = cast(Tensor, _Sum.apply(wide.sum(over))) / n
        centred = wide - mean.view(shape)
        variance = cast(Tensor, _Sum.apply(centred.square().sum(over))) / n
        _remember(norm, mean.detach(), variance.detach() * n / (n - 1))
        found = centred * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            found = found * norm.weight.view(shape) + norm.bias.view(shape)
    found = found.to(x.dtype)
    for follows in ("drop", "act"):  # timm's norms have both inside
        if hasattr(norm, follows):
            found = getattr(norm, follows)(found)
    return found


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Moves the running statistics, as the norm itself does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)
