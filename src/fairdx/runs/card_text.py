"""The model card for people: `README.md` in a model folder."""

from collections.abc import Mapping
from typing import Any

from fairdx.metrics.definitions import METRICS
from fairdx.models.card import ModelCard
from fairdx.report.numbers import style_of, unit_of

SHOWN = (
    "auroc",
    "accuracy",
    "equal_opportunity_difference",
    "demographic_parity_difference",
    "approximate_diagnosis_fairness",
    "direct_effect",
)
"""The figures of the table, where the model has them."""


def card_text(card: ModelCard) -> str:
    """Returns the card in words, as Markdown: intended use, figures, and when not to use it."""
    parts = [
        f"# {card.label}: a model made fairer by {card.attribute}",
        f"Made by fairdx {card.fairdx}, method `{card.method}`, {card.created}. Research software, not a "
        "medical device. Everything below is on `card.json`, which programs read.",
        "## Intended use",
        _use(card),
        "## Figures",
        f"On {_count(card)} test images of `{card.data.get('source', 'the data set')}`, with "
        "their intervals. They say how sure each figure is for this one model and such patients.",
        _table(card),
        "## When not to use it",
        "\n".join(f"- {line}" for line in _limits(card)),
    ]
    return "\n\n".join(parts) + "\n"


def _use(card: ModelCard) -> str:
    image, classes = card.image, ", ".join(card.classes)
    kind = "grey" if image.channels == 1 else "colour"
    lines = [
        f"It answers the question of the model behind it: {card.label} ({classes}).",
        f"It takes {kind} images of {image.size} x {image.size} pixels, made as the training images were "
        f"(`geometry = {image.geometry}`).",
        f"It has to be told the {card.attribute} of each patient."
        if card.needs_group
        else f"It is not told the {card.attribute} of anybody.",
    ]
    if card.threshold is not None:
        lines.append(
            f"It decides for {card.classes[1]} from a score of {card.threshold:.4f} on, chosen on "
            f"{card.threshold_chosen_on} images. The threshold of the model behind it does not fit."
        )
    frozen = "inside this folder" if card.frozen.inside else f"`{card.frozen.source}`"
    lines.append(
        f"The model behind it is {frozen}; its weights have the hash {card.frozen.weights_sha256[:16]}."
    )
    return "\n".join(f"- {line}" for line in lines)


def _count(card: ModelCard) -> str:
    images = card.data.get("images", {})
    return f"{images['test']:,}" if "test" in images else "the"


def _table(card: ModelCard) -> str:
    names = list(card.metrics)
    rows = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for metric in SHOWN:
        found = [card.metrics[name].get(metric) for name in names]
        if any(found):
            unit = unit_of(metric)
            title = METRICS[metric].title + (f", {unit}" if unit else "")
            rows.append(f"| {title} | " + " | ".join(_cell(metric, value) for value in found) + " |")
    return "\n".join(rows)


def _cell(metric: str, estimate: Mapping[str, Any] | None) -> str:
    if not estimate or estimate["value"] is None:
        return "–"
    style = style_of(metric)
    ends = style.interval(estimate["low"], estimate["high"]) if estimate["low"] is not None else "no interval"
    return f"{style(estimate['value'])} ({ends})"


def _limits(card: ModelCard) -> list[str]:
    groups = " and ".join(card.groups)
    return [
        f"For groups other than {groups}: it was not trained on them.",
        "On images of another detector, vendor or protocol before it has been tried there. `fairdx predict` "
        "counts images that are unlike the training images.",
        "Where groups differ in how ill they are, in hospital or in scanner: the direct effect above is then "
        "not that of the group alone.",
        "To show a masked image to a person. It is made for the model.",
    ]
