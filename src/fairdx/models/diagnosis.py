"""What every diagnosis model has in common, whoever trained it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

Edit = Callable[[Tensor], Tensor]
"""Changes embeddings (N, D) on their way to the diagnosis."""


class Diagnosis(NamedTuple):
    """What the diagnosis model makes of a batch."""

    embedding: Tensor | None
    """E = f_theta(X), float of shape (N, D); None where the model shows none."""
    logit: Tensor
    """Y^ before the softmax, f_h(E), float of shape (N, classes)."""
    statistics: Tensor | None = None
    """Of the maps of layers on the way, shape (N, M); None unless somebody watches them."""

    @classmethod
    def of(cls, parts: Mapping[str, Tensor]) -> Self:
        """Returns the diagnosis that has these parts, by name."""
        return cls(parts.get("embedding"), parts["logit"], parts.get("statistics"))

    def parts(self) -> dict[str, Tensor]:
        """Returns what there is of it, by name."""
        return {name: part for name, part in self._asdict().items() if part is not None}


class DiagnosisModel(nn.Module, ABC):
    """A model from images in [0, 1] to a diagnosis: ours, or one that was trained elsewhere.

    Attributes:
        features: Length of the embedding, D; None where the model shows none.
        trainable: Whether it can be trained anew; what comes from a file of operations cannot.
        renew: Builds the same model with the weights it had before its training; None where nobody knows
            them, and a method that retrains starts from the weights as they are.
    """

    features: int | None = None
    trainable: bool = True
    renew: "Callable[[], DiagnosisModel] | None" = None

    @abstractmethod
    def forward(self, image: Tensor, edit: Edit | None = None) -> Diagnosis:
        """Diagnoses images.

        Args:
            image: Shape (N, C, H, W), in [0, 1].
            edit: Changes the embedding before the diagnosis is made of it.

        Returns:
            The embedding, edited, and the logits.
        """


def full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """Returns a context that computes in the tensors' own precision, whatever is asked for around it.

    An exported program computes so anyway, and torch.export cannot write the switch down.

    Args:
        tensor: It says on which device.
    """
    if torch.compiler.is_exporting():
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


def weights_hash(module: nn.Module) -> str:
    """Returns the sha256 of all parameters and buffers, by name: the same if and only if no bit has moved."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()
