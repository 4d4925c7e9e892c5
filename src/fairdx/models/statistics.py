"""Mean and spread of the maps of layers on the way to an embedding, beside the embedding itself.

An embedding was trained for the disease, and keeps of the group what served that. Earlier maps show more of
it: of each channel the mean and the standard deviation over an image say how bright, coarse and sharp it is
(Zhou et al., "Domain generalization with MixStyle", ICLR 2021, call them its style).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

from fairdx.models.capture import as_found, hooked
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel, Edit, full_precision
from fairdx.models.layers import layers_on_the_way

TINY: Final = 1e-12
"""Under the root: a map that is constant would have no gradient."""


class MapLayer(NamedTuple):
    """A layer whose output is a picture, as a model's card names it."""

    name: str
    """Its name in the model."""
    layout: Literal["NCHW", "NHWC", "tokens"]
    """Channels first, channels last, or a row of tokens."""
    prefix: int = 0
    """Tokens before those of the picture."""

    def statistics(self, output: Tensor) -> Tensor:
        """Returns mean and standard deviation of each channel, (N, 2 channels), of the layer's output."""
        channels = 1 if self.layout == "NCHW" else -1
        whole = output[:, self.prefix :] if self.layout == "tokens" else output
        pixels = whole.float().movedim(channels, 1).flatten(2)
        mean = pixels.mean(2)
        variance = (pixels - mean[..., None]).square().mean(2)
        return torch.cat([mean, (variance + TINY).sqrt()], dim=1)


@dataclass(frozen=True)
class Watched:
    """A diagnosis model with the statistics of its layers' maps in what it makes of images.

    Attributes:
        model: The model; as it was before and after.
        layers: Its layers, each of which runs once in a pass.
    """

    model: DiagnosisModel
    layers: tuple[MapLayer, ...]

    def __call__(self, image: Tensor, edit: Edit | None = None) -> Diagnosis:
        """Diagnoses images (N, C, H, W) in [0, 1]; see `DiagnosisModel`."""
        seen: dict[str, Tensor] = {}

        def note(layer: MapLayer) -> Callable[[Any], Any]:
            def keep(output: Tensor) -> Tensor:
                with full_precision(output):
                    seen[layer.name] = layer.statistics(output)
                return output

            return keep

        with ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(hooked(self.model.get_submodule(layer.name), note(layer)))
            found: Diagnosis = self.model(image, edit=edit)
        return found._replace(statistics=torch.cat([seen[layer.name] for layer in self.layers], dim=1))


def watched(model: DiagnosisModel, layers: Sequence[MapLayer]) -> DiagnosisModel | Watched:
    """Returns the model with its layers' statistics; the model itself where there are no layers."""
    return Watched(model, tuple(layers)) if layers else model


def find_maps(model: DiagnosisModel, *, channels: int, size: int) -> tuple[tuple[MapLayer, ...], int]:
    """Finds layers of a frozen model whose maps are worth looking at.

    Args:
        model: The model; left as it is.
        channels: Channels of its images.
        size: Their height and width.

    Returns:
        The layers, none where the model shows none (as one of TorchScript), and how many statistics they
        have.
    """
    parameter = next(model.parameters(), torch.zeros(()))
    with as_found(model), torch.no_grad():
        coarse = torch.rand(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
        image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        image = image.to(parameter.device)
        found = layers_on_the_way(model, lambda seen: model(seen).logit, image)
        layers = tuple(MapLayer(one.name, one.reading.layout, one.reading.prefix) for one in found)
        if not layers:
            return (), 0
        statistics = Watched(model, layers)(image).statistics
    assert statistics is not None
    return layers, statistics.shape[1]
