"""Which of two values is the disease: the one that is named, or the one that a known word gives away."""

import math
from collections.abc import Sequence
from typing import Any

from fairdx.core.errors import InputError

_HEALTHY_WORDS = """
0 false f no n negative neg - − healthy normal control controls absent absence benign none without unaffected
noncase non-case nonmalignant disease-free nein gesund negativ kontrolle non sain sano sana negatif négatif
negativo negativa nee gezond não nao
"""
_DISEASED_WORDS = """
true t yes y positive pos + diseased disease ill sick case cases present abnormal affected malignant cancer
ja krank positiv oui malade positif si sí sì sim positivo positiva
"""

HEALTHY = frozenset({*_HEALTHY_WORDS.split(), "no finding", "no findings", "no disease", "not present"})
"""Words for "no disease", in small letters: the other of two values is then the positive class."""

DISEASED = frozenset(_DISEASED_WORDS.split())
"""Words for "disease", in small letters."""

_DENIALS = ("no ", "no_", "not ", "not_", "non ", "non-", "non_", "without ", "without_")


def positive_place(
    values: Sequence[Any], positive: Any = None, *, what: str, how: str = "give positive_class"
) -> int:
    """Tell which of the classes is the positive one: the one named, else that of two which says so itself.

    Args:
        values: The classes.
        positive: One of them, as it is or as text; or None.
        what: What to call them in an error.
        how: How to name the positive class, for the error.

    Returns:
        Its index.

    Raises:
        InputError: It is not among them; or none is named, and there are not two or they do not tell.
    """
    told = ", ".join(repr(str(value)) for value in values[:8])
    if positive is None:
        if len(values) == 2:
            return positive_of_two(values, what=what, how=how)
        raise InputError(f"{what} has {len(values):,} classes ({told}); {how}.")
    for same in (lambda v: v == positive, lambda v: str(v) == str(positive), lambda v: _equal(v, positive)):
        places = [k for k, value in enumerate(values) if same(value)]
        if places:
            return places[0]
    raise InputError(f"the positive class {str(positive)!r} is no value of {what}; there are {told}.")


def positive_of_two(values: Sequence[Any], *, what: str, how: str) -> int:
    """Tell which of two values is the positive class.

    Whole numbers tell it if they are 0 and one above it, or -1 and 1. Words tell it if exactly one of them is
    in `HEALTHY` or denies the other ("no edema" beside "edema"), or if neither is and one is in `DISEASED`.

    Args:
        values: The two values.
        what: What to call them in an error.
        how: How to name the positive class, for the error.

    Returns:
        Index of the positive one.

    Raises:
        InputError: They do not tell.

    Example:
        >>> positive_of_two(["diseased", "healthy"], what="y_true", how="give positive_class")
        0
    """
    numbers = [n for n in map(_number, values) if n is not None]
    words = [str(value).strip().casefold() for value in values]
    if len(numbers) == len(values):
        whole = all(n == round(n) for n in numbers)
        healthy = [
            whole and max(numbers) > 0 and (n == 0 or (numbers in ([-1, 1], [1, -1]) and n < 0))
            for n in numbers
        ]
        diseased = [False, False]
    else:
        healthy = [
            word in HEALTHY or word in [denial + other for denial in _DENIALS]
            for word, other in zip(words, words[::-1], strict=True)
        ]
        diseased = [word in DISEASED for word in words]
    if sum(healthy) == 1:
        return healthy.index(False)
    if not any(healthy) and sum(diseased) == 1:
        return diseased.index(True)
    told = " and ".join(repr(str(value)) for value in values)
    raise InputError(f"{what} holds {told}, which do not say which of them is the disease; {how}.")


def _equal(value: Any, positive: Any) -> bool:
    one, two = _number(value), _number(positive)
    return one is not None and one == two


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
