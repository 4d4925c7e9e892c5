"""Finds the layers of a network whose output is a picture: convolutions, and the tokens of a ViT or Swin.

Nothing is taken from names or classes of modules, so that anybody's network will do. Every module's output is
read in each way in which it could be a grid, and a reading counts only if it passes a test: squares laid
on the image must change the grid where they lie, and the scores must depend on the grid. The latter leaves
out the last block of a ViT, of whose output the class token alone is used.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from fairdx.core.errors import InputError
from fairdx.models.capture import as_found, gradients_at, hooked

Forward = Callable[[Tensor], Tensor]
"""Runs the network on images (N, C, H, W) in [0, 1]; returns what is to be explained, (N, scores)."""

SMALLEST_SIDE: Final = 4
"""Cells along a side that a map needs by default: of 2 x 2 cells each is a quarter of the image."""
LOCAL: Final = 0.1
"""How far the change in a grid must follow a square that moves over the image, as a share of its way."""
_MOST_PREFIX: Final = 8
_PLACES: Final = 3


@dataclass(frozen=True)
class Reading:
    """How a module's output is read as a grid.

    Attributes:
        layout: Channels first, channels last, or a row of tokens.
        height: Rows of the grid.
        width: Columns of the grid.
        prefix: Tokens before those of the grid, as the class token.
    """

    layout: Literal["NCHW", "NHWC", "tokens"]
    height: int
    width: int
    prefix: int = 0

    def grid(self, output: Tensor) -> Tensor:
        """Returns the output as (N, channels, height, width)."""
        if self.layout == "NCHW":
            return output
        if self.layout == "NHWC":
            return output.permute(0, 3, 1, 2)
        tokens = output[:, self.prefix :].transpose(1, 2)
        return tokens.reshape(len(tokens), -1, self.height, self.width)


@dataclass(frozen=True)
class SpatialLayer:
    """A layer whose output is a picture.

    Attributes:
        name: Its name in the network.
        module: The layer.
        reading: How its output is a grid.
        locality: How far the change in the grid follows a square on the image: 1 all the way, 0 not at all.
    """

    name: str
    module: nn.Module
    reading: Reading
    locality: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of its grid."""
        return self.reading.height, self.reading.width

    def describe(self) -> str:
        """Returns the layer in a few words."""
        kind = "tokens" if self.reading.layout == "tokens" else "cells"
        return f"{self.name}, {self.reading.height} x {self.reading.width} {kind}"


def choose_layer(
    network: nn.Module,
    forward: Forward,
    images: Tensor,
    *,
    name: str | None = None,
    smallest: int = SMALLEST_SIDE,
) -> SpatialLayer:
    """Returns the last layer whose output is a picture of at least `smallest` cells along a side.

    Args:
        network: Where to look.
        forward: Runs it.
        images: A few images to find out with, shape (N, C, H, W), in [0, 1].
        name: The layer to take instead, by its name in the network.
        smallest: See above; 2 takes the last spatial layer, whatever its size. Where no layer is that fine,
            the last spatial one is taken.

    Raises:
        InputError: No layer is spatial, or not the one that was named.
    """
    with as_found(network):
        looked = _survey(network, forward, images)
        if name is not None:
            looked = [layer for layer in looked if layer.name == name] or _refuse(name, looked)
            smallest = 2
        for least in (smallest, 2):
            for layer in reversed(looked):
                local = layer.locality >= LOCAL and min(layer.shape) >= least
                if local and _matters(layer, forward, images):
                    return layer
    if name is not None:
        raise InputError(
            f"layer `{name}` is not spatial: its output does not change where the image changes, or the "
            "score does not depend on it"
        )
    raise InputError(
        "no layer of the model is spatial: of none does the output change where the image changes (a program "
        "of TorchScript shows no layers at all); take occlusion, which needs none"
    )


def layers_on_the_way(network: nn.Module, forward: Forward, images: Tensor) -> list[SpatialLayer]:
    """Returns the layers whose maps together show what a network sees on the way to its embedding.

    They are the last layer of each resolution, the outermost where several end together, but not of the
    smallest one, of which the embedding is made. Where all maps are of one resolution, as in a ViT, they are
    the blocks at a quarter, a half and three quarters of the way.

    Args:
        network: Where to look.
        forward: Runs it.
        images: A few images to find out with, shape (N, C, H, W), in [0, 1].
    """
    with as_found(network):
        looked = [layer for layer in _survey(network, forward, images) if layer.locality >= LOCAL]
    sizes = sorted({layer.shape for layer in looked}, reverse=True)
    if len(sizes) == 1:
        return _quarters(looked)
    return [_outermost([layer for layer in looked if layer.shape == size])[-1] for size in sizes[:-1]]


def _outermost(layers: Sequence[SpatialLayer]) -> list[SpatialLayer]:
    """Those that are parts of the fewest others, as names tell."""
    depth = min(layer.name.count(".") for layer in layers)
    return [layer for layer in layers if layer.name.count(".") == depth]


def _quarters(layers: Sequence[SpatialLayer]) -> list[SpatialLayer]:
    """Three of them: of the outermost numbered ones, where there are blocks, or else of all."""
    numbered = [layer for layer in layers if layer.name.rpartition(".")[2].isdigit()]
    blocks = _outermost(numbered) if numbered else list(layers)
    return [blocks[place] for place in sorted({len(blocks) * quarter // 4 for quarter in (1, 2, 3)})]


def _refuse(name: str, looked: Sequence[SpatialLayer]) -> list[SpatialLayer]:
    known = ", ".join(layer.name for layer in looked[-12:] if layer.locality >= LOCAL)
    raise InputError(f"there is no layer `{name}` with rows and columns; some that have: {known or 'none'}")


@dataclass
class _Seen:
    """What is found out about one module's output."""

    name: str
    module: nn.Module
    plain: Tensor
    readings: list[Reading]
    changes: list[list[Tensor]]  # for each reading, the change of the grid for each place of the square


def _survey(network: nn.Module, forward: Forward, images: Tensor) -> list[SpatialLayer]:
    """The modules that run once and whose output could be a grid, in the order in which they are done."""
    seen = _outputs(network, forward, images)
    with ExitStack() as stack:
        for one in seen:
            stack.enter_context(hooked(one.module, _comparing(one)))
        with torch.no_grad():
            for covered in _covered(images):
                forward(covered)
    return [_best(one) for one in seen]


def _outputs(network: nn.Module, forward: Forward, images: Tensor) -> list[_Seen]:
    """Output of every such module on the images as they are."""
    done: list[_Seen] = []
    last: list[Tensor] = []

    def note(name: str, module: nn.Module) -> Callable[[Any], Any]:
        def hook(output: Any) -> Any:
            readings = list(_readings(output)) if isinstance(output, Tensor) else []
            if readings:
                if last and last[-1] is output:  # a module that returns what its last part did
                    done.pop()
                    last.pop()
                last.append(output)
                done.append(_Seen(name, module, output.detach().clone(), readings, [[] for _ in readings]))
            return output

        return hook

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                stack.enter_context(hooked(module, note(name, module)))
        with torch.no_grad():
            forward(images)
    times = Counter(id(one.module) for one in done)
    return [one for one in done if times[id(one.module)] == 1]


def _readings(output: Tensor) -> Iterator[Reading]:
    """Every way in which an output could be a grid of more than one cell along each side."""
    shape = output.shape
    if not output.is_floating_point():
        return
    if len(shape) == 4:
        _, a, b, c = shape
        if b > 1 and c > 1:
            yield Reading("NCHW", b, c)
        if a == b > 1:
            yield Reading("NHWC", a, b)
    elif len(shape) == 3:
        for prefix in range(max(0, min(_MOST_PREFIX, shape[1] - 3))):
            side = isqrt(shape[1] - prefix)
            if side * side == shape[1] - prefix:
                yield Reading("tokens", side, side, prefix)


def _covered(images: Tensor) -> Iterator[Tensor]:
    """The images with a square turned to its negative, at each of nine places."""
    rows, columns = images.shape[-2] // _PLACES, images.shape[-1] // _PLACES
    for row in range(_PLACES):
        for column in range(_PLACES):
            covered = images.clone()
            part = covered[..., row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
            part.copy_(1 - part)
            yield covered


def _comparing(seen: _Seen) -> Callable[[Any], Any]:
    def compare(output: Tensor) -> Tensor:
        change = (output.detach() - seen.plain).abs().float()
        for reading, kept in zip(seen.readings, seen.changes, strict=True):
            kept.append(reading.grid(change).sum((0, 1)))
        return output

    return compare


def _best(seen: _Seen) -> SpatialLayer:
    """The layer, read in the way that follows the image best."""
    scored = [(_locality(torch.stack(grids)), -i) for i, grids in enumerate(seen.changes)]
    locality, place = max(scored)
    return SpatialLayer(seen.name, seen.module, seen.readings[-place], locality)


def _locality(grids: Tensor) -> float:
    """Slope of the centre of change on the centre of the square, the lower of both axes.

    Args:
        grids: Change by place of the square and cell, shape (places, height, width).
    """
    weight = grids.sum((1, 2))
    if not bool((weight.isfinite() & (weight > 0)).all()):
        return 0.0
    true = (torch.arange(_PLACES, device=grids.device) + 0.5) / _PLACES - 0.5
    slopes = []
    for axis in (1, 2):
        count = grids.shape[axis]
        place = (torch.arange(count, device=grids.device) + 0.5) / count
        centre = ((grids.sum(3 - axis) * place).sum(1) / weight).view(_PLACES, _PLACES)
        slopes.append(float((centre.mean(2 - axis) * true).sum() / true.square().sum()))
    return min(slopes)


def _matters(layer: SpatialLayer, forward: Forward, images: Tensor) -> bool:
    """Whether the scores depend on the grid."""
    _, (gradient,) = gradients_at(layer.module, lambda: [forward(images).float().square().sum(1)])
    return bool((layer.reading.grid(gradient) != 0).any())
