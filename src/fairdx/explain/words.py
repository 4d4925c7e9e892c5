"""What was found in sentences that claim no more than the intervals."""

from collections.abc import Iterator
from math import isfinite

from fairdx.explain.overlap import Dealt
from fairdx.explain.result import WHOLE, Explanation, ModelFound, Opinion
from fairdx.inference.uncertainty import Estimate
from fairdx.report.numbers import MINUS, NBSP, p_is

TITLES = {"grad_cam": "Grad-CAM", "occlusion": "occlusion"}
MEASURE_TITLES = {
    "common_mass": "common mass",
    "top_iou": "IoU of the highest fifth",
    "rank_correlation": "rank correlation",
}
CHANCE = 0.05
"""A p-value up to which sentences call something more than chance."""
HEADLINE = "common_mass"
"""The measure that sentences are about; the others stand in the table."""


def written(value: float, *, signed: bool = False) -> str:
    """A number with three digits after the point."""
    if not isfinite(value):
        return "–"
    text = f"{abs(value):.3f}"
    sign = "" if float(text) == 0 else MINUS if value < 0 else "+" if signed else ""
    return sign + text


def with_interval(estimate: Estimate, *, signed: bool = False) -> str:
    """A number and its interval."""
    if not isfinite(estimate.low):
        return f"{written(estimate.value, signed=signed)} (no interval)"
    ends = f"{written(estimate.low, signed=signed)}{NBSP}to{NBSP}{written(estimate.high, signed=signed)}"
    return f"{written(estimate.value, signed=signed)} ({ends})"


def side_of(estimate: Estimate) -> int:
    """1 if the interval is above zero, -1 if below, 0 if it holds zero or is unknown."""
    if not isfinite(estimate.low):
        return 0
    return 1 if estimate.low > 0 else -1 if estimate.high < 0 else 0


def sentences(explanation: Explanation) -> tuple[str, ...]:
    """What was found, in plain words."""
    made: list[str] = []
    for name, model in explanation.models.items():
        for way, opinion in model.opinions.items():
            made += _overlap(name.replace("_", " "), way, opinion)
        made += [f"{name.replace('_', ' ')}: left out: {text}." for text in model.left_out]
        made.append(_readable(name.replace("_", " "), model))
    names = list(explanation.models)
    if len(names) > 1:
        first, last = (name.replace("_", " ") for name in (names[0], names[-1]))
        made += _changes(explanation, first, last)
    return tuple(made)


def _overlap(name: str, way: str, opinion: Opinion) -> Iterator[str]:
    pair = opinion.pairs.get("group")
    if pair is None:
        return
    if pair.images < 2:
        yield f"{name}, {TITLES[way]}: too few images have maps of both diagnosis and group."
        return
    found = pair.overlap[WHOLE][HEADLINE]
    side = side_of(found.beyond)
    dealt = pair.dealt.get(HEADLINE)
    verdict = ("no differently from", "more than", "less than")[side]
    yield (
        f"{name}, {TITLES[way]}: the maps of diagnosis and group of one image overlap {verdict} those of "
        f"different images: {MEASURE_TITLES[HEADLINE]} {written(found.own.value)} against "
        f"{written(found.null.value)}, difference {with_interval(found.beyond, signed=True)}."
    )
    if dealt is not None and isfinite(dealt.p):
        yield _among_dealt(name, way, dealt)


def _among_dealt(name: str, way: str, dealt: Dealt) -> str:
    """Whether it is the group that makes the maps overlap."""
    ends = f"{written(dealt.low, signed=True)}{NBSP}to{NBSP}{written(dealt.high, signed=True)}"
    numbers = (
        f"{written(dealt.own, signed=True)} against {ends} in {dealt.deals} deals, {dealt.images} images, "
        f"{p_is(dealt.p)}"
    )
    if dealt.p > CHANCE:
        return (
            f"{name}, {TITLES[way]}: with groups dealt by lot in place of the true ones the difference is no "
            f"other ({numbers}): it says nothing of the group."
        )
    more = "more" if dealt.own > dealt.mean else "less"
    return (
        f"{name}, {TITLES[way]}: with the true groups the maps overlap {more} than with groups dealt by lot "
        f"({numbers}): that much is of the group."
    )


def _readable(name: str, model: ModelFound) -> str:
    text = (
        f"{name}: given the label, a linear probe of the {model.probe_sees} tells the groups apart with an "
        f"AUC of {with_interval(model.group_auroc)}."
    )
    if not model.group_auroc.low > 0.5:
        text += " That may be chance: its map of the group then shows noise."
    elif model.group_auroc.value < 0.6:
        text += " That is little: its map of the group shows mostly noise."
    return text


def _changes(explanation: Explanation, first: str, last: str) -> Iterator[str]:
    for way, found in explanation.changes.items():
        if way not in TITLES:
            continue
        key = f"overlap beyond null {HEADLINE}"
        if key in found:
            verdict = ("does not change beyond chance", "rises", "falls")[side_of(found[key])]
            yield (
                f"{TITLES[way]}, from {first} to {last}: the overlap beyond its null {verdict}: "
                f"{with_interval(found[key], signed=True)}."
            )
        trait = found.get("diagnosis map on trait")
        if trait is not None:
            verdict = ("does not change beyond chance", "rises", "falls")[side_of(trait)]
            yield (
                f"{TITLES[way]}, from {first} to {last}: the share of the diagnosis map on the group's trait "
                f"{verdict}: {with_interval(trait, signed=True)}."
            )
