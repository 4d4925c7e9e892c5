"""Several views of one image: what the model makes of them is averaged, which steadies the score."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from fairdx.models.diagnosis import Diagnosis, DiagnosisModel, Edit
from fairdx.models.statistics import Watched

Views = Literal["none", "mirror", "turns"]
"""`none`: the image as it is. `mirror`: it and its mirror image, left to right. `turns`: the eight mirrored
and quarter-turned images, for skin and tissue, which have no upright."""


def views_of(image: Tensor, views: Views) -> Iterator[Tensor]:
    """Yields the views of images (N, C, H, W), the images themselves first; `turns` are of square ones."""
    yield image
    if views == "none":
        return
    yield image.flip(3)
    if views == "turns":
        yield image.flip(2)
        yield image.flip((2, 3))
        turned = image.transpose(2, 3)
        for flipped in (turned, turned.flip(3), turned.flip(2), turned.flip((2, 3))):
            yield flipped.contiguous(memory_format=torch.channels_last)


def averaged(
    model: DiagnosisModel | Watched, image: Tensor, views: Views, edit: Edit | None = None
) -> Diagnosis:
    """Returns what the model makes of images (N, C, H, W), averaged over their views."""
    if views == "none":
        single: Diagnosis = model(image, edit=edit)
        return single
    parts = [model(view, edit=edit).parts() for view in views_of(image, views)]
    return Diagnosis.of({name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]})
