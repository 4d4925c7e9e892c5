"""The fair model: a mask in front of a diagnosis model, a correction behind it, or either alone."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from fairdx.models.diagnosis import Diagnosis, DiagnosisModel, full_precision
from fairdx.models.networks import MaskGenerator, apply_mask


class Mask(nn.Module):
    """X (+) g(X): the generator with its bound (Eq. 4).

    Args:
        generator: g.
        eta: Largest change of a pixel, in units of the full range.
        steps: How often it is added, K.
    """

    def __init__(self, generator: MaskGenerator, *, eta: float, steps: int = 1) -> None:
        super().__init__()
        self.generator, self.eta, self.steps = generator, eta, steps

    def forward(self, image: Tensor) -> Tensor:
        """Returns masked images X~, shape and range of `image`."""
        return apply_mask(image, self.generator, eta=self.eta, steps=self.steps)


class Correction(nn.Module, ABC):
    """Changes what happens between embedding and diagnosis; by itself nothing.

    Subclasses are built from numbers alone, so that a model folder can hold them, and change the embedding,
    the logits, or both.

    Attributes:
        edits: Whether it changes the embedding.
    """

    edits: bool = False

    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """Returns its kind and the arguments that it is built with, for a model's card."""

    def edit(self, embedding: Tensor) -> Tensor:
        """Returns the embedding, (N, D), that the diagnosis is made of."""
        return embedding

    def forward(self, diagnosis: Diagnosis) -> Tensor:
        """Returns the corrected class logits (N, classes)."""
        return diagnosis.logit


class FairModel(nn.Module):
    """What is deployed: one module from images to class logits.

    Args:
        model: The diagnosis model.
        mask: What is added to the image, if anything.
        correction: What is changed after the embedding, if anything.
        temperature: Logits are divided by it.
    """

    def __init__(
        self,
        model: DiagnosisModel,
        *,
        mask: Mask | None = None,
        correction: Correction | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.model, self.mask, self.correction = model, mask, correction
        self.temperature = temperature

    def masked(self, image: Tensor) -> Tensor:
        """Returns what the diagnosis model is shown: X~, or the image itself."""
        if self.mask is None:
            return image
        masked: Tensor = self.mask(image)
        return masked

    def diagnose(self, image: Tensor) -> Diagnosis:
        """Returns embedding and logits of images (N, C, H, W) in [0, 1]."""
        return self._behind_mask(self.masked(image))

    def forward(self, image: Tensor) -> Tensor:
        """Returns class logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        return self.judge(self.masked(image))

    def judge(self, masked: Tensor) -> Tensor:
        """Returns class logits (N, classes) of images that went through the mask already."""
        logit = self._behind_mask(masked).logit
        return logit if self.temperature == 1 else logit / self.temperature

    def _behind_mask(self, masked: Tensor) -> Diagnosis:
        correction = self.correction
        if correction is None:
            found: Diagnosis = self.model(masked)
        else:
            found = self.model(masked, edit=correction.edit if correction.edits else None)
            with full_precision(masked):
                found = found._replace(logit=correction(found))
        return found
