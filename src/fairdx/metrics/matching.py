"""Which column of scores belongs to which label, by their names."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairdx.core.errors import InputError


def same_order(columns: Mapping[str, Any]) -> None:
    """Check that columns of pandas have their rows in the same order, by their indices.

    Rows belong together by their place. An index that holds the same labels in another order says that they
    do not; indices with other labels say nothing.

    Args:
        columns: By name; what has no index is passed over.

    Raises:
        InputError: Two have the same labels in different order.
    """
    indices = {n: c.index for n, c in columns.items() if hasattr(getattr(c, "index", None), "is_unique")}
    first = next(iter(indices), None)
    for name, index in indices.items():
        if first is None or not index.is_unique or len(index) != len(indices[first]):
            continue
        if not index.equals(indices[first]) and set(index) == set(indices[first]):
            raise InputError(
                f"{first} and {name} have the same index in another order, but rows are taken by place; "
                f"align them, as in {name}.loc[{first}.index]."
            )


def belongs(label: str, column: str) -> bool:
    """Whether a column of scores is named after a label.

    It is if it has the label's name, alone or with more before or after it that is set off by a sign that is
    no letter (`p_edema`, `Edema score`), or says so as `edema=COLUMN`. Capitals and signs do not count.
    """
    explicit, separator, _ = column.partition("=")
    if separator:
        return explicit == label
    name = _words(label)
    padded = f" {_words(column)} "
    return bool(name) and f" {name} " in padded


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold())) or text.strip()


def order_of_scores(
    labels: Sequence[str], columns: Sequence[str], *, positional: bool, what: str
) -> list[int]:
    """Find the column of scores of each label.

    Args:
        labels: Findings or classes, L of them.
        columns: Names of the columns of scores, L of them; `LABEL=COLUMN` names its label.
        positional: Whether columns whose names say nothing belong to the labels in their places.
        what: "finding" or "class", for errors.

    Returns:
        For each label the place of its column.

    Raises:
        InputError: Names say one thing for some of the labels and nothing, or another thing, for the rest.

    Example:
        >>> order_of_scores(["edema", "nodule"], ["p_nodule", "p_edema"], positional=True, what="finding")
        [1, 0]
    """
    found = [_candidates(label, labels, columns) for label in labels]
    if all(len(places) == 1 for places in found):
        order = [places[0] for places in found]
        if len(set(order)) == len(order):
            return order
    wrong = [k for k, places in enumerate(found) if places != [k] and (places or not positional)]
    if not wrong:
        return list(range(len(columns)))
    unnamed = [k for k, places in enumerate(found) if len(places) != 1]
    unsure = labels[(unnamed or wrong)[0]]
    raise InputError(
        f"which of the scores {', '.join(columns)} is that of {what} {unsure!r}? Say so as {unsure}=COLUMN."
    )


def _candidates(label: str, labels: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Places of the columns named after a label and not after a longer one that contains it."""
    longer = [other for other in labels if other != label and belongs(label, other)]
    return [
        k
        for k, column in enumerate(columns)
        if belongs(label, column) and not any(belongs(other, column) for other in longer)
    ]
