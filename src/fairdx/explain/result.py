"""What an explanation found, typed: the content of `overlap.json`."""

import json
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from fairdx.core.errors import InputError
from fairdx.core.files import parse_json
from fairdx.explain.overlap import Dealt, Overlap
from fairdx.inference.uncertainty import Estimate

OVERLAP: Final = "overlap.json"
SCHEMA_VERSION: Final = 2
WHOLE: Final = "all"
"""Name of all images together, beside those of group and label."""


@dataclass(frozen=True)
class PairOfMaps:
    """The map of the diagnosis against one of the group.

    Attributes:
        images: Images both of whose maps say something.
        empty_diagnosis: Images whose diagnosis map says nothing: rectified away, or constant.
        empty_group: Images whose group map says nothing.
        overlap: By `all` or "group, label", and by measure.
        dealt: By measure, what the true groups add to groups dealt by lot; of the map `group` alone.
    """

    images: int
    empty_diagnosis: int
    empty_group: int
    overlap: dict[str, dict[str, Overlap]]
    dealt: dict[str, Dealt] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """Where a kind of map lies, on images whose lesion and trait are known.

    Attributes:
        share: Of the mass in `lesion`, `trait` and `rest`, by `all` or "group, label".
        area: Of the image in each: the share of a map that says nothing.
        pointing: How often the highest pixel is in the lesion, of the images with one.
    """

    share: dict[str, dict[str, Estimate]]
    area: dict[str, dict[str, float]]
    pointing: Estimate


@dataclass(frozen=True)
class Opinion:
    """What one way of making maps says of one model.

    Attributes:
        where: At which layer the maps were made, in words, by map.
        images: How many images were looked at.
        pairs: By the map of the group: `group` (probe) or `adversary` (d_Y).
        places: By map; none where the regions are not known.
    """

    where: dict[str, str]
    images: int
    pairs: dict[str, PairOfMaps]
    places: dict[str, Places] = field(default_factory=dict)


@dataclass(frozen=True)
class Deleted:
    """How far the log-odds of the decision fall when the map's highest fifth is smoothed away.

    Attributes:
        own: With the image's own map.
        null: With the map of another image of the same group and label.
        beyond: Own less null.
    """

    own: Estimate
    null: Estimate
    beyond: Estimate


@dataclass(frozen=True)
class Counterfactual:
    """The same patients as either group, everything else being equal.

    Attributes:
        reference: The group that is compared with.
        comparison: The other group.
        change: Mean change of the score.
        size: Mean size of the change.
        flips: How often the decision depends on the group.
        quantiles: Of the change, at 0.05, 0.25, 0.5, 0.75 and 0.95.
        histogram: Patients by change, in equal bins from -1 to 1.
    """

    reference: str
    comparison: str
    change: Estimate
    size: Estimate
    flips: Estimate
    quantiles: tuple[float, ...]
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class MaskFound:
    """What the mask adds.

    Attributes:
        mean: Mean size of the change in grey levels, by `all` or "group, label".
        largest: Largest change in grey levels, mean over images, by the same.
        bands: Share of the energy by band of the spectrum.
        on_lesion: Share of the change on the lesion; nan where it is not known.
        pattern: Share of the energy that is one picture common to all images (`common`), that follows the
            image (`of_the_image`), and that is neither (`own`).
    """

    mean: dict[str, Estimate]
    largest: dict[str, Estimate]
    bands: dict[str, Estimate]
    on_lesion: Estimate
    pattern: dict[str, float]


@dataclass(frozen=True)
class ModelFound:
    """What was found out about one model.

    Attributes:
        opinions: `grad_cam` (none for a model without a spatial layer) and `occlusion`.
        deletion: Of the Grad-CAM of the diagnosis, or of occlusion where there is none.
        group_auroc: How well the probe tells the groups apart within a label, on new patients; 0.5 is not at
            all, and a map of the group then shows noise.
        probe_sees: What the probe looks at: the embedding, or the logits of a model that shows none.
        counterfactual: On the phantom, by group compared with.
        sensitivity: Flip rate of decisions under changes that keep the label, by change and by `all` or
            group.
        mask: What the mask adds, of a model that has one.
        left_out: What could not be done, and why.
    """

    opinions: dict[str, Opinion]
    deletion: Deleted
    group_auroc: Estimate
    probe_sees: str
    counterfactual: dict[str, Counterfactual]
    sensitivity: dict[str, dict[str, Estimate]]
    mask: MaskFound | None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Everything that was found out.

    Attributes:
        data: Label, classes, attribute, groups, source, number of images and patients.
        settings: How it was asked.
        models: By name, the unmitigated one first.
        changes: By way of making maps and by quantity: the last model less the first, on the same images.
        sentences: The same in words that claim no more than the intervals.
    """

    fairdx_version: str
    created: str
    data: dict[str, Any]
    settings: dict[str, Any]
    models: dict[str, ModelFound]
    changes: dict[str, dict[str, Estimate]]
    sentences: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION

    def json(self) -> bytes:
        """Returns it as JSON; what is undefined is null."""
        return json.dumps(_finite(asdict(self)), indent=2, allow_nan=False).encode()


def read_explanation(path: Path) -> Explanation:
    """Reads `overlap.json`.

    Raises:
        InputError: It is missing, damaged, or from another version.
    """
    try:
        values = parse_json(path.read_bytes())
        for part in ("models", "changes"):
            values[part] = _undefined(values[part])
        if values.get("schema_version") == 1:
            _from_1(values)
        return TypeAdapter(Explanation).validate_python(values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not hold an explanation: {str(error).splitlines()[0]}") from error


def _from_1(values: dict[str, Any]) -> None:
    """The first version had an AUROC without an interval."""
    nan = float("nan")
    for model in values["models"].values():
        area = model["group_auroc"]
        model["group_auroc"] = asdict(Estimate(area, nan, nan, 0.95, "undefined", 0))


def _undefined(value: Any) -> Any:
    """Null as nan, which it stands for; but for a model without a mask."""
    if isinstance(value, dict):
        return {
            key: item if key == "mask" and item is None else _undefined(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_undefined(item) for item in value]
    return float("nan") if value is None else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
