"""The fair model: a mask in front of a diagnosis model, a correction behind it, or either alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fairdx.models.diagnosis import Diagnosis, DiagnosisModel, full_precision
from fairdx.models.networks import MaskGenerator, apply_mask
from fairdx.models.realised import Realisation, log_odds, realised
from fairdx.models.statistics import MapLayer, Watched, watched
from fairdx.models.views import Views, averaged


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
        layers: Layers of the model whose maps it looks at, beside the embedding.
    """

    edits: bool = False
    layers: tuple[MapLayer, ...] = ()

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
        views: Views of an image over which embedding and logits of `model` are averaged.
        realisation: How the correction becomes a mask: what is diagnosed is then the masked image, by `model`
            alone. Without it the correction works behind the model.
    """

    def __init__(
        self,
        model: DiagnosisModel,
        *,
        mask: Mask | None = None,
        correction: Correction | None = None,
        temperature: float = 1.0,
        views: Views = "none",
        realisation: Realisation | None = None,
    ) -> None:
        super().__init__()
        self.model, self.mask, self.correction = model, mask, correction
        self.temperature, self.views, self.realisation = temperature, views, realisation

    @property
    def layers(self) -> tuple[MapLayer, ...]:
        """Layers of the diagnosis model whose maps the correction looks at."""
        return () if self.correction is None else self.correction.layers

    @property
    def _watched(self) -> DiagnosisModel | Watched:
        return watched(self.model, self.layers)

    @property
    def changes_image(self) -> bool:
        """Whether the diagnosis model is shown another image than it is given."""
        return self.mask is not None or self.realisation is not None

    def masked(self, image: Tensor) -> Tensor:
        """Returns what the diagnosis model is shown: X~, or the image itself."""
        masked: Tensor = image if self.mask is None else self.mask(image)
        if self.realisation is None:
            return masked
        # With one view the target is made of the pass that is made anyway, so that has to show all it needs.
        model = self._watched if self.views == "none" else self.model
        return realised(model, masked, self._target(masked), self.realisation)

    def plain(self, image: Tensor) -> Diagnosis:
        """Returns what the diagnosis model itself makes of images, averaged over their views."""
        return averaged(self._watched, image, self.views)

    def corrected(self, plain: Diagnosis) -> Tensor:
        """Returns the logits that the correction makes of `plain`; of one that changes no embedding."""
        if self.correction is None:
            return plain.logit
        with full_precision(plain.logit):
            found: Tensor = self.correction(plain)
        return found

    def _target(self, image: Tensor) -> Callable[[Diagnosis], Tensor]:
        """The log-odds that the correction asks for; with one view, of the pass that is made anyway."""
        if self.views == "none":
            return lambda found: log_odds(self.corrected(found))
        with torch.no_grad():
            wanted = log_odds(self.corrected(self.plain(image)))
        return lambda _: wanted

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
        if self.realisation is not None:
            found: Diagnosis = self.model(masked)
            return found
        edit = correction.edit if correction is not None and correction.edits else None
        found = averaged(self._watched, masked, self.views, edit)
        return found._replace(logit=self.corrected(found))
