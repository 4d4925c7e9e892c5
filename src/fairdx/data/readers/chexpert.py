"""CheXpert (Irvin et al., AAAI 2019), the full data set or the small one, as downloaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.cells import age_groups, parse_ages, parse_groups, require_words, row_of
from fairdx.data.checks import require_columns
from fairdx.data.files import found_in, source_folder
from fairdx.data.readers.observations import (
    ALIASES,
    CLASSES,
    RaceMap,
    Uncertain,
    Unmentioned,
    View,
    list_exclusions,
    most_frequent,
    order_labels,
    parse_observations,
    parse_race,
    require_some,
    view_exclusions,
)
from fairdx.data.source import Source
from fairdx.data.tabular import read_sheets, read_text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train.csv",),
    "validation": ("valid.csv", "val_labels.csv"),
    "test": ("test.csv", "test_labels.csv"),
}
"""The tables by what they are for; the second names are those of CheXlocalize."""
_FOLDERS = ("train", "valid", "val", "test")
_PATH = re.compile(rf"(?:[^/]+/)?((?:{'|'.join(_FOLDERS)})/(patient\d+)/.+)")
_SEX = {"Male": "male", "Female": "female", "Unknown": None}
_DEMOGRAPHICS = ("PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE")
_AGE_TOLERANCE = 15  # years, as public readers of the demographics use


def read_chexpert(  # noqa: PLR0913 - one argument for each policy
    root: str | Path,
    *,
    finding: str = "Pneumonia",
    uncertain: Uncertain = "ignore",
    unmentioned: Unmentioned = "zeros",
    view: View = "frontal",
    age_bins: Sequence[float] = (60,),
    race_map: RaceMap = "white_black_asian_other",
    official_split: bool = True,
    scan_files: bool = True,
) -> Source:
    """Read CheXpert, small or full, with the demographics where they are.

    Example: `fairdx prepare chexpert --root CheXpert-v1.0-small --out prepared/chexpert`

    Args:
        root: Holds `train.csv`, `valid.csv`, possibly `test.csv` (or the `val_labels.csv` and
            `test_labels.csv` of CheXlocalize), their folders of images, and possibly `CHEXPERT DEMO.xlsx`.
        finding: The main label.
        uncertain: What a label of -1 becomes.
        unmentioned: What a blank label becomes.
        view: Which views to keep.
        age_bins: Ages in years at which a new age group begins.
        race_map: Which races to tell apart, where the demographics are there.
        official_split: Whether to train on `train.csv` and test on what radiologists labelled: on `test.csv`
            where it is there, `valid.csv` then being the validation, else on `valid.csv`, some 200 patients,
            too few for rates of groups; otherwise all tables that are there are pooled and split by patient,
            90 to 10 as in the paper.
        scan_files: Whether to look through all folders for images that the tables do not mention, and to list
            these as left out; about a second for each 10,000 folders on a local disk.

    Returns:
        The 14 observations as labels; sex, age group and, with the demographics, race as attributes.

    Raises:
        InputError: A missing file or column, an unknown policy, a value that means nothing.
    """
    folder = source_folder(root)
    labels = order_labels(finding)
    demographics = _demographics(folder)
    out = pd.concat(
        [
            _table(file, labels, uncertain, unmentioned, demographics).assign(split=side)
            for side, file in _tables(folder, official_split=official_split).items()
        ],
        ignore_index=True,
    )
    settings: dict[str, Any] = {"age_zero_taken_as_unknown": int((out["age"] == 0).sum())}
    settings["impossible_ages"] = int(out.pop("impossible_age").sum())
    out["age"] = out["age"].mask(out["age"] == 0)
    out["age_group"], age_names = age_groups(out["age"], age_bins)
    attributes = {"sex": ("male", "female"), "age_group": age_names}
    if demographics is not None:
        out["race"], attributes["race"], found = _race(out, demographics, race_map)
        settings |= found
    reason = view_exclusions(out["view"], view)
    if not official_split:
        out = out.drop(columns="split")
    return Source(
        name="chexpert",
        table=out[reason.isna()],
        labels=dict.fromkeys(labels, CLASSES),
        attributes=attributes,
        root=folder,
        policies={
            "finding": finding,
            "uncertain": uncertain,
            "unmentioned": unmentioned,
            "view": view,
            "age_bins": list(age_bins),
            "race_map": race_map if demographics is not None else None,
            "official_split": official_split,
            "scan_files": scan_files,
        },
        exclusions=list_exclusions(folder, out, reason, _FOLDERS if scan_files else ()),
        settings=settings,
    )


def _tables(folder: Path, *, official_split: bool) -> dict[str, Path]:
    """The tables that are there, by the split that they are."""
    files = {}
    for side, names in _TABLES.items():
        present = [folder / name for name in names if (folder / name).exists()]
        if len(present) > 1:
            raise InputError(f"{folder} has both {' and '.join(names)}: move away the one that is not meant")
        if present:
            files[side] = present[0]
    if not files or (official_split and "train" not in files):
        raise InputError(f"{folder / 'train.csv'} does not exist")
    if official_split and len(files) < 2:
        raise InputError(f"{folder / 'valid.csv'} does not exist: add it, or do not use the official split")
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    return files


def _table(
    file: Path,
    labels: Sequence[str],
    uncertain: Uncertain,
    unmentioned: Unmentioned,
    demographics: pd.DataFrame | None,
) -> pd.DataFrame:
    """One of the tables: what is known of each image, and the codes of its labels."""
    table = read_text_table(file, _COLUMNS if file.name in ("train.csv", "valid.csv") else ("Path",))
    table = table.rename(columns={old: new for old, new in ALIASES.items() if old in table})
    require_columns(table, labels, file)
    codes = parse_observations(table, labels, file, uncertain=uncertain, unmentioned=unmentioned)
    return pd.concat([_rows(table, file, demographics), codes], axis=1)


def _rows(table: pd.DataFrame, file: Path, demographics: pd.DataFrame | None) -> pd.DataFrame:
    """Image, path, patient, sex, age and view of each row."""
    found = map(_PATH.fullmatch, table["Path"].fillna(""))  # twice as fast as the same in pandas
    parts = pd.DataFrame(
        [(None, None) if match is None else match.groups() for match in found],
        index=table.index,
        columns=[0, 1],
        dtype=table["Path"].dtype,
    )
    wrong = parts[0].isna()
    if wrong.any():
        value = table["Path"].fillna("")[wrong].iloc[0]
        raise InputError(
            f"{file} row {row_of(table, wrong)}: 'Path' is {value!r}, not like "
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
        )
    table = _completed(table, parts[1], demographics)
    require_words(table, "Frontal/Lateral", ("Frontal", "Lateral"), file)
    side = table["Frontal/Lateral"]
    age, _ = parse_ages(table, "Age", file)
    return pd.DataFrame(
        {
            "image": parts[0],
            "path": parts[0],
            "patient": parts[1],
            "sex": parse_groups(table, "Sex", _SEX, file),
            "age": age,
            "impossible_age": age.isna() & table["Age"].notna(),
            # Some images are called frontal and yet have the lateral positions LL and RL.
            "view": table["AP/PA"].where(side == "Frontal", "lateral"),
        }
    )


def _completed(
    table: pd.DataFrame, patient: pd.Series[str], demographics: pd.DataFrame | None
) -> pd.DataFrame:
    """Tables of test sets have labels alone: sex and age are the patient's, the view is in the name."""
    table = table.copy()
    first = None if demographics is None else demographics.drop_duplicates("PATIENT").set_index("PATIENT")
    for column, name in (("Sex", "GENDER"), ("Age", "AGE_AT_CXR")):
        if column not in table:
            table[column] = None if first is None else patient.map(first[name])
    if "Frontal/Lateral" not in table:
        lateral = table["Path"].str.contains("lateral", case=False)
        table["Frontal/Lateral"] = lateral.map({True: "Lateral", False: "Frontal"})
    if "AP/PA" not in table:
        table["AP/PA"] = "frontal"
    return table


def _demographics(folder: Path) -> pd.DataFrame | None:
    """The sheet of `CHEXPERT DEMO.xlsx` that has the patients, as text, or the same as CSV."""
    if (folder / "CHEXPERT DEMO.csv").exists():
        return read_text_table(folder / "CHEXPERT DEMO.csv", _DEMOGRAPHICS)
    file = folder / "CHEXPERT DEMO.xlsx"
    if not file.exists():
        return None
    for sheet in read_sheets(file).values():
        if "PATIENT" in sheet:
            require_columns(sheet, _DEMOGRAPHICS, file)
            return sheet
    raise InputError(f"{file} has no sheet with a column 'PATIENT'")


def _race(
    out: pd.DataFrame, demographics: pd.DataFrame, race_map: RaceMap
) -> tuple[pd.Series[str], tuple[str, ...], dict[str, int]]:
    """Race of each image by its patient, and what did not fit together."""
    group, names, unrecognised = parse_race(demographics["PRIMARY_RACE"], race_map)
    by_patient, conflicts, ties = most_frequent(demographics["PATIENT"], group)
    met = found_in(out["patient"], demographics["PATIENT"])
    require_some(int(met.sum()), "CheXpert and its demographics")
    first = demographics.drop_duplicates("PATIENT").set_index("PATIENT")
    if "ETHNICITY" in demographics:
        ethnicity, _, _ = most_frequent(demographics["PATIENT"], demographics["ETHNICITY"])
        out["ethnicity"] = out["patient"].map(ethnicity)
    sex = out["patient"].map(first["GENDER"].map(_SEX))
    age = pd.to_numeric(out["patient"].map(first["AGE_AT_CXR"]), errors="coerce")
    found = {
        "images_without_demographics": int((~met).sum()),
        "images_whose_sex_contradicts_the_demographics": int(
            (sex.notna() & out["sex"].notna() & (sex != out["sex"])).sum()
        ),
        "images_whose_age_contradicts_the_demographics": int(
            ((age - out["age"]).abs() > _AGE_TOLERANCE).sum()
        ),
        "patients_of_contradictory_race": conflicts,
        "patients_of_undecided_race": ties,
        "records_of_unrecognised_race": unrecognised,
    }
    return out["patient"].map(by_patient), names, found
