"""What is exported: the mask, or mask and model, as one module from images to plain tensors."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Self
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn

from fairdx.core.errors import InputError
from fairdx.models.card import ModelCard
from fairdx.models.fair import FairModel, Mask

INPUT: Final = "image"
TRACED: Final = 2
"""Images in the batch that an exporter sees; 0 and 1 it would take for fixed."""
Content = Literal["model", "mask"]


class Scoring(nn.Module):
    """Mask and model.

    Args:
        fair: Both.
    """

    def __init__(self, fair: FairModel) -> None:
        super().__init__()
        self.fair = fair

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities (N, classes), and the mask's mean absolute change of each image, (N,)."""
        masked = self.fair.masked(image)
        change = (masked - image).abs().flatten(1).mean(1)
        return self.fair.judge(masked).softmax(1), change


class Masking(nn.Module):
    """The mask alone.

    Args:
        mask: It.
    """

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Returns masked images, shape and range of `image`."""
        return (self.mask(image),)


class First(nn.Module):
    """The first tensor of what a module returns, for tools that take one.

    Args:
        module: It.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> Tensor:
        """Returns the tensor."""
        first: Tensor = self.module(image)[0]
        return first


@dataclass(frozen=True)
class Program:
    """A module to export, and what has to be known of it."""

    module: nn.Module
    """Images (N, C, H, W) in [0, 1] to a tuple of tensors."""
    content: Content
    """What it is."""
    image: tuple[int, int, int]
    """Shape of one image."""
    outputs: dict[str, tuple[int, ...]]
    """Name of each tensor, and its shape without the batch."""
    card: ModelCard
    """The model's card."""

    @classmethod
    def of(cls, card: ModelCard, fair: FairModel, content: Content) -> Self:
        """Returns the program of a model.

        Args:
            card: Its card.
            fair: It, in evaluation mode, on the CPU.
            content: The whole, or the mask alone.

        Raises:
            InputError: The mask alone is asked for, and there is none.
        """
        image = (card.image.channels, card.image.size, card.image.size)
        if fair.realisation is not None:
            raise InputError(
                f"method `{card.method}` was run with `realise`: its mask follows the model's gradient, "
                "which no exported file has; run it without, and the same correction works on the score"
            )
        if content == "model":
            outputs: dict[str, tuple[int, ...]] = {"probability": (len(card.classes),), "change": ()}
            return cls(Scoring(fair).eval(), content, image, outputs, card)
        if fair.mask is None:
            raise InputError(f"method `{card.method}` has no mask to export alone; leave out --mask-only")
        return cls(Masking(fair.mask).eval(), content, image, {"masked": image}, card)

    @property
    def example(self) -> Tensor:
        """What an exporter runs it on: black images, because some exporters keep them."""
        return torch.zeros(TRACED, *self.image)

    @property
    def holds_script(self) -> bool:
        """Whether a part is TorchScript, which only TorchScript's own tools can follow."""
        return any(isinstance(module, torch.jit.ScriptModule) for module in self.module.modules())

    def describe(self) -> str:
        """Returns as JSON what whoever runs the file must know: every exported file holds it."""
        card = self.card
        told: dict[str, Any] = card.model_dump(
            mode="json",
            include={"fairdx", "created", "method", "image", "label", "classes", "attribute", "groups"}
            | {"needs_group", "threshold", "threshold_chosen_on", "temperature", "rule"},
        )
        inside = [] if self.content == "mask" else ["softmax", "temperature"]
        return json.dumps({**told, "content": self.content, "inside": inside})


@contextmanager
def exporting(what: str) -> Iterator[None]:
    """Keeps an exporter's own warnings to itself, and says in one sentence why it failed.

    Args:
        what: The format, for the sentence.

    Raises:
        InputError: The exporter failed.
    """
    try:
        with catch_warnings(), torch.no_grad():
            simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # exporters raise whatever their parts raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {_cause(error) or (lines or ['no reason given'])[0]}"
        raise InputError(f"the model cannot be exported as {what} ({reason}); try another format") from error


def _cause(error: BaseException) -> str:
    """The innermost reason, where an exporter wrapped it."""
    inner = error.__cause__
    if inner is None:
        return ""
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return _cause(inner) or (lines[0] if lines else "")
