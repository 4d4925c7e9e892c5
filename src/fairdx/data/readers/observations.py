"""What CheXpert and MIMIC-CXR share: the labeller's 14 observations, the views, the spellings of race."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.cells import parse_codes, without_missing
from fairdx.data.checks import require_choice
from fairdx.data.files import unlisted_files
from fairdx.data.source import exclude

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

OBSERVATIONS: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
ALIASES: Final = {"Airspace Opacity": "Lung Opacity"}
"""Spellings of the first edition of the labels."""
CLASSES: Final = ("absent", "present")

Uncertain = Literal["ignore", "zeros", "ones"]
"""What a label of -1 becomes: unknown, absent or present: the CheXpert paper's U-Ignore, U-Zeros, U-Ones."""
Unmentioned = Literal["zeros", "ignore"]
"""What a blank label becomes: absent, as in the CheXpert paper, or unknown."""
View = Literal["frontal", "AP", "PA", "all"]
"""Which views are kept; frontal is AP and PA."""
RaceMap = Literal["white_black_asian_other", "white_black_other", "white_other", "white_black_asian"]
"""Which races are told apart; those not named become "other", or unknown where there is no other."""

_RACES: Final = {
    "white": ("white", "caucasian", "european"),
    "black": ("black", "african"),
    "asian": ("asian", "south asian", "east asian", "southeast asian"),
}
"""What the words for each of them begin with."""
_OTHER_RACES = (
    "other",
    "hispanic",
    "latin",
    "indian",
    "alaska",
    "native",
    "hawaii",
    "pacific",
    "multi",
    "mixed",
    "two or more",
    "more than one",
    "south american",
    "portuguese",
    "middle east",
    "arab",
)
"""What the words for races beside these contain."""
_UNKNOWN_RACE = ("unknown", "refus", "declin", "unable", "not reported", "not specified", "prefer not")


def order_labels(finding: str) -> tuple[str, ...]:
    """Put the main label first.

    Args:
        finding: One of the observations.

    Returns:
        All observations, that one first.

    Raises:
        InputError: There is no such observation.
    """
    require_choice("finding", finding, OBSERVATIONS)
    return finding, *(name for name in OBSERVATIONS if name != finding)


def parse_observations(
    table: pd.DataFrame, labels: Sequence[str], file: Path, *, uncertain: Uncertain, unmentioned: Unmentioned
) -> pd.DataFrame:
    """Turn the labeller's words into codes.

    A blank "No Finding" always means that there was one: the labeller writes 1 or nothing there.

    Args:
        table: As read, all text.
        labels: The observations to read, in the order wanted.
        file: Where the table came from.
        uncertain: What -1 becomes.
        unmentioned: What a blank becomes.

    Returns:
        A column of codes (Int16) for each: 0 absent, 1 present, null unknown.

    Raises:
        InputError: An unknown policy, or another value than 1, 0, -1 and blank; the message names its row.
    """
    require_choice("uncertain", uncertain, get_args(Uncertain))
    require_choice("unmentioned", unmentioned, get_args(Unmentioned))
    doubt = {"ignore": None, "zeros": 0, "ones": 1}[uncertain]
    words: Mapping[str, int | None] = {"1.0": 1, "1": 1, "0.0": 0, "0": 0, "-1.0": doubt, "-1": doubt}
    columns = {}
    for label in labels:
        codes = parse_codes(table, label, words, file)
        if unmentioned == "zeros" or label == "No Finding":
            codes = codes.mask(table[label].isna(), 0)
        columns[label] = codes
    return pd.DataFrame(columns, index=table.index)


def view_exclusions(position: pd.Series[str], view: View) -> pd.Series[str]:
    """Find the images that are not of the views wanted.

    Args:
        position: AP, PA, LATERAL, LL, ... of each image, "frontal" where no more is known, null where
            it is not said.
        view: The views wanted.

    Returns:
        Why each image is left out, null where it stays.

    Raises:
        InputError: There is no such choice.
    """
    require_choice("view", view, get_args(View))
    wanted = {"frontal": ["AP", "PA", "frontal"], "all": list(position.dropna().unique())}.get(view, [view])
    reason = ("view is " + position).fillna("all" if view == "all" else "view is not said")
    return reason.mask(position.isin(wanted) | (view == "all"))


def list_exclusions(
    root: Path, out: pd.DataFrame, reason: pd.Series[str], folders: Iterable[str]
) -> pd.DataFrame:
    """List what is left out: images of the tables for a reason, and files that the tables do not mention.

    Args:
        root: Folder of the source.
        out: All images of the tables, with their paths.
        reason: Why each of them is left out, null where it stays.
        folders: Where to look for files, relative to the root.

    Returns:
        The columns of exclusions.

    Raises:
        InputError: A folder cannot be read.
    """
    listed = exclude(out.loc[reason.notna(), "image"], reason.dropna())
    return pd.concat([listed, unlisted_files(root, folders, out["path"])], ignore_index=True)


def parse_race(words: pd.Series[str], race_map: RaceMap) -> tuple[pd.Series[str], tuple[str, ...], int]:
    """Map the many spellings of race to few groups.

    Args:
        words: As written: "WHITE - RUSSIAN", "Black, non-Hispanic", "Patient Refused", ...
        race_map: Which races are told apart, by what the words begin with.

    Returns:
        The group of each, null where the race is unknown; the names of the groups; and how many words are
        not known for a race: they count as other.

    Raises:
        InputError: There is no such map.
    """
    require_choice("race_map", race_map, get_args(RaceMap))
    names = tuple(race_map.split("_"))
    folded = without_missing(words)[0].str.strip().str.casefold()
    known = folded.str.contains("|".join(_OTHER_RACES), regex=True, na=False)
    group = pd.Series(
        "other" if "other" in names else None, index=words.index, dtype=pd.StringDtype(na_value=np.nan)
    )
    for name in (name for name in names if name in _RACES):
        group = group.mask(folded.str.startswith(_RACES[name], na=False), name)
    for beginnings in _RACES.values():
        known |= folded.str.startswith(beginnings, na=False)
    unknown = folded.isna() | folded.str.contains("|".join(_UNKNOWN_RACE), regex=True, na=False)
    return group.mask(unknown), names, int((~known & ~unknown).sum())


def most_frequent(keys: pd.Series[str], values: pd.Series[str]) -> tuple[pd.Series[str], int, int]:
    """Settle one value for each key where records may contradict each other.

    Args:
        keys: The patient of each record.
        values: What the record says, null where it says nothing.

    Returns:
        The most frequent value of each patient, null at a tie; the number of patients whose records
        contradict each other, and how many of these are ties.
    """
    counts = pd.DataFrame({"key": keys, "value": values}).dropna().value_counts(sort=False).reset_index()
    top = counts["count"] == counts.groupby("key")["count"].transform("max")
    best = counts[top]
    tied = best["key"].duplicated(keep=False)
    conflicts = int((counts["key"].value_counts() > 1).sum())
    return best[~tied].set_index("key")["value"], conflicts, int(best.loc[tied, "key"].nunique())


def require_some(count: int, what: str) -> None:
    """Refuse a join in which nothing met.

    Args:
        count: How many rows met.
        what: What was joined.

    Raises:
        InputError: None did.
    """
    if not count:
        raise InputError(f"{what}: not one row of the two belongs together, are they of the same data set?")
