"""Words that say that a value is missing: one list, for every table that is read."""

from collections.abc import Iterable
from typing import Final

OLDEST: Final = 120
"""Years; tables and headers have ages above 400 and below 0, which are taken as unknown and counted."""

BY_PROGRAMS: Final = (
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "NaN",
    "nan",
    "NaT",
    "None",
    "NULL",
    "null",
    "#REF!",
    "#VALUE!",
    "#DIV/0!",
    "#NAME?",
    "#NULL!",
    "#NUM!",
)
"""What programs write in any column for a value that is missing, exactly so; a blank cell says it too."""

BY_PEOPLE: Final = (
    "?",
    "-",
    "--",
    "'--",
    "unk",
    "unknown",
    "unspecified",
    "not specified",
    "not reported",
    "not recorded",
    "not available",
    "not stated",
    "undisclosed",
    "missing",
    "declined",
    "refused",
    "prefer not to say",
    "prefer not to answer",
)
"""What people write for an attribute of a person that is not known, in lower case."""

AS_CODES: Final = ("-1", "-1.0")
"""Codes for an attribute that is not known, where codes below 0 mean nothing else."""

_SIGNS: Final = {"+", "pos", "positive"}


def unknown_label(names: Iterable[str]) -> set[str]:
    """Which labels say that the truth is not known: what people write, but for signs, which may be labels."""
    words = {word for word in BY_PEOPLE if word[0].isalpha()}
    return {name for name in names if name.strip().casefold() in words}


def unknown_attribute(names: Iterable[str], more: Iterable[str] = (), *, codes: bool = False) -> set[str]:
    """Which values of an attribute say that it is not known; capitals and spaces around them do not count.

    Args:
        names: The values that occur.
        more: Further words that mean it.
        codes: Whether -1 does.

    Returns:
        Those of `names`; "-" is not among them beside "+".
    """
    folded = {name: name.strip().casefold() for name in names}
    words = {word.strip().casefold() for word in (*BY_PROGRAMS, *BY_PEOPLE, *more, "")}
    words |= set(AS_CODES) if codes else set()
    if _SIGNS & set(folded.values()):
        words -= {"-"}
    return {name for name, word in folded.items() if word in words}
