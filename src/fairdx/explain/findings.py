"""From maps to figures with intervals: overlap by group and label, and where the maps lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fairdx.data.phantom import Regions
from fairdx.explain.mapped import Maps
from fairdx.explain.maps import enlarged
from fairdx.explain.overlap import (
    MEASURES,
    Beyond,
    Dealt,
    Overlap,
    among_dealt,
    beyond_null,
    empty_maps,
    paired_change,
    summarise,
)
from fairdx.explain.regions import REGIONS, Located, locate
from fairdx.explain.result import WHOLE, Opinion, PairOfMaps, Places
from fairdx.explain.subject import ADVERSARY, DIAGNOSIS, GROUP, Asked
from fairdx.inference.clustered import clustered_mean
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.inputs import Floats, Ints


@dataclass(frozen=True)
class Evidence:
    """What one way of making maps gave for one model, image by image.

    Attributes:
        maps: By name.
        opinion: The figures.
        beyond: By map of the group and measure; nan for images with an empty map.
        located: By map; none where the regions are not known.
    """

    maps: Mapping[str, Maps]
    opinion: Opinion
    beyond: dict[str, dict[str, Beyond]]
    located: dict[str, Located]


def kinds(asked: Asked) -> dict[str, NDArray[np.bool_]]:
    """Which images are of which kind, by name: `all`, and "group, label" of those that occur."""
    task = asked.images.task
    found = {WHOLE: np.ones(len(asked.indices), dtype=bool)}
    for s, group in enumerate(task.group_names):
        for y, label in enumerate(task.class_names):
            rows = (asked.group == s) & (asked.label == y)
            if rows.any():
                found[f"{group}, {task.label_name} {label}"] = rows
    return found


def assess(
    maps: Mapping[str, Maps],
    asked: Asked,
    regions: Regions | None,
    *,
    level: float,
    lots: Sequence[tuple[Maps, Ints]] = (),
) -> Evidence:
    """Measures overlap against its null, and where the maps lie.

    Args:
        maps: Of all images, by name.
        asked: The images.
        regions: Of the same images, where they are known.
        level: Nominal coverage.
        lots: For each dealing of the groups by lot, its maps of the first images, and the groups of these.
    """
    others = [name for name in (GROUP, ADVERSARY) if name in maps]
    compared = {name: _compare(maps[DIAGNOSIS], maps[name], asked, cells=asked.cells) for name in others}
    located = {} if regions is None else {name: locate(one.values, regions) for name, one in maps.items()}
    pairs = {
        name: _pair(maps[DIAGNOSIS], maps[name], found, asked, level) for name, found in compared.items()
    }
    if lots:
        pairs[GROUP] = replace(pairs[GROUP], dealt=_against_lots(maps, lots, asked))
    opinion = Opinion(
        where={name: one.layer for name, one in maps.items()},
        images=len(asked.indices),
        pairs=pairs,
        places={name: _places(found, asked, level) for name, found in located.items()},
    )
    return Evidence(maps, opinion, compared, located)


def _flat(maps: Maps, shape: tuple[int, ...]) -> Floats:
    """Maps as rows, brought to a common resolution."""
    values = maps.values
    if values.shape[1:] != shape:
        values = enlarged(torch.from_numpy(values).float(), (shape[0], shape[1])).numpy()
    return values.reshape(len(values), -1).astype(np.float64)


def _rows(first: Maps, second: Maps) -> tuple[Floats, Floats]:
    shape = max((first.values.shape[1:], second.values.shape[1:]), key=lambda s: s[0] * s[1])
    return _flat(first, shape), _flat(second, shape)


def _compare(first: Maps, second: Maps, asked: Asked, *, cells: Ints) -> dict[str, Beyond]:
    a, b = _rows(first, second)
    known = np.flatnonzero(~empty_maps(a) & ~empty_maps(b))
    found = {}
    for name, measure in MEASURES.items():
        part = beyond_null(
            measure,
            a[known],
            b[known],
            cells=cells[known],
            patients=asked.patients[known],
            seed=asked.seed,
        )
        columns = [np.full(len(a), np.nan) for _ in range(3)]
        for column, values in zip(columns, (part.own, part.null, part.influence), strict=True):
            column[known] = values
        found[name] = Beyond(*columns)
    return found


def _against_lots(
    maps: Mapping[str, Maps], lots: Sequence[tuple[Maps, Ints]], asked: Asked
) -> dict[str, Dealt]:
    """Overlap beyond the shuffled pairs, of the true groups among those that were dealt by lot."""
    count = len(lots[0][1])
    diagnosis, own = (replace(maps[name], values=maps[name].values[:count]) for name in (DIAGNOSIS, GROUP))
    classes = len(asked.images.task.class_names)
    label, few = asked.label[:count], replace(asked, indices=asked.indices[:count])

    def beyond(second: Maps, group: Ints) -> dict[str, float]:
        found = _compare(diagnosis, second, few, cells=group * classes + label)
        return {name: _mean(one.influence) for name, one in found.items()}

    true = beyond(own, asked.group[:count])
    dealt = [beyond(one, group) for one, group in lots]
    return {
        name: among_dealt(value, np.array([one[name] for one in dealt]), count)
        for name, value in true.items()
    }


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _pair(first: Maps, second: Maps, found: dict[str, Beyond], asked: Asked, level: float) -> PairOfMaps:
    a, b = _rows(first, second)
    empty = empty_maps(a), empty_maps(b)
    overlap: dict[str, dict[str, Overlap]] = {
        kind: {name: summarise(one, asked.patients, rows, level=level) for name, one in found.items()}
        for kind, rows in kinds(asked).items()
    }
    return PairOfMaps(int((~empty[0] & ~empty[1]).sum()), int(empty[0].sum()), int(empty[1].sum()), overlap)


def _places(found: Located, asked: Asked, level: float) -> Places:
    share, area = {}, {}
    for kind, rows in kinds(asked).items():
        share[kind] = {name: mean_of(found.share[name], asked, rows, level=level) for name in REGIONS}
        area[kind] = {name: float(found.area[name][rows].mean()) for name in REGIONS}
    everywhere = np.ones(len(asked.indices), dtype=bool)
    return Places(share, area, mean_of(found.hit, asked, everywhere, level=level))


def mean_of(values: Floats, asked: Asked, rows: NDArray[np.bool_], *, level: float) -> Estimate:
    """Mean of one number an image over those rows where it is known, with an interval over patients."""
    known = rows & np.isfinite(values)
    return clustered_mean(values[known], asked.patients[known], level=level)


def changes_between(before: Evidence, after: Evidence, asked: Asked, *, level: float) -> dict[str, Estimate]:
    """What changes from one model to another, on the same images.

    Args:
        before: The first model.
        after: The second.
        asked: The images.
        level: Nominal coverage.

    Returns:
        By quantity: `overlap NAME` (the measure itself), `overlap beyond null NAME`, and
        `MAP map on REGION`.
    """

    def change(a: Floats, b: Floats) -> Estimate:
        return paired_change(a, b, asked.patients, level=level)

    found: dict[str, Estimate] = {}
    for name, one in before.beyond.get(GROUP, {}).items():
        other = after.beyond[GROUP][name]
        found[f"overlap {name}"] = change(one.own, other.own)
        found[f"overlap beyond null {name}"] = change(one.influence, other.influence)
    for name in (DIAGNOSIS, GROUP):
        if name in before.located:
            for region in REGIONS:
                found[f"{name} map on {region}"] = change(
                    before.located[name].share[region], after.located[name].share[region]
                )
    return found
