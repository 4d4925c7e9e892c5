"""The figure of an explanation: original, maps of diagnosis and group before and after, and the mask."""

from collections.abc import Sequence

import numpy as np
import torch

from fairdx.explain.explain import Explained
from fairdx.explain.looking import look_again
from fairdx.explain.mapped import Maps
from fairdx.explain.maps import enlarged, rectified
from fairdx.explain.subject import DIAGNOSIS, GROUP, Asked, Subject, decide
from fairdx.metrics.inputs import Floats, Ints
from fairdx.report.pictures import Pixels, diverging, heated, sheet, to_pixels, to_png

Row = tuple[str, Sequence[Pixels]]


def draw_figure(explained: Explained, chosen: Ints) -> bytes:
    """Draws the paper's figure 4: images that were chosen, and images drawn at random of each kind.

    Every heat map is rectified and scaled to its own highest value: they say where, not how much. The mask is
    shown between the 99.9th percentiles of its size in these images.

    Args:
        explained: The models and the images.
        chosen: Rows of the data set to show above those drawn at random, shape (n,).

    Returns:
        A PNG.
    """
    asked = explained.asked
    shown = explained.explanation.settings["shown"]
    drawn = _random(asked, shown)
    rows = np.concatenate([chosen, asked.indices[drawn]]).astype(np.int64)
    origin = ["chosen"] * len(chosen) + ["at random"] * len(drawn)
    return to_png(sheet(_titles(explained), _rows(explained, rows, origin), side=128))


def _random(asked: Asked, count: int) -> Ints:
    """The first images of each group and label: they are in random order."""
    found = [np.flatnonzero(asked.cells == cell)[:count] for cell in np.unique(asked.cells)]
    return np.concatenate(found)


def _titles(explained: Explained) -> list[str]:
    titles = ["image"]
    for looked in explained.looked:
        name = looked.subject.name.replace("_", " ")
        titles += [f"{name}:\ndiagnosis", f"{name}:\ngroup"]
    if explained.looked[-1].subject.fair.changes_image:
        titles.append("mask")
    return titles


def _rows(explained: Explained, rows: Ints, origin: Sequence[str]) -> list[Row]:
    asked = explained.asked
    task = asked.images.task
    image, label = _images(asked, rows)
    maps = [look_again(looked, asked, rows) for looked in explained.looked]
    decisions = [_decisions(looked.subject, image) for looked in explained.looked]
    fair = explained.looked[-1].subject.fair
    with torch.no_grad(), explained.looked[-1].subject.as_found():
        change = (fair.masked(image).float() - image).mean(1).cpu().double().numpy()
    scale = float(np.quantile(np.abs(change), 0.999)) if fair.changes_image else 0.0
    plain = image.cpu().double().numpy()
    made: list[Row] = []
    for i, row in enumerate(rows):
        said = " / ".join(task.class_names[decided[i]] for decided in decisions)
        name = (
            f"{asked.images.dataset.table['image'].iloc[int(row)]}, {origin[i]}, "
            f"{task.group_names[task.group[row]]}, {task.label_name}: {task.class_names[int(label[i])]}, "
            f"decided: {said}"
        )
        pictures = [to_pixels(plain[i])]
        for found in maps:
            pictures += [_laid(plain[i], found[name_], i) for name_ in (DIAGNOSIS, GROUP)]
        if fair.changes_image:
            pictures.append(diverging(change[i], scale))
        made.append((name, pictures))
    return made


def _images(asked: Asked, rows: Ints) -> tuple[torch.Tensor, Ints]:
    batch = asked.images.batch(rows, asked.device)
    return batch.image, asked.images.task.label[rows]


@torch.no_grad()
def _decisions(subject: Subject, image: torch.Tensor) -> Ints:
    with subject.as_found():
        return decide(subject.fair(image), subject.threshold)


def _laid(image: Floats, maps: Maps, i: int) -> Pixels:
    values = rectified(torch.from_numpy(maps.values[i : i + 1]).float())
    heat = enlarged(values, (image.shape[-2], image.shape[-1]))[0].double().numpy()
    return heated(image, heat)
